#include "leak/instance_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace spore::leak {

namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr size_t kEntries = 16384;
// Bits of an entry of /proc/self/pagemap.
constexpr uint64_t kPresent = 1ull << 63;
constexpr uint64_t kSwapped = 1ull << 62;
constexpr uint64_t kFileOrShared = 1ull << 61;

alignas(kPageBytes) constexpr uint8_t kZeros[kPageBytes] = {};

const uint8_t* at(uint64_t address) { return reinterpret_cast<const uint8_t*>(address); }

std::string first_difference(uint64_t address, const uint8_t* expected, uint64_t size_bytes) {
  uint64_t count = 0;
  std::string first;
  for (uint64_t i = 0; i < size_bytes; ++i) {
    if (at(address)[i] == expected[i]) continue;
    if (count++ == 0) first = fmt::format("byte {} is {:#04x}, not {:#04x}", i, at(address)[i], expected[i]);
  }
  return fmt::format("{}; {} bytes of {} differ", first, count, size_bytes);
}

}  // namespace

Result<InstanceCheck> InstanceCheck::make() {
  InstanceCheck check;
  check.page_map_ = UniqueFd(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!check.page_map_.valid()) return fail_errno("open /proc/self/pagemap");
  check.entries_.resize(kEntries);
  return check;
}

template <class Visit>
void InstanceCheck::each_own_page(uint64_t begin, uint64_t end, Visit visit) {
  while (begin < end) {
    const uint64_t pages = std::min<uint64_t>(entries_.size(), (end - begin) / kPageBytes);
    const auto bytes = static_cast<ssize_t>(pages * sizeof(uint64_t));
    CHECK(::pread(page_map_.get(), entries_.data(), static_cast<size_t>(bytes),
                  static_cast<off_t>(begin / kPageBytes * sizeof(uint64_t))) == bytes);
    for (uint64_t i = 0; i < pages; ++i, begin += kPageBytes)
      if (entries_[i] & (kPresent | kSwapped) && !(entries_[i] & kFileOrShared) && !visit(begin)) return;
  }
}

bool InstanceCheck::has_own_page(uint64_t begin, uint64_t end) {
  bool found = false;
  each_own_page(begin, end, [&](uint64_t) {
    found = true;
    return false;
  });
  return found;
}

bool InstanceCheck::is_accessible(uint64_t address) {
  // The kernel reads on behalf of this process and says EFAULT where the process could not.
  uint8_t byte = 0;
  const iovec to{&byte, 1};
  const iovec from{reinterpret_cast<void*>(address), 1};
  return ::process_vm_readv(::getpid(), &to, 1, &from, 1, 0) == 1;
}

std::optional<std::string> InstanceCheck::expect_zeros(uint64_t begin, uint64_t end) {
  std::optional<std::string> found;
  each_own_page(begin, end, [&](uint64_t page) {
    ++pages_compared_;
    if (std::memcmp(at(page), kZeros, kPageBytes) == 0) return true;
    found = fmt::format("page {} of {}: {}", (page - begin) / kPageBytes, (end - begin) / kPageBytes,
                        first_difference(page, kZeros, kPageBytes));
    return false;
  });
  return found;
}

std::optional<std::string> InstanceCheck::compare(const faaslet::Faaslet& faaslet, const faaslet::ProtoFaaslet& proto,
                                                  bool whole) {
  const auto memory = reinterpret_cast<uint64_t>(faaslet.memory());
  for (size_t i = 0; i < proto.regions().size(); ++i) {
    const faaslet::ImageRegion& region = proto.regions()[i];
    const uint64_t begin = memory + static_cast<uint64_t>(region.offset);
    const uint64_t end = begin + region.image_bytes;
    const auto name = [&](uint64_t page) {
      const auto from_memory = static_cast<int64_t>(page - memory);
      return i > 0              ? fmt::format("memory {}, page {}", i, (page - begin) / kPageBytes)
             : from_memory >= 0 ? fmt::format("memory 0, page {}", from_memory / static_cast<int64_t>(kPageBytes))
                                : fmt::format("below the memory, page at M - {}", -from_memory);
    };
    std::optional<std::string> found;
    const auto compare_page = [&](uint64_t page) {
      ++pages_compared_;
      const uint8_t* const expected = proto.image(i) + (page - begin);
      if (std::memcmp(at(page), expected, kPageBytes) == 0) return true;
      found = fmt::format("{}: {}", name(page), first_difference(page, expected, kPageBytes));
      return false;
    };
    if (whole)
      for (uint64_t page = begin; page < end && compare_page(page); page += kPageBytes) {
      }
    else
      each_own_page(begin, end, compare_page);
    if (found) return found;
    const bool another_follows = std::ranges::any_of(proto.regions(), [&](const faaslet::ImageRegion& other) {
      return other.image_bytes > 0 && memory + static_cast<uint64_t>(other.offset) == end;
    });
    if (!another_follows && is_accessible(end))
      return fmt::format("what follows the end of memory {} is accessible", i);
  }
  if (is_accessible(memory + static_cast<uint64_t>(proto.regions()[0].offset) - 1))
    return "what lies below the stack is accessible";
  return std::nullopt;
}

}  // namespace spore::leak

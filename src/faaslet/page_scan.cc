#include "faaslet/page_scan.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>

#include "base/fd.h"

namespace spore::faaslet {

namespace {

// From the kernel's documentation (admin-guide/mm/pagemap); the headers here are older.
struct ScanArguments {
  uint64_t size = sizeof(ScanArguments);
  uint64_t flags = 0;
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t walk_end = 0;  // out: where it stopped
  uint64_t vec = 0;
  uint64_t vec_len = 0;
  uint64_t max_pages = 0;
  uint64_t category_inverted = 0;
  uint64_t category_mask = 0;
  uint64_t category_anyof_mask = 0;
  uint64_t return_mask = 0;
};
static_assert(sizeof(ScanArguments) == 96);
struct ScanRegion {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t categories = 0;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArguments);
constexpr uint64_t kFile = 1 << 2;
constexpr uint64_t kPresent = 1 << 3;
constexpr uint64_t kSwapped = 1 << 4;
constexpr uint64_t kZeroPage = 1 << 5;
constexpr size_t kRangesMax = 64;

// This process's page map: one descriptor, opened at first use.
int page_map() {
  static const UniqueFd fd(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  return fd.get();
}

}  // namespace

std::optional<size_t> scan_copied_pages(uint64_t begin, uint64_t end, uint64_t pages_max, std::span<PageRange> into) {
  std::array<ScanRegion, kRangesMax> regions;
  ScanArguments arguments{.start = begin,
                          .end = end,
                          .vec = reinterpret_cast<uint64_t>(regions.data()),
                          .vec_len = std::min(regions.size(), into.size()),
                          .max_pages = pages_max,
                          .category_inverted = kFile | kZeroPage,
                          .category_mask = kFile | kZeroPage,
                          .category_anyof_mask = kPresent | kSwapped,
                          .return_mask = 0};
  const int count = ::ioctl(page_map(), kPagemapScan, &arguments);
  // It stops short where there is no more room; then what it gave is not all.
  if (count < 0 || arguments.walk_end != end) return std::nullopt;
  const auto found = static_cast<size_t>(count);
  for (size_t i = 0; i < found; ++i) into[i] = {regions[i].start, regions[i].end};
  return found;
}

}  // namespace spore::faaslet

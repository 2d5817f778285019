#include "faaslet/page_scan.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>

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

constexpr uint64_t kPageBytes = 4096;
// Bits of an entry of /proc/self/pagemap.
constexpr uint64_t kEntryPresent = 1ull << 63;
constexpr uint64_t kEntrySwapped = 1ull << 62;
constexpr uint64_t kEntryFile = 1ull << 61;

std::atomic<bool> g_scan_available{true};

// This process's page map: one descriptor, opened at first use.
int page_map() {
  static const UniqueFd fd(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  return fd.get();
}

}  // namespace

std::optional<size_t> scan_copied_pages(uint64_t begin, uint64_t end, uint64_t pages_max, std::span<PageRange> into) {
  static_assert(sizeof(ScanRegion) == 24 && sizeof(PageRange) == 16);
  std::array<ScanRegion, kScanRangesMax> regions;
  if (!g_scan_available.load(std::memory_order_relaxed)) return std::nullopt;
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

Result<std::vector<PageRange>> list_copied_pages(uint64_t begin, uint64_t end) {
  std::vector<PageRange> ranges;
  std::array<uint64_t, 8192> entries;
  for (uint64_t at = begin; at < end;) {
    const uint64_t pages = std::min<uint64_t>(entries.size(), (end - at) / kPageBytes);
    const ssize_t got = ::pread(page_map(), entries.data(), pages * sizeof(uint64_t),
                                static_cast<off_t>(at / kPageBytes * sizeof(uint64_t)));
    if (got != static_cast<ssize_t>(pages * sizeof(uint64_t))) return fail_errno("read /proc/self/pagemap");
    for (uint64_t i = 0; i < pages; ++i, at += kPageBytes) {
      if (!(entries[i] & (kEntryPresent | kEntrySwapped)) || entries[i] & kEntryFile) continue;
      if (!ranges.empty() && ranges.back().end == at)
        ranges.back().end += kPageBytes;
      else
        ranges.push_back({at, at + kPageBytes});
    }
  }
  return ranges;
}

uint64_t thread_page_faults() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return static_cast<uint64_t>(usage.ru_minflt) + static_cast<uint64_t>(usage.ru_majflt);
}

void set_page_scan_available(bool available) { g_scan_available = available; }

}  // namespace spore::faaslet

#include "faaslet/page_scan.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "base/page_map.h"

namespace spore::faaslet {

namespace {

constexpr uint64_t kPageBytes = 4096;
// Bits of an entry of /proc/self/pagemap.
constexpr uint64_t kEntryPresent = 1ull << 63;
constexpr uint64_t kEntrySwapped = 1ull << 62;
constexpr uint64_t kEntryFile = 1ull << 61;

std::atomic<bool> g_scan_available{true};

}  // namespace

namespace {

PageQuery query_copied(uint64_t begin, uint64_t end, uint64_t pages_max) {
  return {.begin = begin,
          .end = end,
          .pages_max = pages_max,
          .inverted = kPageIsFile | kPageIsZeroPage,
          .all_of = kPageIsFile | kPageIsZeroPage,
          .any_of = kPageIsPresent | kPageIsSwapped};
}

}  // namespace

std::optional<size_t> scan_copied_pages(uint64_t begin, uint64_t end, uint64_t pages_max, std::span<PageRange> into) {
  if (!g_scan_available.load(std::memory_order_relaxed)) return std::nullopt;
  std::array<PageRegion, kScanRangesMax> regions;
  const auto answer =
      scan_pages(query_copied(begin, end, pages_max), std::span(regions).first(std::min(regions.size(), into.size())));
  // It stops short where there is no more room; then what it gave is not all.
  if (!answer || answer->walked_to != end) return std::nullopt;
  const size_t found = answer->count;
  for (size_t i = 0; i < found; ++i) into[i] = {regions[i].begin, regions[i].end};
  return found;
}

std::optional<uint64_t> count_copied_pages(uint64_t begin, uint64_t end) {
  if (!g_scan_available.load(std::memory_order_relaxed)) return std::nullopt;
  std::array<PageRegion, kScanRangesMax> regions;
  uint64_t pages = 0;
  while (begin < end) {
    const auto answer = scan_pages(query_copied(begin, end, 0), regions);
    if (!answer || answer->walked_to <= begin) return std::nullopt;
    for (const PageRegion& region : std::span(regions).first(answer->count))
      pages += (region.end - region.begin) / kPageBytes;
    begin = answer->walked_to;
  }
  return pages;
}

Result<std::vector<PageRange>> list_copied_pages(uint64_t begin, uint64_t end) {
  std::vector<PageRange> ranges;
  std::array<uint64_t, 8192> entries;
  for (uint64_t at = begin; at < end;) {
    const uint64_t pages = std::min<uint64_t>(entries.size(), (end - at) / kPageBytes);
    const ssize_t got = ::pread(page_map_fd(), entries.data(), pages * sizeof(uint64_t),
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

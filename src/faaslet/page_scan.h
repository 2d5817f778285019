// Which pages of a private mapping this process has copied by writing to them: what a guest has changed since its image
// was mapped. Asks the kernel (PAGEMAP_SCAN, Linux 6.7) and touches nothing. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"

namespace spore::faaslet {

constexpr size_t kScanRangesMax = 512;  // in one scan

struct PageRange {
  uint64_t begin = 0;  // addresses
  uint64_t end = 0;
};

// Fills `into` with the copied pages of [begin, end), page-aligned, and gives how many ranges these are. Nothing where
// the kernel cannot tell, or where there are more ranges than fit, or more than `pages_max` pages.
std::optional<size_t> scan_copied_pages(uint64_t begin, uint64_t end, uint64_t pages_max, std::span<PageRange> into);

// The same without bounds and on every kernel (it reads /proc/self/pagemap), and therefore slower by the size of the
// range. May name pages that were read only, where nothing but zeros lies behind them.
Result<std::vector<PageRange>> list_copied_pages(uint64_t begin, uint64_t end);

// How many copied pages [begin, end) has, however they lie. Nothing where the kernel cannot tell.
std::optional<uint64_t> count_copied_pages(uint64_t begin, uint64_t end);

// How many page faults the calling thread has taken. While this stays the same, the thread has copied no further page.
uint64_t thread_page_faults();

// Makes scan_copied_pages() answer as on a kernel that cannot tell, or not. For tests.
void set_page_scan_available(bool available);

}  // namespace spore::faaslet

// Which pages of a private mapping this process has copied by writing to them: what a guest has changed since its image
// was mapped. Asks the kernel (PAGEMAP_SCAN, Linux 6.7) and touches nothing. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace spore::faaslet {

struct PageRange {
  uint64_t begin = 0;  // addresses
  uint64_t end = 0;
};

// Fills `into` with the copied pages of [begin, end), page-aligned, and gives how many ranges these are. Nothing where
// the kernel cannot tell, or where there are more ranges than fit, or more than `pages_max` pages.
std::optional<size_t> scan_copied_pages(uint64_t begin, uint64_t end, uint64_t pages_max, std::span<PageRange> into);

}  // namespace spore::faaslet

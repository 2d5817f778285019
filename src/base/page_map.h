// What the kernel knows of this process's pages: ioctl(PAGEMAP_SCAN) of Linux 6.7 on /proc/self/pagemap, as
// admin-guide/mm/pagemap in the kernel's documentation has it (Debian 12's headers are older). Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace spore {

// Properties of a page; a request gives sets of them.
constexpr uint64_t kPageIsWritten = 1 << 1;  // since it was write-protected through a userfaultfd
constexpr uint64_t kPageIsFile = 1 << 2;
constexpr uint64_t kPageIsPresent = 1 << 3;
constexpr uint64_t kPageIsSwapped = 1 << 4;
constexpr uint64_t kPageIsZeroPage = 1 << 5;

struct PageRegion {
  uint64_t begin = 0;  // addresses
  uint64_t end = 0;
  uint64_t properties = 0;  // those of PageQuery::wanted that its pages have
};

struct PageQuery {
  uint64_t begin = 0;  // addresses, page-aligned
  uint64_t end = 0;
  uint64_t pages_max = 0;      // stop after so many; 0: no bound
  uint64_t inverted = 0;       // these count as given where the page does not have them
  uint64_t all_of = 0;         // a page is reported that has all of these
  uint64_t any_of = 0;         // and one of these, if there are any
  uint64_t wanted = 0;         // to be told
  bool write_protect = false;  // the reported ones are write-protected again, each at the moment it is looked at
};

struct PageAnswer {
  size_t count = 0;        // of regions
  uint64_t walked_to = 0;  // less than the query's end where there were more regions or pages than fit
};
// Nothing, with errno set, where the kernel refuses.
std::optional<PageAnswer> scan_pages(const PageQuery& query, std::span<PageRegion> into);

// /proc/self/pagemap, opened at first use.
int page_map_fd();

}  // namespace spore

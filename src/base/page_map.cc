#include "base/page_map.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include "base/fd.h"

namespace spore {

namespace {

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
static_assert(sizeof(ScanArguments) == 96 && sizeof(PageRegion) == 24);
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArguments);
constexpr uint64_t kWriteProtectMatching = 1 << 0;
constexpr uint64_t kCheckAsyncWriteProtect = 1 << 1;  // fail where the range is not registered for it

}  // namespace

int page_map_fd() {
  static const UniqueFd fd(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  return fd.get();
}

std::optional<PageAnswer> scan_pages(const PageQuery& query, std::span<PageRegion> into) {
  ScanArguments arguments{.flags = query.write_protect ? kWriteProtectMatching | kCheckAsyncWriteProtect : 0,
                          .start = query.begin,
                          .end = query.end,
                          .vec = reinterpret_cast<uint64_t>(into.data()),
                          .vec_len = into.size(),
                          .max_pages = query.pages_max,
                          .category_inverted = query.inverted,
                          .category_mask = query.all_of,
                          .category_anyof_mask = query.any_of,
                          .return_mask = query.wanted};
  const int count = ::ioctl(page_map_fd(), kPagemapScan, &arguments);
  if (count < 0) return std::nullopt;
  return PageAnswer{static_cast<size_t>(count), arguments.walk_end};
}

}  // namespace spore

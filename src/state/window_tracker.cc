#include "state/window_tracker.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "base/check.h"
#include "base/page_map.h"

namespace spore::state {

namespace {

constexpr uint64_t kPage = 4096;
// Of userfaultfd(2) as of Linux 6.7; the headers here are older.
constexpr uint64_t kFeaturePoison = 1 << 14;
constexpr uint64_t kFeatureWriteProtectAsync = 1 << 15;
constexpr uint64_t kFeatures = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM |
                               UFFD_FEATURE_WP_HUGETLBFS_SHMEM | kFeaturePoison | kFeatureWriteProtectAsync;
struct PoisonArguments {
  uffdio_range range;
  uint64_t mode = 0;
  int64_t updated = 0;
};
constexpr unsigned long kPoison = _IOWR(UFFDIO, 0x08, PoisonArguments);

// What is not fetched yet is a hole in a replica's file. Where the kernel makes a huge page of a small write, holes
// beside it are filled with zeros, and nobody would know.
Result<void> check_small_pages() {
  constexpr off_t kSize = 8 << 20, kAt = 3 << 20, kBefore = 2 << 20;
  const UniqueFd file(::memfd_create("spore-page-size", MFD_CLOEXEC));
  if (!file.valid() || ::ftruncate(file.get(), kSize) != 0 || ::pwrite(file.get(), "", 1, kAt) != 1)
    return fail_errno("try how large pages of shared memory are");
  if (::lseek(file.get(), kBefore, SEEK_DATA) == kAt &&
      ::lseek(file.get(), kAt, SEEK_HOLE) == kAt + static_cast<off_t>(kPage))
    return {};
  return fail(
      ErrorCode::kFailedPrecondition,
      "the kernel puts shared memory into huge pages, with which mapped state would lose bytes; write \"never\" or "
      "\"advise\" to /sys/kernel/mm/transparent_hugepage/shmem_enabled");
}

}  // namespace

UniqueFd WindowTracker::open_faults() {
  return UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
}

Result<std::unique_ptr<WindowTracker>> WindowTracker::start(unsigned threads, UniqueFd faults) {
  std::unique_ptr<WindowTracker> tracker(new WindowTracker);
  const auto refused = [](std::string_view what) {
    auto error = fail_errno(what);
    error.error().code = ErrorCode::kFailedPrecondition;
    return error;
  };
  TRY(check_small_pages());
  tracker->faults_ = std::move(faults);
  if (!tracker->faults_.valid()) return refused("userfaultfd, which mapped state needs");
  uffdio_api api{.api = UFFD_API, .features = kFeatures, .ioctls = 0};
  if (::ioctl(tracker->faults_.get(), UFFDIO_API, &api) != 0)
    return refused("userfaultfd with asynchronous write protection, which mapped state needs (Linux 6.7)");
  tracker->stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!tracker->stop_.valid()) return fail_errno("eventfd");
  for (unsigned i = 0; i < threads; ++i) tracker->threads_.emplace_back([&t = *tracker] { t.serve_faults(); });
  return tracker;
}

WindowTracker::~WindowTracker() {
  if (stop_.valid()) ::eventfd_write(stop_.get(), 1);
  for (std::thread& thread : threads_) thread.join();
  CHECK(windows_.lock()->empty(), "windows are still watched");
}

Result<void> WindowTracker::watch(uint8_t* at, uint64_t size_bytes, WindowKind kind, std::weak_ptr<Owner> owner) {
  const auto begin = reinterpret_cast<uint64_t>(at);
  {
    auto windows = windows_.lock();
    if (windows->size() >= kWindowsOfProcessMax)
      return fail(ErrorCode::kResourceExhausted,
                  "this host has " + std::to_string(kWindowsOfProcessMax) + " windows on state, the most it may have");
    CHECK(windows->emplace(begin, Window{size_bytes, std::move(owner)}).second, begin);
  }
  if (!kind.writable && !kind.may_miss) return {};
  const auto failed = [&](std::string_view what) {
    auto error = fail_errno(what);
    windows_.lock()->erase(begin);
    return error;
  };
  uffdio_register registration{
      .range = {begin, size_bytes},
      .mode = (kind.may_miss ? UFFDIO_REGISTER_MODE_MISSING : 0) | (kind.writable ? UFFDIO_REGISTER_MODE_WP : 0),
      .ioctls = 0};
  if (::ioctl(faults_.get(), UFFDIO_REGISTER, &registration) != 0) return failed("watch a window of state");
  if (!kind.writable) return {};
  uffdio_writeprotect protection{.range = {begin, size_bytes}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
  if (::ioctl(faults_.get(), UFFDIO_WRITEPROTECT, &protection) != 0) return failed("write-protect a window of state");
  return {};
}

void WindowTracker::forget(uint8_t* at) { windows_.lock()->erase(reinterpret_cast<uint64_t>(at)); }

void WindowTracker::take_written(uint8_t* at, uint64_t size_bytes,
                                 const std::function<void(uint64_t, uint64_t)>& visit) {
  const auto begin = reinterpret_cast<uint64_t>(at);
  std::array<PageRegion, 256> regions;
  PageQuery query{.begin = begin,
                  .end = begin + size_bytes,
                  .all_of = kPageIsWritten,
                  .wanted = kPageIsWritten,
                  .write_protect = true};
  while (query.begin < query.end) {
    const auto answer = scan_pages(query, regions);
    CHECK(answer.has_value(), errno);
    for (size_t i = 0; i < answer->count; ++i) visit(regions[i].begin - begin, regions[i].end - begin);
    CHECK(answer->walked_to > query.begin, answer->walked_to);
    query.begin = answer->walked_to;
  }
}

void WindowTracker::wake(uint8_t* at, uint64_t size_bytes) const {
  uffdio_range range{reinterpret_cast<uint64_t>(at), size_bytes};
  ::ioctl(faults_.get(), UFFDIO_WAKE, &range);  // fails only where nothing is watched there any more
}

void WindowTracker::serve_faults() {
  std::array<pollfd, 2> fds{
      {{.fd = faults_.get(), .events = POLLIN, .revents = 0}, {.fd = stop_.get(), .events = POLLIN, .revents = 0}}};
  for (;;) {
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return;
    if (fds[1].revents) return;
    uffd_msg message;
    if (::read(faults_.get(), &message, sizeof(message)) != sizeof(message)) continue;  // another thread took it
    if (message.event != UFFD_EVENT_PAGEFAULT) continue;
    const uint64_t page = message.arg.pagefault.address & ~(kPage - 1);
    std::shared_ptr<Owner> owner;
    uint64_t offset = 0;
    {
      auto windows = windows_.lock();
      auto found = windows->upper_bound(page);
      if (found != windows->begin() && page < (--found)->first + found->second.size_bytes) {
        owner = found->second.owner.lock();
        offset = page - found->first;
      }
    }
    if (!owner || !owner->fill(offset)) {
      PoisonArguments poison{.range = {page, kPage}};
      ::ioctl(faults_.get(), kPoison, &poison);
    }
    wake(reinterpret_cast<uint8_t*>(page), kPage);
  }
}

}  // namespace spore::state

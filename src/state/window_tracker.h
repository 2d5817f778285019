// Windows: places where files of state are mapped shared into guests' memory. The tracker knows which pages were
// written through each, and hears of pages that are touched and not there yet. Both by userfaultfd (Linux 6.7):
//
//   written  a window is write-protected asynchronously; the first write to a page lifts that in the kernel, at the
//            price of a page fault, and a scan reports such pages and protects them again at the same moment
//   missing  the thread that touches a hole of the file sleeps until the window's owner has filled it
//
// A scan sees only its own mapping, and a mapping that was never protected reads as all written: so a window is watched
// before anybody learns its address.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/guarded.h"
#include "base/result.h"

namespace spore::state {

// The kernel bounds the mappings of a process (vm.max_map_count), and what a host cannot map any more it cannot run
// either: windows get a part of them, two mappings each, which pools of slots leave free (worker/pool.cc).
constexpr size_t kWindowsOfProcessMax = 4'096;

class WindowTracker {
 public:
  // Whose file a window shows.
  class Owner {
   public:
    virtual ~Owner() = default;
    // Sees to it that the page at this byte of the file is there, for as long as that takes. False: it cannot be had;
    // whoever touches it gets SIGBUS. Called on a thread of the tracker.
    virtual bool fill(uint64_t offset) = 0;
  };

  // `threads`: how many missing pages can be filled at once. kFailedPrecondition where the kernel cannot do it, or does
  // not let this process.
  static Result<std::unique_ptr<WindowTracker>> start(unsigned threads) { return start(threads, open_faults()); }
  // The kernel's part, for a process that gives up the right to it (CAP_SYS_PTRACE) before it has threads. Invalid,
  // with errno, where it cannot be had.
  static UniqueFd open_faults();
  static Result<std::unique_ptr<WindowTracker>> start(unsigned threads, UniqueFd faults);
  // No window may be watched any more.
  ~WindowTracker();
  WindowTracker(const WindowTracker&) = delete;
  WindowTracker& operator=(const WindowTracker&) = delete;

  struct WindowKind {
    bool writable = false;
    bool may_miss = false;  // the file has holes that are to be filled; else they are zeros
  };
  // `at`: the file, mapped shared from its beginning; whole pages. kResourceExhausted: there are kWindowsOfProcessMax.
  // Any thread.
  Result<void> watch(uint8_t* at, uint64_t size_bytes, WindowKind kind, std::weak_ptr<Owner> owner);
  size_t windows() const { return windows_.lock()->size(); }
  // Before it is unmapped.
  void forget(uint8_t* at);

  // The pages of a writable window that were written since it was watched, or since the last call: calls
  // visit(begin, end) with byte offsets for each run of them, and protects them again.
  static void take_written(uint8_t* at, uint64_t size_bytes, const std::function<void(uint64_t, uint64_t)>& visit);
  // Lets those go on who wait for these pages.
  void wake(uint8_t* at, uint64_t size_bytes) const;

 private:
  struct Window {
    uint64_t size_bytes = 0;
    std::weak_ptr<Owner> owner;
  };
  WindowTracker() = default;
  void serve_faults();

  UniqueFd faults_;
  UniqueFd stop_;
  Guarded<std::map<uint64_t, Window>> windows_;  // by address
  std::vector<std::thread> threads_;
};

}  // namespace spore::state

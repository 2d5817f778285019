// Who runs calls that must not run in this process: those of functions that want a process of their tenant's own
// (LoadedFunction::proto is null). The worker keeps such a call beside those that it runs itself: it is chained,
// cancelled, awaited and counted as they are, but takes no seat here, and its limits of calls at once are kept to where
// it runs.
#pragma once

#include "worker/call.h"

namespace spore::worker {

struct RunnerStats {
  size_t processes = 0;
  size_t calls = 0;      // that they run, or that wait for one
  uint64_t started = 0;  // processes, since the host began, as what follows
  uint64_t died = 0;     // of them, those that ended by themselves, or were killed
  uint64_t requests = 0;
};

class CallRunner {
 public:
  virtual ~CallRunner() = default;

  // Any thread; must not block. The call ends at `deadline` at the latest, however that is brought about. `done` is
  // called once, on another thread or here, with no lock held.
  virtual void start(CallRequest request, Clock::time_point deadline, CallDone done) = 0;
  // Ends the call as kCancelled, later, unless it ends otherwise; must not block, and calls no `done` here.
  virtual void cancel(const functions::FunctionId& function, const CallId& id) = 0;
  virtual RunnerStats stats() const = 0;
};

}  // namespace spore::worker

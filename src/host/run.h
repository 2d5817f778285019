// Runs a call of a Faaslet to its end, waiting for it where it parks.
//
// The caller is the thread of the seat, and has it between begin_call() and end_call():
//
//   uint64_t generation = seat.begin_call();     // others may now seat.interrupt(generation): timeout, cancel
//   CallResult result = run(faaslet, state, seat, entry, limits);
//   seat.end_call();
//
// Who has other use for the thread while a guest waits runs the call in pieces (class Run): each piece ends with the
// call's end or with what it waits for, and the next may run on another seat.
//
// What a guest may use of CPU time (HostState) is kept to here. One whose function's share of a core is used up at the
// moment parks before it goes on.
//
// A deadline in RunLimits ends a guest that is parked. One that computes is ended only by an interrupt: whoever sets
// the deadline also arranges for seat.interrupt(generation) then (host/watchdog.h does). An interrupt ends a parked
// guest too.
#pragma once

#include <optional>
#include <span>

#include "faaslet/faaslet.h"
#include "host/entry.h"
#include "host/host_state.h"

namespace spore::host {

struct RunLimits {
  std::optional<faaslet::Clock::time_point> deadline;
};

struct CallResult {
  enum class Kind : uint8_t {
    kExited,        // returned or exited: exit_code
    kTrapped,       // trap says how; HostState::output_overflow tells the one that is about the output's size
    kInterrupted,   // by the deadline or by somebody's interrupt; trap holds the guest's stack where it was computing
    kOutOfCpuTime,  // it has used HostState::cpu_time_max; the same
    kNotPushed,     // exited with 0, but what it wrote to state could not be pushed: error
  };
  Kind kind = Kind::kExited;
  int32_t exit_code = 0;
  bool called_exit = false;  // kExited by proc_exit, in the midst of it
  faaslet::Trap trap;
  Error error;
};

// A call, run in pieces. Where HostState::push_on_success says so, the last of them is the push of what it has written
// to state, for which it waits as a guest does. All three arguments outlive it; `state` is the one that `faaslet` was
// restored with.
class Run {
 public:
  // `initialised`: whether the Faaslet's image has the module's initialisers behind it.
  Run(faaslet::Faaslet& faaslet, HostState& state, const Entry& entry, bool initialised)
      : faaslet_(&faaslet),
        state_(&state),
        entry_(&entry),
        functions_(initialised ? entry.from_image : entry.from_start) {}

  // Runs it until it ends, or until it parks: nothing then, and go() again when what wait() says has come. On a seat
  // that is between begin_call() and end_call().
  std::optional<CallResult> go(faaslet::Seat& seat);
  const faaslet::Wait& wait() const { return wait_; }
  // Runs it to its end, from wherever it is, waiting on this thread where it parks.
  CallResult finish(faaslet::Seat& seat, const RunLimits& limits);

 private:
  std::optional<CallResult> ended(CallResult result);
  std::optional<CallResult> pushed();
  // Starts the guest, or goes on with it, for as long as it has CPU time.
  faaslet::Outcome enter(faaslet::Seat& seat, bool& out_of_cpu_time);

  faaslet::Faaslet* faaslet_;
  HostState* state_;
  const Entry* entry_;
  std::span<const uint32_t> functions_;  // of entry_
  size_t next_ = 0;                      // in functions_
  bool parked_ = false;                  // inside that function
  bool owes_cpu_time_ = false;           // it waits until its function may run again
  faaslet::Wait wait_;
  std::shared_ptr<state::Operation> push_;  // it has exited, with `exited_`
  CallResult exited_;
};

// The whole of it at once, in an image whose initialisers have not run.
CallResult run(faaslet::Faaslet& faaslet, HostState& state, faaslet::Seat& seat, const Entry& entry,
               const RunLimits& limits = {});

}  // namespace spore::host

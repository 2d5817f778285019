// Runs a call of a Faaslet to its end, waiting for it where it parks.
//
// The caller is the thread of the seat, and has it between begin_call() and end_call():
//
//   uint64_t generation = seat.begin_call();     // others may now seat.interrupt(generation): timeout, cancel
//   CallResult result = run(faaslet, state, seat, entry, limits);
//   seat.end_call();
//
// A deadline in RunLimits ends a guest that is parked. One that computes is ended only by an interrupt: whoever sets the
// deadline also arranges for seat.interrupt(generation) then (host/watchdog.h does). An interrupt ends a parked guest too.
#pragma once

#include <optional>

#include "faaslet/faaslet.h"
#include "host/entry.h"
#include "host/host_state.h"

namespace spore::host {

struct RunLimits {
  std::optional<faaslet::Clock::time_point> deadline;
};

struct CallResult {
  enum class Kind : uint8_t {
    kExited,       // returned or exited: exit_code
    kTrapped,      // trap says how; HostState::output_overflow tells the one that is about the output's size
    kInterrupted,  // by the deadline or by somebody's interrupt; trap holds the guest's stack where it was computing
  };
  Kind kind = Kind::kExited;
  int32_t exit_code = 0;
  faaslet::Trap trap;
};

// `state` is the one that `faaslet` was restored with.
CallResult run(faaslet::Faaslet& faaslet, HostState& state, faaslet::Seat& seat, const Entry& entry,
               const RunLimits& limits = {});

}  // namespace spore::host

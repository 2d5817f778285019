// What a Faaslet needs to run: a thread, with its signal stack and the means to be interrupted.
//
// A Seat is made on the thread that will run guests and lives as long as that thread does. Each call on it has a
// generation; an interrupt names the generation it is meant for, so one that comes late never hits the next call.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "faaslet/cpu_limit.h"

namespace spore::faaslet {

// Installs the process's handlers for guest faults and interrupts. Call once, early in main, before any Seat.
Result<void> install_signal_handlers();

class Seat {
 public:
  struct State;  // private to seat.cc
  // On the thread that will use it; at most one a thread.
  Seat();
  ~Seat();
  Seat(const Seat&) = delete;
  Seat& operator=(const Seat&) = delete;

  // No other seat of this process has or had it.
  uint64_t serial() const;

  // The generation of the call that begins now. This seat's thread only.
  uint64_t begin_call();
  // The call of begin_call() is over: interrupts for it no longer do anything.
  void end_call();

  // Stops the call of that generation, if it is still running: in guest code it traps at once with kInterrupted; in a
  // host function, when that returns. Any thread, any number of times, any time before the seat ends.
  void interrupt(uint64_t generation);
  // Whether the current call has been interrupted; for the code that waits on behalf of a parked guest.
  bool interrupted() const;

  // The guest of that generation is to give up the seat: it parks, with Wait::preempted, in guest code between any two
  // instructions, in a host function when that is done. In the few places where it cannot (at the border between the
  // two, in a guest that a host function has entered) it may be missed: ask again. Any thread, as interrupt().
  void preempt(uint64_t generation);

  // While it `offers`, a guest in its own code, or at the end of a host function, lets whoever waits for its core have
  // a turn, five times a millisecond: the kernel itself looks at a tick only, which may be 4 ms away. Any thread, as
  // long as the seat lives.
  void offer_core(bool offers);

  // From now until end_cpu_limit() the CPU time of this thread counts against the limit, in a call. A guest that has
  // used it up is interrupted; one whose quota is in debt parks until that is paid. This seat's thread only.
  // kResourceExhausted: the kernel has no timer for it.
  Result<void> limit_cpu(const CpuLimit& limit);
  // Whether the guest was interrupted because it had nothing left.
  bool end_cpu_limit();

 private:
  void ask_again() const;

  std::unique_ptr<State> state_;
};

}  // namespace spore::faaslet

// How much CPU time guests may use.
//
// A limit holds in guest code and in host functions, and no guest is ever stopped where the host holds a lock: a timer
// of the thread's CPU clock interrupts it (faaslet/seat.h); in guest code it ends or parks right there, in a host
// function when that is done. A cgroup's quota would stop the thread anywhere, and with it whoever waits for what it
// holds.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "faaslet/host_call.h"

namespace spore::faaslet {

// A share of one core for all guests that charge it together. What they use is paid for as time goes by; what
// they leave is theirs for some milliseconds more, so that they get their share although others want the core too. Any
// thread, and in signal handlers. (The generic cell rate algorithm of ITU-T I.371, with CPU time in the place of
// cells.)
class CpuQuota {
 public:
  // percent: at least 1; 100 is one core.
  explicit CpuQuota(uint32_t percent) : percent_(percent) {}

  // CPU time was used until `now`.
  void charge(std::chrono::nanoseconds used, Clock::time_point now);
  // Until when no guest that charges it may run; a time that has passed: now it may. A debt of a few milliseconds is
  // let pass, so that short calls do not wait for each other.
  Clock::time_point runs_again(Clock::time_point now) const;

 private:
  const uint32_t percent_;
  std::atomic<int64_t> paid_at_{0};  // nanoseconds of Clock: when all that was used will have been paid for
};

struct CpuLimit {
  std::chrono::nanoseconds left = std::chrono::nanoseconds::max();  // that the guest may still use
  CpuQuota* quota = nullptr;

  bool any() const { return left != std::chrono::nanoseconds::max() || quota; }
};

}  // namespace spore::faaslet

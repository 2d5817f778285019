// What the lock service and its table share: scopes, holders, bounds, and the clock of leases.
#pragma once

#include <time.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "state/global_tier.h"

namespace spore::state {

// Goes on while the machine is suspended, and knows no steps of the wall clock.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
  static time_point now() {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return time_point(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
  }
};

enum class LockScope : uint8_t {
  kLocal,   // among the calls of this host
  kGlobal,  // among all hosts of the global tier
};

constexpr size_t kLockOwnerBytesMax = 32;

// A call.
struct LockHolder {
  std::string owner;                   // its id: 1 to kLockOwnerBytesMax bytes
  std::vector<std::string> ancestors;  // the ids of the calls that wait for this one to end
  Deadline until = Deadline::max();    // the call's deadline: leases are not renewed past it
};

struct LockOptions {
  std::chrono::milliseconds lease{10'000};         // of a global lock; renewed when a third has passed
  std::chrono::milliseconds store_timeout{1'000};  // of one request to the global tier
  // A lock that another host holds is asked for again after `poll_min`, doubled each time up to `poll_max`; a store
  // that fails, up to `failing_max`. All with jitter.
  std::chrono::milliseconds poll_min{1};
  std::chrono::milliseconds poll_max{20};
  std::chrono::milliseconds failing_max{500};
  // A host whose calls have had a global lock for that long, one after the other, leaves it to others for 1.5 poll_max.
  std::chrono::milliseconds turn_max{2'000};
  std::chrono::milliseconds wait_max{3'600'000};  // deadlines further away count as that

  size_t per_owner_max = 256;          // held and waited for
  size_t waiting_per_key_max = 1'024;  // of one scope
  size_t per_tenant_max = 16'384;      // held, waited for, being given back
  size_t total_max = 65'536;
  size_t poisoned_per_tenant_max = 4'096;  // local locks that are remembered as poisoned; the oldest are forgotten

  unsigned asking_threads = 2;  // 0: no thread at all, LockService::step() does the work (tests)
  // Tests bring their own time.
  std::function<BootClock::time_point()> boot_now = [] { return BootClock::now(); };
  std::function<Clock::time_point()> steady_now = [] { return Clock::now(); };
};

struct LockStats {
  size_t held = 0;
  size_t waiting = 0;
  size_t all = 0;  // these, and those that are being given back
  // Since the beginning:
  uint64_t granted = 0;
  uint64_t expired = 0;    // waits
  uint64_t deadlocks = 0;  // refused
  uint64_t lost = 0;       // leases
};

}  // namespace spore::state

// Interrupts calls whose time is up: one thread that sleeps until the next deadline of any seat.
//
//   auto guard = watchdog.watch(seat, generation, deadline);   // until the guard goes, which must be before the seat
//   does
//   ... run(...)
//   if (guard.fired()) ...                                     // the call was interrupted because of its deadline
#pragma once

#include <map>
#include <set>
#include <thread>
#include <utility>

#include "base/guarded.h"
#include "faaslet/host_call.h"
#include "faaslet/seat.h"

namespace spore::host {

class Watchdog {
 public:
  Watchdog();
  ~Watchdog();  // no guard may be left
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  class Guard {
   public:
    Guard(Guard&& other) noexcept : watchdog_(std::exchange(other.watchdog_, nullptr)), key_(other.key_) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard();
    bool fired() const;

   private:
    friend class Watchdog;
    using Key = std::pair<faaslet::Clock::time_point, uint64_t>;
    Guard(Watchdog* watchdog, Key key) : watchdog_(watchdog), key_(key) {}
    Watchdog* watchdog_;
    Key key_;
  };

  // Any thread. After the guard is gone the seat is not touched any more.
  Guard watch(faaslet::Seat& seat, uint64_t generation, faaslet::Clock::time_point deadline);

 private:
  struct Watched {
    faaslet::Seat* seat = nullptr;
    uint64_t generation = 0;
  };
  struct Shared {
    std::map<Guard::Key, Watched> watched;  // by deadline; not those that have fired
    std::set<uint64_t> fired;               // ids of guards
    uint64_t next_id = 0;
    faaslet::Clock::time_point sleeping_until = faaslet::Clock::time_point::max();
    bool stopping = false;
  };
  void loop();

  mutable Guarded<Shared> shared_;
  std::condition_variable changed_;
  std::thread thread_;
};

}  // namespace spore::host

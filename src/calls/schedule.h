// Which call runs next: the calls that wait to be run, those that are due and those that are due later. Decisions
// alone: time is an argument, nothing blocks. For one thread at a time.
//
// Calls whose clients wait go first, in their order. The others are taken from their tenants in turn, so that a tenant
// with many does not keep those of another waiting; of one tenant in the order in which they became due.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "calls/call_record.h"

namespace spore::calls {

using worker::Clock;

class Schedule {
 public:
  enum class Order : uint8_t { kInTurn, kFirst };
  // In the place of what was known of the call.
  void add(const CallId& id, const std::string& tenant, Order order, Clock::time_point due);
  bool remove(const CallId& id);

  struct Room {
    bool in_turn = false;
    bool first = false;
  };
  struct Taken {
    CallId id;
    std::string tenant;
    Order order = Order::kInTurn;
  };
  // The next call that is due and that there is room for.
  std::optional<Taken> take(Clock::time_point now, Room room);
  // When the next call of those that are due later is due.
  Clock::time_point next_due() const;
  size_t size() const { return entries_.size(); }

 private:
  // A call that was removed, or added again, leaves the ticket it had behind; that counts for nothing.
  struct Ticket {
    CallId id;
    uint64_t serial = 0;
  };
  using Tickets = std::deque<Ticket>;
  struct Entry {
    std::string tenant;
    Order order = Order::kInTurn;
    uint64_t serial = 0;
  };
  void make_ready(const Ticket& ticket, const Entry& entry);
  void advance(Clock::time_point now);
  const Entry* entry_of(const Ticket& ticket) const;
  std::optional<Taken> take_from(Tickets& tickets);

  std::unordered_map<CallId, Entry, CallIdHash> entries_;
  uint64_t last_serial_ = 0;
  std::multimap<Clock::time_point, Ticket> later_;
  Tickets first_;
  std::unordered_map<std::string, Tickets> of_tenant_;  // none empty
  std::deque<std::string> turns_;                       // each tenant of those once
};

// How long a call waits after so many failures (from 1): anything up to `base` doubled with each failure, at most
// `cap`; `random` is the draw, of all 64 bits. Full jitter, as in "Exponential Backoff And Jitter" (AWS Architecture
// Blog, 2015).
std::chrono::milliseconds backoff(uint32_t failures, std::chrono::milliseconds base, std::chrono::milliseconds cap,
                                  uint64_t random);

}  // namespace spore::calls

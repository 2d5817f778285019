// The calls of a worker that wait for a seat: which one is next, how many of a function or tenant may run, and when one
// that runs is to make way.
//
//   add --> [gate of its function --> gate of its tenant] --> ready --next--> seated --left--> ends, or is added again
//                                                                             leave: the gates let others in
//
// A gate is there where a function, or each tenant, has a limit of calls at once.
//
// Of those that are ready, the tenant is next that has used the seats least: time on a seat counts, and one that had
// nothing to run comes back with what the others have used meanwhile, less a little (start-time fair queueing, on the
// virtual time of Goyal, Vin and Cheng, SIGCOMM 1996). Among its calls those go first that have begun and need little,
// so that they are done; then new ones; then those that compute for long, which have a quarter of the tenant's time
// however many others come. Within the first two its functions take turns; those of the last share by weight.
//
// Not safe for threads by itself.
#pragma once

#include <algorithm>
#include <array>
#include <list>
#include <map>
#include <string>
#include <unordered_map>

#include "worker/job.h"

namespace spore::worker {

// The calls of one rank: its functions take turns, those of one function go in the order in which they came.
class Turns {
 public:
  bool empty() const { return turns_.empty(); }
  void add(Job& job);
  void remove(Job& job);
  // The first whose function `may` let it; null: there is none.
  template <class F>
  Job* first(F may) const {
    for (const Turn& turn : turns_)
      if (may(turn.function)) return turn.jobs.front();
    return nullptr;
  }
  // The first of the function that has the least of `what`; there is one.
  template <class F>
  Job* least(F what) const {
    return std::ranges::min_element(turns_, {}, [&](const Turn& turn) { return what(turn.function); })->jobs.front();
  }
  // After one of them has been chosen: its function is the last again.
  void took_turn(const Job& job);

 private:
  struct Turn {
    std::string function;
    std::list<Job*> jobs;
  };
  std::list<Turn> turns_;
  std::unordered_map<std::string, std::list<Turn>::iterator> of_function_;
};

// Of a tenant: what it has used of the seats, and those of its calls that wait for one alone.
struct TenantShare {
  using Duration = std::chrono::nanoseconds;
  // Which tenant is next: the one with the lowest.
  struct Key {
    int priority = 0;  // of the most urgent of its ready calls, negated
    Duration used{0};
    uint64_t number = 0;  // tells equals apart
    auto operator<=>(const Key&) const = default;
  };

  explicit TenantShare(uint64_t number) : key{.number = number} {}

  Key key;            // its place among those that have ready calls
  Duration used{0};   // in virtual time
  size_t active = 0;  // calls that are ready or have a seat
  std::map<Rank, Turns> ready;
  std::array<size_t, 3> ready_of_priority{};
  std::unordered_map<std::string, size_t> long_ready;  // those that compute for long, by function
  Duration owed_to_long{0};                            // of their part of the tenant's time
  // What each function's have used of that since it was last idle, in virtual time and by weight.
  std::unordered_map<std::string, Duration> long_used;
  Duration long_floor{0};  // and one that had none ready has used at least
  Duration used_by_long(const std::string& function) const {
    const auto found = long_used.find(function);
    return found == long_used.end() ? long_floor : std::max(found->second, long_floor);
  }
};

class CallQueue {
 public:
  // `per_tenant_max`: calls of one tenant that run at once; 0: no limit.
  explicit CallQueue(size_t per_tenant_max) : per_tenant_max_(per_tenant_max) {}

  size_t size() const { return waiting_.size(); }
  // Of their inputs, arguments and variables.
  uint64_t bytes() const { return bytes_; }
  size_t size_of(const std::string& tenant) const;
  // How many of them may run now.
  size_t ready() const { return ready_; }
  bool has_ready() const { return ready_ > 0; }

  // A call that does not wait here is to run: whether it may. It then counts at its gates.
  bool enter(Job& job);
  // One that has not begun; or one that goes on, which passes no gate.
  void add(JobPtr job, Clock::time_point now);
  // The one that is next; null where none is ready.
  JobPtr next();
  bool is_next(const Job& job) const;
  // This one, which waits here, in whatever order.
  JobPtr take(Job& job);
  // Counts no longer at its gates: it has ended, or waits for calls of its own, which must not wait for it.
  void leave(Job& job);
  // Counts again, whatever the limits say.
  void enter_again(Job& job);

  // A job has a seat from now on, and until then: what it uses counts.
  void seated(Job& job, Clock::time_point now);
  void left_seat(Job& job, Clock::time_point now);
  // When a job on a seat is to make way for the one that is next; max(): as things are, never. One is ready.
  Clock::time_point makes_way_at(const Job& seated, Clock::time_point now) const;
  // Whether a job that has just left its seat may choose who has it next.
  bool may_hand_on(const Job& job) const;

  // Each that waits, in the order in which they came. None is added or taken meanwhile.
  template <class F>
  void for_each(F each) const {
    for (const JobPtr& job : waiting_) each(*job);
  }

 private:
  using Duration = std::chrono::nanoseconds;
  struct Gate {
    size_t places = 0;
    size_t taken = 0;
    std::map<Rank, Turns> waiting;
    bool open() const { return taken < places; }
  };
  using Gates = std::unordered_map<std::string, Gate>;

  using Tenant = TenantShare;

  // Of the function and of its tenant; null where there is no limit.
  Gate* gate(const Job& job, unsigned stage);
  void pass(Job& job);
  JobPtr forget(Job& job);

  Tenant& activate(const std::string& name);
  void deactivate(Tenant& tenant);
  void forget_idle_tenants();
  void make_ready(Job& job);
  void make_unready(Job& job);
  // After anything that its place in order_ depends on has changed.
  void put_in_order(Tenant& tenant);
  static Job& choose(const Tenant& tenant);
  // Parts of makes_way_at(): for another tenant, and for calls of its own, of which some are ready.
  static Clock::time_point makes_way_for(const Job& seated, const Tenant& other, Clock::time_point now);
  static Clock::time_point makes_way_in_tenant(const Job& seated);

  static constexpr unsigned kStages = 2;
  const size_t per_tenant_max_;
  std::list<JobPtr> waiting_;  // all of them
  size_t ready_ = 0;           // of these, those that wait for a seat alone
  uint64_t bytes_ = 0;
  std::unordered_map<std::string, size_t> of_tenant_;
  Gates gates_[kStages];

  std::unordered_map<std::string, Tenant> tenants_;
  std::map<Tenant::Key, Tenant*> order_;  // those with ready calls
  size_t active_tenants_ = 0;
  Duration virtual_time_{0};  // what a tenant would have used that always had its share
  uint64_t last_number_ = 0;
  size_t forgets_at_ = 1'024;
};

}  // namespace spore::worker

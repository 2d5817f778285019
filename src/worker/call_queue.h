// The calls of a worker that wait for a seat: which one is next, and how many of a function or tenant may run.
//
//   add --> [gate of its function --> gate of its tenant] --> ready --next--> runs --leave--> the gates let others in
//
// A gate is there where a function, or each tenant, has a limit of calls at once. Of those that are ready the highest
// rank is next, and within one rank the tenants take turns; a gate lets in by the same order. Not safe for threads by
// itself.
#pragma once

#include <list>
#include <map>
#include <string>
#include <unordered_map>

#include "worker/job.h"

namespace spore::worker {

// Jobs by rank, within one rank in turns between tenants, within one tenant in the order in which they came.
class FairList {
 public:
  bool empty() const { return levels_.empty(); }
  void add(Job& job);
  void remove(Job& job);
  // The first, removed.
  Job& take_next();

 private:
  struct Turn {
    std::string tenant;
    std::list<Job*> jobs;
  };
  struct Level {
    std::list<Turn> turns;
    std::unordered_map<std::string, std::list<Turn>::iterator> of_tenant;
  };
  std::map<Rank, Level> levels_;
};

class CallQueue {
 public:
  // `per_tenant_max`: calls of one tenant that run at once; 0: no limit.
  explicit CallQueue(size_t per_tenant_max) : per_tenant_max_(per_tenant_max) {}

  size_t size() const { return waiting_.size(); }
  // Of their inputs, arguments and variables.
  uint64_t bytes() const { return bytes_; }
  size_t size_of(const std::string& tenant) const;
  // Whether one of them may run now.
  bool has_ready() const { return !ready_.empty(); }

  // A call that does not wait here is to run: whether it may. It then counts at its gates.
  bool enter(Job& job);
  // One that has not begun; or one that goes on, which passes no gate.
  void add(JobPtr job);
  // The one that is next; null where none is ready.
  JobPtr next();
  // This one, which waits here, in whatever order.
  JobPtr take(Job& job);
  // Counts no longer at its gates: it has ended, or waits for calls of its own, which must not wait for it.
  void leave(Job& job);
  // Counts again, whatever the limits say.
  void enter_again(Job& job);

  // Each that waits, in the order in which they came. None is added or taken meanwhile.
  template <class F>
  void for_each(F each) const {
    for (const JobPtr& job : waiting_) each(*job);
  }

 private:
  struct Gate {
    size_t places = 0;
    size_t taken = 0;
    FairList waiting;
    bool open() const { return taken < places; }
  };
  using Gates = std::unordered_map<std::string, Gate>;
  // Of the function and of its tenant; null where there is no limit.
  Gate* gate(const Job& job, unsigned stage);
  void pass(Job& job);
  JobPtr forget(Job& job);

  static constexpr unsigned kStages = 2;
  const size_t per_tenant_max_;
  std::list<JobPtr> waiting_;  // all of them
  FairList ready_;             // of these, those that wait for a seat alone
  uint64_t bytes_ = 0;
  std::unordered_map<std::string, size_t> of_tenant_;
  Gates gates_[kStages];
};

}  // namespace spore::worker

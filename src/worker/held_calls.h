// Calls that could not begin for want of memory, or not go on: each is tried again, one after another, until there is
// room or its time is up. Those that go on are first, as they have memory to give back; the others are in the order in
// which they came. Guarded by the worker's state.
#pragma once

#include <list>
#include <string>
#include <unordered_map>

#include "worker/job.h"

namespace spore::worker {

class HeldCalls {
 public:
  bool empty() const { return jobs_.empty(); }
  size_t size() const { return jobs_.size(); }
  // Of their inputs, arguments and variables.
  uint64_t bytes() const { return bytes_; }
  size_t size_of(const std::string& tenant) const {
    const auto found = of_tenant_.find(tenant);
    return found == of_tenant_.end() ? 0 : found->second;
  }

  void add(JobPtr job) {
    Job& added = *job;
    added.place = Job::Place::kHeld;
    bytes_ += added.waiting_bytes();
    ++of_tenant_[added.tenant()];
    added.at = jobs_.insert(added.run ? jobs_.begin() : jobs_.end(), std::move(job));
  }
  JobPtr take(Job& job) {
    JobPtr owned = std::move(*job.at);
    jobs_.erase(job.at);
    bytes_ -= job.waiting_bytes();
    const auto of_tenant = of_tenant_.find(job.tenant());
    if (--of_tenant->second == 0) of_tenant_.erase(of_tenant);
    job.place = Job::Place::kNowhere;
    return owned;
  }
  JobPtr take_first() { return jobs_.empty() ? nullptr : take(*jobs_.front()); }

  template <class F>
  void for_each(F each) const {
    for (const JobPtr& job : jobs_) each(*job);
  }

 private:
  std::list<JobPtr> jobs_;
  std::unordered_map<std::string, size_t> of_tenant_;
  uint64_t bytes_ = 0;
};

}  // namespace spore::worker

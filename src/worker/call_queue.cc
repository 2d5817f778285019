#include "worker/call_queue.h"

#include "base/check.h"

namespace spore::worker {

uint64_t Job::waiting_bytes() const {
  uint64_t bytes = request.input.size();
  for (const auto* texts : {&request.arguments, &request.environment})
    for (const std::string& text : *texts) bytes += text.size();
  return bytes;
}

// ---- one order ------------------------------------------------------------------------------------------------------

void FairList::add(Job& job) {
  Level& level = levels_[job.rank];
  auto [known, is_new] = level.of_tenant.try_emplace(job.tenant());
  if (is_new) known->second = level.turns.insert(level.turns.end(), Turn{job.tenant(), {}});
  auto& jobs = known->second->jobs;
  job.turn_at = jobs.insert(jobs.end(), &job);
}

void FairList::remove(Job& job) {
  const auto level = levels_.find(job.rank);
  const auto of_tenant = level->second.of_tenant.find(job.tenant());
  const auto turn = of_tenant->second;
  turn->jobs.erase(job.turn_at);
  if (!turn->jobs.empty()) return;
  level->second.turns.erase(turn);
  level->second.of_tenant.erase(of_tenant);
  if (level->second.turns.empty()) levels_.erase(level);
}

Job& FairList::take_next() {
  Level& level = levels_.rbegin()->second;
  const auto turn = level.turns.begin();
  Job& job = *turn->jobs.front();
  level.turns.splice(level.turns.end(), level.turns, turn);
  remove(job);
  return job;
}

// ---- gates ----------------------------------------------------------------------------------------------------------

CallQueue::Gate* CallQueue::gate(const Job& job, unsigned stage) {
  const size_t places = stage == 0 ? job.request.function->version.config.concurrency_max : per_tenant_max_;
  if (places == 0) return nullptr;
  Gate& gate = gates_[stage][stage == 0 ? job.request.function->id.text() : job.tenant()];
  gate.places = places;  // another version may say otherwise
  return &gate;
}

bool CallQueue::enter(Job& job) {
  Gate* gates[kStages];
  for (unsigned stage = 0; stage < kStages; ++stage) {
    gates[stage] = gate(job, stage);
    if (gates[stage] && !gates[stage]->open()) return false;
  }
  for (Gate* gate : gates)
    if (gate) ++gate->taken;
  job.gates_passed = kStages;
  return true;
}

void CallQueue::enter_again(Job& job) {
  if (job.gates_passed == kStages) return;
  for (unsigned stage = 0; stage < kStages; ++stage)
    if (Gate* at = gate(job, stage)) ++at->taken;
  job.gates_passed = kStages;
}

// On through the gates, as far as they are open.
void CallQueue::pass(Job& job) {
  for (; job.gates_passed < kStages; ++job.gates_passed) {
    Gate* at = gate(job, job.gates_passed);
    if (at && !at->open()) return at->waiting.add(job);
    if (at) ++at->taken;
  }
  job.is_ready = true;
  ready_.add(job);
}

void CallQueue::leave(Job& job) {
  while (job.gates_passed > 0) {
    const unsigned stage = --job.gates_passed;
    Gate* left = gate(job, stage);
    if (!left) continue;
    --left->taken;
    while (left->open() && !left->waiting.empty()) {
      Job& next = left->waiting.take_next();
      ++left->taken;
      ++next.gates_passed;
      pass(next);
    }
    if (left->taken == 0) gates_[stage].erase(stage == 0 ? job.request.function->id.text() : job.tenant());
  }
}

// ---- waiting --------------------------------------------------------------------------------------------------------

size_t CallQueue::size_of(const std::string& tenant) const {
  const auto found = of_tenant_.find(tenant);
  return found == of_tenant_.end() ? 0 : found->second;
}

void CallQueue::add(JobPtr job) {
  Job& added = *job;
  added.place = Job::Place::kQueued;
  added.rank = {.begun = added.run.has_value(), .depth = added.depth, .priority = added.request.priority};
  ++of_tenant_[added.tenant()];
  bytes_ += added.waiting_bytes();
  added.at = waiting_.insert(waiting_.end(), std::move(job));
  if (added.rank.begun) added.gates_passed = kStages;
  pass(added);
}

JobPtr CallQueue::forget(Job& job) {
  JobPtr owned = std::move(*job.at);
  waiting_.erase(job.at);
  bytes_ -= job.waiting_bytes();
  const auto of_tenant = of_tenant_.find(job.tenant());
  if (--of_tenant->second == 0) of_tenant_.erase(of_tenant);
  job.place = Job::Place::kNowhere;
  job.is_ready = false;
  return owned;
}

JobPtr CallQueue::next() {
  if (ready_.empty()) return nullptr;
  return forget(ready_.take_next());
}

JobPtr CallQueue::take(Job& job) {
  CHECK(job.place == Job::Place::kQueued);
  if (job.is_ready)
    ready_.remove(job);
  else
    gate(job, job.gates_passed)->waiting.remove(job);
  return forget(job);
}

}  // namespace spore::worker

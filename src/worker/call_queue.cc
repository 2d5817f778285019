#include "worker/call_queue.h"

#include <algorithm>

#include "base/check.h"
#include "isolation/cpu_groups.h"

namespace spore::worker {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

namespace {

constexpr nanoseconds kHeadStart = milliseconds(5);       // of a tenant that comes back, before the others
constexpr nanoseconds kLagMax = std::chrono::seconds(1);  // how far behind the others one may fall
constexpr nanoseconds kMargin = milliseconds(2);          // that a tenant may use more than the one that waits
constexpr nanoseconds kSeatedAtLeast = microseconds(100);
// A call that has had a seat for longer than this, and than this part of the time since it began, computes for long.
constexpr nanoseconds kShort = milliseconds(5);
constexpr int kShortPart = 8;
constexpr nanoseconds kSlice = milliseconds(2);  // of those, at a time, at weight 100
constexpr nanoseconds kSliceMin = microseconds(500);
constexpr nanoseconds kSliceMax = milliseconds(50);
constexpr int kWaitingPart = 16;  // of the time on a seat without a core that counts
constexpr int kLongPart = 3;      // others have so many times as much
constexpr nanoseconds kOwedMax = milliseconds(20);
// Of a function, that wait between two instructions, with all their memory: no more of it begin then.
constexpr size_t kLongOfFunctionMax = 16;

Clock::time_point long_at(const Job& seated) {
  // seat_time + (t - seated_at) = kShort + (t - first_seated_at) / kShortPart
  const nanoseconds before = seated.seated_at - seated.first_seated_at;
  const nanoseconds left = kShort + before / kShortPart - seated.seat_time;
  return seated.seated_at + left * kShortPart / (kShortPart - 1);
}

bool is_long(const Job& job, Clock::time_point now) {
  return job.seat_time > kShort + nanoseconds(now - job.first_seated_at) / kShortPart;
}

int64_t weight_of(const Job& job) { return static_cast<int64_t>(job.request.function->version.config.cpu_weight); }
nanoseconds slice_of(const Job& job) {
  return std::clamp(kSlice * weight_of(job) / isolation::kCpuWeightDefault, kSliceMin, kSliceMax);
}
nanoseconds by_weight(nanoseconds time, const Job& job) {
  return time * isolation::kCpuWeightDefault / std::max<int64_t>(1, weight_of(job));
}

void add_to(std::map<Rank, Turns>& ranks, Job& job) { ranks[job.rank].add(job); }
void remove_from(std::map<Rank, Turns>& ranks, Job& job) {
  const auto of_rank = ranks.find(job.rank);
  of_rank->second.remove(job);
  if (of_rank->second.empty()) ranks.erase(of_rank);
}

}  // namespace

uint64_t Job::waiting_bytes() const {
  uint64_t bytes = request.input.size();
  for (const auto* texts : {&request.arguments, &request.environment})
    for (const std::string& text : *texts) bytes += text.size();
  return bytes;
}

// ---- one order ------------------------------------------------------------------------------------------------------

void Turns::add(Job& job) {
  const std::string& name = job.request.function->id.name;
  auto [known, is_new] = of_function_.try_emplace(name);
  if (is_new) known->second = turns_.insert(turns_.end(), Turn{name, {}});
  auto& jobs = known->second->jobs;
  job.turn_at = jobs.insert(jobs.end(), &job);
}

void Turns::remove(Job& job) {
  const auto of_function = of_function_.find(job.request.function->id.name);
  const auto turn = of_function->second;
  turn->jobs.erase(job.turn_at);
  if (!turn->jobs.empty()) return;
  turns_.erase(turn);
  of_function_.erase(of_function);
}

void Turns::took_turn(const Job& job) {
  const auto of_function = of_function_.find(job.request.function->id.name);
  turns_.splice(turns_.end(), turns_, of_function->second);
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
    if (at && !at->open()) return add_to(at->waiting, job);
    if (at) ++at->taken;
  }
  make_ready(job);
}

void CallQueue::leave(Job& job) {
  while (job.gates_passed > 0) {
    const unsigned stage = --job.gates_passed;
    Gate* left = gate(job, stage);
    if (!left) continue;
    --left->taken;
    while (left->open() && !left->waiting.empty()) {
      Turns& turns = left->waiting.rbegin()->second;
      Job& next = *turns.first([](const std::string&) { return true; });
      turns.took_turn(next);
      remove_from(left->waiting, next);
      ++left->taken;
      ++next.gates_passed;
      pass(next);
    }
    if (left->taken == 0) gates_[stage].erase(stage == 0 ? job.request.function->id.text() : job.tenant());
  }
}

// ---- tenants --------------------------------------------------------------------------------------------------------

CallQueue::Tenant& CallQueue::activate(const std::string& name) {
  auto found = tenants_.find(name);
  if (found == tenants_.end()) {
    if (tenants_.size() >= forgets_at_) forget_idle_tenants();
    found = tenants_.emplace(name, ++last_number_).first;
  }
  Tenant& tenant = found->second;
  if (tenant.active++ == 0) {
    ++active_tenants_;
    tenant.used = std::max(tenant.used, virtual_time_ - kHeadStart);
  }
  return tenant;
}

void CallQueue::deactivate(Tenant& tenant) {
  if (--tenant.active > 0) return;
  --active_tenants_;
  tenant.long_used.clear();
}

// Those that would come back as new ones do.
void CallQueue::forget_idle_tenants() {
  std::erase_if(tenants_, [&](const auto& known) {
    return known.second.active == 0 && known.second.used <= virtual_time_ - kHeadStart;
  });
  forgets_at_ = std::max<size_t>(1'024, 2 * tenants_.size());
}

void CallQueue::put_in_order(Tenant& tenant) {
  Tenant::Key key{.priority = 0, .used = tenant.used, .number = tenant.key.number};
  for (size_t priority = 0; priority < tenant.ready_of_priority.size(); ++priority)
    if (tenant.ready_of_priority[priority]) key.priority = -static_cast<int>(priority);
  const auto at = order_.find(tenant.key);
  if (at == order_.end()) {
    if (!tenant.ready.empty()) order_.emplace(key, &tenant);
  } else if (tenant.ready.empty()) {
    order_.erase(at);
  } else if (key != tenant.key) {
    auto node = order_.extract(at);
    node.key() = key;
    order_.insert(std::move(node));
  }
  tenant.key = key;
}

void CallQueue::make_ready(Job& job) {
  Tenant& tenant = activate(job.tenant());
  job.share = &tenant;
  job.is_ready = true;
  ++ready_;
  add_to(tenant.ready, job);
  ++tenant.ready_of_priority[static_cast<size_t>(job.rank.priority)];
  if (job.rank.stage == Rank::Stage::kLong) ++tenant.long_ready[job.request.function->id.name];
  put_in_order(tenant);
}

void CallQueue::make_unready(Job& job) {
  Tenant& tenant = *std::exchange(job.share, nullptr);
  job.is_ready = false;
  --ready_;
  remove_from(tenant.ready, job);
  --tenant.ready_of_priority[static_cast<size_t>(job.rank.priority)];
  if (job.rank.stage == Rank::Stage::kLong)
    if (const auto of_function = tenant.long_ready.find(job.request.function->id.name); --of_function->second == 0)
      tenant.long_ready.erase(of_function);
  put_in_order(tenant);
  deactivate(tenant);
}

Job& CallQueue::choose(const Tenant& tenant) {
  const auto any = [](const std::string&) { return true; };
  const auto few_long = [&](const std::string& function) {
    const auto found = tenant.long_ready.find(function);
    return found == tenant.long_ready.end() || found->second < kLongOfFunctionMax;
  };
  const bool long_first = tenant.owed_to_long >= kSlice && !tenant.long_ready.empty();
  for (auto of_rank = tenant.ready.rbegin(); of_rank != tenant.ready.rend(); ++of_rank) {
    const auto& [rank, turns] = *of_rank;
    if (long_first && rank.stage != Rank::Stage::kLong) continue;
    Job* job = rank.stage == Rank::Stage::kNew ? turns.first(few_long)
               : rank.stage == Rank::Stage::kBegun
                   ? turns.first(any)
                   : turns.least([&](const std::string& function) { return tenant.used_by_long(function); });
    if (job) return *job;
  }
  // New ones are held back only where others of their function are ready, and compute for long.
  CHECK(false, tenant.ready.size());
  __builtin_unreachable();
}

// ---- seats ----------------------------------------------------------------------------------------------------------

void CallQueue::seated(Job& job, Clock::time_point now) {
  job.share = &activate(job.tenant());
  job.seated_at = now;
  if (job.first_seated_at == Clock::time_point{}) job.first_seated_at = now;
}

void CallQueue::left_seat(Job& job, Clock::time_point now) {
  Tenant& tenant = *std::exchange(job.share, nullptr);
  // A thread that waits for a core, or in a system call, keeps a seat from others, but not a core.
  const nanoseconds wall = now - job.seated_at;
  const nanoseconds cpu = std::min(wall, job.cpu_time - job.cpu_charged);
  const nanoseconds time = cpu + (wall - cpu) / kWaitingPart;
  job.cpu_charged = job.cpu_time;
  virtual_time_ += time / static_cast<int64_t>(active_tenants_);
  tenant.used = std::min(tenant.used + time, virtual_time_ + kLagMax);
  if (job.rank.stage == Rank::Stage::kLong) {
    tenant.owed_to_long = std::max(tenant.owed_to_long - time, -kOwedMax);
    const std::string& function = job.request.function->id.name;
    tenant.long_used[function] = tenant.used_by_long(function) + by_weight(time, job);
  } else if (!tenant.long_ready.empty()) {
    tenant.owed_to_long = std::min(tenant.owed_to_long + time / kLongPart, kOwedMax);
  }
  job.seat_time += time;
  put_in_order(tenant);
  deactivate(tenant);
}

Clock::time_point CallQueue::makes_way_at(const Job& seated, Clock::time_point now) const {
  const auto earliest = seated.seated_at + kSeatedAtLeast;
  const Tenant& own = *seated.share;
  auto first = order_.begin();
  auto at = Clock::time_point::max();
  if (first->second == &own) ++first;
  if (first != order_.end()) at = std::max(earliest, makes_way_for(seated, *first->second, now));
  return own.ready.empty() ? at : std::min(at, std::max(earliest, makes_way_in_tenant(seated)));
}

Clock::time_point CallQueue::makes_way_for(const Job& seated, const Tenant& other, Clock::time_point now) {
  const int more_urgent = -other.key.priority - static_cast<int>(seated.request.priority);
  if (more_urgent > 0) return now;
  if (more_urgent < 0) return Clock::time_point::max();
  const nanoseconds ahead = seated.share->used + (now - seated.seated_at) - other.used;
  return now + (kMargin - ahead);
}

Clock::time_point CallQueue::makes_way_in_tenant(const Job& seated) {
  const Tenant& own = *seated.share;
  const auto becomes_long = long_at(seated);
  if (choose(own).rank.stage == Rank::Stage::kLong) return std::max(becomes_long, seated.seated_at + slice_of(seated));
  if (seated.rank.stage != Rank::Stage::kLong || own.owed_to_long <= nanoseconds(0)) return becomes_long;
  return std::max(becomes_long, seated.seated_at + std::min(own.owed_to_long, slice_of(seated)));
}

bool CallQueue::may_hand_on(const Job& job) const {
  if (order_.empty()) return true;
  const auto own = tenants_.find(job.tenant());
  return own == tenants_.end() || own->second.used <= order_.begin()->second->used + kMargin;
}

// ---- waiting --------------------------------------------------------------------------------------------------------

size_t CallQueue::size_of(const std::string& tenant) const {
  const auto found = of_tenant_.find(tenant);
  return found == of_tenant_.end() ? 0 : found->second;
}

void CallQueue::add(JobPtr job, Clock::time_point now) {
  Job& added = *job;
  added.place = Job::Place::kQueued;
  const bool begun = added.run.has_value();
  added.rank = {.stage = !begun                ? Rank::Stage::kNew
                         : is_long(added, now) ? Rank::Stage::kLong
                                               : Rank::Stage::kBegun,
                .depth = added.depth,
                .priority = added.request.priority};
  ++of_tenant_[added.tenant()];
  bytes_ += added.waiting_bytes();
  added.at = waiting_.insert(waiting_.end(), std::move(job));
  if (begun) added.gates_passed = kStages;
  pass(added);
}

JobPtr CallQueue::forget(Job& job) {
  JobPtr owned = std::move(*job.at);
  waiting_.erase(job.at);
  bytes_ -= job.waiting_bytes();
  const auto of_tenant = of_tenant_.find(job.tenant());
  if (--of_tenant->second == 0) of_tenant_.erase(of_tenant);
  job.place = Job::Place::kNowhere;
  return owned;
}

JobPtr CallQueue::next() {
  if (order_.empty()) return nullptr;
  Tenant& tenant = *order_.begin()->second;
  Job& job = choose(tenant);
  tenant.ready.find(job.rank)->second.took_turn(job);
  if (job.rank.stage == Rank::Stage::kLong) tenant.long_floor = tenant.used_by_long(job.request.function->id.name);
  make_unready(job);
  return forget(job);
}

bool CallQueue::is_next(const Job& job) const {
  return job.is_ready && order_.begin()->second == job.share && &choose(*job.share) == &job;
}

JobPtr CallQueue::take(Job& job) {
  CHECK(job.place == Job::Place::kQueued);
  if (job.is_ready)
    make_unready(job);
  else
    remove_from(gate(job, job.gates_passed)->waiting, job);
  return forget(job);
}

}  // namespace spore::worker

#include "state/locks.h"

#include <algorithm>
#include <random>

namespace spore::state {
namespace {

// Of this service's names in the store, unlike those of any other: 16 hexadecimal digits.
std::string draw_prefix() {
  std::random_device random;
  std::string out;
  for (int i = 0; i < 16; ++i) out += "0123456789abcdef"[random() % 16];
  return out;
}

}  // namespace

LockService::LockService(GlobalTier& global, LockOptions options)
    : global_(global), options_(std::move(options)), state_(options_, draw_prefix(), std::random_device()()) {
  if (options_.asking_threads == 0) return;
  threads_.emplace_back([this] { run_lane(LockTable::Lane::kRenew); });
  threads_.emplace_back([this] { run_deadlines(); });
  for (unsigned i = 0; i < options_.asking_threads; ++i)
    threads_.emplace_back([this] { run_lane(LockTable::Lane::kAsk); });
}

LockService::~LockService() {
  {
    auto state = state_.lock();
    state->stopping = true;
    state->table.end_waits({ErrorCode::kUnavailable, "the host is stopping"}, now());
  }
  for (auto* wakes : {&lane_wakes_[0], &lane_wakes_[1], &deadline_wakes_}) wakes->notify_all();
  for (std::thread& thread : threads_) thread.join();
  const Deadline give_up = options_.steady_now() + options_.store_timeout;
  auto state = state_.lock();
  while (options_.steady_now() < give_up && work(state, LockTable::Lane::kAsk)) continue;
}

// ---- what callers ask -----------------------------------------------------------------------------------------------

std::shared_ptr<Operation> LockService::lock(const ValueId& id, LockMode mode, LockScope scope,
                                             const LockHolder& holder, Deadline deadline) {
  auto state = state_.lock();
  auto operation = state->table.lock(id, mode, scope, holder, deadline, now());
  wake(state->table);
  return operation;
}

Result<void> LockService::unlock(const ValueId& id, LockScope scope, const std::string& owner) {
  auto state = state_.lock();
  auto result = state->table.unlock(id, scope, owner, now());
  wake(state->table);
  return result;
}

void LockService::release_all(const std::string& owner, bool died) {
  auto state = state_.lock();
  state->table.release_all(owner, died, now());
  wake(state->table);
}

uint64_t LockService::token(const ValueId& id, const std::string& owner) const {
  return state_.lock()->table.token(id, owner);
}

bool LockService::lost(const ValueId& id, const std::string& owner) {
  auto state = state_.lock();
  const bool lost = state->table.lost(id, owner, now());
  wake(state->table);
  return lost;
}

LockStats LockService::stats() const { return state_.lock()->table.stats(); }

// ---- threads --------------------------------------------------------------------------------------------------------

void LockService::wake(LockTable& table) {
  const LockTable::Wake wake = table.take_wake();
  for (int lane : {0, 1})
    if (wake.lanes[lane]) lane_wakes_[lane].notify_one();
  if (wake.deadline) deadline_wakes_.notify_one();
}

LockTable::Answer LockService::perform(const LockTable::Request& request) {
  using Kind = LockTable::Request::Kind;
  const Deadline deadline = options_.steady_now() + request.timeout;
  Result<void> done;
  switch (request.kind) {
    case Kind::kTryLock: return global_.try_lock(request.id, request.mode, request.name, options_.lease, deadline);
    case Kind::kRenew: done = global_.renew_lock(request.id, request.name, options_.lease, deadline); break;
    case Kind::kUnlock: done = global_.unlock(request.id, request.name, deadline); break;
    case Kind::kLapse:
      done = global_.renew_lock(request.id, request.name, std::chrono::milliseconds(1), deadline);
      break;
  }
  if (!done) return std::unexpected(std::move(done).error());
  return std::nullopt;
}

// One request, without the lock meanwhile. False where nothing is due.
bool LockService::work(Guarded<State>::Locked& state, LockTable::Lane lane) {
  const auto request = state->table.take(lane, now());
  wake(state->table);
  if (!request) return false;
  state.lock().unlock();
  auto answer = perform(*request);
  state.lock().lock();
  state->table.finish(*request, std::move(answer), now());
  wake(state->table);
  return true;
}

void LockService::run_lane(LockTable::Lane lane) {
  std::condition_variable& wakes = lane_wakes_[static_cast<size_t>(lane)];
  auto state = state_.lock();
  while (!state->stopping) {
    if (work(state, lane)) continue;
    const auto next = state->table.next_due(lane);
    // The time of condition variables stands still while the machine is suspended, that of leases does not.
    if (next) {
      wakes.wait_for(state.lock(), std::min<BootClock::duration>(*next - options_.boot_now(), options_.lease / 10));
    } else {
      wakes.wait(state.lock());
    }
  }
}

void LockService::run_deadlines() {
  auto state = state_.lock();
  while (!state->stopping) {
    state->table.expire(now());
    wake(state->table);
    if (const auto next = state->table.next_deadline()) {
      deadline_wakes_.wait_until(state.lock(), *next);
    } else {
      deadline_wakes_.wait(state.lock());
    }
  }
}

void LockService::step() {
  auto state = state_.lock();
  state->table.expire(now());
  while (work(state, LockTable::Lane::kRenew) || work(state, LockTable::Lane::kAsk)) continue;
}

}  // namespace spore::state

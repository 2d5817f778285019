#include "state/lock_table.h"

#include <algorithm>

#include "base/check.h"

namespace spore::state {
namespace {

std::string lock_of(const ValueId& id) { return "the lock of state \"" + id.key + "\""; }

// The store may have done what it was asked to, or may do it yet.
bool uncertain(const Error& error) {
  return error.code == ErrorCode::kDeadlineExceeded || error.code == ErrorCode::kUnavailable;
}

}  // namespace

LockTable::LockTable(LockOptions options, std::string names_prefix, uint64_t seed)
    : options_(std::move(options)), names_prefix_(std::move(names_prefix)), random_(seed) {
  CHECK(names_prefix_.size() <= 16, names_prefix_);
}

// ---- claims and entries ---------------------------------------------------------------------------------------------

LockTable::Claim* LockTable::find(const Key& key, const std::string& owner) const {
  const auto found = owners_.find(owner);
  if (found == owners_.end()) return nullptr;
  for (Claim* claim : found->second)
    if (*claim->entry->key == key) return claim;
  return nullptr;
}

bool LockTable::compatible(const Entry& entry, LockMode mode) {
  return entry.live_writers == 0 && (mode == LockMode::kRead || entry.live_readers == 0);
}

Result<void> LockTable::check_bounds(const ValueId& id, const std::string& owner) const {
  const auto of_owner = owners_.find(owner);
  if (of_owner != owners_.end() && of_owner->second.size() >= options_.per_owner_max)
    return fail(ErrorCode::kResourceExhausted,
                "a call can have " + std::to_string(options_.per_owner_max) + " locks at most, held and waited for");
  const auto of_tenant = tenants_.find(id.tenant);
  if (of_tenant != tenants_.end() && of_tenant->second.claims >= options_.per_tenant_max)
    return fail(ErrorCode::kResourceExhausted,
                "the calls of a tenant can have " + std::to_string(options_.per_tenant_max) + " locks at most");
  if (claims_.size() >= options_.total_max)
    return fail(ErrorCode::kResourceExhausted,
                "this host has " + std::to_string(options_.total_max) + " locks already");
  return {};
}

LockTable::Claim& LockTable::make_claim(const Key& key) {
  const auto entry = entries_.try_emplace(key).first;
  entry->second.key = &entry->first;
  ++entry->second.claims;
  ++tenants_[key.id.tenant].claims;
  Claim& claim = claims_[++last_number_];
  claim.number = last_number_;
  claim.entry = &entry->second;
  return claim;
}

void LockTable::forget(Claim& claim) {
  CHECK(!claim.in_flight && !claim.operation);
  unschedule(claim);
  Entry& entry = *claim.entry;
  --entry.claims;
  const auto tenant = tenants_.find(entry.key->id.tenant);
  if (--tenant->second.claims == 0 && tenant->second.poisoned.empty()) tenants_.erase(tenant);
  claims_.erase(claim.number);
}

void LockTable::forget_if_idle(Entry& entry) {
  if (entry.claims == 0 && !entry.poisoned) entries_.erase(entries_.find(*entry.key));
}

// Its owner has nothing to do with it any more.
void LockTable::disown(Claim& claim) {
  const auto owner = owners_.find(claim.owner);
  std::erase(owner->second, &claim);
  if (owner->second.empty()) owners_.erase(owner);
}

void LockTable::poison(Entry& entry) {
  unpoison(entry);
  auto& poisoned = tenants_[entry.key->id.tenant].poisoned;
  if (!poisoned.empty() && poisoned.size() >= options_.poisoned_per_tenant_max) {
    Entry& oldest = *poisoned.front();
    unpoison(oldest);
    forget_if_idle(oldest);
  }
  entry.poisoned = true;
  entry.poisoned_at = poisoned.insert(poisoned.end(), &entry);
}

void LockTable::unpoison(Entry& entry) {
  if (!entry.poisoned) return;
  entry.poisoned = false;
  const auto tenant = tenants_.find(entry.key->id.tenant);
  tenant->second.poisoned.erase(entry.poisoned_at);
  if (tenant->second.claims == 0 && tenant->second.poisoned.empty()) tenants_.erase(tenant);
}

// ---- waiting --------------------------------------------------------------------------------------------------------

std::shared_ptr<Operation> LockTable::lock(const ValueId& id, LockMode mode, LockScope scope, const LockHolder& holder,
                                           Deadline deadline, Now now) {
  auto operation = std::make_shared<Operation>();
  const auto refuse = [&](ErrorCode code, std::string message) {
    operation->end(fail(code, std::move(message)));
    return operation;
  };
  const auto deadlock = [&](const std::string& why) {
    ++stats_.deadlocks;
    return refuse(ErrorCode::kFailedPrecondition, "deadlock: " + lock_of(id) + why);
  };
  if (auto good = check_key(id.key); !good) return refuse(good.error().code, good.error().message);
  if (holder.owner.empty() || holder.owner.size() > kLockOwnerBytesMax)
    return refuse(ErrorCode::kInvalidArgument, "who holds a lock has a name of 1 to " +
                                                   std::to_string(kLockOwnerBytesMax) + " bytes, not " +
                                                   std::to_string(holder.owner.size()));
  const Key key{.id = id, .scope = scope};
  if (Claim* const own = find(key, holder.owner)) {
    if (own->state == Claim::State::kWaiting) return deadlock(" is being waited for by this call already");
    if (check_lost(*own, now))
      return refuse(ErrorCode::kFailedPrecondition, lock_of(id) + " was lost by this call; it must give it back first");
    if (excludes(own->mode, mode)) return deadlock(" is held by this call already");
    if (own->count >= options_.per_owner_max)
      return refuse(ErrorCode::kResourceExhausted, lock_of(id) + " has been taken too many times by this call");
    ++own->count;
    operation->end(own->poisoned ? 1 : 0);
    return operation;
  }
  bool in_turn = true;
  for (const std::string& ancestor : holder.ancestors) {
    Claim* const claim = find(key, ancestor);
    if (!claim || claim->state != Claim::State::kHeld || check_lost(*claim, now)) continue;
    if (excludes(claim->mode, mode)) return deadlock(" is held by call " + ancestor + ", which waits for this one");
    in_turn = false;
  }
  if (auto good = check_bounds(id, holder.owner); !good) return refuse(good.error().code, good.error().message);

  deadline = std::min({deadline, holder.until, now.steady + options_.wait_max});
  const auto found = entries_.find(key);
  const bool at_once =
      scope == LockScope::kLocal &&
      (found == entries_.end() || ((found->second.queue.empty() || !in_turn) && compatible(found->second, mode)));
  if (!at_once) {
    if (deadline <= now.steady) {
      ++stats_.expired;
      return refuse(ErrorCode::kDeadlineExceeded, lock_of(id) + " was not to be had in time");
    }
    if (found != entries_.end() && found->second.queue.size() >= options_.waiting_per_key_max)
      return refuse(ErrorCode::kResourceExhausted, "too many calls wait for " + lock_of(id));
  }

  Claim& claim = make_claim(key);
  claim.mode = mode;
  claim.owner = holder.owner;
  claim.ancestors = holder.ancestors;
  claim.deadline = deadline;
  claim.until = holder.until;
  claim.operation = operation;
  claim.in_turn = in_turn;
  claim.ask_at = now.boot;
  if (scope == LockScope::kGlobal) claim.name = names_prefix_ + "/" + claim.owner + "/" + std::to_string(claim.number);
  owners_[claim.owner].push_back(&claim);
  Entry& entry = *claim.entry;
  if (at_once) {
    grant(claim, now);
    return operation;
  }
  if (in_turn) {
    entry.queue.push_back(&claim);
  } else {
    if (!entry.queue.empty()) unschedule(*entry.queue.front());
    entry.queue.push_front(&claim);
  }
  ++stats_.waiting;
  if (deadlines_.empty() || deadline < deadlines_.begin()->first) wake_.deadline = true;
  deadlines_.emplace(deadline, claim.number);
  advance(entry, now);
  return operation;
}

void LockTable::grant(Claim& claim, Now now) {
  Entry& entry = *claim.entry;
  const bool local = entry.key->scope == LockScope::kLocal;
  if (std::erase(entry.queue, &claim) > 0) {
    --stats_.waiting;
    deadlines_.erase({claim.deadline, claim.number});
  }
  if (local) claim.poisoned = entry.poisoned;
  if (!local && !(entry.has_turn && (!entry.held.empty() || now.boot - entry.free_since < options_.poll_max))) {
    entry.has_turn = true;
    entry.turn_began = now.boot;
  }
  claim.state = Claim::State::kHeld;
  ++(claim.mode == LockMode::kRead ? entry.live_readers : entry.live_writers);
  entry.held.push_back(&claim);
  ++stats_.held;
  ++stats_.granted;
  claim.operation->end(claim.poisoned ? 1 : 0);
  claim.operation.reset();
  // Those who wait and for whom the new holder waits would never see it end.
  std::vector<Claim*> descendants;
  for (Claim* waiting : entry.queue)
    if (excludes(waiting->mode, claim.mode) &&
        std::ranges::find(waiting->ancestors, claim.owner) != waiting->ancestors.end())
      descendants.push_back(waiting);
  for (Claim* waiting : descendants) {
    ++stats_.deadlocks;
    stop_waiting(*waiting,
                 {ErrorCode::kFailedPrecondition, "deadlock: " + lock_of(entry.key->id) + " is held by call " +
                                                      claim.owner + ", which waits for this one"},
                 now);
  }
}

// Grants what can be granted here, and sees to it that the head of the queue asks for the rest.
void LockTable::advance(Entry& entry, Now now) {
  if (entry.key->scope == LockScope::kLocal) {
    while (!entry.queue.empty() && compatible(entry, entry.queue.front()->mode)) grant(*entry.queue.front(), now);
    return;
  }
  if (entry.queue.empty() || entry.asking) return;
  Claim& head = *entry.queue.front();
  // What is being given back would only be refused.
  if (!compatible(entry, head.mode) || entry.releasing > 0) return unschedule(head);
  const auto at = head.in_turn ? std::max(head.ask_at, entry.ask_not_before) : head.ask_at;
  if (!head.due || head.due->first != at) schedule(head, at);
}

// The claim may be gone afterwards; its entry is not.
void LockTable::stop_waiting(Claim& claim, Error error, Now now) {
  Entry& entry = *claim.entry;
  std::erase(entry.queue, &claim);
  --stats_.waiting;
  deadlines_.erase({claim.deadline, claim.number});
  disown(claim);
  claim.operation->end(std::unexpected(std::move(error)));
  claim.operation.reset();
  unschedule(claim);
  if (!claim.in_flight && !claim.unanswered) return forget(claim);
  claim.state = Claim::State::kReleasing;
  ++entry.releasing;
  if (!claim.in_flight) return schedule(claim, now.boot);
  // The longest that the store may have what is being asked for.
  claim.lease_until = now.boot + options_.store_timeout + options_.lease;
}

void LockTable::expire(Now now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now.steady) {
    Claim& claim = claims_.at(deadlines_.begin()->second);
    Entry& entry = *claim.entry;
    std::string message = lock_of(entry.key->id) + " was not to be had in time";
    if (!claim.failure.empty()) message += ": " + claim.failure;
    ++stats_.expired;
    stop_waiting(claim, {ErrorCode::kDeadlineExceeded, std::move(message)}, now);
    advance(entry, now);
    forget_if_idle(entry);
  }
}

std::optional<Deadline> LockTable::next_deadline() const {
  if (deadlines_.empty()) return std::nullopt;
  return deadlines_.begin()->first;
}

void LockTable::end_waits(const Error& error, Now now) {
  while (!deadlines_.empty()) {
    Claim& claim = claims_.at(deadlines_.begin()->second);
    Entry& entry = *claim.entry;
    stop_waiting(claim, error, now);
    forget_if_idle(entry);
  }
}

// ---- holding --------------------------------------------------------------------------------------------------------

// Whether the lease is over, by the clock or by the store's word; then for ever.
bool LockTable::check_lost(Claim& claim, Now now) {
  if (claim.entry->key->scope == LockScope::kGlobal && !claim.lost && now.boot >= claim.lease_until)
    mark_lost(claim, now);
  return claim.lost;
}

void LockTable::mark_lost(Claim& claim, Now now) {
  Entry& entry = *claim.entry;
  claim.lost = true;
  unschedule(claim);
  ++stats_.lost;
  --(claim.mode == LockMode::kRead ? entry.live_readers : entry.live_writers);
  entry.has_turn = false;
  advance(entry, now);
}

Result<void> LockTable::unlock(const ValueId& id, LockScope scope, const std::string& owner, Now now) {
  Claim* const claim = find({.id = id, .scope = scope}, owner);
  if (!claim || claim->state != Claim::State::kHeld)
    return fail(ErrorCode::kNotFound, lock_of(id) + " is not held by this call");
  const bool lost = check_lost(*claim, now);
  if (claim->count > 1 && !lost) {
    --claim->count;
  } else {
    Entry& entry = *claim->entry;
    disown(*claim);
    release(*claim, false, now);
    advance(entry, now);
    forget_if_idle(entry);
  }
  if (lost)
    return fail(ErrorCode::kFailedPrecondition, lock_of(id) + " was lost: its lease could not be renewed in time");
  return {};
}

void LockTable::release_all(const std::string& owner, bool died, Now now) {
  for (auto claims = owners_.find(owner); claims != owners_.end(); claims = owners_.find(owner)) {
    Claim& claim = *claims->second.back();
    Entry& entry = *claim.entry;
    if (claim.state == Claim::State::kWaiting) {
      stop_waiting(claim, {ErrorCode::kUnavailable, "the call ended while it waited for " + lock_of(entry.key->id)},
                   now);
    } else {
      check_lost(claim, now);
      disown(claim);
      release(claim, died, now);
    }
    advance(entry, now);
    forget_if_idle(entry);
  }
}

// Ends the holding of a claim that has no owner any more. The claim may be gone afterwards; its entry is not.
void LockTable::release(Claim& claim, bool died, Now now) {
  Entry& entry = *claim.entry;
  std::erase(entry.held, &claim);
  --stats_.held;
  if (!claim.lost) --(claim.mode == LockMode::kRead ? entry.live_readers : entry.live_writers);
  if (entry.key->scope == LockScope::kLocal) {
    if (claim.mode == LockMode::kWrite) died ? poison(entry) : unpoison(entry);
    return forget(claim);
  }
  unschedule(claim);
  if (claim.lost && !claim.in_flight) return forget(claim);
  claim.state = Claim::State::kReleasing;
  claim.died = died;
  claim.failures = 0;
  ++entry.releasing;
  if (!claim.in_flight) schedule(claim, now.boot);
}

// The store has it no more. The claim may be gone afterwards.
void LockTable::given_back(Claim& claim, Now now) {
  Entry& entry = *claim.entry;
  --entry.releasing;
  entry.free_since = now.boot;
  if (entry.has_turn && now.boot - entry.turn_began >= options_.turn_max) {
    entry.has_turn = false;
    entry.ask_not_before = now.boot + options_.poll_max + options_.poll_max / 2;
  }
  claim.state = Claim::State::kResting;
  claim.failures = 0;
  schedule(claim, std::max(now.boot + options_.poll_max, entry.ask_not_before));
  advance(entry, now);
}

uint64_t LockTable::token(const ValueId& id, const std::string& owner) const {
  const Claim* const claim = find({.id = id, .scope = LockScope::kGlobal}, owner);
  return claim && claim->state == Claim::State::kHeld && claim->mode == LockMode::kWrite ? claim->token : 0;
}

bool LockTable::lost(const ValueId& id, const std::string& owner, Now now) {
  Claim* const claim = find({.id = id, .scope = LockScope::kGlobal}, owner);
  return claim && claim->state == Claim::State::kHeld && check_lost(*claim, now);
}

LockStats LockTable::stats() const {
  LockStats out = stats_;
  out.all = claims_.size();
  return out;
}

// ---- requests to the global tier ------------------------------------------------------------------------------------

void LockTable::schedule(Claim& claim, BootClock::time_point at) {
  unschedule(claim);
  claim.lane = claim.state == Claim::State::kHeld ? Lane::kRenew : Lane::kAsk;
  claim.due_suspect = claim.failures > 0;
  claim.due = Due(at, claim.number);
  Schedule& lane = schedules_[static_cast<size_t>(claim.lane)];
  auto& due = claim.due_suspect ? lane.suspect : lane.healthy;
  if (due.insert(*claim.due).first == due.begin()) wake_.lanes[static_cast<size_t>(claim.lane)] = true;
}

void LockTable::unschedule(Claim& claim) {
  if (!claim.due) return;
  Schedule& lane = schedules_[static_cast<size_t>(claim.lane)];
  (claim.due_suspect ? lane.suspect : lane.healthy).erase(*claim.due);
  claim.due.reset();
}

BootClock::duration LockTable::backoff(unsigned times, std::chrono::milliseconds most) {
  const auto whole = std::min<BootClock::duration>(options_.poll_min * (1 << std::min(times, 16u)), most);
  return whole / 2 + BootClock::duration(std::uniform_int_distribution<int64_t>(0, (whole / 2).count())(random_));
}

std::optional<BootClock::time_point> LockTable::next_due(Lane lane) const {
  const Schedule& schedule = schedules_[static_cast<size_t>(lane)];
  std::optional<BootClock::time_point> next;
  if (!schedule.healthy.empty()) next = schedule.healthy.begin()->first;
  const unsigned threads = lane == Lane::kAsk ? options_.asking_threads : 1;
  if (!schedule.suspect.empty() && schedule.suspects_in_flight < std::max(threads, 2u) - 1)
    next = std::min(next.value_or(BootClock::time_point::max()), schedule.suspect.begin()->first);
  return next;
}

std::optional<LockTable::Request> LockTable::take(Lane lane, Now now) {
  Schedule& schedule = schedules_[static_cast<size_t>(lane)];
  for (auto next = next_due(lane); next && *next <= now.boot; next = next_due(lane)) {
    const bool healthy = !schedule.healthy.empty() && schedule.healthy.begin()->first <= now.boot;
    Claim& claim = claims_.at((healthy ? schedule.healthy : schedule.suspect).begin()->second);
    Entry& entry = *claim.entry;
    unschedule(claim);
    Request request{.claim = claim.number,
                    .id = entry.key->id,
                    .mode = claim.mode,
                    .name = claim.name,
                    .sent_at = now.boot,
                    .timeout = options_.store_timeout};
    switch (claim.state) {
      case Claim::State::kWaiting:
        request.kind = Request::Kind::kTryLock;
        entry.asking = true;
        break;
      case Claim::State::kHeld:
        if (check_lost(claim, now)) continue;
        if (now.steady >= claim.until) {
          this->schedule(claim, claim.lease_until);
          continue;
        }
        request.kind = Request::Kind::kRenew;
        request.timeout =
            std::min(request.timeout, std::chrono::ceil<std::chrono::milliseconds>(claim.lease_until - now.boot));
        break;
      case Claim::State::kReleasing:
        if (now.boot >= claim.lease_until) {
          given_back(claim, now);
          continue;
        }
        if (claim.mode == LockMode::kRead) {
          request.kind = Request::Kind::kUnlock;
        } else if (claim.unanswered) {
          // It may have been granted, poisoned: to give it back as if the caller had been told would end the poison.
          request.kind = Request::Kind::kTryLock;
          entry.asking = true;
        } else {
          request.kind = claim.died ? Request::Kind::kLapse : Request::Kind::kUnlock;
        }
        break;
      case Claim::State::kResting:
        forget(claim);
        forget_if_idle(entry);
        continue;
    }
    claim.in_flight = true;
    if (!healthy) ++schedule.suspects_in_flight;
    claim.due_suspect = !healthy;
    // Another thread sees to what comes next, while this one is away.
    if (next_due(lane)) wake_.lanes[static_cast<size_t>(lane)] = true;
    return request;
  }
  return std::nullopt;
}

void LockTable::finish(const Request& request, Answer answer, Now now) {
  Claim& claim = claims_.at(request.claim);
  CHECK(claim.in_flight);
  claim.in_flight = false;
  if (claim.due_suspect) {
    const Lane lane = request.kind == Request::Kind::kRenew ? Lane::kRenew : Lane::kAsk;
    --schedules_[static_cast<size_t>(lane)].suspects_in_flight;
    wake_.lanes[static_cast<size_t>(lane)] = true;
  }
  switch (request.kind) {
    case Request::Kind::kTryLock: return answer_ask(claim, request, std::move(answer), now);
    case Request::Kind::kRenew: return answer_renewal(claim, request, answer, now);
    case Request::Kind::kUnlock:
    case Request::Kind::kLapse:
      if (answer || answer.error().code == ErrorCode::kFailedPrecondition) return given_back(claim, now);
      ++claim.failures;
      return schedule(claim, std::min(now.boot + backoff(claim.failures, options_.failing_max), claim.lease_until));
  }
}

void LockTable::answer_ask(Claim& claim, const Request& request, Answer answer, Now now) {
  Entry& entry = *claim.entry;
  entry.asking = false;
  const bool given_up = claim.state == Claim::State::kReleasing;
  if (answer) {
    claim.failures = 0;
    claim.failure.clear();
    claim.unanswered = false;
    if (answer->has_value()) {
      claim.lease_until = request.sent_at + options_.lease;
      claim.token = (*answer)->token;
      claim.poisoned = (*answer)->poisoned;
    } else {
      ++claim.refusals;
      entry.has_turn = false;
    }
  } else {
    ++claim.failures;
    claim.failure = answer.error().message;
    if (uncertain(answer.error())) {
      claim.unanswered = true;
      // It may reach the store only now. Of one that is given up, the end is set.
      if (!given_up) claim.lease_until = now.boot + options_.lease;
    }
  }
  if (given_up) {
    const bool granted = answer && answer->has_value();
    if (!granted && !claim.unanswered) return given_back(claim, now);
    if (granted) claim.died = claim.poisoned;  // nobody was told: the next is
    return schedule(claim, granted ? now.boot : now.boot + backoff(claim.failures, options_.failing_max));
  }
  if (answer && answer->has_value() && now.boot < claim.lease_until) {
    grant(claim, now);
    schedule(claim, request.sent_at + options_.lease / 3);
    return advance(entry, now);
  }
  if (answer && answer->has_value()) {
    claim.ask_at = now.boot;  // the answer took longer than the lease is
  } else if (answer) {
    claim.ask_at = now.boot + backoff(claim.refusals, options_.poll_max);
  } else if (uncertain(answer.error())) {
    claim.ask_at = now.boot + backoff(claim.failures, options_.failing_max);
  } else {
    stop_waiting(claim, std::move(answer).error().within(lock_of(entry.key->id)), now);
  }
  advance(entry, now);
  forget_if_idle(entry);
}

void LockTable::answer_renewal(Claim& claim, const Request& request, const Answer& answer, Now now) {
  const bool gone = !answer && answer.error().code == ErrorCode::kFailedPrecondition;
  if (claim.state == Claim::State::kReleasing) {
    if (gone || claim.lost) return given_back(claim, now);
    if (answer) claim.lease_until = request.sent_at + options_.lease;
    return schedule(claim, now.boot);
  }
  if (claim.lost) return;
  if (answer) {
    // Where the answer came after the old lease's end, it was lost meanwhile, even if nobody looked.
    if (check_lost(claim, now)) return;
    claim.failures = 0;
    claim.lease_until = request.sent_at + options_.lease;
    return schedule(claim, request.sent_at + options_.lease / 3);
  }
  if (gone) return mark_lost(claim, now);
  ++claim.failures;
  const auto again =
      now.boot + std::min<BootClock::duration>(backoff(claim.failures, options_.failing_max), options_.lease / 10);
  schedule(claim, std::min(again, claim.lease_until));
}

}  // namespace spore::state

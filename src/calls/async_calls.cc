#include "calls/async_calls.h"

#include <algorithm>

#include "base/check.h"
#include "base/digest.h"

namespace spore::calls {

using std::chrono::milliseconds;
using worker::CallResult;
using worker::CallStatus;

namespace {

constexpr milliseconds kRefusedPause(100);  // of a call that the worker's queue had no room for, and up to
constexpr milliseconds kRefusedPauseMax(1'000);
constexpr milliseconds kStorePause(1'000);  // of one whose attempt could not be begun in the store
constexpr milliseconds kKeeperInterval(1'000);
constexpr size_t kExpiredAtOnce = 256;

uint64_t draw() {
  const Bytes bytes = random_bytes(sizeof(uint64_t));
  uint64_t out;
  std::memcpy(&out, bytes.data(), sizeof out);
  return out;
}

Digest digest_of(const Submission& submission) {
  Bytes text = submission.input;
  const auto* version = reinterpret_cast<const uint8_t*>(&submission.version);
  text.insert(text.end(), version, version + sizeof submission.version);
  return sha256(text);
}

bool is_printable(char c) { return c >= ' ' && c <= '~'; }

// It would fail again.
bool is_final(const CallResult& result) {
  if (result.status != CallStatus::kFailed) return false;
  switch (result.error.code) {
    case ErrorCode::kNotFound:
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kInvalidModule:
    case ErrorCode::kPermissionDenied: return true;
    default: return false;
  }
}

Schedule::Order order_of(const CallRecord& record) {
  return record.client_waits ? Schedule::Order::kFirst : Schedule::Order::kInTurn;
}

}  // namespace

AsyncCalls::AsyncCalls(functions::Registry& registry, AsyncOptions options)
    : registry_(registry),
      options_(std::move(options)),
      runner_number_(draw()),
      ends_(options_.threads, options_.in_flight_max + options_.waited_for_in_flight_max),
      begins_(options_.threads, options_.in_flight_max + options_.waited_for_in_flight_max) {}

Result<std::unique_ptr<AsyncCalls>> AsyncCalls::open(const std::filesystem::path& directory,
                                                     object_store::ObjectStore& objects, functions::Registry& registry,
                                                     AsyncOptions options) {
  std::unique_ptr<AsyncCalls> calls(new AsyncCalls(registry, std::move(options)));
  const AsyncOptions& given = calls->options_;
  const auto now = Clock::now();
  const int64_t now_ms = given.store.now_ms();
  ASSIGN_OR_RETURN(calls->store_, CallStore::open(directory, objects, given.store, [&](const CallRecord& record) {
                     // Whatever the wall clock says now: nobody waits for longer than a retry can take.
                     const auto pause =
                         std::clamp(milliseconds(record.due_ms - now_ms), milliseconds(0), given.retry_cap);
                     calls->schedule(record, record.state == CallState::kRetrying ? now + pause : now);
                   }));
  return calls;
}

AsyncCalls::~AsyncCalls() {
  stop();
  ends_.finish();
}

void AsyncCalls::start(worker::Worker& worker) {
  worker_ = &worker;
  runner_ = std::jthread([this] { runner_loop(); });
  keeper_ = std::jthread([this] { keeper_loop(); });
}

void AsyncCalls::drain() {
  Woken woken;
  {
    auto state = state_.lock();
    state->draining = true;
    for (auto& [number, watcher] : state->watchers) woken.push_back(std::move(watcher.woken));
    state->watchers.clear();
    state->watched.clear();
    state->watch_ends.clear();
  }
  for (auto& call : woken) call();
}

void AsyncCalls::stop() {
  drain();
  state_.lock()->stopping = true;
  changed_.notify_all();
  stopped_.notify_all();
  if (runner_.joinable()) runner_.join();
  begins_.finish();
  if (keeper_.joinable()) keeper_.join();
}

AsyncStats AsyncCalls::stats() const {
  AsyncStats out;
  {
    auto state = state_.lock();
    out.queued = state->waiting.size();
    out.running = state->running.size();
    out.watchers = state->watchers.size();
  }
  out.stored = store_->usage();
  out.accepted = accepted_;
  out.attempts = attempts_;
  out.succeeded = succeeded_;
  out.failed = failed_;
  out.cancelled = cancelled_;
  return out;
}

// ---- what clients ask -----------------------------------------------------------------------------------------------

Result<AsyncCalls::Accepted> AsyncCalls::accept(Submission submission) {
  if (submission.key.size() > kKeyBytesMax || !std::ranges::all_of(submission.key, is_printable))
    return fail(ErrorCode::kInvalidArgument,
                "an idempotency key has 1 to " + std::to_string(kKeyBytesMax) + " printable bytes of ASCII");
  if (submission.attempts_max > kAttemptsMax)
    return fail(ErrorCode::kInvalidArgument, "a call has at most " + std::to_string(kAttemptsMax) + " attempts");
  const auto known = registry_.describe(submission.function);
  if (!known) return fail(ErrorCode::kNotFound, "there is no function " + submission.function.text());
  const auto is_asked_for = [&](const auto& version) { return version.number == submission.version; };
  if (submission.version && std::ranges::none_of(known->versions, is_asked_for))
    return fail(ErrorCode::kNotFound,
                submission.function.text() + " has no version " + std::to_string(submission.version) + " (any more)");
  if (state_.lock()->draining) return fail(ErrorCode::kUnavailable, "the host is shutting down");
  const int64_t now_ms = options_.store.now_ms();
  CallRecord record;
  record.id = CallId::random();
  record.function = submission.function;
  record.version = submission.version;
  record.attempts_max = submission.attempts_max ? submission.attempts_max : options_.attempts_default;
  record.timeout_ms = submission.timeout_ms;
  record.priority = submission.priority;
  record.client_waits = submission.client_waits;
  record.created_ms = now_ms;
  if (!submission.key.empty()) {
    record.key = submission.key;
    record.asked = digest_of(submission);
    record.key_until_ms = now_ms + options_.key_ttl.count();
  }
  ASSIGN_OR_RETURN(auto inserted, store_->insert(std::move(record), submission.input));
  if (inserted.existed) {
    if (inserted.record.asked != digest_of(submission))
      return fail(ErrorCode::kAlreadyExists,
                  "the idempotency key was used for another request, call " + inserted.record.id.text());
    return Accepted{.record = std::move(inserted.record), .existed = true};
  }
  ++accepted_;
  schedule(inserted.record, Clock::now());
  return Accepted{.record = std::move(inserted.record)};
}

Result<std::optional<CallRecord>> AsyncCalls::cancel(const CallId& id) {
  ASSIGN_OR_RETURN(const auto done, store_->change(
                                        id,
                                        [&](CallRecord& record) {
                                          if (record.ended()) return false;
                                          set_ended(record, CallState::kCancelled);
                                          return true;
                                        },
                                        Synced::kYes));
  if (!done) return std::nullopt;
  if (!done->changed) return done->record;
  ++cancelled_;
  bool runs = false;
  {
    auto state = state_.lock();
    state->waiting.remove(id);
    if (const auto running = state->running.find(id); running != state->running.end()) {
      running->second.cancelled = true;
      runs = true;
    }
  }
  if (runs) worker_->cancel(id);
  tell(done->record);
  return done->record;
}

Result<std::optional<CallRecord>> AsyncCalls::replay(const CallId& id) {
  if (state_.lock()->draining) return fail(ErrorCode::kUnavailable, "the host is shutting down");
  ASSIGN_OR_RETURN(const auto done, store_->change(
                                        id,
                                        [&](CallRecord& record) {
                                          if (!record.dead) return false;
                                          record.state = CallState::kQueued;
                                          record.dead = false;
                                          record.failures = record.lost = 0;
                                          record.ended_ms = record.expires_ms = 0;
                                          return true;
                                        },
                                        Synced::kYes));
  if (!done) return std::nullopt;
  if (!done->changed)
    return fail(ErrorCode::kFailedPrecondition,
                "the call is no dead letter: it is " + std::string(to_string(done->record.state)));
  schedule(done->record, Clock::now());
  tell(done->record);
  return done->record;
}

Result<bool> AsyncCalls::discard(const CallId& id) {
  return store_->remove(id, [](const CallRecord& record) { return record.dead; }, Synced::kYes);
}

void AsyncCalls::schedule(const CallRecord& record, Clock::time_point due) {
  state_.lock()->waiting.add(record.id, record.function.tenant, order_of(record), due);
  changed_.notify_one();
}

// ---- watchers -------------------------------------------------------------------------------------------------------

std::optional<uint64_t> AsyncCalls::watch(const CallId& id, Until until, Clock::time_point deadline,
                                          std::move_only_function<void()> woken) {
  uint64_t number;
  {
    auto state = state_.lock();
    if (state->draining || state->watchers.size() >= options_.watchers_max) return std::nullopt;
    number = ++state->last_watcher;
    state->watched.emplace(id, number);
    state->watch_ends.emplace(deadline, number);
    state->watchers.emplace(number, Watcher{.id = id, .until = until, .deadline = deadline, .woken = std::move(woken)});
    if (state->watch_ends.begin()->second != number) return number;
  }
  changed_.notify_one();
  return number;
}

bool AsyncCalls::unwatch(uint64_t number) {
  auto state = state_.lock();
  return static_cast<bool>(take_watcher(*state, number));
}

// Nothing where it is taken already.
std::move_only_function<void()> AsyncCalls::take_watcher(State& state, uint64_t number) {
  const auto found = state.watchers.find(number);
  if (found == state.watchers.end()) return {};
  const auto [first, last] = state.watched.equal_range(found->second.id);
  state.watched.erase(std::find_if(first, last, [&](const auto& entry) { return entry.second == number; }));
  const auto [from, to] = state.watch_ends.equal_range(found->second.deadline);
  state.watch_ends.erase(std::find_if(from, to, [&](const auto& entry) { return entry.second == number; }));
  auto woken = std::move(found->second.woken);
  state.watchers.erase(found);
  return woken;
}

void AsyncCalls::tell(const CallRecord& record) {
  Woken woken;
  {
    auto state = state_.lock();
    std::vector<uint64_t> numbers;
    const auto [first, last] = state->watched.equal_range(record.id);
    for (auto it = first; it != last; ++it)
      if (record.ended() || state->watchers.at(it->second).until == Until::kChange) numbers.push_back(it->second);
    for (const uint64_t number : numbers) woken.push_back(take_watcher(*state, number));
  }
  for (auto& call : woken) call();
}

// ---- the runner -----------------------------------------------------------------------------------------------------

void AsyncCalls::runner_loop() {
  auto state = state_.lock();
  while (!state->stopping) {
    const auto now = Clock::now();
    Woken woken;
    while (!state->watch_ends.empty() && state->watch_ends.begin()->first <= now)
      woken.push_back(take_watcher(*state, state->watch_ends.begin()->second));
    std::optional<Schedule::Taken> taken;
    if (!state->draining)
      taken = state->waiting.take(now, {.in_turn = state->in_turn < options_.in_flight_max,
                                        .first = state->first < options_.waited_for_in_flight_max});
    if (taken) {
      state->running[taken->id] = {.tenant = taken->tenant, .order = taken->order, .lease_until = now + options_.lease};
      ++(taken->order == Schedule::Order::kFirst ? state->first : state->in_turn);
    }
    if (taken || !woken.empty()) {
      state.lock().unlock();
      for (auto& call : woken) call();
      if (taken) {
        Background::Task task = [this, one = std::move(*taken)] { begin(one); };
        CHECK(begins_.try_submit(task));  // there is room for all that may run
      }
      state.lock().lock();
      continue;
    }
    auto next = state->waiting.next_due();
    if (!state->watch_ends.empty()) next = std::min(next, state->watch_ends.begin()->first);
    next = std::min(next, now + std::chrono::hours(1));
    changed_.wait_until(state.lock(), next);
  }
}

// Makes room for another attempt. The call itself is due again at `again`, where that is given.
void AsyncCalls::leave_running(const CallId& id, std::optional<Clock::time_point> again) {
  {
    auto state = state_.lock();
    const auto running = state->running.find(id);
    CHECK(running != state->running.end());
    --(running->second.order == Schedule::Order::kFirst ? state->first : state->in_turn);
    if (again && !running->second.cancelled)
      state->waiting.add(id, running->second.tenant, running->second.order, *again);
    state->running.erase(running);
  }
  changed_.notify_one();
}

Result<std::optional<CallRecord>> AsyncCalls::begin_in_store(const CallId& id) {
  bool too_often_lost = false;
  ASSIGN_OR_RETURN(const auto begun, store_->change(
                                         id,
                                         [&](CallRecord& record) {
                                           if (record.ended()) return false;
                                           if (record.state == CallState::kRunning) ++record.lost;
                                           if (record.lost > kLostMax) {
                                             too_often_lost = true;
                                             record.result = {};
                                             record.result.id = id;
                                             record.result.status = CallStatus::kFailed;
                                             record.result.error = {ErrorCode::kInternal,
                                                                    "its host died, or could not store its end, " +
                                                                        std::to_string(record.lost) + " times"};
                                             set_ended(record, CallState::kFailed);
                                             return true;
                                           }
                                           record.state = CallState::kRunning;
                                           ++record.attempt;
                                           record.runner = runner_number_;
                                           record.started_ms = options_.store.now_ms();
                                           record.lease_until_ms = record.started_ms + options_.lease.count();
                                           return true;
                                         },
                                         Synced::kYes));
  if (!begun || !begun->changed) return std::nullopt;
  tell(begun->record);
  if (!too_often_lost) return begun->record;
  ++failed_;
  return std::nullopt;
}

void AsyncCalls::begin(Schedule::Taken taken) {
  if (state_.lock()->draining) return leave_running(taken.id, Clock::now());
  auto begun = begin_in_store(taken.id);
  if (!begun) return leave_running(taken.id, Clock::now() + kStorePause);
  if (!*begun) return leave_running(taken.id, std::nullopt);
  {
    auto state = state_.lock();
    Running& running = state->running.at(taken.id);
    running.attempt = (*begun)->attempt;
    running.lease_until = Clock::now() + options_.lease;
  }
  run(std::move(**begun));
}

void AsyncCalls::run(CallRecord record) {
  const auto could_not = [&](Error error) {
    CallResult result;
    result.id = record.id;
    result.status = CallStatus::kFailed;
    result.error = std::move(error);
    end(std::move(record), std::move(result));
  };
  worker::CallRequest request;
  request.id = record.id;
  const auto version = record.version ? std::optional(record.version) : std::nullopt;
  request.function = registry_.find_loaded(record.function, version);
  if (!request.function) {
    const auto from = Clock::now();
    auto loaded = registry_.load(record.function, version);
    if (!loaded) return could_not(std::move(loaded).error());
    request.function = std::move(*loaded);
    request.loading = std::max(std::chrono::microseconds(1),
                               std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - from));
  }
  auto input = store_->input(record);
  if (!input) return could_not(std::move(input).error().within("the call's input"));
  request.input = std::move(*input);
  if (record.timeout_ms) request.timeout = milliseconds(record.timeout_ms);
  request.priority = record.priority;
  request.environment = {"SPORE_CALL_ID=" + record.id.text(), "SPORE_ATTEMPT=" + std::to_string(record.attempt)};
  record.ran_version = request.function->version.number;
  record.output_bytes_allowed = request.function->version.config.output_max_bytes;
  const CallId id = record.id;
  const auto is_cancelled = [&] {
    auto state = state_.lock();
    const auto running = state->running.find(id);
    return running != state->running.end() && running->second.cancelled;
  };
  if (is_cancelled()) return leave_running(id, std::nullopt);
  worker_->submit(std::move(request), [this, record = std::move(record)](CallResult result) mutable {
    auto ended = std::make_shared<std::pair<CallRecord, CallResult>>(std::move(record), std::move(result));
    Background::Task task = [this, ended] { end(std::move(ended->first), std::move(ended->second)); };
    CHECK(ends_.try_submit(task));  // there is room for all that may run
  });
  // Who cancelled it while it was being submitted did not find it in the worker.
  if (is_cancelled()) worker_->cancel(id);
}

// ---- the end of an attempt ------------------------------------------------------------------------------------------

void AsyncCalls::end(CallRecord begun, CallResult result) {
  const CallId id = begun.id;
  const bool draining = state_.lock()->draining;
  switch (result.status) {
    case CallStatus::kQueueFull:
    case CallStatus::kTenantQueueFull:
    case CallStatus::kTenantMemory:
    case CallStatus::kHostMemory:
      return end_unstarted(begun, kRefusedPause + milliseconds(draw() % kRefusedPauseMax.count()));
    case CallStatus::kTimedOut:
      // In the queue. A client that waits is told so.
      if (result.start != worker::StartKind::kNone || begun.client_waits) break;
      return end_unstarted(begun, kRefusedPause + milliseconds(draw() % kRefusedPauseMax.count()));
    case CallStatus::kDraining: return end_unstarted(begun, milliseconds(0));
    case CallStatus::kCancelled:
      if (draining) return end_unstarted(begun, milliseconds(0));
      break;
    default: break;
  }
  ++attempts_;
  if (auto told = attempt_ended_.lock(); *told) (*told)(begun, result);
  auto stored = store_end(begun, result);
  if (!stored && result.status == CallStatus::kOk) {
    // There may be room for less.
    result.status = CallStatus::kFailed;
    result.error = std::move(stored).error().within("the output could not be stored");
    stored = store_end(begun, result);
  }
  if (!stored) {
    // Its lease is not renewed any more. When that is over it is run again, as if this host had died.
    auto state = state_.lock();
    state->running.at(id).given_up = true;
    return;
  }
  const bool changed = *stored && (*stored)->changed;
  std::optional<Clock::time_point> again;
  if (changed) {
    const CallRecord& after = (*stored)->record;
    if (after.state == CallState::kSucceeded) ++succeeded_;
    if (after.state == CallState::kFailed) ++failed_;
    if (after.state == CallState::kRetrying) again = Clock::now() + milliseconds(after.due_ms - after.ended_ms);
    if (after.state == CallState::kQueued) again = Clock::now();
  }
  leave_running(id, again);
  if (changed) tell((*stored)->record);
}

Result<std::optional<CallStore::Changed>> AsyncCalls::store_end(const CallRecord& begun, CallResult& result) {
  CallStore::Ending ending{.log = std::move(result.log)};
  if (result.status == CallStatus::kOk) ending.output = std::move(result.output);
  result.log = {};
  result.output = {};
  const auto change = [&](CallRecord& record) {
    if (record.state != CallState::kRunning || record.attempt != begun.attempt) return false;
    record.result = result;
    record.ran_version = begun.ran_version;
    record.output_bytes_allowed = begun.output_bytes_allowed;
    if (result.status == CallStatus::kOk) {
      set_ended(record, CallState::kSucceeded);
      return true;
    }
    ++record.failures;
    if (record.failures >= record.attempts_max || is_final(result)) {
      set_ended(record, CallState::kFailed);
      return true;
    }
    record.state = CallState::kRetrying;
    record.ended_ms = options_.store.now_ms();  // of the attempt
    record.due_ms = record.ended_ms + backoff(record.failures, options_.retry_base, options_.retry_cap, draw()).count();
    return true;
  };
  return store_->change(begun.id, change, Synced::kYes, &ending);
}

// Its attempt was none.
void AsyncCalls::end_unstarted(const CallRecord& begun, milliseconds again_after) {
  const auto undone = store_->change(
      begun.id,
      [&](CallRecord& record) {
        if (record.state != CallState::kRunning || record.attempt != begun.attempt) return false;
        --record.attempt;
        record.state = CallState::kQueued;
        return true;
      },
      Synced::kNo);
  // Where the store fails, it counts as one: it is only run later.
  leave_running(begun.id, Clock::now() + (undone ? again_after : std::max(again_after, kStorePause)));
  if (undone && *undone && (*undone)->changed) tell((*undone)->record);
}

milliseconds AsyncCalls::ttl_of(const CallRecord& record) const {
  return record.dead ? options_.dead_ttl : options_.result_ttl;
}

void AsyncCalls::set_ended(CallRecord& record, CallState state) const {
  record.state = state;
  record.dead = state == CallState::kFailed && !record.client_waits;
  record.ended_ms = options_.store.now_ms();
  // As long as its key stands for it there has to be an answer.
  record.expires_ms = std::max(record.ended_ms + ttl_of(record).count(), record.key_until_ms);
}

// ---- the keeper -----------------------------------------------------------------------------------------------------

void AsyncCalls::keeper_loop() {
  const auto interval = std::min<milliseconds>(kKeeperInterval, options_.lease / 4);
  auto state = state_.lock();
  while (!state->stopping) {
    state.lock().unlock();
    renew_leases();
    size_t removed = kExpiredAtOnce;
    while (removed == kExpiredAtOnce && !state_.lock()->stopping) {
      const auto expired = store_->expire(kExpiredAtOnce);
      removed = expired.value_or(0);  // where the store fails: at the next time
    }
    state.lock().lock();
    if (!state->stopping) stopped_.wait_for(state.lock(), interval);
  }
}

// At half of their time. Those that were given up go back to wait when theirs is over.
void AsyncCalls::renew_leases() {
  const auto now = Clock::now();
  std::vector<std::pair<CallId, uint32_t>> due;
  std::vector<CallId> over;
  {
    auto state = state_.lock();
    for (auto& [id, running] : state->running) {
      if (running.attempt == 0) continue;
      if (running.given_up) {
        if (running.lease_until <= now) over.push_back(id);
      } else if (running.lease_until - now <= options_.lease / 2) {
        due.emplace_back(id, running.attempt);
        running.lease_until = now + options_.lease;
      }
    }
  }
  for (const auto& [id, attempt] : due) {
    // Where it fails, nobody else runs the call yet: this host knows that it does, and asks again in time.
    (void)store_->change(
        id,
        [&](CallRecord& record) {
          if (record.state != CallState::kRunning || record.attempt != attempt) return false;
          record.lease_until_ms = options_.store.now_ms() + options_.lease.count();
          return true;
        },
        Synced::kNo);
  }
  for (const CallId& id : over) leave_running(id, now);
}

}  // namespace spore::calls

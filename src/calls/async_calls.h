// Durable calls: they are on the disk before they are acknowledged, run at least once, and keep their results for a
// time.
//
//   accept --> CallStore --> Schedule --runner--> start: begin the attempt, load, Worker::submit --done--> end: result
//                               ^                                                             |        and end of the
//                               `---- after a backoff: it failed, and has attempts left ------'        call in one
//                               batch
//
// An attempt has a number, and a lease which is renewed while it runs. What ends a call names the attempt: one that is
// not the last any more changes nothing. A call that is running is run again only when its lease is over and this host
// does not run it any more, as where its end could not be stored for want of room; or at the start, where the lock of
// the database says that whoever ran it is gone.
//
// An attempt that the host's queue refused or held for too long, or that draining ended, was none. A call whose
// attempts are used up has failed; unless its client waited for it, it is a dead letter, to be replayed or discarded.
//
// Methods that return Result may wait for the disk. Any thread, but start() and stop().
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/background.h"
#include "base/guarded.h"
#include "calls/call_store.h"
#include "calls/schedule.h"
#include "functions/registry.h"
#include "worker/worker.h"

namespace spore::calls {

struct AsyncOptions {
  CallStoreOptions store;
  size_t in_flight_max = 8;               // attempts at once
  size_t waited_for_in_flight_max = 256;  // beside those, attempts of calls whose clients wait
  std::chrono::milliseconds lease{30'000};
  std::chrono::milliseconds result_ttl{24 * 3'600'000};      // of calls that have ended
  std::chrono::milliseconds dead_ttl{7 * 24 * 3'600'000ll};  // of dead letters
  std::chrono::milliseconds key_ttl{24 * 3'600'000};         // of idempotency keys
  std::chrono::milliseconds retry_base{200};
  std::chrono::milliseconds retry_cap{60'000};
  uint32_t attempts_default = 3;
  size_t watchers_max = 10'000;
  unsigned threads = 8;  // that begin attempts, and as many that store their ends
};

struct AsyncStats {
  size_t queued = 0;  // and retrying
  size_t running = 0;
  size_t watchers = 0;
  CallStoreUsage stored;
  uint64_t accepted = 0;  // since the start, as all below
  uint64_t attempts = 0;  // that ended
  uint64_t succeeded = 0, failed = 0, cancelled = 0;
};

// What is asked for.
struct Submission {
  functions::FunctionId function;
  uint64_t version = 0;  // 0: whichever is current
  Bytes input;
  std::string key;            // idempotency; "": none. At most kKeyBytesMax
  uint32_t attempts_max = 0;  // 0: as the host does by default; at most kAttemptsMax
  uint64_t timeout_ms = 0;    // shortens the function's
  worker::Priority priority = worker::Priority::kNormal;
  bool client_waits = false;  // it goes first, and is told of a failure itself
};

class AsyncCalls {
 public:
  // `objects` and `registry` outlive it. Errors as CallStore::open.
  static Result<std::unique_ptr<AsyncCalls>> open(const std::filesystem::path& directory,
                                                  object_store::ObjectStore& objects, functions::Registry& registry,
                                                  AsyncOptions options);
  // The worker may be gone then, but every attempt that it was given has ended.
  ~AsyncCalls();
  AsyncCalls(const AsyncCalls&) = delete;
  AsyncCalls& operator=(const AsyncCalls&) = delete;

  // Told of every attempt that ended, on a thread of this. Nobody is being told any more when another is set, or none.
  using AttemptEnded = std::function<void(const CallRecord& record, const worker::CallResult& result)>;
  void on_attempt_ended(AttemptEnded told) { *attempt_ended_.lock() = std::move(told); }
  // Begins to run calls. `worker` takes them until stop() has returned.
  void start(worker::Worker& worker);
  // Takes no calls and begins no attempts any more; watchers are called. Attempts under way may end.
  void drain();
  // drain(), and returns when no attempt will be given to the worker any more. Then the worker may end, and with it the
  // attempts that it still has: those will be run again by whoever opens the directory next.
  void stop();

  struct Accepted {
    CallRecord record;
    bool existed = false;  // it is what the key stands for, from an earlier request
  };
  // The call is on the disk when this returns. kNotFound: no such function; kAlreadyExists: the key stands for a call
  // that asked for something else; kInvalidArgument; kResourceExhausted, kUnavailable as CallStore::insert.
  Result<Accepted> accept(Submission submission);

  Result<std::optional<CallRecord>> find(const CallId& id) const { return store_->find(id); }
  Result<Bytes> output(const CallRecord& record) const { return store_->output(record); }
  Result<Bytes> log(const CallRecord& record) const { return store_->log(record); }
  Result<CallPage> list(const ListQuery& query) const { return store_->list(query); }

  // A call that waits never runs; one that runs is interrupted, and what it does until then changes nothing of the
  // call. Gives the call as it is then: cancelled, unless it had ended before. Nothing where there is none.
  Result<std::optional<CallRecord>> cancel(const CallId& id);
  // A dead letter has all its attempts again. kFailedPrecondition where it is none. Nothing where there is no such
  // call.
  Result<std::optional<CallRecord>> replay(const CallId& id);
  // Removes a dead letter; whether it was one.
  Result<bool> discard(const CallId& id);

  // Calls `woken` once, on a thread of this: when the call changes (kChange) or has ended, or at the deadline. It must
  // not block. A number for unwatch(), or nothing where there are too many, or the host drains. To miss nothing, watch
  // first and then find().
  enum class Until : uint8_t { kChange, kEnd };
  std::optional<uint64_t> watch(const CallId& id, Until until, Clock::time_point deadline,
                                std::move_only_function<void()> woken);
  // True: it will not be called. False: it was, or is about to be.
  bool unwatch(uint64_t number);

  // No attempt is under way.
  bool idle() const { return state_.lock()->running.empty(); }
  AsyncStats stats() const;
  const AsyncOptions& options() const { return options_; }

 private:
  struct Running {
    std::string tenant;
    Schedule::Order order = Schedule::Order::kInTurn;
    uint32_t attempt = 0;  // 0: it is still to begin
    Clock::time_point lease_until;
    bool cancelled = false;
    bool given_up = false;  // its end could not be stored: to be run again when the lease is over
  };
  struct Watcher {
    CallId id;
    Until until = Until::kEnd;
    Clock::time_point deadline;
    std::move_only_function<void()> woken;
  };
  struct State {
    Schedule waiting;
    std::unordered_map<CallId, Running, CallIdHash> running;
    size_t in_turn = 0, first = 0;  // of those
    std::unordered_map<uint64_t, Watcher> watchers;
    std::unordered_multimap<CallId, uint64_t, CallIdHash> watched;
    std::multimap<Clock::time_point, uint64_t> watch_ends;
    uint64_t last_watcher = 0;
    bool draining = false;
    bool stopping = false;
  };
  using Woken = std::vector<std::move_only_function<void()>>;

  AsyncCalls(functions::Registry& registry, AsyncOptions options);
  void schedule(const CallRecord& record, Clock::time_point due);

  void runner_loop();
  void keeper_loop();
  void renew_leases();

  // An attempt, from begin to end.
  void begin(Schedule::Taken taken);
  Result<std::optional<CallRecord>> begin_in_store(const CallId& id);
  void run(CallRecord record);
  void end(CallRecord begun, worker::CallResult result);
  void end_unstarted(const CallRecord& begun, std::chrono::milliseconds again_after);
  Result<std::optional<CallStore::Changed>> store_end(const CallRecord& begun, worker::CallResult& result);
  void leave_running(const CallId& id, std::optional<Clock::time_point> again);
  std::chrono::milliseconds ttl_of(const CallRecord& record) const;
  void set_ended(CallRecord& record, CallState state) const;

  static std::move_only_function<void()> take_watcher(State& state, uint64_t number);
  void tell(const CallRecord& record);

  functions::Registry& registry_;
  const AsyncOptions options_;
  const uint64_t runner_number_;
  worker::Worker* worker_ = nullptr;
  Guarded<AttemptEnded> attempt_ended_;
  std::unique_ptr<CallStore> store_;
  std::atomic<uint64_t> accepted_{0}, attempts_{0}, succeeded_{0}, failed_{0}, cancelled_{0};
  Guarded<State> state_;
  std::condition_variable changed_;  // for the runner
  std::condition_variable stopped_;  // for the keeper
  Background ends_;
  Background begins_;
  std::jthread keeper_;
  std::jthread runner_;
};

}  // namespace spore::calls

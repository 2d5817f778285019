// One dispatch of a host function that uses state: the value it is about, and the means to wait for the global tier. A
// function that has to wait begins an operation and parks; when the operation has ended it is dispatched again, with
// the same arguments, and finds the result.
//
//   StateDispatch<R>   R: what the function replies with. int64_t: the state calls of the module "spore" (minus the
//                      error number); wasi::Errno: functions on files below /spore/state.
//
// What an error says in words goes to the call's log, but for a value that is not there. Made on the stack of a host
// function, on the thread that runs the call.
#pragma once

#include <poll.h>

#include <algorithm>
#include <functional>
#include <type_traits>

#include "host/binding.h"
#include "host/host_state.h"
#include "host/state_access.h"
#include "host/wasi_abi.h"

namespace spore::host {

constexpr int kStateRoundsMax = 64;  // of fetching and finding that it went again, before a call waits once more

wasi::Errno errno_of_state(ErrorCode code);
void log_state_error(HostState& state, std::string_view function, const Error& error);

// A global lock for writing; no token: none.
struct LockHeld {
  uint64_t token = 0;
  bool lost = false;
};
// Under which the call writes the value.
LockHeld lock_held(const HostState& state, const state::ValueId& id);
// Replica::push(). What was written under a lock that somebody else may have got meanwhile is not to be seen any more,
// nor what was removed elsewhere: such a replica is discarded, and the error says so. Blocks.
Result<void> push_or_discard(state::LocalTier& tier, state::Replica& replica, state::PushOptions options, LockHeld lock,
                             state::Deadline deadline);
// Replica::pull(), likewise.
Result<void> pull_or_discard(state::LocalTier& tier, state::Replica& replica, state::Deadline deadline);

// Pushes what the call may have written (HostState::written), each value by itself: where one cannot be pushed the
// others are all the same, and the operation ends with the first error. For a call that does not run.
std::shared_ptr<state::Operation> push_written(HostState& state);

inline Result<void> nothing_to_prepare(state::Replica&, state::Deadline) { return {}; }

template <class R>
class StateDispatch {
 public:
  static constexpr bool kIsFile = std::is_same_v<R, wasi::Errno>;

  // Where not ok(), the reply says what the guest gets.
  StateDispatch(HostCall& call, std::string_view name, std::string key = {}) : call_(call), name_(name) {
    id_ = {state_of().tenant, std::move(key)};
    if (!services()) refuse(failed(wasi::Errno::kNotSup));
  }

  bool ok() const { return ok_; }
  Reply<R> reply() const { return reply_; }
  const state::ValueId& id() const { return id_; }
  const StateServices* services() const { return state_of().state_services; }
  state::LocalTier& tier() const { return *services()->tier; }

  LockHeld lock_held() const { return host::lock_held(state_of(), id_); }
  state::Deadline deadline() const {
    const auto limit = state::Clock::now() + services()->timeout;
    return std::min(limit, state_of().deadline.value_or(limit));
  }
  // Before the call may write to the value. False, and said in the log: to more values than are pushed at its end.
  bool may_write() const {
    HostState& state = state_of();
    if (!state.push_on_success || state.written.contains(id_.key)) return true;
    if (state.written.size() < kWrittenValuesMax) return state.written.insert(id_.key).second;
    log_state_error(state, name_,
                    {ErrorCode::kResourceExhausted, "state \"" + id_.key +
                                                        "\": a function whose writes are pushed at its end writes to " +
                                                        std::to_string(kWrittenValuesMax) + " values at most"});
    return false;
  }
  // The error of the operation that a former dispatch waited for, or its value; nothing where there was none.
  std::optional<Result<int64_t>> take_result() {
    auto& pending = state_of().pending;
    if (!pending.operation) return std::nullopt;
    auto result = pending.operation->result();
    pending.operation.reset();
    return result;
  }
  // A former dispatch started something that has not ended: the guest was woken for another reason.
  bool still_waits() const {
    const auto& pending = state_of().pending;
    return pending.operation && !pending.operation->ended();
  }
  Reply<R> wait() {
    const int fd = state_of().pending.operation->fd();
    if (fd < 0) {
      state_of().pending = {};
      return failed(wasi::Errno::kNfile);
    }
    return call_.park({.fd = fd, .events = POLLIN});
  }
  Reply<R> begin(std::function<Result<int64_t>()> work) {
    state_of().pending.operation = services()->pool->start(id_.tenant, std::move(work));
    return wait();
  }

  static R failed(wasi::Errno error) {
    if constexpr (kIsFile)
      return error;
    else
      return -static_cast<int64_t>(error);
  }
  Reply<R> fails(const Error& error) const {
    log_state_error(state_of(), name_, error);
    if (kIsFile && error.code == ErrorCode::kResourceExhausted) return failed(wasi::Errno::kNoSpc);
    if (kIsFile && error.code == ErrorCode::kAlreadyExists) return failed(wasi::Errno::kExist);
    return failed(errno_of_state(error.code));
  }
  // The same for what the store was asked to keep.
  Reply<R> fails_to_store(const Error& error) const {
    const Reply<R> reply = fails(error);
    return error.code == ErrorCode::kResourceExhausted ? failed(wasi::Errno::kNoSpc) : reply;
  }

  // The answer of a function that is one operation: begin `work`, wait, give what it gave.
  template <class Work>
  Reply<R> run(Work work) {
    if (!ok()) return reply();
    if (still_waits()) return wait();
    if (const auto result = take_result()) {
      if (!*result) return fails_to_store(result->error());
      if constexpr (kIsFile)
        return wasi::Errno::kSuccess;
      else
        return **result;
    }
    return begin(std::move(work));
  }
  // The answer of one that needs the open replica: `use` gives it, or nothing where `prepare` (blocking, on a thread of
  // the pool) must see to something first. `size_bytes`: to make the value with.
  template <class Use, class Prepare>
  Reply<R> with_replica(std::optional<uint64_t> size_bytes, Use use, Prepare prepare) {
    return with([this] { return tier().find(id_); },
                [&tier = tier(), id = id_, size_bytes](state::Deadline deadline) {
                  return tier.open(id, size_bytes, deadline);
                },
                std::move(use), std::move(prepare));
  }
  // The same of one that holds it.
  template <class Use, class Prepare>
  Reply<R> with_replica(const std::shared_ptr<state::Replica>& replica, Use use, Prepare prepare) {
    return with([&] { return replica; },
                [replica](state::Deadline) { return Result<std::shared_ptr<state::Replica>>(replica); }, std::move(use),
                std::move(prepare));
  }
  // Publishes what has changed here.
  Reply<R> push(state::ByteRange range) {
    if (!ok()) return reply();
    std::string once;
    if (!state_of().pending.operation) once = state_of().next_once();
    return run([&tier = tier(), id = id_, range, once, lock = lock_held(), deadline = deadline()]() -> Result<int64_t> {
      const auto replica = tier.find(id);
      if (!replica) {  // nothing was done here that could be pushed
        TRY(tier.global().describe(id, deadline));
        return 0;
      }
      TRY(push_or_discard(tier, *replica, {.range = range, .once = once}, lock, deadline));
      return 0;
    });
  }

 protected:
  HostState& state_of() const { return call_.template state<HostState>(); }
  void refuse(Reply<R> reply) {
    ok_ = false;
    reply_ = reply;
  }
  state::ValueId& value() { return id_; }

 private:
  template <class Find, class Open, class Use, class Prepare>
  Reply<R> with(Find find, Open open, Use use, Prepare prepare) {
    if (!ok()) return reply();
    if (still_waits()) return wait();
    const auto result = take_result();
    if (result && !*result) return fails(result->error());
    if (const auto replica = find()) {
      for (int round = 0; round < (result ? kStateRoundsMax : 1); ++round)
        if (auto answer = use(*replica)) return *answer;
    }
    return begin([open, prepare, deadline = deadline()]() -> Result<int64_t> {
      ASSIGN_OR_RETURN(const auto opened, open(deadline));
      TRY(prepare(*opened, deadline));
      return 0;
    });
  }

  HostCall& call_;
  const std::string_view name_;
  state::ValueId id_;
  bool ok_ = true;
  Reply<R> reply_ = R{};
};

}  // namespace spore::host

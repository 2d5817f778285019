#include "host/state_call.h"

namespace spore::host {

wasi::Errno errno_of_state(ErrorCode code) {
  using wasi::Errno;
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kInvalidModule: return Errno::kInval;
    case ErrorCode::kNotFound: return Errno::kNoEnt;
    case ErrorCode::kAlreadyExists: return Errno::kAgain;
    case ErrorCode::kResourceExhausted: return Errno::kNoMem;
    case ErrorCode::kDeadlineExceeded: return Errno::kTimedOut;
    case ErrorCode::kUnavailable: return Errno::kHostUnreach;
    case ErrorCode::kPermissionDenied: return Errno::kPerm;
    case ErrorCode::kFailedPrecondition: return Errno::kStale;
    case ErrorCode::kInternal: return Errno::kIo;
  }
  return Errno::kIo;
}

void log_state_error(HostState& state, std::string_view function, const Error& error) {
  if (error.code == ErrorCode::kNotFound || error.code == ErrorCode::kAlreadyExists) return;
  state.append_log(as_bytes(std::string(function) + ": " + error.message + "\n"));
}

LockHeld lock_held(const HostState& state, const state::ValueId& id) {
  if (!state.locks_taken) return {};
  state::LockService& locks = *state.state_services->locks;
  return {locks.token(id, state.call_key), locks.lost(id, state.call_key)};
}

Result<void> push_or_discard(state::LocalTier& tier, state::Replica& replica, state::PushOptions options, LockHeld lock,
                             state::Deadline deadline) {
  if (lock.lost) {
    tier.discard(replica.id());
    return fail(ErrorCode::kFailedPrecondition, "push state \"" + replica.id().key + "\": its lock was lost");
  }
  options.lock_token = lock.token;
  const bool was_published = replica.published();
  const auto pushed = replica.push(options, deadline);
  if (pushed) return {};
  const ErrorCode code = pushed.error().code;
  if (code == ErrorCode::kFailedPrecondition || (code == ErrorCode::kNotFound && was_published))
    tier.discard(replica.id());
  return std::unexpected(pushed.error());
}

Result<void> pull_or_discard(state::LocalTier& tier, state::Replica& replica, state::Deadline deadline) {
  const auto pulled = replica.pull(deadline);
  if (pulled) {
    // Others may have made it longer; what is here of that so far is holes.
    if (tier.charge(replica, replica.size_bytes())) return {};
    TRY(tier.make_room_for(replica, replica.size_bytes()));
    tier.charge(replica, replica.size_bytes());
    return {};
  }
  if (pulled.error().code == ErrorCode::kNotFound && replica.published()) tier.discard(replica.id());
  return std::unexpected(pulled.error());
}

std::shared_ptr<state::Operation> push_written(HostState& state) {
  struct Value {
    std::string key;
    std::string once;
    LockHeld lock;
  };
  const StateServices& services = *state.state_services;
  std::vector<Value> values;
  for (const std::string& key : state.written)
    values.push_back({key, state.next_once(), lock_held(state, {state.tenant, key})});
  const auto limit = state::Clock::now() + services.timeout;
  const auto deadline = std::min(limit, state.deadline.value_or(limit));
  return services.pool->start(
      state.tenant,
      [&tier = *services.tier, tenant = state.tenant, values = std::move(values), deadline]() -> Result<int64_t> {
        std::optional<Error> first;
        for (const Value& value : values) {
          const auto replica = tier.find({tenant, value.key});
          if (!replica) continue;  // removed, or never made
          auto pushed = push_or_discard(tier, *replica, {.once = value.once}, value.lock, deadline);
          if (!pushed && !first) first = std::move(pushed).error();
        }
        if (first) return std::unexpected(std::move(*first));
        return 0;
      });
}

}  // namespace spore::host

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

}  // namespace spore::host

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

}  // namespace spore::host

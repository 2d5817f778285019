// How the world says no.
//
// Spore has three roads for what goes wrong. This is the first: something outside refused (a missing object, a full
// disk, a malformed module, a peer that is gone). Such functions return Result<T>, and the caller adds context where
// it knows it. Guest faults are traps (faaslet/trap.h); our own mistakes are CHECKs (base/check.h).
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace spore {

enum class ErrorCode {
  kInvalidArgument,     // the request itself is wrong
  kInvalidModule,       // the WebAssembly module is malformed, invalid or not supported
  kNotFound,            // no such function, version, call, object, file
  kAlreadyExists,       // or: changed meanwhile (compare-and-set failed)
  kResourceExhausted,   // over a limit: memory, queue, arena, descriptors
  kDeadlineExceeded,    // took longer than allowed
  kUnavailable,         // try again later: draining, peer gone, disk full
  kPermissionDenied,    // not yours
  kFailedPrecondition,  // right request, wrong state of this machine (CPU, kernel)
  kInternal,            // the operating system or a library failed unexpectedly
};

std::string_view to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;

  // The same error, told from further out: "CONTEXT: MESSAGE".
  Error within(std::string_view context) && {
    message = std::string(context) + ": " + message;
    return std::move(*this);
  }
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(ErrorCode code, std::string message) {
  return std::unexpected(Error{code, std::move(message)});
}

// `what`, and what errno says: "open /x: No such file or directory".
std::unexpected<Error> fail_errno(std::string_view what, int error_number);
std::unexpected<Error> fail_errno(std::string_view what);

}  // namespace spore

#define SPORE_JOIN2(a, b) a##b
#define SPORE_JOIN(a, b) SPORE_JOIN2(a, b)

// TRY(expr): passes an error up. ASSIGN_OR_RETURN(auto x, expr): passes it up, or binds the value.
#define TRY(expression)                                                                                     \
  do {                                                                                                      \
    if (auto try_result = (expression); !try_result) return std::unexpected(std::move(try_result).error()); \
  } while (0)
#define ASSIGN_OR_RETURN(declaration, expression)                                                               \
  auto SPORE_JOIN(result_, __LINE__) = (expression);                                                            \
  if (!SPORE_JOIN(result_, __LINE__)) return std::unexpected(std::move(SPORE_JOIN(result_, __LINE__)).error()); \
  declaration = std::move(*SPORE_JOIN(result_, __LINE__))

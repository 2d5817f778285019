// The calls that a call makes of other functions of its tenant ("children"), as its host functions see them. Whoever
// runs calls implements it (worker/children.h).
//
// A child begins at once, where there is room, and ends with its parent at the latest: what still runs then is
// cancelled. Until its parent closes it, or ends, its result is kept. Children are named by handles: 1, 2, ... in the
// order in which they were begun.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "host/wasi_abi.h"

namespace spore::host {

struct ChildRequest {
  std::string function;                 // "name" or "name@version"; "": the one that runs, in the version that runs
  std::optional<uint32_t> table_index;  // call_self: of the function in the module's table 0, in its image
  Bytes input;
};

struct ChildResult {
  wasi::Errno error = wasi::Errno::kSuccess;  // where it did not end by itself: what parents are told
  int32_t exit_code = 0;                      // where it did
  std::string message;                        // "": exit code 0
  Bytes output;                               // where it ended by itself, whatever its exit code

  // What call_await() gives: 0, an exit code as a positive number, or minus an error number.
  int64_t code() const {
    if (error != wasi::Errno::kSuccess) return -static_cast<int64_t>(error);
    return static_cast<int64_t>(static_cast<uint32_t>(exit_code));
  }
};

// Of one call. Used by the thread that runs it, but for begin_detached().
class ChildCalls {
 public:
  enum class Status : uint8_t { kUnknown, kRunning, kEnded };

  virtual ~ChildCalls() = default;

  // kInvalidArgument; kNotFound: no such function; kResourceExhausted: a limit (depth, children, calls and bytes of the
  // whole tree, the host's queue), named.
  virtual Result<uint32_t> begin(ChildRequest request) = 0;
  virtual Status status(uint32_t handle) = 0;
  // Of one that has ended; until it is closed.
  virtual const ChildResult& result(uint32_t handle) = 0;
  // To be called before the guest parks with Wait::child, which ends when one of these has ended. False: one has.
  virtual bool await(std::span<const uint32_t> handles) = 0;
  // Readable once the child has ended; owned by it. -1: unknown, or no descriptors left.
  virtual int fd(uint32_t handle) = 0;
  // Ends it where it has not ended. False: unknown.
  virtual bool cancel(uint32_t handle) = 0;
  // Forgets it, and ends it where it has not ended. False: unknown.
  virtual bool close(uint32_t handle) = 0;

  // A durable call of its own, which outlives this one; its id as text. `once`: the same again is the same call.
  // Blocks; any thread. kUnavailable: the host keeps no such calls.
  virtual Result<std::string> begin_detached(const ChildRequest& request, const std::string& once) = 0;

  // The keys of the calls that wait for this one, the nearest first.
  virtual std::vector<std::string> ancestors() const = 0;
};

}  // namespace spore::host

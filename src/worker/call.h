// One call of a function, as a host sees it from outside: what is asked, and how it ended. Plain values.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "faaslet/trap.h"
#include "functions/function.h"
#include "host/host_state.h"

namespace spore::worker {

using Clock = std::chrono::steady_clock;

// 128 random bits; who knows an id was told it.
struct CallId {
  std::array<uint8_t, 16> bytes{};

  static CallId random();
  std::string text() const;  // 32 hexadecimal digits
  bool operator==(const CallId&) const = default;
};
struct CallIdHash {  // the bytes are random
  size_t operator()(const CallId& id) const {
    size_t out;
    std::memcpy(&out, id.bytes.data(), sizeof(out));
    return out;
  }
};

// Of those that wait equally deep in their trees, which go first.
enum class Priority : uint8_t { kLow, kNormal, kHigh };
std::string_view to_string(Priority priority);

// The streams of a call; they live until its `done` has been called.
class StreamedCall : public host::CallStreams {
 public:
  virtual int input() const = 0;  // a descriptor in the place of CallRequest::input; -1: none
};

struct CallRequest {
  CallId id = CallId::random();
  std::shared_ptr<const functions::LoadedFunction> function;
  Bytes input;
  std::chrono::microseconds loading{0};  // how long the function had to be loaded for this call; 0: it was loaded
  std::optional<std::chrono::milliseconds> timeout;  // shortens the function's own, queueing included
  std::vector<std::string> arguments;                // behind the configured ones
  std::vector<std::string> environment;              // "NAME=value", behind the configured ones
  Priority priority = Priority::kNormal;             // of the call, and of those that it makes
  // Where there is more of input or output than is to be held; null: both are held whole.
  std::shared_ptr<StreamedCall> streams;
};

enum class CallStatus : uint8_t {
  kOk,              // exit code 0
  kExited,          // another exit code
  kTrapped,         // `trap` says how
  kTimedOut,        // `trap` holds the guest's stack where it was computing
  kOutOfCpuTime,    // the same
  kOutputTooLarge,  // the function wrote more than output_max_bytes
  kNotPushed,       // exit code 0, but what it wrote to state could not be pushed: `error`
  kCancelled,
  kQueueFull,        // the host's queue, never started
  kTenantQueueFull,  // the tenant's share of the queue, never started
  kDraining,         // never started
  kFailed,           // the host could not run it: `error`
  kTenantMemory,     // the tenant has as much memory as it may have, never started
  kHostMemory,       // the host has no memory left, never started
  kProcessEnded,     // the process of its tenant's that ran it did: `error`
};
constexpr CallStatus kCallStatusLast = CallStatus::kProcessEnded;  // durable calls store them by number
std::string_view to_string(CallStatus status);

// How the Faaslet came to be.
enum class StartKind : uint8_t {
  kNone,      // the call never started
  kCold,      // the function had to be loaded for this call; then as kRestored
  kRestored,  // into a slot, from the function's ProtoFaaslet
  kWarm,      // it ran an earlier call of the same image, and was reset since
};
std::string_view to_string(StartKind start);

// What a call took of the host, without the calls that it made.
struct CallUsage {
  std::chrono::microseconds cpu{0};  // of its guest, host functions included
  uint64_t memory_bytes = 0;         // linear memory at its end, which is the most it had
  uint64_t sent_bytes = 0;           // by its sockets
  uint64_t received_bytes = 0;       // the same
};

struct CallResult {
  CallId id;
  CallStatus status = CallStatus::kOk;
  int32_t exit_code = 0;
  Bytes output;
  uint64_t output_streamed = 0;  // bytes that went to a stream instead
  faaslet::Trap trap;
  Bytes log;
  bool log_truncated = false;
  Error error;  // kFailed, kNotPushed, kProcessEnded
  StartKind start = StartKind::kNone;
  CallUsage usage;
  std::chrono::microseconds queued{0};    // from submit to start
  std::chrono::microseconds starting{0};  // from there to the guest's first instruction, and any loading before
  std::chrono::microseconds duration{0};  // from submit to end
};

// A result as it is stored and sent, without id, output and log. read(): false where the bytes are of no result.
void write(ByteWriter& out, const CallResult& result);
bool read(ByteReader& in, CallResult& result);

// Called exactly once for each submitted call, on the thread that ran it or that found out that it does not run. It
// must not block and must not submit.
using CallDone = std::move_only_function<void(CallResult)>;

}  // namespace spore::worker

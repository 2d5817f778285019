// What the host and a process of a tenant's say to each other, in frames (processes/link.h).
//
//   host --kSetup--> process --kReady--> host            once, at the beginning
//   host --kCall--> process --kEnded--> host             any number at once, by the call's number; --kCancel-->
//   host --kForget--> process                            a function has another version, or is gone
//   process --kRequest--> host --kAnswer--> process      what it needs of the host, by a number of its own
//   host --kMayEnd--> process --kStays or kLeaves--> host
//   process --kChained--> host                           a call that one of its calls had made has ended, for the log
//
// No request names a tenant: a process gets what is its own tenant's, as the host knows whose it is. The host checks
// whatever comes from a process in full; a process trusts the host.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "processes/link.h"
#include "state/global_tier.h"
#include "worker/call.h"
#include "worker/worker.h"

namespace spore::processes {

using worker::CallId;
using worker::Clock;

enum class FrameKind : uint16_t {
  // From the host:
  kSetup = 1,
  kCall,
  kCancel,
  kForget,
  kAnswer,
  kMayEnd,
  // From the process:
  kReady,
  kEnded,
  kRequest,
  kChained,
  kStays,
  kLeaves,
};

enum class RequestKind : uint8_t {
  // On the state of the tenant (state/global_tier.h):
  kPin,
  kRead,
  kChangedPages,
  kUnpin,
  kDescribe,
  kPush,
  kRemove,
  kList,
  kUsage,
  kTryLock,
  kRenewLock,
  kUnlock,
  // For its calls:
  kExists,       // a function
  kLoad,         // one: FunctionParts
  kTmpfs,        // the file system of a call: a descriptor
  kDetached,     // a durable call
  kHoldInput,    // of a call's stream
  kBeginOutput,  // the same: a descriptor
  kSocket,       // in the network of a call, which is taken for the first: a descriptor
  kEndNetwork,   // gives it back
};
constexpr RequestKind kRequestKindMax = RequestKind::kEndNetwork;

constexpr uint64_t kRequestBytesMax = 256ull << 20;  // of one: a push; more must be pushed in parts
constexpr uint64_t kReadBytesMax = 1 << 20;          // of one kRead
constexpr size_t kChunksMax = 16'384;                // of one kChangedPages: all that a value can have
constexpr size_t kTextBytesMax = 64 << 10;           // of a message, a prefix, the name of a function

// What a process is told when it begins.
struct Setup {
  std::string tenant;
  unsigned seats = 2;
  uint64_t queue_max = 0;
  uint64_t log_bytes_max = 64 << 10;
  uint64_t tenant_concurrency_max = 0;
  bool precise_clock = false;
  bool preempt = true;
  worker::ChainLimits chain;
  bool state = false;
  uint64_t state_bytes_max = 0;
  uint64_t state_values_max = 0;
  unsigned state_threads = 0;
  uint64_t state_timeout_ms = 0;
  uint64_t lock_lease_ms = 0;
  uint64_t initialise_timeout_ms = 0;
  uint64_t slots_max = 0;
  uint64_t idle_max = 0;
  uint64_t idle_per_function_max = 0;
  uint64_t idle_bytes_max = 0;
  uint64_t memory_left_min = 0;
  uint64_t memory_bytes_max = 0;                 // that the tenant may have; 0: nothing is charged
  std::optional<isolation::IpAddress> resolver;  // of functions that have a network
  std::string shared_files;                      // the directory of the tenant's own; "": there are none
  struct Mount {
    std::string name;
    std::string from;
    bool writable = false;
  };
  std::vector<Mount> mounts;

  Bytes write() const;
  static std::optional<Setup> parse(ByteSpan bytes);
};

// A call on its way, with its function by name: the process has it, or asks for it. The input follows as the rest of
// the frame; a stream of input as a descriptor.
struct CallFrame {
  CallId id;
  std::string function;
  uint64_t version = 0;
  Digest module_digest{};  // of that version, as its number may be given again once the function was removed
  int64_t deadline_ns = 0;
  int64_t loading_us = 0;
  worker::Priority priority = worker::Priority::kNormal;
  bool has_streams = false;
  std::vector<std::string> arguments;
  std::vector<std::string> environment;

  // What precedes the input.
  Bytes write() const;
  // `input`: borrowed from `bytes`.
  static std::optional<CallFrame> parse(ByteSpan bytes, ByteSpan& input);
};

// The end of a call, from a process that need not tell the truth: what is not possible is refused. `version` is there
// for a chained call alone.
void write_ended(ByteWriter& out, const worker::CallResult& result);
std::optional<worker::CallResult> read_ended(ByteReader& in);

// What kLoad gives, beside the function's compiled object in a file (wasm::serialize).
struct FunctionParts {
  uint64_t version = 0;
  Digest module_digest{};
  std::string config;  // JSON
  uint64_t object_bytes = 0;
};
Bytes write(const FunctionParts& parts);
std::optional<FunctionParts> read_function_parts(ByteSpan bytes);

// An answer: what was asked for, or why not.
Frame answer_frame(uint64_t id, Result<Bytes> answer, std::vector<UniqueFd> descriptors = {});
Result<Bytes> read_answer(ByteSpan body);

// Parts of requests on state.
void write_optional(ByteWriter& out, const std::optional<state::Version>& version);
void write(ByteWriter& out, const state::Manifest& manifest);
void write(ByteWriter& out, const state::Push& push);
std::optional<state::Version> read_optional_version(ByteReader& in);
state::Manifest read_manifest(ByteReader& in);
// The patches borrow from the bytes. False: it is no push. What a store would refuse is left to it.
bool read_push(ByteReader& in, state::Push& push);
void write_texts(ByteWriter& out, const std::vector<std::string>& texts);
bool read_texts(ByteReader& in, std::vector<std::string>& texts);

inline int64_t to_ns(Clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}
inline Clock::time_point from_ns(int64_t ns) {
  return Clock::time_point(std::chrono::duration_cast<Clock::duration>(std::chrono::nanoseconds(ns)));
}

}  // namespace spore::processes

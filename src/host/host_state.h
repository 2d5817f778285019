// Everything of one call that a guest can observe outside its slot: arguments, environment, open files, input, output
// and log. A Faaslet is restored with a pointer to one; host functions reach it through HostCall::state<HostState>().
//
//   CallSetup --make--> HostState { arguments, environment, descriptors[0, 1, 2, preopens..., files...], input, output,
//                                   log, pending }
//
// It is plain data and file descriptors: what is needed to open a descriptor again on another host (which preopened
// directory, path below it, offset, flags, rights) is beside each one. A new call gets a new HostState, assigned over
// the old one, so that the Faaslet's pointer stays valid. Used by one thread at a time: that of the seat the call runs
// on.
//
// The three standard streams have two flavours, each chosen alone by Streams: buffers (the server: standard input is
// the call's input, standard output its output, standard error its log), or descriptors of this process (`spore run`).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/memory_account.h"
#include "base/result.h"
#include "faaslet/cpu_limit.h"
#include "faaslet/host_call.h"
#include "host/call_files.h"
#include "host/wasi_abi.h"
#include "state/operation.h"
#include "state/replica.h"

namespace spore::host {

class ChildCalls;      // host/child_calls.h
class CallStream;      // host/call_streams.cc
class Lookup;          // host/resolver.h
class Network;         // host/network.h
struct StateServices;  // host/state_access.h
struct StateListing;   // host/state_files.cc

enum class Access : uint8_t { kReadOnly, kReadWrite };

// A directory that the guest may see. A read-only one behaves like a read-only file system (EROFS).
struct Preopen {
  // What it shows: a directory of the host; the call's own layer; the call's input and output as files, and below that
  // state and calls of other functions as files, which are preopened nowhere.
  enum class Source : uint8_t { kHost, kLocalLayer, kCallFiles, kState, kCall };

  std::string host_path;              // kHost
  std::string guest_path;             // as the guest names it: "/", "/data", "."
  Access access = Access::kReadOnly;  // the local layer is kReadWrite, the call's files are kReadOnly
  Source source = Source::kHost;
};

// Descriptors of this process for the guest's standard streams; -1: the buffer in HostState. They are borrowed, shared
// with other processes as standard streams are, and never made non-blocking.
struct Streams {
  int in = -1;
  int out = -1;
  int err = -1;
};

// Whoever wants input and output of a call as streams, where they are too large to be held. Asked on the thread that
// runs the call, and not after the call has ended.
class CallStreams {
 public:
  virtual ~CallStreams() = default;
  // The guest wants the input whole, from the stream that it is: whether so many bytes of it may be held.
  virtual bool hold_input(uint64_t bytes) = 0;
  // The output is about to grow past HostLimits::output_held_max. A descriptor that takes it from here on, behind
  // `so_far`, which is taken; or -1: it goes on to be held.
  virtual int begin_output(Bytes& so_far) = 0;
};

struct HostLimits {
  uint64_t input_bytes_max = 64ull << 20;   // of a standard input that is read whole (input_size on a stream)
  uint64_t output_bytes_max = 64ull << 20;  // of all output; more ends the call, output_overflow is set
  uint64_t output_held_max = UINT64_MAX;    // of the output buffer, where there are CallStreams to take more
  uint64_t log_bytes_max = 1ull << 20;      // of the log buffer; more is dropped, and the log says so
  uint32_t descriptors_max = 1024;          // standard streams and preopened directories included
  uint32_t sockets_max = 64;                // open at once
};

// What a guest can tell of time, unless it is trusted with more: measuring what a cache holds takes a finer clock.
constexpr uint64_t kClockStepNs = 1'000;

struct CallSetup {
  std::vector<std::string> arguments;    // the first is the program's name; no NUL inside
  std::vector<std::string> environment;  // "NAME=value"; no NUL inside
  std::vector<Preopen> preopens;
  LocalLayer local_layer;
  Bytes input;
  Streams streams;
  CallStreams* call_streams = nullptr;  // outlives the call
  HostLimits limits;
  std::shared_ptr<ChildCalls> children;           // null: it cannot call other functions
  std::shared_ptr<Network> network;               // null: it has no network
  const StateServices* state_services = nullptr;  // outlives the call; null: there is no state
  state::BlockingPool* makers = nullptr;          // outlives the call; of what is made for it; null: it waits itself
  std::string tenant;                             // whose state it is
  std::string call_key;                           // names this call among all, at most 32 bytes
  bool push_on_success = false;                   // what it has written to state is pushed when it exits with 0
  std::optional<faaslet::Clock::time_point> deadline;
  std::optional<std::chrono::nanoseconds> cpu_time_max;  // of the guest; nothing: no limit
  faaslet::CpuQuota* cpu_quota = nullptr;                // outlives the call; null: it has none
  MemoryAccountPtr memory;                               // what its files and buffers count at; null: nowhere
  MemoryCharge buffers;                                  // what is charged for the input already
  uint64_t clock_step_ns = kClockStepNs;                 // of the clocks that it can read
};

// Of a call's buffers, in all: these count with its Faaslet.
constexpr uint64_t kBuffersFreeBytes = 8 << 10;

// Sum of the bytes of all arguments and environment variables.
constexpr uint64_t kArgumentsBytesMax = 2ull << 20;

// What the host keeps of a socket beside the kernel, for which every socket is non-blocking.
struct SocketSettings {
  int family = 0;                                // AF_INET, AF_INET6
  std::chrono::microseconds receive_timeout{0};  // of a guest that waits; 0: as long as its call may
  std::chrono::microseconds send_timeout{0};     // the same
};

// One entry of the guest's descriptor table. `flags` and `rights` are WASI's (host/wasi_abi.h).
struct Descriptor {
  enum class Kind : uint8_t { kStdin, kStdout, kStderr, kDirectory, kFile, kState, kCall, kSocket };
  Kind kind = Kind::kFile;
  bool is_preopen = false;
  Access access = Access::kReadWrite;  // of the preopened directory it came from; kState: what it was opened for
  bool seekable = false;               // kFile: a regular file, read and written at `offset`
  uint8_t file_type = 0;
  uint16_t flags = 0;
  uint64_t rights_base = 0;
  uint64_t rights_inheriting = 0;
  uint64_t offset = 0;
  // kDirectory, kFile, kSocket: ours. The standard streams have none; they are in Streams or in buffers. Nor has a
  // preopened directory of Spore's own until HostState::open() was asked for it: most calls never look.
  UniqueFd fd;
  std::shared_ptr<state::Replica> replica;          // kState
  std::shared_ptr<StateListing> listing;            // the directory of state, being read
  std::shared_ptr<CallStream> call_stream;          // kCall
  SocketSettings socket;                            // kSocket
  Preopen::Source source = Preopen::Source::kHost;  // of the preopened directory it came from, or kState, kCall
  // A preopened directory: its guest path. Others: the path below the preopened directory of number `preopen`.
  std::string path;
  uint32_t preopen = 0;
};

// What a host call that has parked must remember until it is dispatched again. Empty between host calls.
struct PendingCall {
  bool active = false;
  faaslet::Clock::time_point started;                       // when it was first dispatched
  uint64_t bytes_done = 0;                                  // transferred before it parked
  UniqueFd wait_fd;                                         // an epoll set, where it waits for several descriptors
  std::shared_ptr<state::Operation> operation;              // on state, or what `made` comes from
  std::shared_ptr<void> made;                               // by somebody else (HostState::make_elsewhere)
  std::shared_ptr<Bytes> answer;                            // that the operation fills
  std::shared_ptr<std::shared_ptr<state::Replica>> opened;  // the same
  std::shared_ptr<Lookup> lookup;                           // of a name
  std::optional<uint64_t> write_at;                         // the place in a value that a write has made for itself
};

struct ImportDeclaration;

constexpr size_t kWrittenValuesMax = 4096;  // of a call whose writes are pushed at its end

struct HostState {
  // Opens the preopened directories. kInvalidArgument: an argument with a NUL, or too many bytes of them; kNotFound and
  // so on: a directory that cannot be opened, named.
  static Result<HostState> make(CallSetup setup);

  std::vector<std::string> arguments;
  std::vector<std::string> environment;
  std::vector<std::optional<Descriptor>> descriptors;  // by the guest's number; empty: closed
  Streams streams;
  CallStreams* call_streams = nullptr;
  HostLimits limits;

  LocalLayer local_layer;
  UniqueFd input_file;  // the input once more, as a sealed file, where the guest has opened it as one

  Bytes input;
  uint64_t input_offset = 0;   // how far the standard input has been read
  bool input_complete = true;  // false: a stream that has not been read whole into `input`
  Bytes output;
  uint64_t output_streamed = 0;  // bytes of it that have gone to `streams`, through call_streams
  bool output_overflow = false;  // the guest wrote more than limits.output_bytes_max, and was trapped for it
  Bytes log;
  bool log_truncated = false;

  MemoryCharge buffers;          // of input, output and log
  MemoryCharge files;            // of the local layer
  uint64_t layer_bytes_max = 0;  // that this can hold by what was written since somebody looked
  bool memory_refused = false;   // the guest's output found no room there, and it was trapped for it

  // CPU time that the guest has used: `cpu_time_before` until it last started or resumed, since when the clock of its
  // thread ran from `cpu_time_base`. Kept by run().
  std::chrono::nanoseconds cpu_time_before{0};
  uint64_t sent_bytes = 0;  // by its sockets
  uint64_t received_bytes = 0;
  std::chrono::nanoseconds cpu_time_base{0};
  std::optional<std::chrono::nanoseconds> cpu_time_max;
  faaslet::CpuQuota* cpu_quota = nullptr;
  uint64_t clock_step_ns = kClockStepNs;

  PendingCall pending;

  std::shared_ptr<ChildCalls> children;
  std::shared_ptr<Network> network;
  const StateServices* state_services = nullptr;
  state::BlockingPool* makers = nullptr;
  std::string tenant;
  std::string call_key;
  bool locks_taken = false;  // it has asked for locks; whoever ends the call gives them back
  bool push_on_success = false;
  std::set<std::string> written;  // where it does so: the keys of values that it may have written to
  uint64_t effects = 0;           // on state that must not happen twice, were the call run again
  std::optional<faaslet::Clock::time_point> deadline;
  // The name of the next one: the same in each run of the call.
  std::string next_once() { return call_key + "." + std::to_string(effects++); }

  // Of a Faaslet that runs initialisers: the import that it asked for and cannot have, and how often it looked at the
  // clock.
  const ImportDeclaration* initialiser_asked = nullptr;
  uint64_t still_clock_looks = 0;

  // The open descriptor of that number, or null.
  Descriptor* descriptor(uint32_t number);
  // Sees to it that its `fd` is there. kWaits: it is being made.
  wasi::Errno open(Descriptor& descriptor);
  // What `make` gives, made by somebody who may take long: on a thread of `makers`, if there are any, while the guest
  // waits; nothing until then.
  template <class T>
  std::optional<Result<T>> make_elsewhere(std::function<Result<T>()> make) {
    if (!makers) return make();
    if (!pending.operation) {
      const auto made = std::make_shared<std::optional<T>>();
      pending.made = made;
      pending.operation = makers->start(tenant, [made, make = std::move(make)]() -> Result<int64_t> {
        ASSIGN_OR_RETURN(*made, make());
        return 0;
      });
    }
    if (!pending.operation->ended()) return std::nullopt;
    const auto result = std::exchange(pending.operation, nullptr)->result();
    const auto made = std::static_pointer_cast<std::optional<T>>(std::exchange(pending.made, nullptr));
    if (!result) return std::unexpected(result.error());
    return std::move(**made);
  }
  // The directory that Spore itself shows to this call.
  const Result<CallFiles>& call_files() const {
    return host::call_files({.state = state_services != nullptr, .call = children != nullptr});
  }
  // Closes everything that the guest had open, its local layer with it, and gives its network back.
  void close_all();
  // Puts it at the lowest free number; nothing when limits.descriptors_max are open.
  std::optional<uint32_t> add_descriptor(Descriptor descriptor);

  // Before so many bytes are written to the output: the descriptor that takes them, or -1 for the buffer. False where
  // they are past the limit, with output_overflow set, or the tenant's memory has no room, with memory_refused.
  bool direct_output(uint64_t size_bytes, int& stream);
  // Why it was false, for the trap.
  std::string output_refusal() const;
  // Whether the tenant's memory has room for the buffers, were the output and the rest so much larger.
  bool cover_buffers(uint64_t output_more, uint64_t other_more = 0);
  // Before something is written to the local layer, where it takes at most so many bytes: whether the tenant's memory
  // has room. `fd`: a file there.
  bool cover_layer(int fd, uint64_t more);
  // Room in the buffer for so many more bytes of output, to be filled at once.
  std::span<uint8_t> extend_output(uint64_t size_bytes);
  // Room for as many of these bytes as the log takes. Where that is not all, truncate_log() then says so in the log,
  // once; it takes nothing more.
  std::span<uint8_t> extend_log(uint64_t size_bytes);
  void truncate_log();
  // Both, for bytes that are at hand.
  void append_log(ByteSpan bytes);
};

}  // namespace spore::host

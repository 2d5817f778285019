#include "host/call_streams.h"

#include "host/chain_calls.h"
#include "host/child_calls.h"

namespace spore::host {

// A call that is one descriptor of the guest's.
class CallStream {
 public:
  explicit CallStream(std::string function) : function_(std::move(function)) {}

  bool has_begun() const { return handle_ != 0 || refused_ != wasi::Errno::kSuccess; }
  uint64_t input_bytes() const { return input_.size(); }
  // Room for so many more bytes of input, to be filled at once.
  std::span<uint8_t> extend_input(uint64_t size_bytes) {
    input_.resize(input_.size() + size_bytes);
    return std::span(input_).last(size_bytes);
  }
  void cut_input(uint64_t size_bytes) { input_.resize(size_bytes); }
  uint32_t handle() const { return handle_; }  // 0: it runs not yet, or was refused

  // What beginning it came to, now or before.
  wasi::Errno begin(HostState& state) {
    if (has_begun()) return refused_;
    const auto handle = state.children->begin({.function = function_, .table_index = {}, .input = std::move(input_)});
    input_ = {};
    if (handle) {
      handle_ = *handle;
      return refused_;
    }
    text_ = handle.error().message;
    state.append_log(as_bytes("/spore/call/" + function_ + ": " + text_ + "\n"));
    switch (handle.error().code) {
      case ErrorCode::kNotFound: refused_ = wasi::Errno::kNoEnt; break;
      case ErrorCode::kInvalidArgument: refused_ = wasi::Errno::kInval; break;
      case ErrorCode::kResourceExhausted: refused_ = wasi::Errno::kBusy; break;  // EAGAIN says that it runs
      case ErrorCode::kUnavailable: refused_ = wasi::Errno::kNotSup; break;
      default: refused_ = wasi::Errno::kIo; break;
    }
    return refused_;
  }

  // What there is to read of one that has ended, or was refused: bytes, behind an error that is told once.
  struct Outcome {
    wasi::Errno error = wasi::Errno::kSuccess;
    ByteSpan bytes;
  };
  Outcome outcome(HostState& state) {
    if (refused_ != wasi::Errno::kSuccess) return {refused_, as_bytes(text_)};
    const ChildResult& result = state.children->result(handle_);
    if (result.error == wasi::Errno::kSuccess && result.exit_code == 0) return {{}, result.output};
    if (text_.empty()) {
      text_ = result.error == wasi::Errno::kSuccess ? "exit code " + std::to_string(result.exit_code) : result.message;
    }
    return {result.error == wasi::Errno::kSuccess ? wasi::Errno::kIo : result.error, as_bytes(text_)};
  }

  bool told = false;        // the error
  uint64_t bytes_read = 0;  // of the outcome

 private:
  const std::string function_;
  Bytes input_;
  uint32_t handle_ = 0;
  wasi::Errno refused_ = wasi::Errno::kSuccess;
  std::string text_;  // what went wrong
};

namespace wasi {

namespace {

// Of all that is being written: what a guest can make the host hold.
uint64_t unsent_input_bytes(const HostState& state) {
  uint64_t bytes = 0;
  for (const auto& descriptor : state.descriptors)
    if (descriptor && descriptor->call_stream) bytes += descriptor->call_stream->input_bytes();
  return bytes;
}

// Whether there is something to read: kUnknown where the guest has closed it by its handle.
ChildCalls::Status status_of(const HostState& state, const CallStream& stream) {
  return stream.handle() == 0 ? ChildCalls::Status::kEnded : state.children->status(stream.handle());
}

}  // namespace

std::expected<std::optional<std::string>, Errno> call_path(const HostState& state, const Descriptor& directory,
                                                           const std::string& path) {
  if (!state.children) return std::nullopt;
  const auto below = path_below(directory, path, "call", Preopen::Source::kCall);
  if (!below) return std::nullopt;
  std::string_view function;
  for (std::string_view rest = *below; !rest.empty();) {
    const std::string_view component = take_component(rest);
    if (component == "..") return std::unexpected(Errno::kPerm);
    if (!function.empty()) return std::unexpected(Errno::kNotDir);
    if (component != ".") function = component;
  }
  if (below->ends_with('/')) return std::unexpected(Errno::kNotDir);
  if (function.size() > calls::kFunctionNameBytesMax) return std::unexpected(Errno::kNameTooLong);
  return std::string(function);
}

Status open_call_stream(HostCall& call, const std::string& function, const VirtualOpening& opening,
                        Descriptor descriptor, GuestPtr<uint32_t> opened) {
  if (opening.directory) return Errno::kNotDir;
  if (opening.create && opening.exclusive) return Errno::kExist;
  descriptor.kind = Descriptor::Kind::kCall;
  descriptor.access = opening.writes ? Access::kReadWrite : Access::kReadOnly;
  descriptor.file_type = static_cast<uint8_t>(FileType::kRegularFile);
  descriptor.rights_base &= rights::kStream | rights::kFdSync | rights::kFdDatasync;
  descriptor.call_stream = std::make_shared<CallStream>(function);
  const auto number = state_of(call).add_descriptor(std::move(descriptor));
  if (!number) return Errno::kMfile;
  return opened.copy_out(GuestMemory(call), *number) ? Errno::kSuccess : Errno::kFault;
}

Status stat_call_stream(HostCall& call, GuestPtr<Filestat> stat) {
  return stat.copy_out(GuestMemory(call), filestat_of_virtual(0)) ? Errno::kSuccess : Errno::kFault;
}

Status read_call_stream(HostCall& call, Descriptor& descriptor, const Buffers& buffers, GuestPtr<uint32_t> nread) {
  HostState& state = state_of(call);
  CallStream& stream = *descriptor.call_stream;
  if (buffers.size_bytes() == 0) return transferred(call, nread, 0);
  stream.begin(state);
  while (true) {
    const auto status = status_of(state, stream);
    if (status == ChildCalls::Status::kUnknown) return Errno::kBadf;
    if (status == ChildCalls::Status::kEnded) break;
    if (descriptor.flags & fdflags::kNonblock) return Errno::kAgain;
    const uint32_t handle = stream.handle();
    if (state.children->await({&handle, 1})) return call.park({.child = true});
  }
  const CallStream::Outcome outcome = stream.outcome(state);
  if (outcome.error != Errno::kSuccess && !std::exchange(stream.told, true)) return outcome.error;
  const auto bytes = buffers.scatter(outcome.bytes.subspan(stream.bytes_read));
  if (!bytes) return Errno::kFault;
  stream.bytes_read += *bytes;
  return transferred(call, nread, *bytes);
}

Status write_call_stream(HostCall& call, Descriptor& descriptor, const Buffers& buffers, GuestPtr<uint32_t> nwritten) {
  HostState& state = state_of(call);
  CallStream& stream = *descriptor.call_stream;
  if (stream.has_begun()) return Errno::kPipe;
  const uint64_t max = state.limits.input_bytes_max, unsent = unsent_input_bytes(state);
  if (unsent > max || buffers.size_bytes() > max - unsent) return Errno::kFbig;
  const uint64_t before = stream.input_bytes();
  if (!buffers.collect(stream.extend_input(buffers.size_bytes()))) {
    stream.cut_input(before);
    return Errno::kFault;
  }
  return transferred(call, nwritten, buffers.size_bytes());
}

Status sync_call_stream(HostCall& call, Descriptor& descriptor) {
  return descriptor.call_stream->begin(state_of(call));
}

Filestat filestat_of_call(HostState& state, const Descriptor& descriptor) {
  CallStream& stream = *descriptor.call_stream;
  const bool ended = stream.has_begun() && status_of(state, stream) == ChildCalls::Status::kEnded;
  return filestat_of_virtual(ended ? stream.outcome(state).bytes.size() : 0);
}

CallReadiness readiness_of_call(HostState& state, const Descriptor& descriptor, bool to_read) {
  CallStream& stream = *descriptor.call_stream;
  if (!to_read) return {.error = stream.has_begun() ? Errno::kPipe : Errno::kSuccess};
  if (!stream.has_begun()) return {.error = Errno::kInval};
  switch (status_of(state, stream)) {
    case ChildCalls::Status::kUnknown: return {.error = Errno::kBadf};
    case ChildCalls::Status::kEnded: return {.bytes = stream.outcome(state).bytes.size() - stream.bytes_read};
    case ChildCalls::Status::kRunning: break;
  }
  const int fd = state.children->fd(stream.handle());
  return fd >= 0 ? CallReadiness{.wait_fd = fd} : CallReadiness{.error = Errno::kNfile};
}

void close_call_stream(HostState& state, const Descriptor& descriptor) {
  if (descriptor.call_stream && descriptor.call_stream->handle() != 0)
    state.children->close(descriptor.call_stream->handle());
}

}  // namespace wasi

}  // namespace spore::host

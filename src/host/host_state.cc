#include "host/host_state.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "host/binding.h"
#include "host/streams.h"
#include "host/wasi_abi.h"

namespace spore::host {

namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kInodeBytes = 1024;       // of the kernel's, for a file in a tmpfs with its name
constexpr uint64_t kLayerAhead = 256 << 10;  // charged at once, so that small writes need not ask

Result<void> check_texts(const char* what, const std::vector<std::string>& texts, uint64_t& bytes) {
  for (const auto& text : texts) {
    bytes += text.size() + 1 + sizeof(uint32_t);
    if (text.find('\0') != std::string::npos) {
      return fail(ErrorCode::kInvalidArgument, std::string(what) + " with a NUL byte inside");
    }
  }
  if (bytes > kArgumentsBytesMax) {
    return fail(ErrorCode::kInvalidArgument,
                "arguments and environment are larger than " + std::to_string(kArgumentsBytesMax) + " bytes");
  }
  return {};
}

Descriptor stream_descriptor(Descriptor::Kind kind, int fd) {
  namespace rights = wasi::rights;
  Descriptor out;
  out.kind = kind;
  out.rights_base = rights::kStream & ~(kind == Descriptor::Kind::kStdin ? rights::kFdWrite : rights::kFdRead);
  const StreamType type = fd < 0 ? StreamType::kPipe : stream_type(fd);
  switch (type) {
    case StreamType::kTerminal: out.file_type = static_cast<uint8_t>(wasi::FileType::kCharacterDevice); break;
    case StreamType::kSocket: out.file_type = static_cast<uint8_t>(wasi::FileType::kSocketStream); break;
    case StreamType::kPipe: out.file_type = static_cast<uint8_t>(wasi::FileType::kUnknown); break;
    case StreamType::kRegularFile:
      out.file_type = static_cast<uint8_t>(wasi::FileType::kRegularFile);
      out.rights_base |= rights::kFdSeek | rights::kFdTell;
      break;
  }
  return out;
}

}  // namespace

Result<HostState> HostState::make(CallSetup setup) {
  HostState state;
  uint64_t bytes = 0;
  TRY(check_texts("an argument", setup.arguments, bytes));
  TRY(check_texts("an environment variable", setup.environment, bytes));
  if (setup.preopens.size() + 3 > setup.limits.descriptors_max) {
    return fail(ErrorCode::kInvalidArgument,
                "more preopened directories than descriptors (" + std::to_string(setup.limits.descriptors_max) + ")");
  }
  state.arguments = std::move(setup.arguments);
  state.environment = std::move(setup.environment);
  state.streams = setup.streams;
  state.call_streams = setup.call_streams;
  state.limits = setup.limits;
  state.local_layer = setup.local_layer;
  state.children = std::move(setup.children);
  state.network = std::move(setup.network);
  state.state_services = setup.state_services;
  state.makers = setup.makers;
  state.tenant = std::move(setup.tenant);
  state.call_key = std::move(setup.call_key);
  state.push_on_success = setup.push_on_success;
  state.deadline = setup.deadline;
  state.cpu_time_max = setup.cpu_time_max;
  state.cpu_quota = setup.cpu_quota;
  state.clock_step_ns = setup.clock_step_ns;
  state.input = std::move(setup.input);
  state.input_complete = setup.streams.in < 0;
  state.files = MemoryCharge(setup.memory, MemoryKind::kFiles);
  state.buffers =
      setup.buffers.account() ? std::move(setup.buffers) : MemoryCharge(std::move(setup.memory), MemoryKind::kBuffers);

  state.descriptors.reserve(3 + setup.preopens.size());
  state.descriptors.emplace_back(stream_descriptor(Descriptor::Kind::kStdin, setup.streams.in));
  state.descriptors.emplace_back(stream_descriptor(Descriptor::Kind::kStdout, setup.streams.out));
  state.descriptors.emplace_back(stream_descriptor(Descriptor::Kind::kStderr, setup.streams.err));
  for (auto& preopen : setup.preopens) {
    UniqueFd fd;
    if (preopen.source == Preopen::Source::kHost) {
      fd = UniqueFd(::open(preopen.host_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!fd.valid()) return fail_errno("open directory " + preopen.host_path);
    }
    Descriptor directory;
    directory.kind = Descriptor::Kind::kDirectory;
    directory.is_preopen = true;
    directory.access = preopen.access;
    directory.file_type = static_cast<uint8_t>(wasi::FileType::kDirectory);
    directory.rights_base = wasi::rights::kDirectory;
    directory.rights_inheriting = wasi::rights::kAll;
    directory.fd = std::move(fd);
    directory.source = preopen.source;
    directory.path = std::move(preopen.guest_path);
    directory.preopen = static_cast<uint32_t>(state.descriptors.size() - 3);
    state.descriptors.emplace_back(std::move(directory));
  }
  return state;
}

Descriptor* HostState::descriptor(uint32_t number) {
  return number < descriptors.size() && descriptors[number] ? &*descriptors[number] : nullptr;
}

wasi::Errno HostState::open(Descriptor& descriptor) {
  if (descriptor.fd.valid() || descriptor.kind != Descriptor::Kind::kDirectory) return wasi::Errno::kSuccess;
  if (descriptor.source == Preopen::Source::kLocalLayer) {
    auto layer = make_elsewhere<UniqueFd>([limits = local_layer] { return make_local_layer(limits); });
    if (!layer) return wasi::Errno::kWaits;
    if (!*layer) return layer->error().code == ErrorCode::kResourceExhausted ? wasi::Errno::kNfile : wasi::Errno::kIo;
    descriptor.fd = std::move(**layer);
    return wasi::Errno::kSuccess;
  }
  const auto& shown = call_files();
  if (!shown) return wasi::Errno::kPerm;
  descriptor.fd = UniqueFd(::openat(shown->directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return descriptor.fd.valid() ? wasi::Errno::kSuccess : wasi::errno_of(errno);
}

HostResult wait_for_operation(HostCall& call) {
  auto& pending = call.state<HostState>().pending;
  const int fd = pending.operation->fd();
  if (fd >= 0) return call.park({.fd = fd, .events = POLLIN});
  pending = {};
  return call.trap(wasm::TrapKind::kHostCall, "no descriptor is left to wait with");
}

void HostState::close_all() {
  pending = {};
  descriptors.clear();
  network.reset();
  input_file = UniqueFd();
  files.lower(0);
  streams = {};
  call_streams = nullptr;
}

std::optional<uint32_t> HostState::add_descriptor(Descriptor descriptor) {
  size_t number = 0;
  while (number < descriptors.size() && descriptors[number]) ++number;
  if (number >= limits.descriptors_max) return std::nullopt;
  if (number == descriptors.size()) descriptors.emplace_back();
  descriptors[number] = std::move(descriptor);
  return static_cast<uint32_t>(number);
}

bool HostState::direct_output(uint64_t size_bytes, int& stream) {
  stream = streams.out;
  if (stream >= 0 && !call_streams) return true;  // the process's own
  const uint64_t before = output_streamed + output.size();
  if (before > limits.output_bytes_max || size_bytes > limits.output_bytes_max - before) {
    output_overflow = true;
    return false;
  }
  if (stream < 0 && call_streams && output.size() + size_bytes > limits.output_held_max) {
    const size_t held = output.size();
    streams.out = stream = call_streams->begin_output(output);
    if (stream >= 0)
      output_streamed = held;
    else
      limits.output_held_max = UINT64_MAX;
  }
  if (stream < 0 && !cover_buffers(size_bytes)) {
    memory_refused = true;
    return false;
  }
  return true;
}

std::string HostState::output_refusal() const {
  return memory_refused ? "out of memory: there is no room for the output in what the tenant may have"
                        : "the output is larger than " + std::to_string(limits.output_bytes_max) + " bytes";
}

bool HostState::cover_buffers(uint64_t output_more, uint64_t other_more) {
  // As a vector grows.
  const uint64_t wanted = output.size() + output_more;
  const uint64_t room = wanted <= output.capacity() ? output.capacity() : std::max(2 * output.capacity(), wanted);
  const uint64_t bytes = room + other_more + input.size() * (input_file.valid() ? 2 : 1) + log.size();
  return bytes <= kBuffersFreeBytes || buffers.cover(bytes) == MemoryAccount::Refusal::kNone;
}

bool HostState::cover_layer(int fd, uint64_t more) {
  if (!files.account()) return true;
  more = (more / kPageBytes + 3) * kPageBytes;  // a page at either end is cut; and a file, a name
  if (layer_bytes_max + more > files.bytes()) {
    struct statfs info;
    if (::fstatfs(fd, &info) != 0) return false;
    layer_bytes_max = (info.f_blocks - info.f_bfree) * static_cast<uint64_t>(info.f_bsize) +
                      (info.f_files - info.f_ffree) * kInodeBytes;
    const auto cover = [&](uint64_t ahead) {
      return files.cover(layer_bytes_max + more + ahead) == MemoryAccount::Refusal::kNone;
    };
    if (!cover(kLayerAhead) && !cover(0)) return false;
  }
  layer_bytes_max += more;
  return true;
}

std::span<uint8_t> HostState::extend_output(uint64_t size_bytes) {
  const size_t before = output.size();
  output.resize(before + size_bytes);
  return std::span(output).subspan(before);
}

std::span<uint8_t> HostState::extend_log(uint64_t size_bytes) {
  if (log_truncated) return {};
  const size_t before = log.size();
  const uint64_t room = limits.log_bytes_max - std::min<uint64_t>(limits.log_bytes_max, before);
  const uint64_t fits = std::min(size_bytes, room);
  if (!cover_buffers(0, fits)) return {};
  log.resize(before + fits);
  return {log.data() + before, fits};
}

void HostState::truncate_log() {
  if (log_truncated) return;
  log_truncated = true;
  const std::string note = "\n[log cut off after " + std::to_string(limits.log_bytes_max) + " bytes]\n";
  log.insert(log.end(), note.begin(), note.end());
}

void HostState::append_log(ByteSpan bytes) {
  const auto room = extend_log(bytes.size());
  std::copy_n(bytes.begin(), room.size(), room.begin());
  if (room.size() < bytes.size()) truncate_log();
}

}  // namespace spore::host

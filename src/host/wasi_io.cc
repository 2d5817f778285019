#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <vector>

#include "host/call_streams.h"
#include "host/state_files.h"
#include "host/streams.h"
#include "host/wasi.h"

namespace spore::host::wasi {

namespace {

using Kind = Descriptor::Kind;

// Where a stream would block: the guest waits, unless it asked not to.
Status would_block(HostCall& call, const Descriptor& descriptor, int fd, short events) {
  if (descriptor.flags & fdflags::kNonblock) return Errno::kAgain;
  return call.park({.fd = fd, .events = events});
}

// The process's descriptor behind a standard stream, or -1 for a buffer.
int stream_fd(const HostState& state, Kind kind) {
  switch (kind) {
    case Kind::kStdin: return state.input_complete ? -1 : state.streams.in;
    case Kind::kStdout: return state.streams.out;
    case Kind::kStderr: return state.streams.err;
    default: return -1;
  }
}

// A descriptor of the host at which a regular file lies, else -1.
int positioned_fd(const HostState& state, const Descriptor& descriptor) {
  if (descriptor.kind == Kind::kFile) return descriptor.seekable ? descriptor.fd.get() : -1;
  const int fd = stream_fd(state, descriptor.kind);
  return fd >= 0 && stream_type(fd) == StreamType::kRegularFile ? fd : -1;
}

// Writing to a pipe whose reader is gone must not end the host: the signal is held back and taken.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoSigpipe() {
    if (!was_pending_) {
      const timespec at_once{};
      while (sigtimedwait(&pipe_, nullptr, &at_once) < 0 && errno == EINTR) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t pipe_;
  sigset_t before_;
  bool was_pending_ = false;
};

Status finish_io(HostCall& call, const IoResult& result, GuestPtr<uint32_t> count) {
  return result.error ? Status(errno_of(result.error)) : transferred(call, count, result.count);
}

// Whether the tenant's memory has room for so many bytes more in that file, if it is one of the call's own.
bool has_room(HostCall& call, const Descriptor& file, uint64_t size_bytes) {
  return file.source != Preopen::Source::kLocalLayer || state_of(call).cover_layer(file.fd.get(), size_bytes);
}

IoResult result_of(ssize_t count) { return count < 0 ? IoResult{0, errno} : IoResult{static_cast<size_t>(count), 0}; }

Status read_file_at(HostCall& call, Descriptor& file, const Buffers& buffers, GuestPtr<uint32_t> nread) {
  const auto list = buffers.list();
  const IoResult result =
      result_of(::preadv(file.fd.get(), list.data(), static_cast<int>(list.size()), static_cast<off_t>(file.offset)));
  file.offset += result.count;
  return finish_io(call, result, nread);
}

Status write_file_at(HostCall& call, Descriptor& file, const Buffers& buffers, GuestPtr<uint32_t> nwritten) {
  if (!has_room(call, file, buffers.size_bytes())) return Errno::kNoSpc;
  const auto list = buffers.list();
  const int fd = file.fd.get();
  if (!(file.flags & fdflags::kAppend)) {
    const IoResult result =
        result_of(::pwritev(fd, list.data(), static_cast<int>(list.size()), static_cast<off_t>(file.offset)));
    file.offset += result.count;
    return finish_io(call, result, nwritten);
  }
  const IoResult result = result_of(::writev(fd, list.data(), static_cast<int>(list.size())));  // at the end: O_APPEND
  const off_t end = ::lseek(fd, 0, SEEK_CUR);
  if (!result.error && end >= 0) file.offset = static_cast<uint64_t>(end);
  return finish_io(call, result, nwritten);
}

// A FIFO or a device below a preopened directory. Ours, and opened non-blocking.
Status read_device(HostCall& call, Descriptor& device, const Buffers& buffers, GuestPtr<uint32_t> nread) {
  const auto list = buffers.list();
  const IoResult result = result_of(::readv(device.fd.get(), list.data(), static_cast<int>(list.size())));
  if (result.error == EAGAIN) return would_block(call, device, device.fd.get(), POLLIN);
  return finish_io(call, result, nread);
}

Status write_device(HostCall& call, Descriptor& device, const Buffers& buffers, GuestPtr<uint32_t> nwritten) {
  const auto list = buffers.list();
  IoResult result;
  {
    NoSigpipe guard;
    result = result_of(::writev(device.fd.get(), list.data(), static_cast<int>(list.size())));
  }
  if (result.error == EAGAIN) return would_block(call, device, device.fd.get(), POLLOUT);
  return finish_io(call, result, nwritten);
}

// As a blocking write does it: the whole, however often the reader makes it wait. Short only where the guest asked not
// to wait, or where an error follows. `written`: its bytes, once it does not park any more.
Status write_stream(HostCall& call, const Descriptor& descriptor, int stream, const Buffers& buffers,
                    GuestPtr<uint32_t> nwritten, uint64_t& written) {
  PendingCall& pending = state_of(call).pending;
  uint64_t done = pending.active ? std::min(pending.bytes_done, buffers.size_bytes()) : 0;
  pending = {};
  std::vector<iovec> list(buffers.list().begin(), buffers.list().end());
  std::span<iovec> rest = behind(list, done);
  while (done < buffers.size_bytes()) {
    const IoResult result = write_without_blocking(stream, rest);
    if (result.error == EAGAIN && !(descriptor.flags & fdflags::kNonblock)) {
      pending.active = true;
      pending.bytes_done = done;
      return call.park({.fd = stream, .events = POLLOUT});
    }
    if (result.error) {
      if (done == 0) return errno_of(result.error);
      break;
    }
    if (result.count == 0) break;
    done += result.count;
    rest = behind(rest, result.count);
  }
  written = done;
  return transferred(call, nwritten, done);
}

Status write_output(HostCall& call, const Descriptor& descriptor, const Buffers& buffers, GuestPtr<uint32_t> nwritten) {
  HostState& state = state_of(call);
  int stream = -1;
  if (!state.direct_output(buffers.size_bytes(), stream)) {
    return call.trap(wasm::TrapKind::kHostCall, state.output_refusal());
  }
  if (stream >= 0) {
    uint64_t done = 0;
    const Status status = write_stream(call, descriptor, stream, buffers, nwritten, done);
    state.output_streamed += done;
    return status;
  }
  const size_t before = state.output.size();
  const auto room = state.extend_output(buffers.size_bytes());
  if (!buffers.collect(room)) {
    state.output.resize(before);
    return Errno::kFault;
  }
  return transferred(call, nwritten, buffers.size_bytes());
}

Status write_log(HostCall& call, const Buffers& buffers, GuestPtr<uint32_t> nwritten) {
  HostState& state = state_of(call);
  const size_t before = state.log.size();
  const auto room = state.extend_log(buffers.size_bytes());
  if (!buffers.collect(room)) {
    state.log.resize(before);
    return Errno::kFault;
  }
  if (room.size() < buffers.size_bytes()) state.truncate_log();
  return transferred(call, nwritten, buffers.size_bytes());
}

}  // namespace

Status fd_read(HostCall& call, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, GuestPtr<uint32_t> nread) {
  HostState& state = state_of(call);
  const auto found = find(state, fd, rights::kFdRead);
  if (!found) return found.error();
  Descriptor& descriptor = **found;
  Buffers buffers;
  if (const Errno error = buffers.gather(GuestMemory(call), iovs, count); error != Errno::kSuccess) {
    state.pending = {};  // the list has changed since the call parked
    return error;
  }
  switch (descriptor.kind) {
    case Kind::kStdin: {
      const int stream = stream_fd(state, descriptor.kind);
      if (stream >= 0) {
        if (buffers.size_bytes() == 0) return transferred(call, nread, 0);
        const IoResult result = read_without_blocking(stream, buffers.list());
        if (result.error == EAGAIN) return would_block(call, descriptor, stream, POLLIN);
        return finish_io(call, result, nread);
      }
      const auto bytes = buffers.scatter(ByteSpan(state.input).subspan(state.input_offset));
      if (!bytes) return Errno::kFault;
      state.input_offset += *bytes;
      return transferred(call, nread, *bytes);
    }
    case Kind::kFile:
      return descriptor.seekable ? read_file_at(call, descriptor, buffers, nread)
                                 : read_device(call, descriptor, buffers, nread);
    case Kind::kState: return read_state_file(call, descriptor, buffers, std::nullopt, nread);
    case Kind::kCall: return read_call_stream(call, descriptor, buffers, nread);
    case Kind::kSocket: return read_socket(call, descriptor, buffers, nread);
    case Kind::kDirectory: return Errno::kIsDir;
    case Kind::kStdout:
    case Kind::kStderr: break;
  }
  return Errno::kBadf;
}

Status fd_write(HostCall& call, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, GuestPtr<uint32_t> nwritten) {
  HostState& state = state_of(call);
  const auto found = find(state, fd, rights::kFdWrite);
  if (!found) return found.error();
  Descriptor& descriptor = **found;
  Buffers buffers;
  if (const Errno error = buffers.gather(GuestMemory(call), iovs, count); error != Errno::kSuccess) {
    state.pending = {};  // the list has changed since the call parked
    return error;
  }
  switch (descriptor.kind) {
    case Kind::kStdout: return write_output(call, descriptor, buffers, nwritten);
    case Kind::kStderr: {
      uint64_t written = 0;
      const int stream = state.streams.err;
      return stream >= 0 ? write_stream(call, descriptor, stream, buffers, nwritten, written)
                         : write_log(call, buffers, nwritten);
    }
    case Kind::kFile:
      return descriptor.seekable ? write_file_at(call, descriptor, buffers, nwritten)
                                 : write_device(call, descriptor, buffers, nwritten);
    case Kind::kState: return write_state_file(call, descriptor, buffers, std::nullopt, nwritten);
    case Kind::kCall: return write_call_stream(call, descriptor, buffers, nwritten);
    case Kind::kSocket: return write_socket(call, descriptor, buffers, nwritten);
    case Kind::kDirectory: return Errno::kIsDir;
    case Kind::kStdin: break;
  }
  return Errno::kBadf;
}

Status fd_pread(HostCall& call, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, uint64_t offset,
                GuestPtr<uint32_t> nread) {
  HostState& state = state_of(call);
  const auto found = find(state, fd, rights::kFdRead);
  if (!found) return found.error();
  Buffers buffers;
  if (const Errno error = buffers.gather(GuestMemory(call), iovs, count); error != Errno::kSuccess) return error;
  if ((*found)->kind == Kind::kDirectory) return Errno::kIsDir;
  const bool is_state = (*found)->kind == Kind::kState;
  const int file = positioned_fd(state, **found);
  if (file < 0 && !is_state) return Errno::kSpipe;
  if (offset > INT64_MAX) return Errno::kInval;
  if (is_state) return read_state_file(call, **found, buffers, offset, nread);
  const auto list = buffers.list();
  return finish_io(
      call, result_of(::preadv(file, list.data(), static_cast<int>(list.size()), static_cast<off_t>(offset))), nread);
}

Status fd_pwrite(HostCall& call, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, uint64_t offset,
                 GuestPtr<uint32_t> nwritten) {
  HostState& state = state_of(call);
  const auto found = find(state, fd, rights::kFdWrite);
  if (!found) return found.error();
  Buffers buffers;
  if (const Errno error = buffers.gather(GuestMemory(call), iovs, count); error != Errno::kSuccess) return error;
  if ((*found)->kind == Kind::kDirectory) return Errno::kIsDir;
  const bool is_state = (*found)->kind == Kind::kState;
  const int file = positioned_fd(state, **found);
  if (file < 0 && !is_state) return Errno::kSpipe;
  if (offset > INT64_MAX) return Errno::kInval;
  if (is_state) return write_state_file(call, **found, buffers, offset, nwritten);
  if ((*found)->kind == Kind::kFile && !has_room(call, **found, buffers.size_bytes())) return Errno::kNoSpc;
  const auto list = buffers.list();
  return finish_io(call,
                   result_of(::pwritev(file, list.data(), static_cast<int>(list.size()), static_cast<off_t>(offset))),
                   nwritten);
}

Status fd_seek(HostCall& call, Fd fd, int64_t offset, uint32_t whence, GuestPtr<uint64_t> position) {
  HostState& state = state_of(call);
  Descriptor* descriptor = state.descriptor(fd);
  if (!descriptor) return Errno::kBadf;
  if (descriptor->kind == Kind::kDirectory) return Errno::kBadf;
  const bool is_state = descriptor->kind == Kind::kState;
  const bool is_ours = is_state || descriptor->kind == Kind::kFile;  // the offset is kept here
  const int file = positioned_fd(state, *descriptor);
  if (file < 0 && !is_state) return Errno::kSpipe;
  // To ask where it is takes only the right to tell.
  const bool only_tells = offset == 0 && whence == static_cast<uint32_t>(Whence::kCur);
  if (!(descriptor->rights_base & (only_tells ? rights::kFdSeek | rights::kFdTell : rights::kFdSeek))) {
    return Errno::kNotCapable;
  }
  int64_t from = 0;
  switch (whence) {
    case static_cast<uint32_t>(Whence::kSet): break;
    case static_cast<uint32_t>(Whence::kCur):
      from = is_ours ? static_cast<int64_t>(descriptor->offset) : ::lseek(file, 0, SEEK_CUR);
      break;
    case static_cast<uint32_t>(Whence::kEnd): {
      if (is_state) {
        from = static_cast<int64_t>(descriptor->replica->size_bytes());
        break;
      }
      struct stat info;
      if (::fstat(file, &info) != 0) return errno_of(errno);
      from = info.st_size;
      break;
    }
    default: return Errno::kInval;
  }
  int64_t target = 0;
  if (from < 0 || __builtin_add_overflow(from, offset, &target) || target < 0) return Errno::kInval;
  if (!position.copy_out(GuestMemory(call), static_cast<uint64_t>(target))) return Errno::kFault;
  if (is_ours) {
    descriptor->offset = static_cast<uint64_t>(target);
  } else if (::lseek(file, target, SEEK_SET) < 0) {
    return errno_of(errno);
  }
  return Errno::kSuccess;
}

Status fd_tell(HostCall& call, Fd fd, GuestPtr<uint64_t> position) {
  return fd_seek(call, fd, 0, static_cast<uint32_t>(Whence::kCur), position);
}

}  // namespace spore::host::wasi

#include "host/sockets.h"
#include "host/wasi.h"

namespace spore::host::wasi {

namespace {

Status replied(HostCall& call, const sockets::Outcome& outcome, GuestPtr<uint32_t> count) {
  if (outcome.result != HostResult::kDone) return outcome.result;
  if (outcome.error != Errno::kSuccess) return outcome.error;
  return transferred(call, count, outcome.value);
}

// The list of buffers may have changed since the call parked.
Status dropped(HostCall& call, Errno error) {
  state_of(call).pending = {};
  return error;
}

}  // namespace

Status read_socket(HostCall& call, Descriptor& socket, const Buffers& buffers, GuestPtr<uint32_t> nread) {
  if (!nread.range(GuestMemory(call), 1)) return Errno::kFault;  // before anything is taken
  return replied(call, sockets::receive(call, socket, buffers.list(), {}, nullptr), nread);
}

Status write_socket(HostCall& call, Descriptor& socket, const Buffers& buffers, GuestPtr<uint32_t> nwritten) {
  if (!nwritten.range(GuestMemory(call), 1)) return Errno::kFault;
  return replied(call, sockets::send(call, socket, buffers.list(), {}), nwritten);
}

Status sock_accept(HostCall& call, Fd fd, uint32_t flags, GuestPtr<uint32_t> opened) {
  const auto socket = sockets::find_socket(state_of(call), fd, rights::kSockAccept);
  if (!socket) return socket.error();
  if (flags & ~uint32_t{fdflags::kNonblock}) return Errno::kInval;
  if (!opened.range(GuestMemory(call), 1)) return Errno::kFault;
  return replied(call, sockets::accept(call, **socket, static_cast<uint16_t>(flags), nullptr), opened);
}

Status sock_recv(HostCall& call, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, uint32_t flags, GuestPtr<uint32_t> nread,
                 GuestPtr<uint16_t> roflags) {
  const auto socket = sockets::find_socket(state_of(call), fd, rights::kFdRead);
  if (!socket) return socket.error();
  if (flags & ~uint32_t{riflags::kAll}) return Errno::kInval;
  const GuestMemory memory(call);
  if (!nread.range(memory, 1) || !roflags.range(memory, 1)) return Errno::kFault;
  Buffers buffers;
  if (const Errno error = buffers.gather(memory, iovs, count); error != Errno::kSuccess) return dropped(call, error);
  sockets::Received received;
  const auto outcome = sockets::receive(
      call, **socket, buffers.list(),
      {.peek = (flags & riflags::kPeek) != 0, .wait_all = (flags & riflags::kWaitAll) != 0}, &received);
  if (outcome.is_done() && !roflags.copy_out(memory, received.truncated ? kDataTruncated : uint16_t{0})) {
    return Errno::kFault;
  }
  return replied(call, outcome, nread);
}

Status sock_send(HostCall& call, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, uint32_t flags,
                 GuestPtr<uint32_t> nwritten) {
  const auto socket = sockets::find_socket(state_of(call), fd, rights::kFdWrite);
  if (!socket) return socket.error();
  if (flags != 0) return Errno::kInval;
  Buffers buffers;
  if (const Errno error = buffers.gather(GuestMemory(call), iovs, count); error != Errno::kSuccess)
    return dropped(call, error);
  return write_socket(call, **socket, buffers, nwritten);
}

Status sock_shutdown(HostCall& call, Fd fd, uint32_t how) {
  const auto socket = sockets::find_socket(state_of(call), fd, rights::kSockShutdown);
  if (!socket) return socket.error();
  return sockets::shutdown(**socket, how).error;
}

}  // namespace spore::host::wasi

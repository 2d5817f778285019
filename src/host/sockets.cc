#include "host/sockets.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "host/network.h"
#include "host/streams.h"

namespace spore::host::sockets {

namespace {

using faaslet::Clock;
using wasi::Errno;
using wasi::errno_of;
using Kind = Descriptor::Kind;

HostState& state_of(HostCall& call) { return call.state<HostState>(); }

bool is_stream(const Descriptor& socket) {
  return socket.file_type == static_cast<uint8_t>(wasi::FileType::kSocketStream);
}
bool may_wait(const Descriptor& socket) { return !(socket.flags & wasi::fdflags::kNonblock); }

Outcome finish(HostCall& call, Outcome outcome) {
  state_of(call).pending = {};
  return outcome;
}

// Parks until the socket is ready for `events`; `late` where its timeout has passed since the first dispatch. What must
// be remembered is already in PendingCall.
Outcome wait(HostCall& call, const Descriptor& socket, short events, std::chrono::microseconds timeout, Outcome late) {
  PendingCall& pending = state_of(call).pending;
  const auto now = Clock::now();
  if (!pending.active) {
    pending.active = true;
    pending.started = now;
  }
  std::optional<Clock::time_point> until;
  if (timeout.count() > 0) {
    until = pending.started + timeout;
    if (now >= *until) return finish(call, late);
  }
  return call.park({.deadline = until, .fd = socket.fd.get(), .events = events});
}

bool has_room(const HostState& state) {
  uint32_t open = 0;
  uint32_t sockets = 0;
  for (const auto& descriptor : state.descriptors) {
    if (!descriptor) continue;
    ++open;
    if (descriptor->kind == Kind::kSocket) ++sockets;
  }
  return open < state.limits.descriptors_max && sockets < state.limits.sockets_max;
}

Outcome add(HostState& state, UniqueFd fd, int family, wasi::FileType type, uint16_t flags) {
  Descriptor socket;
  socket.kind = Kind::kSocket;
  socket.file_type = static_cast<uint8_t>(type);
  socket.flags = flags;
  socket.rights_base = wasi::rights::kSocket;
  socket.fd = std::move(fd);
  socket.socket.family = family;
  const auto number = state.add_descriptor(std::move(socket));
  if (!number) return Errno::kMfile;
  return uint64_t{*number};
}

Errno errno_of_network(ErrorCode code) {
  switch (code) {
    case ErrorCode::kPermissionDenied: return Errno::kAcces;
    case ErrorCode::kResourceExhausted: return Errno::kNoBufs;
    case ErrorCode::kInvalidArgument: return Errno::kAfNoSupport;
    case ErrorCode::kUnavailable: return Errno::kNetDown;
    default: return Errno::kIo;
  }
}

int take_error(const Descriptor& socket) {
  int error = 0;
  socklen_t size = sizeof(error);
  return ::getsockopt(socket.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

}  // namespace

std::expected<Descriptor*, Errno> find_socket(HostState& state, uint32_t fd, wasi::Rights needed) {
  Descriptor* descriptor = state.descriptor(fd);
  if (!descriptor) return std::unexpected(Errno::kBadf);
  if (descriptor->kind != Kind::kSocket) return std::unexpected(Errno::kNotSock);
  if ((descriptor->rights_base & needed) != needed) return std::unexpected(Errno::kNotCapable);
  return descriptor;
}

Outcome open(HostCall& call, uint32_t family, uint32_t type) {
  HostState& state = state_of(call);
  if (!state.network) return Errno::kNotSup;
  const int host_family = host_family_of(family);
  if (host_family == 0) return Errno::kAfNoSupport;
  const auto file_type = static_cast<wasi::FileType>(type);
  const bool stream = type == static_cast<uint32_t>(wasi::FileType::kSocketStream);
  if (!stream && type != static_cast<uint32_t>(wasi::FileType::kSocketDgram)) return Errno::kProtoNoSupport;
  if (!has_room(state)) return Errno::kMfile;
  auto made = state.make_elsewhere<UniqueFd>([network = state.network, host_family, stream] {
    return network->socket(host_family, stream ? SOCK_STREAM : SOCK_DGRAM);
  });
  if (!made) return wait_for_operation(call);
  if (!*made) {
    const Error& error = made->error();
    state.append_log(as_bytes("open a socket: " + error.message + "\n"));
    return errno_of_network(error.code);
  }
  return add(state, std::move(**made), host_family, file_type, 0);
}

Outcome connect(HostCall& call, Descriptor& socket, const HostAddress& to) {
  PendingCall& pending = state_of(call).pending;
  const auto connecting = [&] { return wait(call, socket, POLLOUT, socket.socket.send_timeout, Errno::kInProgress); };
  if (pending.active) {
    if (!is_ready(socket.fd.get(), POLLOUT)) return connecting();
    return finish(call, errno_of(take_error(socket)));
  }
  if (to.storage.ss_family != socket.socket.family) return Errno::kAfNoSupport;
  if (::connect(socket.fd.get(), to.get(), to.size_bytes) == 0) return Errno::kSuccess;
  if (errno == EINPROGRESS && may_wait(socket)) return connecting();
  return errno_of(errno);
}

Outcome bind(Descriptor& socket, const HostAddress& to) {
  if (to.storage.ss_family != socket.socket.family) return Errno::kAfNoSupport;
  return errno_of(::bind(socket.fd.get(), to.get(), to.size_bytes) == 0 ? 0 : errno);
}

Outcome listen(Descriptor& socket, uint32_t backlog) {
  const int length = static_cast<int>(std::min(backlog, kBacklogMax));
  return errno_of(::listen(socket.fd.get(), length) == 0 ? 0 : errno);
}

Outcome accept(HostCall& call, Descriptor& socket, uint16_t flags, sockaddr_storage* peer) {
  HostState& state = state_of(call);
  if (!has_room(state)) return finish(call, Errno::kMfile);
  sockaddr_storage from{};
  socklen_t size = sizeof(from);
  UniqueFd accepted(
      ::accept4(socket.fd.get(), reinterpret_cast<sockaddr*>(&from), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!accepted.valid()) {
    const int error = errno;
    if (error == EAGAIN && may_wait(socket))
      return wait(call, socket, POLLIN, socket.socket.receive_timeout, Errno::kAgain);
    return finish(call, errno_of(error));
  }
  if (peer) *peer = from;
  return finish(call, add(state, std::move(accepted), socket.socket.family, wasi::FileType::kSocketStream, flags));
}

Outcome receive(HostCall& call, Descriptor& socket, std::span<const iovec> to, Receiving how, Received* received) {
  PendingCall& pending = state_of(call).pending;
  std::vector<iovec> list(to.begin(), to.end());
  uint64_t wanted = 0;
  for (const iovec& part : list) wanted += part.iov_len;
  const bool stream = is_stream(socket);
  if (stream && wanted == 0) return finish(call, uint64_t{0});
  const bool whole = stream && how.wait_all && !how.peek;
  uint64_t done = pending.active ? std::min(pending.bytes_done, wanted) : 0;
  std::span<iovec> rest = behind(list, done);

  while (true) {
    sockaddr_storage from{};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof(from);
    message.msg_iov = rest.data();
    message.msg_iovlen = rest.size();
    const ssize_t got = ::recvmsg(socket.fd.get(), &message, MSG_DONTWAIT | (how.peek ? MSG_PEEK : 0));
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      const Outcome late = done > 0 ? Outcome(done) : Outcome(Errno::kAgain);
      if (how.dont_wait || !may_wait(socket)) return finish(call, late);
      pending.bytes_done = done;
      return wait(call, socket, POLLIN, socket.socket.receive_timeout, late);
    }
    if (got < 0) return finish(call, done > 0 ? Outcome(done) : Outcome(errno_of(errno)));
    done += static_cast<uint64_t>(got);
    if (!how.peek) state_of(call).received_bytes += static_cast<uint64_t>(got);
    if (received) *received = {.from = from, .truncated = (message.msg_flags & MSG_TRUNC) != 0};
    if (!whole || got == 0 || done == wanted) return finish(call, done);
    rest = behind(rest, static_cast<uint64_t>(got));
  }
}

Outcome send(HostCall& call, Descriptor& socket, std::span<const iovec> from, Sending how) {
  PendingCall& pending = state_of(call).pending;
  if (how.to && how.to->storage.ss_family != socket.socket.family) return finish(call, Errno::kAfNoSupport);
  std::vector<iovec> list(from.begin(), from.end());
  uint64_t size = 0;
  for (const iovec& part : list) size += part.iov_len;
  const bool stream = is_stream(socket);
  uint64_t done = pending.active ? std::min(pending.bytes_done, size) : 0;
  std::span<iovec> rest = behind(list, done);

  while (true) {
    msghdr message{};
    if (how.to) {
      message.msg_name = const_cast<sockaddr*>(how.to->get());
      message.msg_namelen = how.to->size_bytes;
    }
    message.msg_iov = rest.data();
    message.msg_iovlen = rest.size();
    const ssize_t sent = ::sendmsg(socket.fd.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
      const Outcome late = done > 0 ? Outcome(done) : Outcome(Errno::kAgain);
      if (how.dont_wait || !may_wait(socket)) return finish(call, late);
      pending.bytes_done = done;
      return wait(call, socket, POLLOUT, socket.socket.send_timeout, late);
    }
    if (sent < 0) return finish(call, done > 0 ? Outcome(done) : Outcome(errno_of(errno)));
    done += static_cast<uint64_t>(sent);
    state_of(call).sent_bytes += static_cast<uint64_t>(sent);
    if (!stream || done >= size) return finish(call, done);
    rest = behind(rest, static_cast<uint64_t>(sent));
  }
}

Outcome shutdown(Descriptor& socket, uint32_t how) {
  if (how == 0 || (how & ~uint32_t{wasi::sdflags::kAll})) return Errno::kInval;
  const int host_how = how == wasi::sdflags::kAll ? SHUT_RDWR : how == wasi::sdflags::kRead ? SHUT_RD : SHUT_WR;
  return errno_of(::shutdown(socket.fd.get(), host_how) == 0 ? 0 : errno);
}

std::expected<GuestSocketAddress, Errno> address_of(const Descriptor& socket, End end) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  auto* const to = reinterpret_cast<sockaddr*>(&address);
  const int fd = socket.fd.get();
  const int result = end == End::kOwn ? ::getsockname(fd, to, &size) : ::getpeername(fd, to, &size);
  if (result != 0) return std::unexpected(errno_of(errno));
  return guest_address_of(address);
}

namespace {

// An option that the kernel keeps, as an int.
struct KernelOption {
  int level = 0;
  int name = 0;
  int64_t value_max = 1;
  bool cut = false;  // a larger value becomes value_max; else it is refused
};

std::optional<KernelOption> kernel_option(const Descriptor& socket, Option option) {
  switch (option) {
    case Option::kReuseAddress: return KernelOption{SOL_SOCKET, SO_REUSEADDR};
    case Option::kKeepAlive: return KernelOption{SOL_SOCKET, SO_KEEPALIVE};
    case Option::kReceiveBuffer: return KernelOption{SOL_SOCKET, SO_RCVBUF, kSocketBufferBytesMax, true};
    case Option::kSendBuffer: return KernelOption{SOL_SOCKET, SO_SNDBUF, kSocketBufferBytesMax, true};
    case Option::kNoDelay:
      if (!is_stream(socket)) return std::nullopt;
      return KernelOption{IPPROTO_TCP, TCP_NODELAY};
    case Option::kV6Only:
      if (socket.socket.family != AF_INET6) return std::nullopt;
      return KernelOption{IPPROTO_IPV6, IPV6_V6ONLY};
    default: return std::nullopt;
  }
}

}  // namespace

std::expected<int64_t, Errno> get_option(const Descriptor& socket, uint32_t option) {
  switch (static_cast<Option>(option)) {
    case Option::kType: return socket.file_type;
    case Option::kError: return static_cast<int64_t>(errno_of(take_error(socket)));
    case Option::kReceiveTimeout: return socket.socket.receive_timeout.count();
    case Option::kSendTimeout: return socket.socket.send_timeout.count();
    default: break;
  }
  const auto kept = kernel_option(socket, static_cast<Option>(option));
  if (!kept) return std::unexpected(Errno::kNoProtoOpt);
  int value = 0;
  socklen_t size = sizeof(value);
  if (::getsockopt(socket.fd.get(), kept->level, kept->name, &value, &size) != 0)
    return std::unexpected(errno_of(errno));
  return kept->value_max == 1 ? value != 0 : value;
}

Errno set_option(Descriptor& socket, uint32_t option, int64_t value) {
  switch (const auto which = static_cast<Option>(option)) {
    case Option::kReceiveTimeout:
    case Option::kSendTimeout: {
      if (value < 0 || value > std::chrono::microseconds(kSocketTimeoutMax).count()) return Errno::kInval;
      SocketSettings& settings = socket.socket;
      (which == Option::kReceiveTimeout ? settings.receive_timeout : settings.send_timeout) =
          std::chrono::microseconds(value);
      return Errno::kSuccess;
    }
    default: break;
  }
  const auto kept = kernel_option(socket, static_cast<Option>(option));
  if (!kept) return Errno::kNoProtoOpt;
  if (value < 0 || (value > kept->value_max && !kept->cut)) return Errno::kInval;
  const int number = static_cast<int>(std::min(value, kept->value_max));
  return errno_of(::setsockopt(socket.fd.get(), kept->level, kept->name, &number, sizeof(number)) == 0 ? 0 : errno);
}

}  // namespace spore::host::sockets

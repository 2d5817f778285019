#include "host/socket_calls.h"

#include <poll.h>

#include <algorithm>
#include <array>

#include "host/network.h"
#include "host/resolver.h"
#include "host/sockets.h"

namespace spore::host::calls {

namespace {

using faaslet::Clock;
using sockets::Outcome;
using wasi::Errno;

HostState& state_of(HostCall& call) { return call.state<HostState>(); }

int64_t failed(Errno error) { return -static_cast<int64_t>(error); }

HostResult out_of_bounds(HostCall& call, std::string_view function) {
  return call.trap(wasm::TrapKind::kMemoryOutOfBounds, std::string(function) + ": a pointer is outside memory");
}

Reply<int64_t> replied(const Outcome& outcome) {
  if (outcome.result != HostResult::kDone) return outcome.result;
  if (outcome.error != Errno::kSuccess) return failed(outcome.error);
  return static_cast<int64_t>(outcome.value);
}

// An address that the guest gives; where there is none, `reply` says what the guest gets. Looked at anew in each
// dispatch.
struct TakenAddress {
  std::optional<HostAddress> address;
  Reply<int64_t> reply = 0;
};

TakenAddress take_address(HostCall& call, std::string_view function, SocketAddress from) {
  const auto given = from.copy_in(GuestMemory(call));
  if (!given) return {{}, out_of_bounds(call, function)};
  const auto address = host_address_of(*given);
  if (address) return {*address};
  state_of(call).pending = {};
  return {{}, failed(address.error())};
}

Reply<int64_t> give_address(HostCall& call, std::string_view function, uint32_t fd, sockets::End end,
                            SocketAddress to) {
  const GuestMemory memory(call);
  if (!to.range(memory, 1)) return out_of_bounds(call, function);
  const auto socket = sockets::find_socket(state_of(call), fd);
  if (!socket) return failed(socket.error());
  const auto address = sockets::address_of(**socket, end);
  if (!address) return failed(address.error());
  if (!to.copy_out(memory, *address)) return out_of_bounds(call, function);
  return 0;
}

}  // namespace

Reply<int64_t> sock_open(HostCall& call, uint32_t family, uint32_t type) {
  return replied(sockets::open(call, family, type));
}

Reply<int64_t> sock_connect(HostCall& call, uint32_t fd, SocketAddress to) {
  const TakenAddress taken = take_address(call, "sock_connect", to);
  if (!taken.address) return taken.reply;
  const auto socket = sockets::find_socket(state_of(call), fd);
  if (!socket) return failed(socket.error());
  return replied(sockets::connect(call, **socket, *taken.address));
}

Reply<int64_t> sock_bind(HostCall& call, uint32_t fd, SocketAddress to) {
  const TakenAddress taken = take_address(call, "sock_bind", to);
  if (!taken.address) return taken.reply;
  const auto socket = sockets::find_socket(state_of(call), fd);
  if (!socket) return failed(socket.error());
  return replied(sockets::bind(**socket, *taken.address));
}

Reply<int64_t> sock_listen(HostCall& call, uint32_t fd, uint32_t backlog) {
  const auto socket = sockets::find_socket(state_of(call), fd, wasi::rights::kSockAccept);
  if (!socket) return failed(socket.error());
  return replied(sockets::listen(**socket, backlog));
}

Reply<int64_t> sock_accept(HostCall& call, uint32_t fd, SocketAddress peer) {
  const GuestMemory memory(call);
  if (!peer.is_null() && !peer.range(memory, 1)) return out_of_bounds(call, "sock_accept");
  const auto socket = sockets::find_socket(state_of(call), fd, wasi::rights::kSockAccept);
  if (!socket) return failed(socket.error());
  sockaddr_storage from{};
  const Outcome outcome = sockets::accept(call, **socket, 0, &from);
  if (outcome.is_done() && !peer.is_null() && !peer.copy_out(memory, guest_address_of(from))) {
    return out_of_bounds(call, "sock_accept");
  }
  return replied(outcome);
}

Reply<int64_t> sock_sendto(HostCall& call, uint32_t fd, GuestPtr<uint8_t> data, uint32_t size, uint32_t flags,
                           SocketAddress to) {
  auto buffer = data.range(GuestMemory(call), size);
  if (!buffer) return out_of_bounds(call, "sock_sendto");
  TakenAddress taken;
  if (!to.is_null()) {
    taken = take_address(call, "sock_sendto", to);
    if (!taken.address) return taken.reply;
  }
  const auto socket = sockets::find_socket(state_of(call), fd, wasi::rights::kFdWrite);
  if (!socket) return failed(socket.error());
  if (flags & ~kSocketDontWait) return failed(Errno::kInval);
  buffer->iov_len = std::min<uint64_t>(buffer->iov_len, wasi::kTransferBytesMax);
  return replied(sockets::send(call, **socket, {&*buffer, 1},
                               {.dont_wait = flags != 0, .to = taken.address ? &*taken.address : nullptr}));
}

Reply<int64_t> sock_recvfrom(HostCall& call, uint32_t fd, GuestPtr<uint8_t> to, uint32_t size, uint32_t flags,
                             SocketAddress from) {
  const GuestMemory memory(call);
  auto buffer = to.range(memory, size);
  if (!buffer || (!from.is_null() && !from.range(memory, 1))) return out_of_bounds(call, "sock_recvfrom");
  const auto socket = sockets::find_socket(state_of(call), fd, wasi::rights::kFdRead);
  if (!socket) return failed(socket.error());
  if (flags & ~(kSocketPeek | kSocketWaitAll | kSocketDontWait)) return failed(Errno::kInval);
  buffer->iov_len = std::min<uint64_t>(buffer->iov_len, wasi::kTransferBytesMax);
  sockets::Received received;
  const Outcome outcome = sockets::receive(call, **socket, {&*buffer, 1},
                                           {.peek = (flags & kSocketPeek) != 0,
                                            .wait_all = (flags & kSocketWaitAll) != 0,
                                            .dont_wait = (flags & kSocketDontWait) != 0},
                                           &received);
  if (outcome.is_done() && !from.is_null()) {
    // A stream's bytes are the peer's.
    auto address = guest_address_of(received.from);
    if (address.family == 0) address = sockets::address_of(**socket, sockets::End::kPeer).value_or(address);
    if (!from.copy_out(memory, address)) return out_of_bounds(call, "sock_recvfrom");
  }
  return replied(outcome);
}

Reply<int64_t> sock_getsockname(HostCall& call, uint32_t fd, SocketAddress to) {
  return give_address(call, "sock_getsockname", fd, sockets::End::kOwn, to);
}

Reply<int64_t> sock_getpeername(HostCall& call, uint32_t fd, SocketAddress to) {
  return give_address(call, "sock_getpeername", fd, sockets::End::kPeer, to);
}

Reply<int64_t> sock_getsockopt(HostCall& call, uint32_t fd, uint32_t option) {
  const auto socket = sockets::find_socket(state_of(call), fd);
  if (!socket) return failed(socket.error());
  const auto value = sockets::get_option(**socket, option);
  return value ? *value : failed(value.error());
}

Reply<int64_t> sock_setsockopt(HostCall& call, uint32_t fd, uint32_t option, int64_t value) {
  const auto socket = sockets::find_socket(state_of(call), fd);
  if (!socket) return failed(socket.error());
  return replied(sockets::set_option(**socket, option, value));
}

Reply<int64_t> sock_resolve(HostCall& call, GuestPtr<uint8_t> name, uint32_t name_len, uint32_t family,
                            SocketAddress to, uint32_t count, uint32_t timeout_ms) {
  HostState& state = state_of(call);
  PendingCall& pending = state.pending;
  const GuestMemory memory(call);
  if (!name.range(memory, name_len) || !to.range(memory, count)) return out_of_bounds(call, "sock_resolve");
  if (!pending.lookup) {
    if (!state.network) return failed(Errno::kNotSup);
    const int host_family = host_family_of(family);
    if (host_family == 0 && family != 0) return failed(Errno::kAfNoSupport);
    if (name_len == 0 || name_len > kHostNameBytesMax || count == 0 || count > kResolvedMax)
      return failed(Errno::kInval);
    std::string text(name_len, '\0');
    if (!name.copy_in(memory, std::span(reinterpret_cast<uint8_t*>(text.data()), text.size())))
      return out_of_bounds(call, "sock_resolve");
    const auto begun = state.make_elsewhere<std::shared_ptr<Lookup>>(
        [network = state.network, text, which = host_family == 0 ? AF_UNSPEC : host_family] {
          return Lookup::start(network, text, which);
        });
    if (!begun) return wait_for_operation(call);
    const auto& started = *begun;
    if (!started) {
      const Error& error = started.error();
      state.append_log(as_bytes("sock_resolve: " + error.message + "\n"));
      if (error.code == ErrorCode::kInvalidArgument) return failed(Errno::kInval);
      return failed(error.code == ErrorCode::kUnavailable ? Errno::kNotSup : Errno::kIo);
    }
    pending.active = true;
    pending.started = Clock::now();
    pending.lookup = *started;
  }
  Lookup& lookup = *pending.lookup;
  if (!lookup.ended()) lookup.advance();
  if (!lookup.ended()) {
    const auto end = pending.started + std::chrono::milliseconds(std::min(timeout_ms, kResolveTimeMaxMs));
    if (Clock::now() < end)
      return call.park({.deadline = std::min(end, lookup.wakes_at()), .fd = lookup.fd(), .events = POLLIN});
    pending = {};
    return failed(Errno::kTimedOut);
  }
  const auto result = lookup.result();
  pending = {};
  if (!result) return failed(result.error());
  std::array<GuestSocketAddress, kResolvedMax> addresses;
  const size_t given = std::min<size_t>(result->size(), count);
  std::transform(result->begin(), result->begin() + static_cast<ptrdiff_t>(given), addresses.begin(),
                 [](const sockaddr_storage& address) { return guest_address_of(address); });
  if (!to.copy_out(memory, std::span<const GuestSocketAddress>(addresses.data(), given)))
    return out_of_bounds(call, "sock_resolve");
  return static_cast<int64_t>(given);
}

}  // namespace spore::host::calls

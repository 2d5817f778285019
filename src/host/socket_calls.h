// Spore's functions on sockets, import module "spore" (docs/network.md). A socket is a descriptor like any other:
// WASI's fd_read, fd_write, fd_close, fd_fdstat_get, fd_fdstat_set_flags, fd_renumber, poll_oneoff and sock_* work on
// it. An address is a GuestSocketAddress (host/socket_address.h).
//
// Each returns a number that is not negative, or minus one of WASI's error numbers. Beside those that sockets have
// everywhere:
//
//   EBADF, ENOTSOCK   no such descriptor; one that is no socket
//   ENOTSUP           the call has no network
//   EACCES, ENETDOWN, ENOBUFS   its network gives no socket; the call's log says why
//   EAFNOSUPPORT      a family other than 1 and 2, or an address that is not of the socket's family
//   EPROTONOSUPPORT   a type other than 5 and 6
//   EINVAL            an address with something in it that must be zero; flags, sizes, values that cannot be
//   EMFILE            as many sockets or descriptors as a call may have are open
//   EAGAIN            it would wait, and may not or no longer
//   EINPROGRESS       connect goes on by itself: poll until the socket can be written, then ask for its error (option
//   2)
//
// and of sock_resolve:
//
//   ENOENT       there is no such name, or it has no address of that family
//   EAGAIN       the resolvers failed or refused: later perhaps
//   ETIMEDOUT    they do not answer             EHOSTUNREACH   they cannot be reached
//   EBADMSG      what they answer is malformed
//   EINVAL       not a host name (1 to 253 of a-z, A-Z, 0-9, '-', '_' and '.'); no or too many addresses asked for
//   ENOTSUP      the call has no network, or that has no resolvers
//
// A pointer outside memory traps.
#pragma once

#include "host/binding.h"
#include "host/host_state.h"
#include "host/socket_address.h"

namespace spore::host::calls {

using SocketAddress = GuestPtr<GuestSocketAddress>;

constexpr uint32_t kSocketPeek = 1;  // receive; as WASI's riflags
constexpr uint32_t kSocketWaitAll = 2;
constexpr uint32_t kSocketDontWait = 4;  // send and receive

// Of one sock_resolve, whatever the guest asks for.
constexpr uint32_t kResolveTimeMaxMs = 10'000;

Reply<int64_t> sock_open(HostCall&, uint32_t family, uint32_t type);
Reply<int64_t> sock_connect(HostCall&, uint32_t fd, SocketAddress to);
Reply<int64_t> sock_bind(HostCall&, uint32_t fd, SocketAddress to);
Reply<int64_t> sock_listen(HostCall&, uint32_t fd, uint32_t backlog);
// `peer`, `from` and `to` may be null.
Reply<int64_t> sock_accept(HostCall&, uint32_t fd, SocketAddress peer);
Reply<int64_t> sock_sendto(HostCall&, uint32_t fd, GuestPtr<uint8_t> data, uint32_t size, uint32_t flags,
                           SocketAddress to);
Reply<int64_t> sock_recvfrom(HostCall&, uint32_t fd, GuestPtr<uint8_t> buffer, uint32_t size, uint32_t flags,
                             SocketAddress from);
Reply<int64_t> sock_getsockname(HostCall&, uint32_t fd, SocketAddress to);
Reply<int64_t> sock_getpeername(HostCall&, uint32_t fd, SocketAddress to);
// Options and their values: sockets::Option.
Reply<int64_t> sock_getsockopt(HostCall&, uint32_t fd, uint32_t option);
Reply<int64_t> sock_setsockopt(HostCall&, uint32_t fd, uint32_t option, int64_t value);
Reply<int64_t> sock_resolve(HostCall&, GuestPtr<uint8_t> name, uint32_t name_len, uint32_t family, SocketAddress to,
                            uint32_t count, uint32_t timeout_ms);

}  // namespace spore::host::calls

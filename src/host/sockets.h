// Sockets of a guest: what the functions of WASI (wasi_sockets.cc, fd_read, fd_write) and those of the module "spore"
// (socket_calls.h) have in common. They check what comes from guest memory; these do the rest.
//
// To the kernel every socket is non-blocking. A guest that wants to wait is parked, for as long as the socket's timeout
// says, and dispatched again; a guest that asked not to wait (the descriptor's nonblock flag) gets EAGAIN, or
// EINPROGRESS from connect. Whatever waits ends with the call at the latest.
//
// All run on the thread of the call. A `Descriptor&` is one that find_socket() gave.
#pragma once

#include <chrono>
#include <expected>
#include <span>

#include "host/host_state.h"
#include "host/socket_address.h"
#include "host/wasi.h"

namespace spore::host::sockets {

// What one dispatch comes to: it has parked (kPark), or there is an error, or a value.
struct Outcome {
  HostResult result = HostResult::kDone;
  wasi::Errno error = wasi::Errno::kSuccess;
  uint64_t value = 0;

  Outcome(HostResult how) : result(how) {}
  Outcome(wasi::Errno why) : error(why) {}
  Outcome(uint64_t what) : value(what) {}
  bool is_done() const { return result == HostResult::kDone && error == wasi::Errno::kSuccess; }
};

// kBadf, kNotSock, kNotCapable.
std::expected<Descriptor*, wasi::Errno> find_socket(HostState& state, uint32_t fd, wasi::Rights needed = 0);

// Types are WASI's: socket_dgram, socket_stream. The number of the new descriptor. kNotSup: the call has no network;
// kAfNoSupport, kProtoNoSupport: not such a family or type; kMfile: HostLimits::sockets_max or descriptors_max are
// open.
Outcome open(HostCall& call, uint32_t family, uint32_t type);

Outcome connect(HostCall& call, Descriptor& socket, const HostAddress& to);
Outcome bind(Descriptor& socket, const HostAddress& to);
Outcome listen(Descriptor& socket, uint32_t backlog);
constexpr uint32_t kBacklogMax = 128;  // connections that wait to be accepted; a larger number is cut to it

// The number of the new descriptor, which gets these flags (fdflags). With `peer`, whose it is.
Outcome accept(HostCall& call, Descriptor& socket, uint16_t flags, sockaddr_storage* peer);

struct Receiving {
  bool peek = false;      // leaves it where it is
  bool wait_all = false;  // of a stream, and not with peek: until all buffers are full, or it ends
  bool dont_wait = false;
};
struct Received {
  sockaddr_storage from{};  // AF_UNSPEC where the kernel tells none: of streams
  bool truncated = false;   // a datagram that was larger than the buffers
};
// How many bytes; of a stream 0 is the end. The buffers are guest memory.
Outcome receive(HostCall& call, Descriptor& socket, std::span<const iovec> to, Receiving how, Received* received);

struct Sending {
  bool dont_wait = false;
  const HostAddress* to = nullptr;  // null: the peer that it is connected to
};
// A guest that waits sends all of a stream's bytes, fewer only where an error or the socket's timeout follows.
Outcome send(HostCall& call, Descriptor& socket, std::span<const iovec> from, Sending how);

// how: sdflags.
Outcome shutdown(Descriptor& socket, uint32_t how);

enum class End : uint8_t { kOwn, kPeer };
std::expected<GuestSocketAddress, wasi::Errno> address_of(const Descriptor& socket, End end);

// Numbers of the guest interface.
enum class Option : uint32_t {
  kType = 1,            // WASI's socket_dgram or socket_stream; get
  kError = 2,           // the error that has come for it, which is taken: WASI's number, or 0; get
  kReuseAddress = 3,    // 0 or 1
  kKeepAlive = 4,       // 0 or 1
  kReceiveBuffer = 5,   // bytes; cut to kSocketBufferBytesMax. The kernel doubles it, and tells that
  kSendBuffer = 6,      // the same
  kReceiveTimeout = 7,  // microseconds that a receive or accept waits, then EAGAIN; 0: as long as the call may
  kSendTimeout = 8,     // the same of send, and of connect, which then is EINPROGRESS
  kNoDelay = 9,         // of TCP: 0 or 1
  kV6Only = 10,         // of IPv6: 0 or 1
};
constexpr int64_t kSocketBufferBytesMax = 1 << 20;
constexpr std::chrono::hours kSocketTimeoutMax{24 * 365};
// kNoProtoOpt: no such option, or not of such a socket; kInval: a value that cannot be.
std::expected<int64_t, wasi::Errno> get_option(const Descriptor& socket, uint32_t option);
wasi::Errno set_option(Descriptor& socket, uint32_t option, int64_t value);

}  // namespace spore::host::sockets

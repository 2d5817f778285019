// What a call has of the network: whoever runs it gives it a Network, in which its sockets are made and its names are
// looked up. Which addresses those sockets then reach is for the network behind it to say (a namespace with its rules,
// or the machine itself); the host functions (host/socket_calls.h) use what they get and filter nothing.
#pragma once

#include <sys/socket.h>

#include <memory>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace spore::host {

constexpr size_t kResolversMax = 3;  // that a look-up asks, the first ones

// Asked on the thread that runs the call, one at a time.
class Network {
 public:
  virtual ~Network() = default;

  // A new socket, non-blocking and close-on-exec. family: AF_INET or AF_INET6; type: SOCK_STREAM or SOCK_DGRAM. Must
  // not block: it is called on a seat. The message of an error goes to the call's log, and the guest gets EACCES for
  // kPermissionDenied, ENOBUFS for kResourceExhausted, EAFNOSUPPORT for kInvalidArgument, ENETDOWN for kUnavailable and
  // EIO for others.
  virtual Result<UniqueFd> socket(int family, int type) = 0;

  // Servers of DNS (AF_INET, AF_INET6, with their ports), asked through sockets of socket(). None: no name is looked
  // up.
  virtual std::vector<sockaddr_storage> resolvers() const = 0;
};

// The network of this process, with the resolvers of this machine (/etc/resolv.conf as it is now): for `spore run` on a
// developer's own machine. It keeps a guest from nothing that the process may reach.
Result<std::shared_ptr<Network>> process_network();

}  // namespace spore::host

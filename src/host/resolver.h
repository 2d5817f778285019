// Looks names up by DNS, through the sockets of a Network, without ever blocking: c-ares, whose only user this is.
//
//   lookup = Lookup::start(network, "example.org", AF_UNSPEC)
//   while (!lookup->ended()): wait until lookup->fd() is readable or lookup->wakes_at() has come; lookup->advance()
//   lookup->result()
//
// It asks the Network's resolvers and nobody else: no file of the host is read, no variable of its environment counts.
// One question for each family, on UDP, and again on TCP where an answer is cut off; each resolver is asked
// kTriesMax times, the waits growing from kTryTime. An answer is believed only from the address that was asked, with
// the number and question that were sent. Whoever asks bounds the whole in time.
#pragma once

#include <chrono>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "faaslet/host_call.h"
#include "host/network.h"
#include "host/wasi_abi.h"

namespace spore::host {

constexpr size_t kHostNameBytesMax = 253;
constexpr size_t kResolvedMax = 64;  // addresses of one name that are given; more are left out
constexpr int kTriesMax = 2;
constexpr std::chrono::milliseconds kTryTime{2'000};
constexpr int kReadsPerAdvance = 64;  // so that a resolver which floods us does not hold the seat

// The resolvers that /etc/resolv.conf names, at most kResolversMax.
Result<std::vector<sockaddr_storage>> resolvers_of_this_machine();

// Used by one thread at a time; may go, with its sockets, whether or not it has ended.
class Lookup {
 public:
  // Ports are 0; in the order in which they came.
  using Addresses = std::vector<sockaddr_storage>;

  // family: AF_INET, AF_INET6 or AF_UNSPEC. A number in place of a name, and "localhost" or a name below it, is
  // answered at once. kInvalidArgument: not a name; kUnavailable: the network has no resolvers.
  static Result<std::shared_ptr<Lookup>> start(std::shared_ptr<Network> network, const std::string& name, int family);
  virtual ~Lookup() = default;

  virtual bool ended() const = 0;
  // kNoEnt: there is no such name, or it has no such address; kAgain: the resolvers refuse or fail; kTimedOut: they do
  // not answer; kBadMsg: what they answer is malformed; kHostUnreach: they cannot be reached.
  virtual const std::expected<Addresses, wasi::Errno>& result() const = 0;

  // An epoll set; readable when there is something for advance() to take.
  virtual int fd() const = 0;
  virtual faaslet::Clock::time_point wakes_at() const = 0;
  virtual void advance() = 0;
};

}  // namespace spore::host

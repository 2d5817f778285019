// Networks for Faaslets, made before they are asked for.
//
//   prepare(policy), when a function is loaded: its rules stand in the hub, its names are resolved now and again
//   take(prepared), when a Faaslet starts: a namespace of the pool is given these rules -> NetworkLease
//   lease.socket(), when the guest asks for one: made inside the namespace by the broker
//
// take() does not wait for the broker: what it sends there is done before what is sent later, so no socket is made
// before the rules apply, and none where they could not be applied. A thread of the pool keeps it full, once
// there is a policy.
//
// A namespace serves one lease and is then removed, with all that is left in it. A lease may be kept for further calls
// of the same function, by whoever closes its sockets in between; it is never passed on to another.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/guarded.h"
#include "base/result.h"
#include "isolation/broker.h"
#include "isolation/network_hub.h"
#include "isolation/network_policy.h"

namespace spore::isolation {

// The addresses that a name has now. May take as long as the host's resolver does.
using ResolveName = std::function<Result<std::vector<IpAddress>>(const std::string& name)>;
ResolveName host_resolver();  // getaddrinfo()

struct NetworkPoolOptions {
  NetworkLimits limits;  // the same that the broker has, which alone enforces them
  size_t ready = 32;     // namespaces that wait to be taken
  ResolveName resolve = host_resolver();
  std::chrono::milliseconds resolve_every{30'000};  // the names of all policies
};

// A policy whose rules stand in the hub, as long as this lives. Any thread.
class PreparedPolicy {
 public:
  ~PreparedPolicy();
  PreparedPolicy(const PreparedPolicy&) = delete;
  PreparedPolicy& operator=(const PreparedPolicy&) = delete;

  const NetworkPolicy& policy() const { return policy_; }

 private:
  friend class NetworkPool;
  friend class NetworkLease;
  // What its names stood for when they were last looked up, and before that: an address goes when it was missing twice,
  // so that names whose answers take turns work. Names that cannot be looked up keep what they had.
  struct Addresses {
    std::vector<Destination> latest;
    std::vector<Destination> before;
    std::vector<Destination> applied;
  };
  PreparedPolicy(Broker& broker, NetworkPolicy policy, uint32_t number)
      : broker_(broker), policy_(std::move(policy)), number_(number) {}
  // Looks all names up and changes the rules. What a name's server says is trusted no more than a policy is.
  Result<void> resolve(const ResolveName& resolve, const NetworkLimits& limits);

  Broker& broker_;
  const NetworkPolicy policy_;
  const uint32_t number_;
  Guarded<Addresses> addresses_;
};

// A socket of a lease: it counts against the lease's limit until it is closed.
class LeasedSocket {
 public:
  LeasedSocket() = default;
  LeasedSocket(LeasedSocket&& other) noexcept = default;
  LeasedSocket& operator=(LeasedSocket&& other) noexcept;
  ~LeasedSocket() { close(); }

  int get() const { return fd_.get(); }
  bool valid() const { return fd_.valid(); }
  void close();
  // For whoever counts its sockets itself: it is no longer this one's.
  UniqueFd release() &&;

 private:
  friend class NetworkLease;
  LeasedSocket(UniqueFd fd, std::shared_ptr<std::atomic<uint32_t>> open) : fd_(std::move(fd)), open_(std::move(open)) {}

  UniqueFd fd_;
  std::shared_ptr<std::atomic<uint32_t>> open_;
};

// The network of one Faaslet. One thread at a time. Its end cuts off all of its sockets, also those still open.
class NetworkLease {
 public:
  NetworkLease(NetworkLease&&) noexcept = default;
  NetworkLease& operator=(NetworkLease&& other) noexcept;
  ~NetworkLease() { release(); }

  // AF_INET or AF_INET6, SOCK_STREAM or SOCK_DGRAM; non-blocking, close-on-exec. kResourceExhausted beyond the policy's
  // sockets_max. Waits for the broker: tens of microseconds, unless it is making a namespace.
  Result<LeasedSocket> socket(int family, int type);
  // What accept4() on a socket of this lease gave.
  Result<LeasedSocket> adopt(UniqueFd accepted);

  const IpAddress& v4() const { return made_.v4; }
  const std::optional<IpAddress>& v6() const { return made_.v6; }
  const std::optional<IpAddress>& resolver() const { return resolver_; }

 private:
  friend class NetworkPool;
  NetworkLease(std::shared_ptr<const PreparedPolicy> policy, MadeNamespace made, std::optional<IpAddress> resolver)
      : policy_(std::move(policy)),
        made_(made),
        resolver_(resolver),
        open_(std::make_shared<std::atomic<uint32_t>>(0)) {}
  Result<LeasedSocket> count(UniqueFd fd);
  void release();

  std::shared_ptr<const PreparedPolicy> policy_;  // null: moved from
  MadeNamespace made_;
  std::optional<IpAddress> resolver_;
  std::shared_ptr<std::atomic<uint32_t>> open_;  // its sockets
};

struct NetworkPoolStats {
  size_t ready = 0;
  uint64_t made = 0;       // before they were asked for
  uint64_t made_late = 0;  // by take(), where the pool was empty
  std::string v4_problem;  // why functions cannot get out of this host; empty: they can
  std::string v6_problem;
};

class NetworkPool {
 public:
  // "Network is not available: WHY" where this machine or this process cannot. The broker must have
  // network_operations() and outlives the pool, its policies and its leases.
  static Result<std::unique_ptr<NetworkPool>> open(Broker& broker, NetworkPoolOptions options);
  ~NetworkPool();
  NetworkPool(const NetworkPool&) = delete;
  NetworkPool& operator=(const NetworkPool&) = delete;

  // Milliseconds. kInvalidArgument, kPermissionDenied: what is wrong with the policy, beyond the host's limits among
  // it.
  Result<std::shared_ptr<PreparedPolicy>> prepare(NetworkPolicy policy);
  // Any thread. kResourceExhausted where all namespaces are in use.
  Result<NetworkLease> take(std::shared_ptr<const PreparedPolicy> policy);

  NetworkPoolStats stats() const;

 private:
  struct State {
    std::deque<MadeNamespace> ready;
    std::chrono::steady_clock::time_point last_take;
    bool filler_rests = false;  // until it is woken
    bool stopping = false;
    uint64_t made = 0;
    uint64_t made_late = 0;
    std::map<Bytes, std::weak_ptr<PreparedPolicy>> policies;  // by what they say; dead ones until the next look
  };

  NetworkPool(Broker& broker, NetworkPoolOptions options, const MadeNamespace& first, std::string v4_problem,
              std::string v6_problem);
  Result<NetworkLease> attach(const MadeNamespace& made, std::shared_ptr<const PreparedPolicy> policy);
  void fill();
  void resolve_names();

  Broker& broker_;
  const NetworkPoolOptions options_;
  const std::string v4_problem_;
  const std::string v6_problem_;
  Guarded<State> state_;
  std::condition_variable changed_;   // for the filler
  std::condition_variable stopping_;  // for the resolver
  std::thread filler_;
  std::thread resolver_;
};

}  // namespace spore::isolation

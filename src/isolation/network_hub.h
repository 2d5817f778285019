// The broker's side of the network: the hub, which all Faaslets' networks meet in, and the namespaces around it.
//
//   a Faaslet's namespace         hub, a namespace of Spore's own                  the host's namespace
//   eth0 198.18.4.7 ---veth--- sp7 -- rules of its policy -- masquerade -- up ---veth--- spore0 -- masquerade -- out
//   sends at most at its        sends at most at                                     nothing comes in; nothing may go
//   egress rate                 its ingress rate                                     to the host itself
//
// Traffic is forwarded between a Faaslet and the uplink only, and a Faaslet begins all connections. A policy is a chain
// of rules. The group of an interface says which policy it has: giving a namespace to a function changes that number,
// by one netlink message, and no rule. Group 0 has no policy: nothing passes, not even for connections that stand.
//
// All that is here lives in namespaces that only descriptors of this process (and sockets made in them) keep alive, and
// in a table of the host's that belongs to a socket of this process: when the process ends, however it does, the kernel
// removes all of it. What nevertheless is left of an owner that is dead is removed when a hub is made.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "isolation/broker.h"
#include "isolation/firewall.h"
#include "isolation/netlink.h"
#include "isolation/network_policy.h"

namespace spore::isolation {

// A namespace that was made: no other ever has the same.
struct NamespaceId {
  uint32_t slot = 0;
  uint64_t serial = 0;

  bool operator==(const NamespaceId&) const = default;
};

struct MadeNamespace {
  NamespaceId id;
  IpAddress v4;
  std::optional<IpAddress> v6;
};

// Why functions cannot get out of this host, as it was when the hub was made; empty: they can.
struct UplinkStatus {
  std::string v4_problem;
  std::string v6_problem;
};

// One thread: the broker's.
class NetworkHub {
 public:
  // kFailedPrecondition, kPermissionDenied: what the machine lacks.
  static Result<std::unique_ptr<NetworkHub>> make(const NetworkLimits& limits);
  ~NetworkHub();
  NetworkHub(const NetworkHub&) = delete;
  NetworkHub& operator=(const NetworkHub&) = delete;

  const UplinkStatus& uplink_status() const { return uplink_status_; }

  // A namespace without a policy. kResourceExhausted where namespaces_max are in use or not yet gone.
  Result<MadeNamespace> make_namespace();
  // Once for each namespace.
  Result<void> attach(NamespaceId id, uint32_t policy);
  // TCP or UDP, non-blocking, close-on-exec. A namespace without a policy gives none.
  Result<UniqueFd> make_socket(NamespaceId id, int family, int type);
  // Cuts it off at once, also for sockets that are still open; the namespace goes when the last of them is closed.
  Result<void> release(NamespaceId id);

  Result<uint32_t> add_policy(NetworkPolicy policy);
  // Changes what the policy allows, for all that have it; its rates stay.
  Result<void> change_policy(uint32_t number, NetworkPolicy policy);
  Result<void> remove_policy(uint32_t number);

 private:
  enum class SlotState : uint8_t { kFree, kReady, kAttached, kLeaving };
  struct Slot {
    SlotState state = SlotState::kFree;
    uint64_t serial = 0;
    uint32_t link = 0;     // of the hub's end
    uint32_t address = 0;  // its place among the addresses of IPv4
    uint32_t policy = 0;
    UniqueFd network_namespace;
    NetlinkSocket netlink;
  };
  struct Policy {
    NetworkPolicy policy;
    uint32_t attached = 0;
  };

  explicit NetworkHub(NetworkLimits limits) : limits_(std::move(limits)) {}
  Result<void> build();
  Result<void> build_uplink();
  Result<void> remove_leftovers();
  Result<uint32_t> free_slot();
  Result<uint32_t> free_address();
  Result<Slot*> find(NamespaceId id);

  const NetworkLimits limits_;
  bool has_v6_ = false;
  UniqueFd host_namespace_;
  UniqueFd hub_namespace_;  // this process is in it
  NetlinkSocket host_netlink_;
  NetlinkSocket netlink_;
  std::optional<Firewall> host_firewall_;
  std::optional<Firewall> firewall_;
  UplinkStatus uplink_status_;
  std::string uplink_name_;    // in the host's namespace
  uint32_t uplink_index_ = 0;  // there
  std::vector<Slot> slots_;
  uint32_t next_slot_ = 0;
  std::vector<bool> addresses_used_;
  uint32_t next_address_ = 0;
  uint64_t last_serial_ = 0;
  std::map<uint32_t, Policy> policies_;
  uint32_t last_policy_ = 0;
};

// For Broker::start. The hub is made by the first "network.open" and goes with the broker.
std::vector<BrokerOperation> network_operations(NetworkLimits limits);

}  // namespace spore::isolation

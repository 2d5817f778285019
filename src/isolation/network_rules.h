// The text of the rules, in the language of nftables. Pure functions: policies and limits have been checked, and
// nothing but numbers and names of our own gets into the text.
#pragma once

#include <string>

#include "isolation/network_policy.h"

namespace spore::isolation {

// Groups of interfaces in the hub: what a packet may do depends on the group of the link that it came from.
constexpr uint32_t kNoPolicyGroup = 0;  // nothing passes
constexpr uint32_t kUplinkGroup = 1;
constexpr uint32_t kFirstPolicyGroup = 2;  // the number of a policy is its group

// The hub's table, without policies.
std::string hub_rules(const NetworkLimits& limits);

struct HostRules {
  std::string table;
  std::string uplink;  // the host's end of it
  IpAddress hub_v4;    // the hub's end
  IpAddress hub_v6;
  bool forwards_v4 = true;  // the host does
  bool forwards_v6 = true;
};
// The table in the host's namespace, owned by the socket that makes it. What comes from the uplink reaches no address
// of the host that it may not, also not by a translation of the host's own (a container's published port); nothing goes
// into the uplink but answers.
std::string host_rules(const HostRules& rules, const NetworkLimits& limits);

// Of one policy, in the hub's table.
std::string rules_to_add(uint32_t number, const NetworkPolicy& policy, const NetworkLimits& limits);
std::string rules_to_change(uint32_t number, const NetworkPolicy& policy, const NetworkLimits& limits);
std::string rules_to_remove(uint32_t number);

}  // namespace spore::isolation

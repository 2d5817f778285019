#include "isolation/network_rules.h"

#include <string_view>

namespace spore::isolation {
namespace {

std::string family_of(const IpAddress& address) { return address.v6 ? "ip6" : "ip"; }

std::string define(std::string_view name, std::string_view value) {
  return "define " + std::string(name) + " = " + std::string(value) + "\n";
}

// A refusal is answered, so that a guest's connect() fails at once: TCP by a reset, since an ICMP message that comes
// while connect() still runs is forgotten.
constexpr std::string_view kRefuse = R"(
 chain refuse {
  meta l4proto tcp reject with tcp reset
  reject with icmpx admin-prohibited
 }
)";

std::string to_resolver(const IpAddress& resolver) {
  return family_of(resolver) + " daddr " + resolver.to_string() + " meta l4proto { tcp, udp } th dport 53 accept\n";
}

std::string chain_of(uint32_t policy) { return "policy_" + std::to_string(policy); }

std::string rules_of(uint32_t number, const NetworkPolicy& policy, const NetworkLimits& limits) {
  const std::string rule = "add rule inet spore " + chain_of(number) + " ";
  std::string out;
  for (const Destination& destination : policy.allow)
    out += rule + family_of(destination.addresses.address) + " daddr " + destination.addresses.to_string() +
           (destination.protocol == Protocol::kTcp ? " tcp" : " udp") + " dport " +
           std::to_string(destination.port_first) + "-" + std::to_string(destination.port_last) + " accept\n";
  if (limits.resolver) out += rule + to_resolver(*limits.resolver);
  if (policy.internet) {
    out += rule + "ip daddr != @not_public_v4 meta l4proto { tcp, udp } accept\n";
    out += rule + "ip6 daddr " + public_v6() + " ip6 daddr != @not_public_v6 meta l4proto { tcp, udp } accept\n";
  }
  return out + rule + "goto refuse\n";
}

}  // namespace

std::string hub_rules(const NetworkLimits& limits) {
  const std::string connections = std::to_string(limits.connections_max);
  return define("none", std::to_string(kNoPolicyGroup)) + define("up", std::to_string(kUplinkGroup)) +
         define("not_public_v4", "{ " + not_public_v4() + " }") +
         define("not_public_v6", "{ " + not_public_v6() + " }") + "table inet spore {" + std::string(kRefuse) + R"(
 set not_public_v4 { type ipv4_addr; flags interval; elements = $not_public_v4; }
 set not_public_v6 { type ipv6_addr; flags interval; elements = $not_public_v6; }
 set counted_v4 { type ipv4_addr; size 65536; flags dynamic; }
 set counted_v6 { type ipv6_addr; size 65536; flags dynamic; }
 map policies { type devgroup : verdict; }
 chain input {
  type filter hook input priority 0; policy drop;
  iifgroup != $up goto refuse
 }
 chain output {
  type filter hook output priority 0; policy drop;
  meta l4proto { icmp, icmpv6 } accept
  tcp flags & rst == rst accept
 }
 chain forward {
  type filter hook forward priority 0; policy drop;
  iifgroup $none drop
  oifgroup $none drop
  iifgroup $up oifgroup $up drop
  fib saddr . iif oif missing drop
  iifgroup != $up oifgroup != $up goto refuse
  ct state established,related accept
  ct state invalid drop
  iifgroup $up drop
  ct state new add @counted_v4 { ip saddr ct count over )" +
         connections + R"( } goto refuse
  ct state new add @counted_v6 { ip6 saddr ct count over )" +
         connections + R"( } goto refuse
  iifgroup vmap @policies
 }
 chain postrouting {
  type nat hook postrouting priority srcnat; policy accept;
  oifgroup $up masquerade
 }
}
)";
}

std::string host_rules(const HostRules& rules, const NetworkLimits& limits) {
  std::string out = define("uplink", "\"" + rules.uplink + "\"") + define("hub_v4", rules.hub_v4.to_string()) +
                    define("hub_v6", rules.hub_v6.to_string()) + "table inet " + rules.table + " {\n flags owner\n" +
                    std::string(kRefuse) + R"(
 chain not_forwarded {
 }
 chain allowed {
 }
 chain from_hub {
  ip saddr != $hub_v4 drop
  ip6 saddr != $hub_v6 drop
  fib daddr type != local jump not_forwarded
  jump allowed
  fib daddr type local goto refuse
 }
 chain prerouting {
  type filter hook prerouting priority -150; policy accept;
  iifname $uplink jump from_hub
 }
 chain forward {
  type filter hook forward priority -10; policy accept;
  oifname $uplink ct state established,related accept
  oifname $uplink drop
 }
 chain postrouting {
  type nat hook postrouting priority srcnat; policy accept;
  ip saddr $hub_v4 oifname != $uplink masquerade
  ip6 saddr $hub_v6 oifname != $uplink masquerade
 }
}
)";
  // Else the host would drop it without a word.
  const std::string refuse = "add rule inet " + rules.table + " not_forwarded meta nfproto ";
  if (!rules.forwards_v4) out += refuse + "ipv4 goto refuse\n";
  if (!rules.forwards_v6) out += refuse + "ipv6 goto refuse\n";
  const std::string rule = "add rule inet " + rules.table + " allowed ";
  for (const IpRange& range : limits.reachable)
    out += rule + family_of(range.address) + " daddr " + range.to_string() + " accept\n";
  if (limits.resolver) out += rule + to_resolver(*limits.resolver);
  return out;
}

std::string rules_to_add(uint32_t number, const NetworkPolicy& policy, const NetworkLimits& limits) {
  return "add chain inet spore " + chain_of(number) + "\n" + rules_of(number, policy, limits) +
         "add element inet spore policies { " + std::to_string(number) + " : goto " + chain_of(number) + " }\n";
}

std::string rules_to_change(uint32_t number, const NetworkPolicy& policy, const NetworkLimits& limits) {
  return "flush chain inet spore " + chain_of(number) + "\n" + rules_of(number, policy, limits);
}

std::string rules_to_remove(uint32_t number) {
  return "delete element inet spore policies { " + std::to_string(number) + " }\n" + "delete chain inet spore " +
         chain_of(number) + "\n";
}

}  // namespace spore::isolation

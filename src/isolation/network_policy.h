// What a function may do with the network, and the operator's limits on that.
//
// By default nothing: whoever is not named is not reached, and nobody reaches the function. The policy comes from a
// tenant. The limits come from the operator, are given to the broker before it is forked, and bound what any policy can
// say: check() refuses whatever goes beyond them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "isolation/ip_address.h"

namespace spore::isolation {

enum class Protocol : uint8_t { kTcp = 6, kUdp = 17 };

struct Destination {
  IpRange addresses;
  Protocol protocol = Protocol::kTcp;
  uint16_t port_first = 1;
  uint16_t port_last = 65'535;  // included

  bool operator==(const Destination&) const = default;
};

// A host's name, whatever its addresses are now: those that the host's own resolver gives and that a policy may name.
struct NamedDestination {
  std::string name;  // of letters, digits, '-' and '.'
  Protocol protocol = Protocol::kTcp;
  uint16_t port_first = 1;
  uint16_t port_last = 65'535;  // included

  bool operator==(const NamedDestination&) const = default;
};

struct NetworkPolicy {
  bool internet = false;  // every public address, any port, TCP and UDP
  std::vector<Destination> allow;
  std::vector<NamedDestination> allow_names;  // the pool resolves them; the broker knows addresses alone
  uint64_t egress_bits_per_second = 100'000'000;
  uint64_t ingress_bits_per_second = 100'000'000;
  uint32_t sockets_max = 64;  // of one Faaslet, open at once; counted by the serving process

  bool operator==(const NetworkPolicy&) const = default;
};

struct NetworkLimits {
  // The private networks that functions may be allowed to reach, this host's own addresses included. A policy that
  // names others is refused. Nothing that reach_of() calls kNever may be in it.
  std::vector<IpRange> reachable;
  // Every function with a network may ask it for names (port 53). Unset: there is none. Never a loopback address.
  std::optional<IpAddress> resolver;
  uint32_t namespaces_max = 1'000;   // in all: ready, in use, being removed
  uint32_t addresses = 120'000;      // of IPv4, that namespaces take in turn; more than namespaces_max
  uint32_t policies_max = 1'024;     // at once
  uint32_t destinations_max = 256;   // of one policy, the addresses of its names included
  uint32_t names_max = 32;           // of one policy
  uint32_t connections_max = 1'024;  // of one namespace, at once, as the hub counts them
  uint64_t bits_per_second_max = 10'000'000'000;
};
constexpr uint64_t kBitsPerSecondMin = 64'000;
constexpr uint32_t kNamespacesMaxMax = 16'384;
constexpr uint32_t kAddressesMax = 120'000;

Result<void> check(const NetworkLimits& limits);
Result<void> check(const NetworkPolicy& policy, const NetworkLimits& limits);
Result<void> check(const Destination& destination, const NetworkLimits& limits);

// Adds what a text allows: "ADDRESS:PORT", "ADDRESS/BITS:PORT", "NAME:PORT", with a range of ports as "80-90", "*" for
// all of them, and "/udp" behind where it is not TCP. IPv6 addresses are in brackets. kInvalidArgument, naming it.
Result<void> add_allowed(NetworkPolicy& policy, std::string_view text);
// What was added, as texts again.
std::vector<std::string> allowed_texts(const NetworkPolicy& policy);

// For the way to the broker, without what it need not know (names, the count of sockets). parse_policy() refuses what
// is not exactly that; whether the policy may be is check()'s question.
Bytes serialize(const NetworkPolicy& policy);
Result<NetworkPolicy> parse_policy(ByteSpan bytes);

}  // namespace spore::isolation

// Addresses of IPv4 and IPv6, ranges of them (CIDR), and which of them are what: public, private, or nobody's business.
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spore::isolation {

struct IpAddress {
  bool v6 = false;
  std::array<uint8_t, 16> bytes{};  // network order; IPv4 has the first four

  static Result<IpAddress> parse(std::string_view text);
  static IpAddress from_v4(uint32_t host_order);
  static IpAddress from_v4(in_addr address);
  static IpAddress from_v6(const in6_addr& address);
  std::string to_string() const;
  size_t size() const { return v6 ? 16 : 4; }

  bool operator==(const IpAddress&) const = default;
};

// All addresses whose first `prefix_bits` are those of `address`; the other bits of `address` are 0.
struct IpRange {
  IpAddress address;
  uint8_t prefix_bits = 0;

  // "10.0.0.0/8", "10.1.2.3", "2001:db8::/32". An address with bits beyond its prefix is refused: it is a mistake.
  static Result<IpRange> parse(std::string_view text);
  static IpRange of(const IpAddress& address) { return {address, static_cast<uint8_t>(address.size() * 8)}; }
  std::string to_string() const;  // always with its prefix
  bool valid() const;
  bool contains(const IpAddress& other) const { return contains(of(other)); }
  bool contains(const IpRange& other) const;
  bool overlaps(const IpRange& other) const { return contains(other) || other.contains(*this); }

  bool operator==(const IpRange&) const = default;
};

// What addresses are for, after the registries of special-purpose addresses (RFC 6890 and its successors).
enum class Reach : uint8_t {
  kPublic,   // anybody on the Internet
  kPrivate,  // a network around this host, if the operator says so: RFC 1918, 100.64/10, fc00::/7
  kNever,    // loopback, link-local (and with it cloud metadata), multicast, reserved, Spore's own, and IPv6 addresses
             // that have an IPv4 one inside
};
// Of all of its addresses: the strictest.
Reach reach_of(const IpRange& range);

// As IPv4 and IPv6 each write them, for rules: what a function that may use the Internet may still not reach.
std::string not_public_v4();  // "0.0.0.0/8, 10.0.0.0/8, ..."
std::string not_public_v6();  // what is excepted from public_v6()
std::string public_v6();      // "2000::/3"

}  // namespace spore::isolation

#include "isolation/network_policy.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace spore::isolation {
namespace {

constexpr size_t kDestinationBytes = 1 + 16 + 1 + 1 + 2 + 2;
constexpr size_t kNameBytesMax = 253;  // RFC 1035

std::string describe(const Destination& destination) {
  return destination.addresses.to_string() + (destination.protocol == Protocol::kTcp ? " tcp " : " udp ") +
         std::to_string(destination.port_first) + "-" + std::to_string(destination.port_last);
}

Result<void> check_ports(uint16_t first, uint16_t last, Protocol protocol, const std::string& whose) {
  if (protocol != Protocol::kTcp && protocol != Protocol::kUdp)
    return fail(ErrorCode::kInvalidArgument, whose + ": protocols are TCP and UDP");
  if (first == 0 || first > last) return fail(ErrorCode::kInvalidArgument, whose + ": no valid range of ports");
  return {};
}

Result<void> check_name(const NamedDestination& destination) {
  const std::string& name = destination.name;
  const auto fits = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.'; };
  if (name.empty() || name.size() > kNameBytesMax || !std::ranges::all_of(name, fits) || IpAddress::parse(name))
    return fail(ErrorCode::kInvalidArgument, "\"" + name.substr(0, kNameBytesMax) + "\" is no name of a host");
  return check_ports(destination.port_first, destination.port_last, destination.protocol, name);
}

Result<void> check_rate(uint64_t bits_per_second, const NetworkLimits& limits) {
  if (bits_per_second >= kBitsPerSecondMin && bits_per_second <= limits.bits_per_second_max) return {};
  return fail(ErrorCode::kInvalidArgument, std::to_string(bits_per_second) + " bits per second: must be " +
                                               std::to_string(kBitsPerSecondMin) + " to " +
                                               std::to_string(limits.bits_per_second_max));
}

}  // namespace

Result<void> check(const NetworkLimits& limits) {
  for (const IpRange& range : limits.reachable) {
    if (!range.valid()) return fail(ErrorCode::kInvalidArgument, "a reachable range of addresses is malformed");
    if (reach_of(range) == Reach::kNever)
      return fail(ErrorCode::kInvalidArgument,
                  range.to_string() +
                      ": has loopback, link-local, multicast or reserved addresses in it, which no function may reach");
  }
  if (limits.resolver) {
    const auto& bytes = limits.resolver->bytes;
    const bool loopback = limits.resolver->v6 ? *limits.resolver == *IpAddress::parse("::1") : bytes[0] == 127;
    if (loopback)
      return fail(ErrorCode::kInvalidArgument,
                  "the resolver " + limits.resolver->to_string() + " is this host's loopback, where no function comes");
  }
  if (limits.namespaces_max == 0 || limits.namespaces_max > kNamespacesMaxMax)
    return fail(ErrorCode::kInvalidArgument, "network namespaces: 1 to " + std::to_string(kNamespacesMaxMax));
  if (limits.addresses <= limits.namespaces_max || limits.addresses > kAddressesMax)
    return fail(ErrorCode::kInvalidArgument,
                "addresses of IPv4: more than there are namespaces, at most " + std::to_string(kAddressesMax));
  return {};
}

Result<void> check(const Destination& destination, const NetworkLimits& limits) {
  const IpRange& addresses = destination.addresses;
  if (!addresses.valid()) return fail(ErrorCode::kInvalidArgument, "a range of addresses is malformed");
  TRY(check_ports(destination.port_first, destination.port_last, destination.protocol, describe(destination)));
  switch (reach_of(addresses)) {
    case Reach::kPublic: return {};
    case Reach::kPrivate:
      if (std::ranges::any_of(limits.reachable, [&](const IpRange& range) { return range.contains(addresses); }))
        return {};
      return fail(ErrorCode::kPermissionDenied,
                  describe(destination) + ": private addresses that this host does not let functions reach");
    case Reach::kNever: break;
  }
  return fail(ErrorCode::kPermissionDenied,
              describe(destination) + ": has loopback, link-local, multicast or reserved addresses in it");
}

Result<void> check(const NetworkPolicy& policy, const NetworkLimits& limits) {
  if (policy.allow.size() > limits.destinations_max)
    return fail(ErrorCode::kInvalidArgument, std::to_string(policy.allow.size()) + " destinations; at most " +
                                                 std::to_string(limits.destinations_max) + " are possible");
  for (const Destination& destination : policy.allow) TRY(check(destination, limits));
  if (policy.allow_names.size() > limits.names_max)
    return fail(ErrorCode::kInvalidArgument, std::to_string(policy.allow_names.size()) + " names; at most " +
                                                 std::to_string(limits.names_max) + " are possible");
  for (const NamedDestination& destination : policy.allow_names) TRY(check_name(destination));
  TRY(check_rate(policy.egress_bits_per_second, limits));
  return check_rate(policy.ingress_bits_per_second, limits);
}

namespace {

std::optional<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

std::string ports_text(uint16_t first, uint16_t last, Protocol protocol) {
  std::string out = first == 1 && last == 65'535 ? "*" : std::to_string(first);
  if (out != "*" && last != first) out += "-" + std::to_string(last);
  return out + (protocol == Protocol::kUdp ? "/udp" : "");
}

}  // namespace

Result<void> add_allowed(NetworkPolicy& policy, std::string_view text) {
  const auto wrong = [&](const std::string& why) {
    return fail(ErrorCode::kInvalidArgument, "\"" + std::string(text.substr(0, kNameBytesMax + 32)) + "\": " + why);
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos)
    return wrong("must be written HOST:PORT, as 10.1.0.0/16:443, [2001:db8::7]:53/udp or db.example.com:5432");
  std::string_view host = text.substr(0, colon);
  std::string_view ports = text.substr(colon + 1);
  Protocol protocol = Protocol::kTcp;
  if (const size_t slash = ports.find('/'); slash != std::string_view::npos) {
    const std::string_view name = ports.substr(slash + 1);
    if (name != "tcp" && name != "udp") return wrong("the protocol behind the port is tcp or udp");
    if (name == "udp") protocol = Protocol::kUdp;
    ports = ports.substr(0, slash);
  }
  uint16_t first = 1, last = 65'535;
  if (ports != "*") {
    const size_t dash = ports.find('-');
    const auto from = parse_port(ports.substr(0, dash));
    const auto to = dash == std::string_view::npos ? from : parse_port(ports.substr(dash + 1));
    if (!from || !to || *from > *to) return wrong("the port is a number from 1 to 65535, a range as 80-90, or *");
    first = *from;
    last = *to;
  }
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (const auto range = IpRange::parse(host)) {
    if (range->address.v6 != bracketed) return wrong("IPv6 addresses, and they alone, are in brackets");
    policy.allow.push_back({.addresses = *range, .protocol = protocol, .port_first = first, .port_last = last});
    return {};
  } else if (bracketed || host.contains('/') || host.contains(':')) {
    return wrong(range.error().message);
  }
  const NamedDestination named{.name = std::string(host), .protocol = protocol, .port_first = first, .port_last = last};
  if (const auto fits = check_name(named); !fits) return wrong(fits.error().message);
  policy.allow_names.push_back(named);
  return {};
}

std::vector<std::string> allowed_texts(const NetworkPolicy& policy) {
  std::vector<std::string> out;
  for (const Destination& destination : policy.allow) {
    const IpRange& range = destination.addresses;
    const std::string host = range == IpRange::of(range.address) ? range.address.to_string() : range.to_string();
    out.push_back((range.address.v6 ? "[" + host + "]" : host) + ":" +
                  ports_text(destination.port_first, destination.port_last, destination.protocol));
  }
  for (const NamedDestination& named : policy.allow_names)
    out.push_back(named.name + ":" + ports_text(named.port_first, named.port_last, named.protocol));
  return out;
}

Bytes serialize(const NetworkPolicy& policy) {
  ByteWriter out;
  out.write<uint8_t>(policy.internet);
  out.write(policy.egress_bits_per_second);
  out.write(policy.ingress_bits_per_second);
  out.write<uint64_t>(policy.allow.size());
  for (const Destination& destination : policy.allow) {
    out.write<uint8_t>(destination.addresses.address.v6);
    for (const uint8_t byte : destination.addresses.address.bytes) out.write(byte);
    out.write(destination.addresses.prefix_bits);
    out.write(destination.protocol);
    out.write(destination.port_first);
    out.write(destination.port_last);
  }
  return out.take();
}

Result<NetworkPolicy> parse_policy(ByteSpan bytes) {
  ByteReader in(bytes);
  NetworkPolicy out;
  bool flags_ok = true;
  const auto read_flag = [&] {
    const auto value = in.read<uint8_t>();
    flags_ok &= value <= 1;
    return value == 1;
  };
  out.internet = read_flag();
  out.egress_bits_per_second = in.read<uint64_t>();
  out.ingress_bits_per_second = in.read<uint64_t>();
  out.allow.resize(in.read_count(kDestinationBytes));
  for (Destination& destination : out.allow) {
    destination.addresses.address.v6 = read_flag();
    for (uint8_t& byte : destination.addresses.address.bytes) byte = in.read<uint8_t>();
    destination.addresses.prefix_bits = in.read<uint8_t>();
    destination.protocol = in.read<Protocol>();
    destination.port_first = in.read<uint16_t>();
    destination.port_last = in.read<uint16_t>();
  }
  if (!in.ok() || !in.at_end() || !flags_ok) return fail(ErrorCode::kInvalidArgument, "a malformed network policy");
  return out;
}

}  // namespace spore::isolation

#include "isolation/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <span>

namespace spore::isolation {
namespace {

struct Special {
  const char* range;
  Reach reach;
};

constexpr Special kSpecialV4[] = {
    {"0.0.0.0/8", Reach::kNever},        {"10.0.0.0/8", Reach::kPrivate},   {"100.64.0.0/10", Reach::kPrivate},
    {"127.0.0.0/8", Reach::kNever},      {"169.254.0.0/16", Reach::kNever}, {"172.16.0.0/12", Reach::kPrivate},
    {"192.0.0.0/24", Reach::kNever},     {"192.0.2.0/24", Reach::kNever},   {"192.88.99.0/24", Reach::kNever},
    {"192.168.0.0/16", Reach::kPrivate}, {"198.18.0.0/15", Reach::kNever},  {"198.51.100.0/24", Reach::kNever},
    {"203.0.113.0/24", Reach::kNever},   {"224.0.0.0/4", Reach::kNever},    {"240.0.0.0/4", Reach::kNever},
};
// Of 2000::/3: assignments of protocols (Teredo among them), documentation, 6to4.
constexpr const char* kPublicV6 = "2000::/3";
constexpr const char* kNotPublicV6[] = {"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"};
constexpr const char* kPrivateV6 = "fc00::/7";
constexpr const char* kOwnV6 = "fd53:706f:7265::/48";  // the Faaslets'

IpRange literal(const char* text) { return *IpRange::parse(text); }

template <class Items, class Text>
std::string join(const Items& items, Text text) {
  std::string out;
  for (const auto& item : items) out += (out.empty() ? "" : ", ") + std::string(text(item));
  return out;
}

}  // namespace

Result<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string copy(text.substr(0, 64));
  if (copy.size() == text.size() && !copy.contains('\0')) {
    IpAddress out;
    if (::inet_pton(AF_INET, copy.c_str(), out.bytes.data()) == 1) return out;
    out.v6 = true;
    if (::inet_pton(AF_INET6, copy.c_str(), out.bytes.data()) == 1) return out;
  }
  return fail(ErrorCode::kInvalidArgument, "\"" + copy + "\" is no address of IPv4 or IPv6");
}

IpAddress IpAddress::from_v4(uint32_t host_order) { return from_v4(in_addr{htonl(host_order)}); }

IpAddress IpAddress::from_v4(in_addr address) {
  IpAddress out;
  std::memcpy(out.bytes.data(), &address, sizeof(address));
  return out;
}

IpAddress IpAddress::from_v6(const in6_addr& address) {
  IpAddress out{.v6 = true};
  std::memcpy(out.bytes.data(), &address, sizeof(address));
  return out;
}

std::string IpAddress::to_string() const {
  char text[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(v6 ? AF_INET6 : AF_INET, bytes.data(), text, sizeof(text));
  return text;
}

Result<IpRange> IpRange::parse(std::string_view text) {
  const size_t slash = text.find('/');
  ASSIGN_OR_RETURN(const IpAddress address, IpAddress::parse(text.substr(0, slash)));
  IpRange out = of(address);
  if (slash == text.npos) return out;
  const std::string_view bits = text.substr(slash + 1);
  const auto [end, error] = std::from_chars(bits.data(), bits.data() + bits.size(), out.prefix_bits);
  const std::string shown(text.substr(0, 64));
  if (error != std::errc() || end != bits.data() + bits.size() || out.prefix_bits > address.size() * 8)
    return fail(ErrorCode::kInvalidArgument, "\"" + shown + "\" has no valid prefix length after its slash");
  if (!out.valid()) return fail(ErrorCode::kInvalidArgument, "\"" + shown + "\" has bits set beyond its prefix");
  return out;
}

std::string IpRange::to_string() const { return address.to_string() + "/" + std::to_string(prefix_bits); }

bool IpRange::valid() const {
  if (prefix_bits > address.size() * 8) return false;
  for (size_t bit = prefix_bits; bit < 128; ++bit)
    if (address.bytes[bit / 8] & (0x80 >> (bit % 8))) return false;
  return true;
}

bool IpRange::contains(const IpRange& other) const {
  if (address.v6 != other.address.v6 || other.prefix_bits < prefix_bits) return false;
  const size_t whole = prefix_bits / 8;
  if (!std::equal(address.bytes.begin(), address.bytes.begin() + whole, other.address.bytes.begin())) return false;
  const uint8_t mask = static_cast<uint8_t>(0xff00 >> (prefix_bits % 8));
  return prefix_bits % 8 == 0 || ((address.bytes[whole] ^ other.address.bytes[whole]) & mask) == 0;
}

Reach reach_of(const IpRange& range) {
  Reach strictest = Reach::kPublic;
  if (!range.address.v6) {
    for (const auto& special : kSpecialV4)
      if (literal(special.range).overlaps(range)) strictest = std::max(strictest, special.reach);
    return strictest;
  }
  if (literal(kOwnV6).overlaps(range)) return Reach::kNever;
  if (literal(kPrivateV6).contains(range)) return Reach::kPrivate;
  if (!literal(kPublicV6).contains(range)) return Reach::kNever;
  for (const char* special : kNotPublicV6)
    if (literal(special).overlaps(range)) return Reach::kNever;
  return Reach::kPublic;
}

std::string not_public_v4() {
  return join(kSpecialV4, [](const Special& special) { return special.range; });
}
std::string not_public_v6() {
  return join(kNotPublicV6, [](const char* range) { return range; });
}
std::string public_v6() { return kPublicV6; }

}  // namespace spore::isolation

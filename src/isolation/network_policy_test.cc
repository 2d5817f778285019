#include "isolation/network_policy.h"

#include <gtest/gtest.h>

namespace spore::isolation {
namespace {

IpRange range(std::string_view text) {
  auto out = IpRange::parse(text);
  EXPECT_TRUE(out.has_value()) << text;
  return out.value_or(IpRange{});
}

TEST(IpRange, ReadsWhatItWrites) {
  for (const char* text : {"0.0.0.0/0", "10.0.0.0/8", "192.168.1.7/32", "::/0", "2620:4f:8000::/48", "fd99::1/128"})
    EXPECT_EQ(range(text).to_string(), text);
  EXPECT_EQ(range("1.2.3.4").to_string(), "1.2.3.4/32");
  EXPECT_EQ(range("fd99::1").to_string(), "fd99::1/128");
}

TEST(IpRange, RefusesWhatIsNone) {
  for (const char* text : {"", "/", "1.2.3", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/8", "10.0.0.0/8 ",
                           "::/129", "fd99::1/64", "example.org", "1.2.3.4/0x8", "256.1.1.1", "010.0.0.1/32/1"})
    EXPECT_FALSE(IpRange::parse(text).has_value()) << text;
  EXPECT_FALSE(IpRange::parse(std::string("1.2.3.4\0", 8)).has_value());
}

TEST(IpRange, ContainsWhatHasItsPrefix) {
  EXPECT_TRUE(range("10.0.0.0/8").contains(range("10.255.0.0/16")));
  EXPECT_FALSE(range("10.0.0.0/8").contains(range("11.0.0.0/16")));
  EXPECT_FALSE(range("10.0.0.0/16").contains(range("10.0.0.0/8")));
  EXPECT_TRUE(range("172.16.0.0/12").contains(range("172.31.255.255")));
  EXPECT_FALSE(range("172.16.0.0/12").contains(range("172.32.0.0")));
  EXPECT_FALSE(range("::/0").contains(range("1.2.3.4")));
  EXPECT_TRUE(range("0.0.0.0/0").contains(range("1.2.3.4")));
}

TEST(Reach, ArrangesAddresses) {
  for (const char* text : {"1.1.1.1", "192.31.196.10", "172.32.0.1", "2620:4f:8000::10", "2a00::/16"})
    EXPECT_EQ(reach_of(range(text)), Reach::kPublic) << text;
  for (const char* text : {"10.0.0.1", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.1", "fd99::10", "fc00::1"})
    EXPECT_EQ(reach_of(range(text)), Reach::kPrivate) << text;
  for (const char* text : {"127.0.0.1", "169.254.169.254", "0.0.0.0/0", "224.0.0.1", "255.255.255.255", "198.18.4.7",
                           "::1", "fe80::1", "ff02::1", "::/0", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1",
                           "2001::1", "2000::/3", "fc00::/7", "fd53:706f:7265::1", "0.0.0.0"})
    EXPECT_EQ(reach_of(range(text)), Reach::kNever) << text;
  EXPECT_EQ(reach_of(range("8.0.0.0/6")), Reach::kPrivate);  // 10.0.0.0/8 is in it
}

TEST(NetworkPolicy, NamesNothingThatTheHostDoesNotAllow) {
  const NetworkLimits limits{.reachable = {range("10.9.0.0/24")}};
  const auto code = [&](const Destination& destination) {
    const auto checked = check(NetworkPolicy{.allow = {destination}}, limits);
    return checked ? std::optional<ErrorCode>() : checked.error().code;
  };
  EXPECT_EQ(code({.addresses = range("10.9.0.7")}), std::nullopt);
  EXPECT_EQ(code({.addresses = range("1.1.1.1")}), std::nullopt);
  EXPECT_EQ(code({.addresses = range("10.9.1.7")}), ErrorCode::kPermissionDenied);
  EXPECT_EQ(code({.addresses = range("10.9.0.0/16")}), ErrorCode::kPermissionDenied);
  EXPECT_EQ(code({.addresses = range("0.0.0.0/0")}), ErrorCode::kPermissionDenied);
  EXPECT_EQ(code({.addresses = range("169.254.169.254")}), ErrorCode::kPermissionDenied);
  EXPECT_EQ(code({.addresses = range("1.1.1.1"), .port_first = 0}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({.addresses = range("1.1.1.1"), .port_first = 9, .port_last = 8}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({.addresses = range("1.1.1.1"), .protocol = static_cast<Protocol>(1)}), ErrorCode::kInvalidArgument);
  IpRange crooked = range("1.1.1.0/24");
  crooked.address.bytes[3] = 1;
  EXPECT_EQ(code({.addresses = crooked}), ErrorCode::kInvalidArgument);
  EXPECT_FALSE(check(NetworkPolicy{.egress_bits_per_second = 1}, limits).has_value());
  EXPECT_FALSE(check(NetworkPolicy{.ingress_bits_per_second = UINT64_MAX}, limits).has_value());
  NetworkPolicy many;
  many.allow.resize(limits.destinations_max + 1, {.addresses = range("1.1.1.1")});
  EXPECT_FALSE(check(many, limits).has_value());
}

TEST(NetworkLimits, OfTheOperatorAreCheckedToo) {
  EXPECT_TRUE(check(NetworkLimits{}).has_value());
  EXPECT_FALSE(check(NetworkLimits{.reachable = {range("169.254.0.0/16")}}).has_value());
  EXPECT_FALSE(check(NetworkLimits{.reachable = {range("0.0.0.0/0")}}).has_value());
  EXPECT_FALSE(check(NetworkLimits{.resolver = *IpAddress::parse("127.0.0.53")}).has_value());
  EXPECT_FALSE(check(NetworkLimits{.resolver = *IpAddress::parse("::1")}).has_value());
  EXPECT_FALSE(check(NetworkLimits{.namespaces_max = 0}).has_value());
  EXPECT_FALSE(check(NetworkLimits{.namespaces_max = 10, .addresses = 10}).has_value());
}

TEST(NetworkPolicy, ComesBackFromItsBytesAndFromNothingElse) {
  NetworkPolicy policy{.internet = true, .egress_bits_per_second = 10'000'000, .ingress_bits_per_second = 20'000'000};
  policy.allow.push_back({.addresses = range("10.9.0.8/29"), .port_first = 80, .port_last = 90});
  policy.allow.push_back(
      {.addresses = range("fd99::/64"), .protocol = Protocol::kUdp, .port_first = 53, .port_last = 53});
  const Bytes bytes = serialize(policy);
  const auto back = parse_policy(bytes);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, policy);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(parse_policy(ByteSpan(bytes).first(size)).has_value()) << size;
  Bytes longer = bytes;
  longer.push_back(0);
  EXPECT_FALSE(parse_policy(longer).has_value());
  Bytes flag = bytes;
  flag[0] = 2;
  EXPECT_FALSE(parse_policy(flag).has_value());
  Bytes count = bytes;
  std::fill(count.begin() + 17, count.begin() + 25, 0xff);
  EXPECT_FALSE(parse_policy(count).has_value());
}

}  // namespace
}  // namespace spore::isolation

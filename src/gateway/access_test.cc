#include "gateway/access.h"

#include <gtest/gtest.h>

namespace spore::gateway {
namespace {

constexpr std::string_view kKeys = R"({"keys": [
  {"token": "acme-caller-0123456", "tenant": "acme", "scopes": ["call"]},
  {"token": "acme-owner-01234567", "tenant": "acme", "scopes": ["publish", "read"]},
  {"token": "operator-0123456789", "tenant": "*", "scopes": ["admin"]}]})";

Request request_with(std::string host, std::string token = {}, std::string origin = {}) {
  Request request;
  request.target = "/v1/functions";
  const auto set = [&](Field field, std::string value) {
    if (value.empty()) return;
    request.fields[static_cast<size_t>(field)] = std::move(value);
    request.present[static_cast<size_t>(field)] = true;
  };
  set(Field::kHost, std::move(host));
  set(Field::kOrigin, std::move(origin));
  if (!token.empty()) set(Field::kAuthorization, "Bearer " + token);
  return request;
}

unsigned status(const std::optional<Response>& refusal) { return refusal ? refusal->status : 200; }

TEST(Access, WithoutKeysOwnHostsAreServed) {
  const Access access;
  for (const char* host : {"localhost", "localhost:7077", "127.0.0.1:80", "[::1]:7077", "[::1]"}) {
    EXPECT_EQ(status(access.check(request_with(host), Scope::kPublish, "acme")), 200u) << host;
  }
}

TEST(Access, WithoutKeysForeignHostsAndOriginsAreRefused) {
  const Access access;
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example:7077", "[::2]:7077"}) {
    EXPECT_EQ(status(access.check(request_with(host), Scope::kNone, "")), 403u) << host;
  }
  EXPECT_EQ(status(access.check(request_with("localhost", "", "http://evil.example"), Scope::kNone, "")), 403u);
  EXPECT_EQ(status(access.check(request_with("localhost", "", "null"), Scope::kNone, "")), 403u);
  EXPECT_EQ(status(access.check(request_with("localhost", "", "http://localhost:3000"), Scope::kCall, "")), 200u);
}

TEST(Access, KeysHaveTenantsAndScopes) {
  const auto access = Access::from_json(kKeys);
  ASSERT_TRUE(access.has_value()) << access.error().message;
  const auto check = [&](const char* token, Scope scope, std::string_view tenant) {
    return status(access->check(request_with("any.example", token), scope, tenant));
  };
  EXPECT_EQ(check("acme-caller-0123456", Scope::kCall, "acme"), 200u);
  EXPECT_EQ(check("acme-caller-0123456", Scope::kPublish, "acme"), 403u);
  EXPECT_EQ(check("acme-caller-0123456", Scope::kCall, "other"), 404u);
  EXPECT_EQ(check("acme-owner-01234567", Scope::kPublish, "acme"), 200u);
  EXPECT_EQ(check("acme-owner-01234567", Scope::kCall, "acme"), 403u);
  EXPECT_EQ(check("operator-0123456789", Scope::kPublish, "other"), 200u);
  EXPECT_EQ(check("acme-caller-012345", Scope::kCall, "acme"), 401u);
  EXPECT_EQ(check("", Scope::kCall, "acme"), 401u);
  EXPECT_EQ(check("", Scope::kNone, ""), 200u);
}

TEST(Access, TenantKeysSeeTheirTenantOnly) {
  const auto access = Access::from_json(kKeys);
  ASSERT_TRUE(access.has_value());
  EXPECT_EQ(access->only_tenant(request_with("h", "acme-owner-01234567")), "acme");
  EXPECT_FALSE(access->only_tenant(request_with("h", "operator-0123456789")));
  EXPECT_FALSE(access->sees_all_tenants(request_with("h")));
}

TEST(Access, SaysWhatIsWrongWithAKeyFile) {
  const auto message = [](std::string_view json) {
    const auto access = Access::from_json(json);
    return access ? std::string("accepted") : access.error().message;
  };
  EXPECT_EQ(message("{"), "it is not JSON");
  EXPECT_EQ(message("{}"), "it has no array `keys`");
  EXPECT_EQ(message(R"({"keys": []})"), "it has no key");
  EXPECT_EQ(message(R"({"keys": [{"token": "short", "tenant": "a", "scopes": ["call"]}]})"),
            "keys[0].token has less than 16 characters");
  EXPECT_EQ(message(R"({"keys": [{"token": "0123456789abcdef", "tenant": "a", "scopes": ["fly"]}]})"),
            "keys[0].scopes: \"fly\" is none of call, publish, read, admin");
  EXPECT_EQ(message(R"({"keys": [{"token": "0123456789abcdef", "scopes": ["call"]}]})"), "keys[0] has no `tenant`");
  EXPECT_EQ(message(R"({"keys": [{"token": "0123456789abcdef", "tenant": "a"}]})"), "keys[0] has no `scopes`");
  EXPECT_EQ(message(R"({"keys": [{"token_sha256": "00", "tenant": "a", "scopes": ["call"]}]})"),
            "keys[0].token_sha256 is not 64 lower-case hexadecimal digits");
}

TEST(Access, TakesDigestsOfTokens) {
  const std::string digest = to_hex(sha256(as_bytes("a token that nobody wrote down")));
  const auto access =
      Access::from_json(R"({"keys": [{"token_sha256": ")" + digest + R"(", "tenant": "a", "scopes": ["call"]}]})");
  ASSERT_TRUE(access.has_value()) << access.error().message;
  EXPECT_EQ(status(access->check(request_with("h", "a token that nobody wrote down"), Scope::kCall, "a")), 200u);
}

}  // namespace
}  // namespace spore::gateway

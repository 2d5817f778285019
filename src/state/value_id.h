// The names of state values.
//
// A value belongs to a tenant and has a key: 1 to 512 bytes of UTF-8 without NUL. Nothing else is forbidden: slashes,
// percent signs, braces and dots are ordinary. Stores put values under a tenant id of fixed width, so that no choice of
// names lets one tenant's key meet another's.
#pragma once

#include <array>
#include <compare>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spore::state {

constexpr size_t kKeyBytesMax = 512;

struct ValueId {
  std::string tenant;
  std::string key;
  auto operator<=>(const ValueId&) const = default;
};

struct ValueIdHash {
  size_t operator()(const ValueId& id) const {
    const std::hash<std::string_view> hash;
    return hash(id.tenant) * 1'000'003 ^ hash(id.key);
  }
};

// kInvalidArgument, and what is wrong with it: empty, too long, a NUL, not UTF-8.
Result<void> check_key(std::string_view key);

// 16 bytes that stand for a tenant in stores: the head of the name's SHA-256.
using TenantId = std::array<uint8_t, 16>;
TenantId tenant_id(std::string_view tenant);

}  // namespace spore::state

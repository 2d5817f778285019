// Where a Redis is, as people write it:
//
//   redis://[user:password@]host[:port][/db]         one server
//   rediss://...                                     the same, over TLS
//   redis-cluster://[user:password@]host:port,...    any nodes of a cluster; the others are found by asking them
//   rediss-cluster://...
//
// User and password are percent-encoded; `redis://:password@host` has a password alone. IPv6 addresses stand in
// brackets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spore::state {

struct RedisEndpoint {
  std::string host;
  uint16_t port = 6379;
  bool operator==(const RedisEndpoint&) const = default;
  std::string text() const;  // host:port, [address]:port
};

constexpr size_t kRedisSeedsMax = 64;

struct RedisUrl {
  bool tls = false;
  bool cluster = false;
  std::string user;
  std::string password;
  std::vector<RedisEndpoint> endpoints;  // one, but for a cluster
  uint32_t database = 0;

  // kInvalidArgument, and what is wrong; the message never has the password.
  static Result<RedisUrl> parse(std::string_view text);
  // As it was written, without user and password.
  std::string text() const;
};

// host:port or [address]:port; nothing else.
Result<RedisEndpoint> parse_redis_endpoint(std::string_view text);

}  // namespace spore::state

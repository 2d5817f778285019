// A Redis server of the benchmark's own, and what a plain client gets from it: hiredis, one thread for each connection.
#pragma once

#include <hiredis/hiredis.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "parts.h"

namespace spore::bench {

// On a free port of loopback, without persistence; killed by its process id.
class RedisServer {
 public:
  RedisServer();
  ~RedisServer();
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;
  int port() const { return port_; }
  pid_t pid() const { return pid_; }
  std::string url() const { return "redis://127.0.0.1:" + std::to_string(port_); }

 private:
  bool launch();
  TemporaryDirectory directory_;
  int port_ = 0;
  pid_t pid_ = -1;
};

class PlainRedis {
 public:
  PlainRedis(int port, unsigned connections);

  // `bytes` in strings of `part_bytes`: one SET each.
  void store(ByteSpan bytes, uint64_t part_bytes);
  // GETs all those strings, in one pipeline on each connection, all connections at once.
  void fetch();
  // Overwrites `size_bytes` at each of these offsets of what store() has stored, in one pipeline on the first
  // connection.
  void overwrite(const std::vector<uint64_t>& offsets, uint64_t size_bytes);

 private:
  using Connection = std::unique_ptr<redisContext, decltype(&redisFree)>;
  static uint64_t take_reply(redisContext& connection);

  std::vector<Connection> connections_;
  uint64_t stored_bytes_ = 0;
  uint64_t part_bytes_ = 0;
};

}  // namespace spore::bench

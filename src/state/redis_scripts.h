// The Lua scripts that run inside Redis: each is one atomic step of the global tier. redis_scripts.cc says how a value
// lies in Redis, and what each script takes and gives.
#pragma once

#include <string>

namespace spore::state {

struct RedisScript {
  explicit RedisScript(const char* body, bool of_value = true);
  std::string text;
  std::string sha1;  // hexadecimal: its name in EVALSHA
};

struct RedisScripts {
  // Of a value; KEYS[1] is its manifest.
  RedisScript push, remove, pin, renew_pin, unpin, locate, changed, lock, renew_lock, unlock;
  // Of a tenant; KEYS[1] is the index of its keys.
  RedisScript index_set, index_remove;

  static const RedisScripts& get();
};

// A chunk in Redis: the number of the push that changed it last, then of each page, then its bytes.
constexpr size_t kRedisChunkHeaderBytes = 8 + 64 * 8;

}  // namespace spore::state

// Locks that nobody else wants: local, and global on Redis and RocksDB.
#include <poll.h>

#include "parts.h"
#include "redis.h"
#include "state/redis_tier.h"
#include "state/rocksdb_tier.h"

namespace spore::bench {
namespace {

// From asking until it is given back, as a call sees it; the store learns of that a little later.
double lock_and_unlock(state::LockService& locks, const state::ValueId& id, state::LockScope scope) {
  const auto begin = Clock::now();
  const auto operation = locks.lock(id, state::LockMode::kWrite, scope, {.owner = "a call", .ancestors = {}}, soon());
  while (!operation->ended()) {
    pollfd wait{.fd = operation->fd(), .events = POLLIN, .revents = 0};
    ::poll(&wait, 1, -1);
  }
  CHECK(must(operation->result()) == 0);
  must(locks.unlock(id, scope, "a call"));
  return us_since(begin);
}

// The two requests of the store, by themselves.
double ask_store(state::GlobalTier& tier, const state::ValueId& id) {
  const auto begin = Clock::now();
  CHECK(must(tier.try_lock(id, state::LockMode::kWrite, "a host", std::chrono::seconds(10), soon())).has_value());
  must(tier.unlock(id, "a host", soon()));
  return us_since(begin);
}

}  // namespace

void bench_locks(const std::filesystem::path& directory, int rounds, Figures& figures) {
  const RedisServer server;
  const auto redis = must(state::RedisTier::connect(server.url()));
  const auto rocksdb = must(state::RocksDbTier::open(directory / "locks", {}));
  state::LockService of_nobody(*redis, {}), of_redis(*redis, {}), of_rocksdb(*rocksdb, {});
  Samples local, in_redis, in_rocksdb, redis_alone, rocksdb_alone;
  for (int round = 0; round < rounds; ++round) {
    const auto id = [&](int i) { return state::ValueId{"bench", std::to_string(round) + "." + std::to_string(i)}; };
    for (int i = 0; i < 100; ++i) local.add(lock_and_unlock(of_nobody, id(i), state::LockScope::kLocal));
    for (int i = 0; i < 20; ++i) {
      in_redis.add(lock_and_unlock(of_redis, id(i), state::LockScope::kGlobal));
      redis_alone.add(ask_store(*redis, id(1000 + i)));
    }
    for (int i = 0; i < 2; ++i) {
      in_rocksdb.add(lock_and_unlock(of_rocksdb, id(i), state::LockScope::kGlobal));
      rocksdb_alone.add(ask_store(*rocksdb, id(1000 + i)));
    }
  }
  figures.lock_us = in_redis.median();
  std::printf(
      "lock and unlock for writing, uncontended, us (p50, p99): local %.2f %.2f; global on Redis %.1f %.1f (its two\n"
      "  requests alone %.1f), on RocksDB, synced, %.0f %.0f (alone %.0f)\n",
      local.median(), local.at(0.99), in_redis.median(), in_redis.at(0.99), redis_alone.median(), in_rocksdb.median(),
      in_rocksdb.at(0.99), rocksdb_alone.median());
}

}  // namespace spore::bench

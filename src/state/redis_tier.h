// The global tier in Redis 7: one server, or a cluster, over TCP or TLS.
//
//   RedisTier --owns--> RedisCore: RedisClient (connections, slots) and the thread that renews pins
//                           ^-- shared with each Snapshot
//
// All that belongs to a value is on one server, and each push is one Lua script there: at once or not at all. How it
// lies in Redis is said in redis_scripts.cc. What Redis promises beyond that depends on how it is set up: see
// durability(). Of a cluster or a replica that takes over, the last acknowledged pushes may be missing, as Redis
// replicates asynchronously.
//
// Pins are leases, renewed while the Snapshot lives. While a value has pins, a push keeps what it overwrites; without
// them it writes in place. A pin that could not be renewed in time, and whose value has changed since, is
// kFailedPrecondition.
//
// Lock tokens grow for good, also when the value is removed: they are never below the time in microseconds by the clock
// of Redis, so they grow also after the record of a lock is forgotten, a day after its last lease; a push with a token
// that old is refused.
//
// The names of named pushes outlive the removal of their value for an hour, so that a push that is asked again then is
// still known.
//
// The keys of a tenant are in an index on one server, written before a value is made and corrected after each push that
// changes its size. In a cluster it is not the server of the value: listing leaves out what is not there (and removes
// it from the index where it has not been there for a minute) and takes versions and sizes from the values, while
// usage() may lag behind, and counts what a creator that died had announced until somebody lists it.
//
// While a slot of a cluster moves from one server to another, reads of its values go on, and what changes them waits.
#pragma once

#include <memory>
#include <string>

#include "state/global_tier.h"
#include "state/redis_client.h"

namespace spore::state {

struct RedisOptions {
  RedisClientOptions client;
  std::chrono::milliseconds connect_within{10'000};
  std::chrono::milliseconds pin_lease{30'000};
  // Redis may throw values away when its memory is full (maxmemory-policy is not noeviction).
  bool allow_eviction = false;
  // What goes in one script; what is larger is brought in parts first.
  uint64_t push_bytes_at_once = 8 << 20;
};

class RedisCore;

class RedisTier final : public GlobalTier {
 public:
  // kInvalidArgument: the URL or the certificates; kFailedPrecondition: Redis is older than 7, or throws values away;
  // kPermissionDenied: user or password; kUnavailable. No message has the password.
  static Result<std::unique_ptr<RedisTier>> connect(const std::string& url, RedisOptions options = {});
  ~RedisTier() override;

  Result<std::shared_ptr<Snapshot>> pin(const ValueId& id, Deadline deadline) override;
  Result<Manifest> describe(const ValueId& id, Deadline deadline) override;
  Result<Pushed> push(const ValueId& id, const Push& push, Deadline deadline) override;
  Result<void> remove(const ValueId& id, std::optional<Version> expected, Deadline deadline) override;
  Result<KeyPage> list(const std::string& tenant, const std::string& prefix, const std::string& from, size_t limit,
                       Deadline deadline) override;
  Result<Usage> usage(const std::string& tenant, Deadline deadline) override;
  Result<std::optional<LockGrant>> try_lock(const ValueId& id, LockMode mode, const std::string& owner,
                                            std::chrono::milliseconds lease, Deadline deadline) override;
  Result<void> renew_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                          Deadline deadline) override;
  Result<void> unlock(const ValueId& id, const std::string& owner, Deadline deadline) override;
  std::string name() const override;

  // What is kept when Redis or its machine stops, in one sentence for people, as found when connecting.
  const std::string& durability() const { return durability_; }
  RedisClient::Traffic traffic() const;

 private:
  RedisTier(std::shared_ptr<RedisCore> core, std::string durability);
  const std::shared_ptr<RedisCore> core_;
  const std::string durability_;
};

}  // namespace spore::state

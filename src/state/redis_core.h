// What RedisTier and its Snapshots share. For redis_*.cc only.
#pragma once

#include <condition_variable>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "base/guarded.h"
#include "state/redis_client.h"
#include "state/redis_tier.h"

namespace spore::state {

// spore:{TENANT:KEY}: , to which the rest of a key is added.
std::string redis_value_prefix(const ValueId& id);
// spore:{TENANT}:
std::string redis_tenant_prefix(const std::string& tenant);

// "EPOCH:NUMBER" with the epoch in 16 hexadecimal digits; "-" where there is no value.
std::string redis_version_text(const Version& version);
std::optional<Version> parse_redis_version(std::string_view text);
std::string redis_epoch_text(uint64_t epoch);
std::optional<uint64_t> parse_redis_number(std::string_view text, int base = 10);

// The first word of what a script gives; empty where it is nothing of the kind.
std::string_view redis_verdict(const RedisReply& reply);
std::unexpected<Error> redis_nonsense(const RedisClient& client, const ValueId& id);

// One pin, renewed by RedisCore while it lives.
struct RedisPin {
  std::string manifest_key;
  std::string member;  // EPOCH:NUMBER:ID
  std::atomic<bool> lost = false;
};

class RedisCore : public std::enable_shared_from_this<RedisCore> {
 public:
  RedisCore(std::unique_ptr<RedisClient> redis_client, RedisOptions redis_options);
  // Waits for the thread; what it asks takes a few seconds at most.
  ~RedisCore();

  RedisClient& client() { return *client_; }
  const RedisOptions& options() const { return options_; }

  // From now on renewed, until it is dropped.
  void keep(std::shared_ptr<RedisPin> pin);
  // Tells Redis some time soon.
  void drop(const std::shared_ptr<RedisPin>& pin);

  Result<Manifest> describe(const ValueId& id, Deadline deadline);
  Result<Pushed> push(const ValueId& id, const Push& push, Deadline deadline);
  Result<std::shared_ptr<Snapshot>> pin(const ValueId& id, Deadline deadline);
  // Puts what is known of the value into its tenant's index.
  Result<void> index(const ValueId& id, const Manifest& manifest, Deadline deadline);
  Result<void> unindex(const ValueId& id, std::string_view epoch, std::chrono::milliseconds age, Deadline deadline);

 private:
  struct Pins {
    std::set<std::shared_ptr<RedisPin>> live;
    std::list<std::shared_ptr<RedisPin>> dropped;
    bool stop = false;
  };
  void look_after_pins();
  Result<Pushed> push_append(const ValueId& id, const Push& push, Deadline deadline);

  const std::unique_ptr<RedisClient> client_;
  const RedisOptions options_;
  Guarded<Pins> pins_;
  std::condition_variable pins_changed_;
  std::thread keeper_;
};

// A name that nobody else draws.
std::string draw_redis_name();

}  // namespace spore::state

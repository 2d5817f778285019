// The global tier in an embedded RocksDB: the state of one host, durable.
//
//   RocksDbTier -- RocksDbStore (the database: reads, synced writes, errors, room after a full disk)
//        |  `-- locks: leases on the boot clock, kept across restarts
//        `-- RocksDbPush: one push as one batch, or, over `push_batch_bytes`, as many and one that turns all pages
//
// What a push or a removal has answered survives the machine: each is one batch of RocksDB's, written and synced. One
// value's pushes go one after the other, under one of many mutexes; those of different values are synced together. A
// pin is a snapshot of RocksDB's: it costs nothing but the room of what is overwritten while it lives.
//
// A full disk is kResourceExhausted; pins and reads go on, and so does everything as soon as there is room. Other
// errors of the disk under a write are kUnavailable, and no write gets through until the database is opened again.
// One process at a time. Any thread.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "state/global_tier.h"
#include "state/rocksdb_records.h"

namespace rocksdb {
class Env;
class WriteBatch;
}  // namespace rocksdb

namespace spore::state {

class RocksDbStore;

struct RocksDbOptions {
  uint64_t cache_bytes = 64 << 20;         // of blocks that were read
  uint64_t write_buffer_bytes = 32 << 20;  // of what was pushed last; up to three of them
  // What one push holds in memory beside the caller's bytes; a larger one is written in parts.
  uint64_t push_batch_bytes = 16 << 20;
  // How often at most a store without room tries whether there is some now; writes in between fail at once.
  std::chrono::milliseconds resume_interval{200};
  // Twins for tests; null and empty: the machine's own. The Env outlives the tier and its pins.
  rocksdb::Env* env = nullptr;
  std::function<rocksdb_records::LeaseTime()> lease_clock;
};

class RocksDbTier final : public GlobalTier {
 public:
  // Makes the directory where there is none. kUnavailable: another process has it open, or the disk fails;
  // kFailedPrecondition: it holds something else, or another format.
  static Result<std::unique_ptr<RocksDbTier>> open(const std::filesystem::path& directory, RocksDbOptions options);
  ~RocksDbTier() override;

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

 private:
  // Of a push in parts that failed and whose parts could not be cleared away, as where the disk is full.
  struct Leftover {
    std::string manifest_key;
    uint64_t body = 0;
  };
  // What whoever changes a value or its lock holds. Leftovers are cleared by who changes a value of the stripe next.
  struct Stripe {
    std::timed_mutex mutex;
    std::vector<Leftover> leftovers;
  };
  using Held = std::unique_lock<std::timed_mutex>;

  RocksDbTier(std::shared_ptr<RocksDbStore> store, RocksDbOptions options);
  Stripe& stripe_of(const ValueId& id);
  // kDeadlineExceeded
  Result<Held> hold(Stripe& stripe, const ValueId& id, Deadline deadline);
  Result<void> clear_leftovers(Stripe& stripe);
  // Takes away what an unfinished push in parts left.
  Result<void> clear_staging(const std::string& manifest_key, uint64_t body);
  Result<void> clear_all_stagings();
  Result<void> check_token(const ValueId& id, uint64_t token);

  // rocksdb_locks.cc; under the stripe of the key.
  rocksdb_records::LeaseTime now() const;
  Result<rocksdb_records::LockRecord> lock_of(const ValueId& id);  // without those whose lease ran out
  Result<void> keep_lock(const ValueId& id, const rocksdb_records::LockRecord& lock, bool durably);
  static void drop_lock(const ValueId& id, const rocksdb_records::LockRecord& lock, rocksdb::WriteBatch& batch);
  Result<void> drop_lock_if_free(const ValueId& id, rocksdb::WriteBatch& batch);

  const std::shared_ptr<RocksDbStore> store_;
  const RocksDbOptions options_;
  std::array<Stripe, 256> stripes_;
};

}  // namespace spore::state

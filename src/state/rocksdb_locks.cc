// The locks of RocksDbTier. A lock is one record, changed under the stripe of its key, as pushes are: so the check of a
// push's token and the push are one step to the next grant.
//
// Only a grant for writing is synced. The others may be forgotten by a machine that loses its power, and whoever held
// them with it.
#include <time.h>

#include <cstring>

#include "base/check.h"
#include "base/digest.h"
#include "base/fd.h"
#include "base/percent.h"
#include "state/merge.h"
#include "state/rocksdb_store.h"
#include "state/rocksdb_tier.h"

namespace spore::state {

using namespace rocksdb_records;

namespace {

uint64_t boot_of_this_machine() {
  static const uint64_t boot = [] {
    uint64_t out = 0;
    if (const auto text = read_file("/proc/sys/kernel/random/boot_id", 4096)) {
      const Digest digest = sha256(*text);
      std::memcpy(&out, digest.data(), sizeof out);
    }
    return out == 0 ? 1 : out;
  }();
  return boot;
}

int64_t milliseconds_of(clockid_t clock) {
  timespec time{};
  CHECK(::clock_gettime(clock, &time) == 0);
  return int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}

LeaseTime lease_time_now() {
  return {.boot = boot_of_this_machine(),
          .boot_ms = milliseconds_of(CLOCK_BOOTTIME),
          .wall_ms = milliseconds_of(CLOCK_REALTIME)};
}

std::unexpected<Error> not_held(const ValueId& id, const std::string& owner) {
  return fail(ErrorCode::kFailedPrecondition,
              "the lock of the state value " + id.key + " is not held by " + percent_encode(owner));
}

uint64_t number_of(const std::optional<std::string>& bytes) {
  uint64_t out = 0;
  if (bytes && bytes->size() == sizeof out) std::memcpy(&out, bytes->data(), sizeof out);
  return out;
}

// Nothing is lost where such a record goes.
bool is_free(const LockRecord& lock) { return lock.writer.empty() && lock.readers.empty() && !lock.poisoned; }

// Ends leases that ran out. What a writer pushes who lost it is refused from here on.
void settle(LockRecord& lock, const LeaseTime& at) {
  std::erase_if(lock.readers, [&](const auto& reader) { return reader.second.is_past(at); });
  if (lock.writer.empty() || !lock.writer_until.is_past(at)) return;
  lock.writer.clear();
  lock.poisoned = true;
  ++lock.token;
}

}  // namespace

LeaseTime RocksDbTier::now() const { return options_.lease_clock ? options_.lease_clock() : lease_time_now(); }

Result<LockRecord> RocksDbTier::lock_of(const ValueId& id) {
  ASSIGN_OR_RETURN(auto there, store_->get_record<LockRecord>(lock_key(id)));
  if (there) {
    settle(*there, now());
    return std::move(*there);
  }
  LockRecord lock;
  ASSIGN_OR_RETURN(const auto floor, store_->get(token_floor_key()));
  lock.token = number_of(floor) + 1;
  return lock;
}

Result<void> RocksDbTier::keep_lock(const ValueId& id, const LockRecord& lock, bool durably) {
  rocksdb::WriteBatch batch;
  batch.Put(lock_key(id), as_slice(lock.write()));
  return store_->write(batch, durably ? Durable::kYes : Durable::kNo);
}

void RocksDbTier::drop_lock(const ValueId& id, const LockRecord& lock, rocksdb::WriteBatch& batch) {
  batch.Delete(lock_key(id));
  batch.Merge(token_floor_key(), rocksdb::Slice(reinterpret_cast<const char*>(&lock.token), sizeof lock.token));
}

Result<void> RocksDbTier::drop_lock_if_free(const ValueId& id, rocksdb::WriteBatch& batch) {
  ASSIGN_OR_RETURN(const auto there, store_->get_record<LockRecord>(lock_key(id)));
  if (there && is_free(*there)) drop_lock(id, *there, batch);
  return {};
}

Result<std::optional<LockGrant>> RocksDbTier::try_lock(const ValueId& id, LockMode mode, const std::string& owner,
                                                       std::chrono::milliseconds lease, Deadline deadline) {
  TRY(check_lock(id, owner, lease));
  ASSIGN_OR_RETURN(const Held held, hold(stripe_of(id), id, deadline));
  ASSIGN_OR_RETURN(LockRecord lock, lock_of(id));
  const LeaseTime at = now();
  const bool written = !lock.writer.empty();
  if (mode == LockMode::kRead) {
    if (written) return std::nullopt;
    if (lock.readers.size() >= LockRecord::kReadersMax && !lock.readers.contains(owner))
      return fail(ErrorCode::kResourceExhausted, "the lock of the state value " + id.key + " has " +
                                                     std::to_string(LockRecord::kReadersMax) + " readers");
    lock.readers[owner] = at.after(lease);
    TRY(keep_lock(id, lock, false));
    return LockGrant{.token = lock.token, .poisoned = lock.poisoned};
  }
  if (!lock.readers.empty() || (written && lock.writer != owner)) return std::nullopt;
  if (!written) {
    lock.writer = owner;
    ++lock.token;
  }
  lock.writer_until = at.after(lease);
  TRY(keep_lock(id, lock, !written));
  return LockGrant{.token = lock.token, .poisoned = lock.poisoned};
}

Result<void> RocksDbTier::renew_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                                     Deadline deadline) {
  TRY(check_lock(id, owner, lease));
  ASSIGN_OR_RETURN(const Held held, hold(stripe_of(id), id, deadline));
  ASSIGN_OR_RETURN(LockRecord lock, lock_of(id));
  const LeaseTime at = now();
  if (lock.writer == owner) {
    lock.writer_until = at.after(lease);
  } else if (const auto reader = lock.readers.find(owner); reader != lock.readers.end()) {
    reader->second = at.after(lease);
  } else {
    return not_held(id, owner);
  }
  return keep_lock(id, lock, false);
}

Result<void> RocksDbTier::unlock(const ValueId& id, const std::string& owner, Deadline deadline) {
  TRY(check_lock(id, owner, kLeaseMax));
  ASSIGN_OR_RETURN(const Held held, hold(stripe_of(id), id, deadline));
  ASSIGN_OR_RETURN(LockRecord lock, lock_of(id));
  if (lock.writer == owner) {
    lock.writer.clear();
    lock.poisoned = false;
  } else if (lock.readers.erase(owner) == 0) {
    return not_held(id, owner);
  }
  // A lock that nobody holds is remembered for as long as there is a value.
  if (is_free(lock)) {
    ASSIGN_OR_RETURN(const auto value, store_->get(manifest_key(id)));
    if (!value) {
      rocksdb::WriteBatch batch;
      drop_lock(id, lock, batch);
      return store_->write(batch, Durable::kNo);
    }
  }
  return keep_lock(id, lock, false);
}

}  // namespace spore::state

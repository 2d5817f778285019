#include "state/rocksdb_tier.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "state/merge.h"
#include "state/rocksdb_pin.h"
#include "state/rocksdb_push.h"
#include "state/rocksdb_store.h"

namespace spore::state {

using namespace rocksdb_records;

namespace {

Result<void> check_deadline(Deadline deadline) {
  if (Clock::now() < deadline) return {};
  return fail(ErrorCode::kDeadlineExceeded, "the deadline is past");
}

std::unexpected<Error> no_value(const ValueId& id) {
  return fail(ErrorCode::kNotFound, "there is no state value " + id.key);
}

rocksdb::Slice as_slice(const std::array<uint64_t, 2>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), sizeof numbers};
}

}  // namespace

Result<std::unique_ptr<RocksDbTier>> RocksDbTier::open(const std::filesystem::path& directory, RocksDbOptions options) {
  ASSIGN_OR_RETURN(auto store, RocksDbStore::open(directory, options));
  std::unique_ptr<RocksDbTier> tier(new RocksDbTier(std::move(store), std::move(options)));
  TRY(tier->clear_all_stagings());
  return tier;
}

RocksDbTier::RocksDbTier(std::shared_ptr<RocksDbStore> store, RocksDbOptions options)
    : store_(std::move(store)), options_(std::move(options)) {}

RocksDbTier::~RocksDbTier() = default;

std::string RocksDbTier::name() const { return "rocksdb at " + store_->path(); }

RocksDbTier::Stripe& RocksDbTier::stripe_of(const ValueId& id) {
  return stripes_[(ValueIdHash()(id) * 0x9e3779b97f4a7c15ull) >> 56];
}

Result<RocksDbTier::Held> RocksDbTier::hold(Stripe& stripe, const ValueId& id, Deadline deadline) {
  TRY(check_deadline(deadline));
  Held held(stripe.mutex, std::defer_lock);
  if (!held.try_lock_until(deadline))
    return fail(ErrorCode::kDeadlineExceeded,
                "the state value " + id.key + " was busy with the pushes of others until the deadline");
  return held;
}

Result<std::shared_ptr<Snapshot>> RocksDbTier::pin(const ValueId& id, Deadline deadline) {
  TRY(check_key(id.key));
  TRY(check_deadline(deadline));
  return RocksDbPin::take(store_, id);
}

Result<Manifest> RocksDbTier::describe(const ValueId& id, Deadline deadline) {
  TRY(check_key(id.key));
  TRY(check_deadline(deadline));
  ASSIGN_OR_RETURN(const auto record, store_->get_record<ManifestRecord>(manifest_key(id)));
  if (!record) return no_value(id);
  return record->manifest;
}

Result<void> RocksDbTier::check_token(const ValueId& id, uint64_t token) {
  if (token == 0) return {};
  ASSIGN_OR_RETURN(const auto lock, store_->get_record<LockRecord>(lock_key(id)));
  if (lock && lock->token == token) return {};
  return fail(ErrorCode::kFailedPrecondition,
              "the lock of the state value " + id.key + " has been granted for writing to somebody else since");
}

Result<Pushed> RocksDbTier::push(const ValueId& id, const Push& push, Deadline deadline) {
  TRY(check_push(id, push));
  Stripe& stripe = stripe_of(id);
  ASSIGN_OR_RETURN(const Held held, hold(stripe, id, deadline));
  TRY(clear_leftovers(stripe));
  ASSIGN_OR_RETURN(const auto before, store_->get_record<ManifestRecord>(manifest_key(id)));
  if (before && !push.once.empty()) {
    ASSIGN_OR_RETURN(const auto applied,
                     store_->get_record<OnceRecord>(once_key(before->manifest.version.epoch, push.once)));
    if (applied) return applied->pushed;
  }
  TRY(check_token(id, push.lock_token));
  const std::optional<Manifest> now = before ? std::optional(before->manifest) : std::nullopt;
  ASSIGN_OR_RETURN(const PushPlan plan, plan_push(id, push, now));
  RocksDbPush work(*store_, id, push, plan, before, options_.push_batch_bytes);
  auto pushed = work.apply(deadline);
  if (!pushed && work.in_parts() && !clear_staging(manifest_key(id), work.body()))
    stripe.leftovers.push_back({.manifest_key = manifest_key(id), .body = work.body()});
  return pushed;
}

Result<void> RocksDbTier::clear_leftovers(Stripe& stripe) {
  while (!stripe.leftovers.empty()) {
    TRY(clear_staging(stripe.leftovers.back().manifest_key, stripe.leftovers.back().body));
    stripe.leftovers.pop_back();
  }
  return {};
}

Result<void> RocksDbTier::clear_staging(const std::string& manifest_key, uint64_t body) {
  ASSIGN_OR_RETURN(const auto record, store_->get_record<ManifestRecord>(manifest_key));
  rocksdb::WriteBatch batch;
  if (!record || record->body != body) {
    TRY(store_->drop(batch, pages_from(body, 0)));
    TRY(store_->drop(batch, chunks_from(body, 0)));
  } else {
    // Pages beside those that the chunk records point to.
    std::optional<uint64_t> chunk;
    ChunkRecord chunk_record;
    Result<void> wrong;
    const KeyRange range = pages_from(body, 0);
    TRY(store_->scan(range.begin, range.end, nullptr, [&](const rocksdb::Slice& key, const rocksdb::Slice&) {
      const PageAndSlot at = page_of(key.ToStringView());
      if (chunk != at.page / kPagesPerChunk) {
        chunk = at.page / kPagesPerChunk;
        auto there = store_->get_record<ChunkRecord>(chunk_key(body, *chunk));
        if (!there) {
          wrong = std::unexpected(std::move(there).error());
          return false;
        }
        chunk_record = there->value_or(ChunkRecord());
      }
      if (at.slot != chunk_record.slot(at.page % kPagesPerChunk)) batch.Delete(key);
      return true;
    }));
    TRY(std::move(wrong));
  }
  batch.Delete(staging_key(body));
  return store_->write(batch, Durable::kNo);
}

Result<void> RocksDbTier::clear_all_stagings() {
  std::vector<Leftover> found;
  const KeyRange range = all_stagings();
  TRY(store_->scan(range.begin, range.end, nullptr, [&](const rocksdb::Slice& key, const rocksdb::Slice& value) {
    found.push_back({.manifest_key = value.ToString(), .body = body_of_staging(key.ToStringView())});
    return true;
  }));
  for (const Leftover& leftover : found) TRY(clear_staging(leftover.manifest_key, leftover.body));
  return {};
}

Result<void> RocksDbTier::remove(const ValueId& id, std::optional<Version> expected, Deadline deadline) {
  TRY(check_key(id.key));
  Stripe& stripe = stripe_of(id);
  ASSIGN_OR_RETURN(const Held held, hold(stripe, id, deadline));
  TRY(clear_leftovers(stripe));
  ASSIGN_OR_RETURN(const auto record, store_->get_record<ManifestRecord>(manifest_key(id)));
  if (!record) return no_value(id);
  TRY(check_expected(id, expected, record->manifest));
  rocksdb::WriteBatch batch;
  batch.Delete(manifest_key(id));
  const uint64_t epoch = record->manifest.version.epoch;
  for (const KeyRange& range :
       {pages_from(record->body, 0), chunks_from(record->body, 0), once_of(epoch), once_order_of(epoch)})
    TRY(store_->drop(batch, range));
  const std::array<uint64_t, 2> change{~0ull, 0 - record->manifest.size_bytes};
  batch.Merge(usage_key(id.tenant), as_slice(change));
  TRY(drop_lock_if_free(id, batch));
  return store_->write(batch, Durable::kYes);
}

Result<KeyPage> RocksDbTier::list(const std::string& tenant, const std::string& prefix, const std::string& from,
                                  size_t limit, Deadline deadline) {
  TRY(check_list_limit(limit));
  TRY(check_deadline(deadline));
  const std::string tenant_prefix = manifest_prefix(tenant);
  KeyPage page;
  bool wrong = false;
  TRY(store_->scan(tenant_prefix + std::max(prefix, from), after_prefix(tenant_prefix + prefix), nullptr,
                   [&](const rocksdb::Slice& key, const rocksdb::Slice& value) {
                     std::string name(key.ToStringView().substr(tenant_prefix.size()));
                     if (page.entries.size() == limit) {
                       page.next = std::move(name);
                       return false;
                     }
                     const auto record = ManifestRecord::parse(bytes_of(value));
                     wrong = !record;
                     if (record) page.entries.push_back({.key = std::move(name), .manifest = record->manifest});
                     return !wrong;
                   }));
  if (wrong) return fail(ErrorCode::kInternal, store_->path() + ": a manifest is not in its format");
  return page;
}

Result<Usage> RocksDbTier::usage(const std::string& tenant, Deadline deadline) {
  TRY(check_deadline(deadline));
  ASSIGN_OR_RETURN(const auto bytes, store_->get(usage_key(tenant)));
  Usage usage;
  if (!bytes) return usage;
  ByteReader in(as_bytes(*bytes));
  usage.keys = in.read<uint64_t>();
  usage.bytes = in.read<uint64_t>();
  if (!in.ok()) return fail(ErrorCode::kInternal, store_->path() + ": a record of usage is not in its format");
  return usage;
}

}  // namespace spore::state

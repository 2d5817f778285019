#include "calls/call_store.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <unordered_set>

#include "base/check.h"

namespace spore::calls {

using rocksdb::Slice;
using state::as_slice;
using state::Durable;

namespace {

constexpr uint64_t kInlineBytesMax = 64 << 10;
constexpr size_t kLookedAtMax = 10'000;  // for one page of a list
constexpr std::string_view kObjects = "calls/";

// It is small beside that of state values: records are read soon after they are written, and seldom later.
constexpr uint64_t kCacheBytes = 16 << 20;
constexpr uint64_t kWriteBufferBytes = 16 << 20;

std::string input_object(const CallId& id) { return std::string(kObjects) + id.text() + "/input"; }
std::string output_object(const CallId& id, uint32_t attempt) {
  return std::string(kObjects) + id.text() + "/output-" + std::to_string(attempt);
}

std::unexpected<Error> damaged(const std::string& path) {
  return fail(ErrorCode::kInternal, path + ": a record of a call is not in its format");
}

// The record with all that leads to it, in the place of what led to the one before.
void put_record(rocksdb::WriteBatch& batch, const CallRecord* before, const CallRecord& after) {
  batch.Put(record_key(after.id), as_slice(after.write()));
  const auto lead = [&](bool was, bool is, const std::string& key) {
    if (is && !was) batch.Put(key, Slice());
    if (was && !is) batch.Delete(key);
  };
  lead(before && !before->ended(), !after.ended(), live_key(after.id));
  lead(before != nullptr, true, list_key('l', after));
  lead(before && before->dead, after.dead, list_key('d', after));
  const bool expired = before && before->expires_ms != 0, expires = after.expires_ms != 0;
  if (expired && expires && before->expires_ms == after.expires_ms) return;
  if (expired) batch.Delete(expiry_key(*before));
  if (expires) batch.Put(expiry_key(after), Slice());
}

void delete_record(rocksdb::WriteBatch& batch, const CallRecord& record) {
  for (const std::string& key : {record_key(record.id), input_key(record.id), output_key(record.id), log_key(record.id),
                                 live_key(record.id), list_key('l', record)})
    batch.Delete(key);
  if (record.dead) batch.Delete(list_key('d', record));
  if (record.expires_ms != 0) batch.Delete(expiry_key(record));
}

}  // namespace

int64_t wall_clock_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Result<std::unique_ptr<CallStore>> CallStore::open(const std::filesystem::path& directory,
                                                   object_store::ObjectStore& objects, CallStoreOptions options,
                                                   const std::function<void(const CallRecord&)>& each_live) {
  ASSIGN_OR_RETURN(
      auto database,
      state::RocksDbStore::open(
          directory, {.cache_bytes = kCacheBytes, .write_buffer_bytes = kWriteBufferBytes, .env = options.env},
          kFormatVersion));
  std::unique_ptr<CallStore> store(new CallStore(std::move(database), objects, std::move(options)));
  TRY(store->load(each_live));
  TRY(store->remove_lost_objects());
  return store;
}

Result<void> CallStore::load(const std::function<void(const CallRecord&)>& each_live) {
  bool wrong = false;
  std::vector<CallRecord> live;
  const KeyRange range = all_records();
  TRY(database_->scan(range.begin, range.end, nullptr, [&](const Slice&, const Slice& value) {
    auto record = CallRecord::parse(state::bytes_of(value));
    wrong = !record;
    if (wrong) return false;
    count(nullptr, &*record);
    if (!record->ended()) live.push_back(std::move(*record));
    return true;
  }));
  if (wrong) return damaged(path());
  std::ranges::sort(live, {}, &CallRecord::created_ms);
  for (const CallRecord& record : live) each_live(record);
  return {};
}

Result<void> CallStore::remove_lost_objects() {
  ASSIGN_OR_RETURN(const auto there, objects_.list(kObjects));
  for (const auto& entry : there) {
    const std::string_view rest = std::string_view(entry.name).substr(kObjects.size());
    const auto id = parse_call_id(rest.substr(0, rest.find('/')));
    std::optional<CallRecord> record;
    if (id) {
      ASSIGN_OR_RETURN(record, database_->get_record<CallRecord>(record_key(*id)));
    }
    const bool in_use = record && ((record->input_is_object && entry.name == input_object(*id)) ||
                                   (record->output_object && entry.name == output_object(*id, record->output_object)));
    if (!in_use) TRY(objects_.remove(entry.name));
  }
  return {};
}

// ---- counting -------------------------------------------------------------------------------------------------------

Result<void> CallStore::reserve(const CallRecord& record) {
  const uint64_t bytes = record.stored_bytes();
  auto totals = totals_.lock();
  const Counts& all = totals->all;
  if (all.calls >= options_.calls_max || all.bytes > options_.bytes_max || bytes > options_.bytes_max - all.bytes)
    return fail(ErrorCode::kUnavailable, "the host stores as many calls as it may");
  Counts& own = totals->of_tenant[record.function.tenant];
  if (own.calls >= options_.calls_per_tenant_max || own.bytes > options_.bytes_per_tenant_max ||
      bytes > options_.bytes_per_tenant_max - own.bytes) {
    if (own.calls == 0) totals->of_tenant.erase(record.function.tenant);
    return fail(ErrorCode::kResourceExhausted,
                "as many calls of " + record.function.tenant + " are stored as may be, or as many bytes of them");
  }
  ++totals->all.calls;
  totals->all.bytes += bytes;
  ++own.calls;
  own.bytes += bytes;
  return {};
}

void CallStore::count(const CallRecord* before, const CallRecord* after) {
  const std::string& tenant = (after ? after : before)->function.tenant;
  auto totals = totals_.lock();
  Counts& own = totals->of_tenant[tenant];
  for (Counts* counts : {&totals->all, &own}) {
    counts->calls += (after ? 1 : 0) - (before ? 1 : 0);
    counts->bytes += (after ? after->stored_bytes() : 0) - (before ? before->stored_bytes() : 0);
  }
  totals->dead += (after && after->dead ? 1 : 0) - (before && before->dead ? 1 : 0);
  if (own.calls == 0) totals->of_tenant.erase(tenant);
}

CallStoreUsage CallStore::usage() const {
  auto totals = totals_.lock();
  return {.calls = totals->all.calls, .bytes = totals->all.bytes, .dead = totals->dead};
}

// ---- one call -------------------------------------------------------------------------------------------------------

// The call that the key stands for, if it still does.
Result<std::optional<CallRecord>> CallStore::stands_for(const std::string& key) const {
  ASSIGN_OR_RETURN(const auto id, database_->get(key));
  if (!id) return std::nullopt;
  ASSIGN_OR_RETURN(auto record, find(id_at_end("k" + *id)));
  if (record && record->ended() && options_.now_ms() >= record->key_until_ms) record.reset();
  return record;
}

Result<CallStore::Inserted> CallStore::insert(CallRecord record, ByteSpan input) {
  std::string key;
  std::unique_lock<std::mutex> key_lock;
  if (!record.key.empty()) {
    key = idempotency_key(record.function, record.key);
    key_lock = lock_key(key);
    ASSIGN_OR_RETURN(auto there, stands_for(key));
    if (there) return Inserted{.record = std::move(*there), .existed = true};
  }
  record.input_bytes = input.size();
  record.input_is_object = input.size() > kInlineBytesMax;
  TRY(reserve(record));
  const auto store = [&]() -> Result<void> {
    if (!database_->has_room(options_.room_for_intake_min + input.size()))
      return fail(ErrorCode::kUnavailable, "the disk that calls are stored on is full");
    if (record.input_is_object) TRY(objects_.put(input_object(record.id), input));
    rocksdb::WriteBatch batch;
    put_record(batch, nullptr, record);
    if (!record.input_is_object && !input.empty()) batch.Put(input_key(record.id), as_slice(input));
    if (!key.empty()) batch.Put(key, as_slice(record.id.bytes));
    return database_->write(batch, Durable::kYes);
  };
  if (auto stored = store(); !stored) {
    count(&record, nullptr);
    if (record.input_is_object) (void)objects_.remove(input_object(record.id));
    return fail(ErrorCode::kUnavailable, "the call could not be stored: " + stored.error().message);
  }
  return Inserted{.record = std::move(record)};
}

Result<std::optional<CallRecord>> CallStore::find(const CallId& id) const {
  ASSIGN_OR_RETURN(auto record, database_->get_record<CallRecord>(record_key(id)));
  if (record && record->expires_ms != 0 && options_.now_ms() >= record->expires_ms) return std::nullopt;
  return record;
}

Result<Bytes> CallStore::payload(const std::string& key, bool is_object, const std::string& object,
                                 uint64_t bytes) const {
  if (bytes == 0) return Bytes();
  if (is_object) return objects_.get(object);
  ASSIGN_OR_RETURN(const auto value, database_->get(key));
  if (!value) return fail(ErrorCode::kNotFound, "it is no longer there");
  const ByteSpan there = as_bytes(*value);
  return Bytes(there.begin(), there.end());
}

Result<Bytes> CallStore::input(const CallRecord& record) const {
  return payload(input_key(record.id), record.input_is_object, input_object(record.id), record.input_bytes);
}

Result<Bytes> CallStore::output(const CallRecord& record) const {
  if (!record.has_output) return fail(ErrorCode::kNotFound, "the call has no output");
  return payload(output_key(record.id), record.output_object != 0, output_object(record.id, record.output_object),
                 record.output_bytes);
}

Result<Bytes> CallStore::log(const CallRecord& record) const {
  return payload(log_key(record.id), false, "", record.log_bytes);
}

Result<std::optional<CallStore::Changed>> CallStore::change(const CallId& id,
                                                            const std::function<bool(CallRecord&)>& change,
                                                            Synced synced, const Ending* ending) {
  const std::lock_guard lock(stripe_of(id));
  ASSIGN_OR_RETURN(const auto before, find(id));
  if (!before) return std::nullopt;
  Changed out{.record = *before};
  CallRecord& after = out.record;
  if (!change(after)) return Changed{.record = *before};
  out.changed = true;
  rocksdb::WriteBatch batch;
  std::string object;
  if (ending) {
    after.log_bytes = ending->log.size();
    batch.Delete(log_key(id));
    if (!ending->log.empty()) batch.Put(log_key(id), as_slice(ending->log));
    if (ending->output) {
      after.has_output = true;
      after.output_bytes = ending->output->size();
      if (after.output_bytes > kInlineBytesMax) {
        after.output_object = after.attempt;
        object = output_object(id, after.attempt);
        TRY(objects_.put(object, *ending->output));
      } else if (after.output_bytes > 0) {
        batch.Put(output_key(id), as_slice(*ending->output));
      }
    }
  }
  put_record(batch, &*before, after);
  if (auto written = database_->write(batch, synced == Synced::kYes ? Durable::kYes : Durable::kNo); !written) {
    if (!object.empty()) (void)objects_.remove(object);
    return std::unexpected(std::move(written).error());
  }
  count(&*before, &after);
  return out;
}

Result<bool> CallStore::remove(const CallId& id, const std::function<bool(const CallRecord&)>& condition,
                               Synced synced) {
  ASSIGN_OR_RETURN(auto record, database_->get_record<CallRecord>(record_key(id)));
  if (!record) return false;
  std::string key;  // it never changes
  std::unique_lock<std::mutex> key_lock;
  if (!record->key.empty()) {
    key = idempotency_key(record->function, record->key);
    key_lock = lock_key(key);
  }
  const std::lock_guard lock(stripe_of(id));
  ASSIGN_OR_RETURN(record, database_->get_record<CallRecord>(record_key(id)));
  if (!record || !condition(*record)) return false;
  rocksdb::WriteBatch batch;
  delete_record(batch, *record);
  if (!key.empty()) {
    ASSIGN_OR_RETURN(const auto stands_for_id, database_->get(key));
    const bool is_ours = stands_for_id && id_at_end("k" + *stands_for_id) == id;  // else it stands for a later call
    if (is_ours) batch.Delete(key);
  }
  TRY(database_->write(batch, synced == Synced::kYes ? Durable::kYes : Durable::kNo));
  count(&*record, nullptr);
  if (record->input_is_object) TRY(objects_.remove(input_object(id)));
  if (record->output_object) TRY(objects_.remove(output_object(id, record->output_object)));
  return true;
}

Result<size_t> CallStore::expire(size_t count_max) {
  const int64_t now = options_.now_ms();
  const KeyRange range = expired_before(now);
  std::vector<CallId> late;
  TRY(database_->scan(range.begin, range.end, nullptr, [&](const Slice& key, const Slice&) {
    late.push_back(id_at_end(key.ToStringView()));
    return late.size() < count_max;
  }));
  size_t removed = 0;
  for (const CallId& id : late) {
    const auto is_late = [&](const CallRecord& record) { return record.expires_ms != 0 && record.expires_ms <= now; };
    ASSIGN_OR_RETURN(const bool gone, remove(id, is_late, Synced::kNo));
    removed += gone ? 1 : 0;
  }
  return removed;
}

Result<CallPage> CallStore::list(const ListQuery& query) const {
  const char kind = query.dead ? 'd' : 'l';
  KeyRange range = list_of(kind, query.tenant);
  if (!query.cursor.empty()) {
    const std::string after = kind + query.cursor;
    if (after.size() != list_key(kind, {}).size() || after < range.begin || after >= range.end)
      return fail(ErrorCode::kInvalidArgument, "the cursor is none of this list");
    range.begin = after + '\0';
  }
  CallPage page;
  size_t looked_at = 0;
  std::string last;
  std::optional<Error> error;
  TRY(database_->scan(range.begin, range.end, nullptr, [&](const Slice& key, const Slice&) {
    if (page.calls.size() == query.limit || looked_at == kLookedAtMax) {
      page.cursor = last.substr(1);
      return false;
    }
    ++looked_at;
    last = key.ToString();
    auto record = find(id_at_end(last));
    if (!record) {
      error = std::move(record).error();
      return false;
    }
    if (*record && (!query.state || (*record)->state == *query.state)) page.calls.push_back(std::move(**record));
    return true;
  }));
  if (error) return std::unexpected(std::move(*error));
  return page;
}

}  // namespace spore::calls

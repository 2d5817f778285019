#include "state/rocksdb_store.h"

#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/table.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

namespace spore::state {
namespace {

using rocksdb::Slice;
using rocksdb::Status;

// RocksDB is not built for the thread sanitizer, which sees its library's own frames not at all. So that reports from
// within name the function of ours that called it, and only those can be left out (scripts/tsan-suppressions), it is
// called from one frame more.
template <class Work>
[[gnu::noinline]] auto in_rocksdb(const Work& work) {
  return work();
}

// Usage adds up, the floor of tokens grows (rocksdb_records.h).
class CountersMerge final : public rocksdb::AssociativeMergeOperator {
 public:
  const char* Name() const override { return "spore.counters"; }

  bool Merge(const Slice& key, const Slice* there, const Slice& pushed, std::string* out,
             rocksdb::Logger*) const override {
    const bool usage = !key.empty() && key[0] == 'u';
    const size_t count = usage ? 2 : 1;
    if (pushed.size() != 8 * count || (there && there->size() != pushed.size())) return false;
    std::array<uint64_t, 2> a{}, b{};
    if (there) std::memcpy(a.data(), there->data(), there->size());
    std::memcpy(b.data(), pushed.data(), pushed.size());
    for (size_t i = 0; i < count; ++i) a[i] = usage ? a[i] + b[i] : std::max(a[i], b[i]);
    out->assign(reinterpret_cast<const char*>(a.data()), 8 * count);
    return true;
  }
};

// RocksDB's own recovery looks for room every few seconds and, once it has begun, lets nobody else try. Here the writes
// that come try. An error of a compaction does not stop writes, only compactions.
class ErrorListener final : public rocksdb::EventListener {
 public:
  ErrorListener(std::atomic<bool>& broken, std::atomic<bool>& compactions_stopped)
      : broken_(broken), compactions_stopped_(compactions_stopped) {}
  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, Status*) override {
    (reason == rocksdb::BackgroundErrorReason::kCompaction ? compactions_stopped_ : broken_) = true;
  }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, Status, bool* automatically) override {
    *automatically = false;
  }

 private:
  std::atomic<bool>& broken_;
  std::atomic<bool>& compactions_stopped_;
};

rocksdb::Options options_of(const RocksDbOptions& options, std::shared_ptr<rocksdb::EventListener> listener) {
  rocksdb::Options out;
  if (options.env) out.env = options.env;
  out.create_if_missing = true;
  out.listeners.push_back(std::move(listener));
  out.max_bgerror_resume_count = 0;
  out.merge_operator = std::make_shared<CountersMerge>();
  out.max_successive_merges = 64;  // so that a counter that grows all the time is soon read
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options.cache_bytes);
  table.block_size = 32 << 10;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  out.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  // State is written more often than it lies still: only what has sunk to the bottom is worth compressing.
  out.compression = rocksdb::kNoCompression;
  out.bottommost_compression = rocksdb::kLZ4Compression;
  // flush_when_large() comes first.
  out.write_buffer_size = options.write_buffer_bytes + (256 << 20);
  out.max_total_wal_size = options.write_buffer_bytes + (512 << 20);
  out.max_write_buffer_number = 3;
  out.max_background_jobs = 2;
  out.max_open_files = 512;
  out.bytes_per_sync = 1 << 20;
  out.info_log_level = rocksdb::WARN_LEVEL;
  out.max_log_file_size = 4 << 20;
  out.keep_log_file_num = 4;
  return out;
}

constexpr std::chrono::seconds kCompactionsResumeInterval(5);
constexpr std::chrono::seconds kResumeWait(3);
constexpr std::chrono::seconds kWriteWait(10);  // for a flush
constexpr uint64_t kReserve = 8 << 20;          // of the file system, beside what is in memory
constexpr uint64_t kSmallBatchMax = 64 << 10;
constexpr uint64_t kRoomMin = kReserve / 2;  // beside what is to be flushed
constexpr uint64_t kCompactionsRoomMin = 32 << 20;
constexpr size_t kDropOneByOneMax = 256;

}  // namespace

Error RocksDbStore::error_of(const Status& status) const {
  const std::string what = path_ + ": " + status.ToString();
  if (status.IsNoSpace() || status.subcode() == Status::SubCode::kSpaceLimit || status.IsMemoryLimit())
    return {ErrorCode::kResourceExhausted, what};
  if (status.IsTimedOut()) return {ErrorCode::kDeadlineExceeded, what};
  if (status.IsIOError() || status.IsBusy() || status.IsShutdownInProgress() || status.IsAborted() ||
      status.IsTryAgain() || status.IsIncomplete())
    return {ErrorCode::kUnavailable, what};
  if (status.IsInvalidArgument() || status.IsNotSupported()) return {ErrorCode::kFailedPrecondition, what};
  return {ErrorCode::kInternal, what};
}

Result<std::shared_ptr<RocksDbStore>> RocksDbStore::open(const std::filesystem::path& directory,
                                                         const RocksDbOptions& options, std::string_view format) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error)
    return fail(error == std::errc::no_space_on_device ? ErrorCode::kResourceExhausted : ErrorCode::kUnavailable,
                "make the directory " + directory.string() + ": " + error.message());
  std::shared_ptr<RocksDbStore> store(new RocksDbStore(directory.string(), options, format));
  rocksdb::DB* db = nullptr;
  auto listener = std::make_shared<ErrorListener>(store->broken_, store->compactions_stopped_);
  if (const Status status = rocksdb::DB::Open(options_of(options, std::move(listener)), store->path_, &db);
      !status.ok())
    return std::unexpected(store->error_of(status));
  store->db_.reset(db);
  TRY(store->check_format());
  return store;
}

RocksDbStore::~RocksDbStore() {
  if (!db_) return;
  if (const auto resuming = resuming_.lock()->result; resuming.valid()) {
    rocksdb::CancelAllBackgroundWork(db_.get(), false);
    resuming.wait();
  }
  if (const Status status = db_->Close(); !status.ok()) spdlog::warn("close {}: {}", path_, status.ToString());
}

Result<void> RocksDbStore::check_format() {
  const std::string key = rocksdb_records::format_key();
  ASSIGN_OR_RETURN(const auto there, get(key));
  if (there == format_) {
    if (const Status status = keep_memory_filled(); !status.ok()) return std::unexpected(error_of(status));
    return {};
  }
  if (there)
    return fail(ErrorCode::kFailedPrecondition,
                path_ + " is in the format \"" + *there + "\", not in \"" + format_ + "\"");
  bool empty = true;
  TRY(scan("", "\xff", nullptr, [&](const Slice&, const Slice&) { return empty = false; }));
  if (!empty) return fail(ErrorCode::kFailedPrecondition, path_ + " holds a RocksDB database that is not Spore's");
  rocksdb::WriteBatch batch;
  batch.Put(key, format_);
  rocksdb::WriteOptions options;
  options.sync = true;
  // However little room there is: a host with a small disk starts, and refuses what comes later.
  if (const Status status = db_->Write(options, &batch); !status.ok()) return std::unexpected(error_of(status));
  return {};
}

Result<std::optional<std::string>> RocksDbStore::get(const std::string& key, const rocksdb::Snapshot* at) const {
  rocksdb::ReadOptions options;
  options.snapshot = at;
  std::string value;
  const Status status = in_rocksdb([&] { return db_->Get(options, key, &value); });
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return std::unexpected(error_of(status));
  return value;
}

Result<void> RocksDbStore::scan(const std::string& begin, const std::string& end, const rocksdb::Snapshot* at,
                                const std::function<bool(const Slice&, const Slice&)>& each) const {
  rocksdb::ReadOptions options;
  options.snapshot = at;
  const Slice bound(end);
  options.iterate_upper_bound = &bound;
  return in_rocksdb([&]() -> Result<void> {
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options));
    for (it->Seek(begin); it->Valid(); it->Next())
      if (!each(it->key(), it->value())) return {};
    if (!it->status().ok()) return std::unexpected(error_of(it->status()));
    return {};
  });
}

Result<void> RocksDbStore::drop(rocksdb::WriteBatch& batch, const rocksdb_records::KeyRange& range) const {
  std::vector<std::string> keys;
  TRY(scan(range.begin, range.end, nullptr, [&](const Slice& key, const Slice&) {
    keys.push_back(key.ToString());
    return keys.size() <= kDropOneByOneMax;
  }));
  if (keys.size() > kDropOneByOneMax) {
    batch.DeleteRange(range.begin, range.end);
  } else {
    for (const std::string& key : keys) batch.Delete(key);
  }
  return {};
}

Result<void> RocksDbStore::write(rocksdb::WriteBatch& batch, Durable durable) {
  // RocksDB 7.8 does not take a full disk well: it may abort, or never write again. So it is not let come to that, and
  // the last of the room is for small batches, as those that remove values.
  const uint64_t size = batch.GetDataSize();
  if (!has_room(size + (size > kSmallBatchMax ? kReserve : kReserve / 2)))
    return fail(ErrorCode::kResourceExhausted,
                path_ + ": there is no room for " + std::to_string(size) + " bytes more");
  rocksdb::WriteOptions options;
  options.sync = durable == Durable::kYes;
  for (bool again = false;; again = true) {
    if (broken_ || is_resuming_) TRY(resume());
    Status status;
    {
      std::shared_lock writing(writing_, kWriteWait);
      if (!writing) return fail(ErrorCode::kResourceExhausted, path_ + ": it is being made ready to take writes again");
      if (broken_) continue;
      status = in_rocksdb([&] { return db_->Write(options, &batch); });
      if (!status.ok()) broken_ = true;
    }
    if (status.ok()) {
      flush_when_large();
      if (compactions_stopped_) resume_compactions();
      return {};
    }
    if (again) return std::unexpected(error_of(status));
  }
}

Status RocksDbStore::keep_memory_filled() {
  rocksdb::WriteOptions memory_only;
  memory_only.disableWAL = true;
  return db_->Put(memory_only, rocksdb_records::format_key(), format_);
}

bool RocksDbStore::is_large() const {
  uint64_t bytes = 0;
  return db_->GetIntProperty(rocksdb::DB::Properties::kCurSizeActiveMemTable, &bytes) && bytes >= write_buffer_bytes_;
}

void RocksDbStore::flush_when_large() {
  if (!is_large()) return;
  std::unique_lock alone(writing_, kWriteWait);
  if (!alone || broken_ || !is_large()) return;
  // While nobody writes: a flush that is still to begin when a write fails is forgotten by RocksDB 7.8, which then
  // waits for it in Resume().
  rocksdb::FlushOptions options;
  options.allow_write_stall = true;
  Status status = db_->Flush(options);
  if (status.ok()) status = keep_memory_filled();
  if (!status.ok()) broken_ = true;
}

void RocksDbStore::resume_compactions() {
  auto resuming = resuming_.lock();
  const auto now = Clock::now();
  if (resuming->result.valid() || broken_ || now < resuming->last + kCompactionsResumeInterval ||
      !has_room(kCompactionsRoomMin))
    return;
  resuming->last = now;
  resuming->result = begin_resuming();
}

bool RocksDbStore::has_room(uint64_t beside) const {
  uint64_t in_memory = 0;
  db_->GetIntProperty(rocksdb::DB::Properties::kCurSizeAllMemTables, &in_memory);
  std::error_code error;
  const auto space = std::filesystem::space(path_, error);
  return error || space.available >= in_memory + beside;
}

std::shared_future<Status> RocksDbStore::begin_resuming() {
  is_resuming_ = true;
  return std::async(std::launch::async,
                    [this] {
                      const std::unique_lock alone(writing_);
                      broken_ = false;  // what fails from here on sets it again
                      compactions_stopped_ = false;
                      Status status = db_->Resume();
                      if (status.ok()) status = keep_memory_filled();  // it may have flushed
                      if (!status.ok()) broken_ = true;
                      is_resuming_ = false;
                      return status;
                    })
      .share();
}

Result<void> RocksDbStore::resume() {
  std::shared_future<Status> result;
  {
    auto resuming = resuming_.lock();
    if (resuming->result.valid() && !is_resuming_) resuming->result = {};
    if (!resuming->result.valid()) {
      if (!broken_) return {};
      const auto now = Clock::now();
      if (now < resuming->last + resume_interval_)
        return fail(ErrorCode::kResourceExhausted,
                    path_ + ": a write failed a moment ago, most likely for want of room");
      resuming->last = now;
      if (!has_room(kRoomMin)) return fail(ErrorCode::kResourceExhausted, path_ + ": there is no room to write");
      resuming->result = begin_resuming();
    }
    result = resuming->result;
  }
  if (result.wait_for(kResumeWait) != std::future_status::ready)
    return fail(ErrorCode::kResourceExhausted, path_ + ": it is being made ready to take writes again");
  if (const Status status = result.get(); !status.ok()) return std::unexpected(error_of(status));
  spdlog::info("{} takes writes again", path_);
  return {};
}

}  // namespace spore::state

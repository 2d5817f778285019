// A RocksDB database with the care that it takes: synced batches, errors, a disk that is full and has room again.
// Beside RocksDbTier, whose format is the default, others may keep records of their own in one; a database says in the
// record 'v' whose it is, all other keys are theirs. With rocksdb_*.cc the only place that includes RocksDB.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>

#include "base/guarded.h"
#include "state/rocksdb_records.h"
#include "state/rocksdb_tier.h"

namespace spore::state {

inline rocksdb::Slice as_slice(ByteSpan bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
inline ByteSpan bytes_of(const rocksdb::Slice& slice) {
  return {reinterpret_cast<const uint8_t*>(slice.data()), slice.size()};
}

enum class Durable : bool { kNo, kYes };

class RocksDbStore {
 public:
  // `format` names what the records are, and their version; a database of another format is kFailedPrecondition.
  static Result<std::shared_ptr<RocksDbStore>> open(const std::filesystem::path& directory,
                                                    const RocksDbOptions& options,
                                                    std::string_view format = rocksdb_records::kFormatVersion);
  ~RocksDbStore();

  // At the snapshot, or the latest where there is none.
  Result<std::optional<std::string>> get(const std::string& key, const rocksdb::Snapshot* at = nullptr) const;
  // The record, parsed by its class.
  template <class Record>
  Result<std::optional<Record>> get_record(const std::string& key, const rocksdb::Snapshot* at = nullptr) const {
    ASSIGN_OR_RETURN(const auto bytes, get(key, at));
    if (!bytes) return std::nullopt;
    auto record = Record::parse(as_bytes(*bytes));
    if (!record) return fail(ErrorCode::kInternal, path_ + ": a record is not in its format");
    return record;
  }
  // Calls back for each record of [begin, end) until that returns false.
  Result<void> scan(const std::string& begin, const std::string& end, const rocksdb::Snapshot* at,
                    const std::function<bool(const rocksdb::Slice& key, const rocksdb::Slice& value)>& each) const;

  // The batch, at once or not at all. With Durable::kYes it and all that was written before it is on the disk.
  Result<void> write(rocksdb::WriteBatch& batch, Durable durable);
  // Adds to the batch what removes all records of [begin, end): one by one where they are few.
  Result<void> drop(rocksdb::WriteBatch& batch, const rocksdb_records::KeyRange& range) const;

  // Whether the disk has so many bytes beside what is still in memory. write() looks itself, and leaves the last few
  // MiB to small batches.
  bool has_room(uint64_t beside) const;

  rocksdb::DB& db() { return *db_; }
  const std::string& path() const { return path_; }

 private:
  RocksDbStore(std::string path, const RocksDbOptions& options, std::string_view format)
      : path_(std::move(path)),
        format_(format),
        resume_interval_(options.resume_interval),
        write_buffer_bytes_(options.write_buffer_bytes) {}
  Error error_of(const rocksdb::Status& status) const;
  Result<void> check_format();

  // A log that an append to it failed takes no more, and RocksDB's Resume() begins another only where it has something
  // in memory to flush. So its memory is never left empty: after opening, after each flush (which therefore is begun
  // here and not by RocksDB) and after each resumption, a record is put there that is in the database anyway.
  rocksdb::Status keep_memory_filled();
  bool is_large() const;
  void flush_when_large();
  void resume_compactions();
  // After a write that failed: makes the database write again. Fails while that takes longer than a moment.
  Result<void> resume();
  // RocksDB's Resume() flushes what is in memory, and waits for ever where there is no room for it. So it is only begun
  // where there is, and on a thread of its own, as room may go again.
  std::shared_future<rocksdb::Status> begin_resuming();

  const std::string path_;
  const std::string format_;
  const std::chrono::milliseconds resume_interval_;
  const uint64_t write_buffer_bytes_;
  // Set by the database's listener, too, so they outlive it.
  std::atomic<bool> broken_ = false;  // a write or a flush failed, and resume() has not succeeded since
  std::atomic<bool> compactions_stopped_ = false;
  std::unique_ptr<rocksdb::DB> db_;
  std::shared_timed_mutex writing_;  // shared by writers; who flushes or resumes has it alone
  struct Resuming {
    Clock::time_point last;
    std::shared_future<rocksdb::Status> result;  // valid while it is under way
  };
  Guarded<Resuming> resuming_;
  std::atomic<bool> is_resuming_ = false;
};

}  // namespace spore::state

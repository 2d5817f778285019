// Where durable calls are kept: their records, inputs, outputs and logs in a RocksDB database of their own; inputs and
// outputs above 64 KiB as objects, calls/ID/input and calls/ID/output-ATTEMPT.
//
// A change of a call is one batch: the record with all that leads to it, and what it brings (an output, a key). The
// changes of one call go one after the other, each sees the one before; those of different calls are synced together.
// An object is written before the record that refers to it and removed after it; one that no record refers to, as after
// a crash, goes when the store is opened.
//
// There are bounds on the calls that are stored and on their bytes, in all and of a tenant; they are checked when a
// call comes in. Intake also leaves some MiB of the disk to what the calls that are stored still have to write.
//
// All methods may wait for the disk. Any thread.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/guarded.h"
#include "calls/call_record.h"
#include "object_store/object_store.h"
#include "state/rocksdb_store.h"

namespace spore::calls {

// Milliseconds of the wall clock.
int64_t wall_clock_ms();

struct CallStoreOptions {
  size_t calls_max = 1'000'000;  // stored, ended or not
  size_t calls_per_tenant_max = 500'000;
  uint64_t bytes_max = 16ull << 30;
  uint64_t bytes_per_tenant_max = 8ull << 30;
  uint64_t room_for_intake_min = 16 << 20;  // of the disk, beside what comes in
  std::function<int64_t()> now_ms = wall_clock_ms;
  rocksdb::Env* env = nullptr;  // a twin for tests; outlives the store
};

struct CallStoreUsage {
  size_t calls = 0;
  uint64_t bytes = 0;
  size_t dead = 0;
};

struct ListQuery {
  std::string tenant;              // "": all
  std::optional<CallState> state;  // nothing: any
  bool dead = false;               // dead letters alone
  std::string cursor;              // where the page before ended; "": from the newest
  size_t limit = 100;
};

struct CallPage {
  std::vector<CallRecord> calls;  // of one tenant newest first
  std::string cursor;             // "": there are no more
};

enum class Synced : bool { kNo, kYes };

class CallStore {
 public:
  // Calls `each_live` for every call that has not ended, the oldest first. `objects` outlives the store. kUnavailable:
  // another process has the directory open, or the disk fails; kFailedPrecondition: it holds something else.
  static Result<std::unique_ptr<CallStore>> open(const std::filesystem::path& directory,
                                                 object_store::ObjectStore& objects, CallStoreOptions options,
                                                 const std::function<void(const CallRecord&)>& each_live);

  struct Inserted {
    CallRecord record;
    bool existed = false;  // its key stands for this call already; nothing was stored
  };
  // The call is on the disk when this returns; of two at once with one key, one is stored. kResourceExhausted: the
  // tenant has as many as it may; kUnavailable: so has the host, or the disk is full.
  Result<Inserted> insert(CallRecord record, ByteSpan input);

  // Nothing where there is no such call (any more).
  Result<std::optional<CallRecord>> find(const CallId& id) const;
  Result<Bytes> input(const CallRecord& record) const;
  Result<Bytes> output(const CallRecord& record) const;  // kNotFound where it has none
  Result<Bytes> log(const CallRecord& record) const;

  // What comes with the end of an attempt.
  struct Ending {
    std::optional<Bytes> output;
    Bytes log;
  };
  struct Changed {
    CallRecord record;
    bool changed = false;
  };
  // `change` alters the record, or gives false: then nothing is written. With an `ending` its output and log are
  // stored in the same batch, in the place of those before. Nothing where there is no such call.
  Result<std::optional<Changed>> change(const CallId& id, const std::function<bool(CallRecord&)>& change, Synced synced,
                                        const Ending* ending = nullptr);
  // Removes the call, with all that belongs to it, where `condition` holds of it. Whether it did.
  Result<bool> remove(const CallId& id, const std::function<bool(const CallRecord&)>& condition, Synced synced);
  // Removes calls whose time is over, at most so many; how many.
  Result<size_t> expire(size_t count_max);

  // kInvalidArgument: the cursor is none of this list's. Looks at a bounded number of calls for one page, so that a
  // page may hold fewer than there are, and still have a cursor.
  Result<CallPage> list(const ListQuery& query) const;
  CallStoreUsage usage() const;
  const std::string& path() const { return database_->path(); }

 private:
  struct Counts {
    size_t calls = 0;
    uint64_t bytes = 0;
  };
  struct Totals {
    Counts all;
    std::map<std::string, Counts> of_tenant;
    size_t dead = 0;
  };
  static constexpr size_t kStripes = 256;
  using Stripes = std::array<std::mutex, kStripes>;

  CallStore(std::shared_ptr<state::RocksDbStore> database, object_store::ObjectStore& objects, CallStoreOptions options)
      : database_(std::move(database)), objects_(objects), options_(std::move(options)) {}
  Result<void> load(const std::function<void(const CallRecord&)>& each_live);
  Result<void> remove_lost_objects();
  std::mutex& stripe_of(const CallId& id) { return stripes_[CallIdHash()(id) % kStripes]; }
  std::unique_lock<std::mutex> lock_key(const std::string& key) {
    return std::unique_lock(key_stripes_[std::hash<std::string>()(key) % kStripes]);
  }
  Result<std::optional<CallRecord>> stands_for(const std::string& key) const;
  Result<void> reserve(const CallRecord& record);
  void count(const CallRecord* before, const CallRecord* after);
  Result<Bytes> payload(const std::string& key, bool is_object, const std::string& object, uint64_t bytes) const;

  const std::shared_ptr<state::RocksDbStore> database_;
  object_store::ObjectStore& objects_;
  const CallStoreOptions options_;
  Stripes stripes_;      // who changes a call holds that of its id
  Stripes key_stripes_;  // who inserts or removes a call with a key holds that of the key, and takes it first
  Guarded<Totals> totals_;
};

}  // namespace spore::calls

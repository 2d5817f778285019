// A replica: one state value as this host holds it, in a memory file that guests map and the host reads and writes.
//
//                    windows of Faaslets        the host's own reads and writes
//                           \                     /
//                            memory file, 256 KiB chunks: present, or a hole that is fetched when it is touched
//                                |            ^
//                          push: dirty pages  |  fetch: absent chunks of the pinned version
//                                v            |  pull: pages that changed since the version held
//                                 global tier
//
// The file has the value's bytes from 0 on; what lies between its size and the end of its last page is zero when it is
// mapped, and never pushed. A page is dirty from when it is written here, through any window or by the host, until it
// has been pushed. Pushes and pulls of one replica take turns.
//
// Methods block where they say so; the others are for threads that run guests: they hold locks for no longer than a
// copy. Any thread.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/guarded.h"
#include "state/global_tier.h"
#include "state/operation.h"
#include "state/window_tracker.h"

namespace spore::state {

// Part of a value. `size_bytes` beyond the end means to the end.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t size_bytes = UINT64_MAX;
};

struct PushOptions {
  ByteRange range;
  std::optional<Version> expected;  // else kAlreadyExists
  uint64_t lock_token = 0;
  std::string once;  // names the push, where it merges; empty: a name is drawn
};

// How a value's pushes meet what is there: as Push has it.
struct Merging {
  MergeOp op = MergeOp::kOverwrite;
  Element element = Element::kF64;
  bool operator==(const Merging&) const = default;
};

// What the replicas of a host have moved; each counts into it.
struct ReplicaTraffic {
  std::atomic<uint64_t> pushes = 0;  // that published something
  std::atomic<uint64_t> pushed_bytes = 0;
  std::atomic<uint64_t> fetched_bytes = 0;
};

// What a change of size depends on.
struct Resize {
  std::optional<uint64_t> expected;            // the size that it has now; else nothing happens
  std::function<bool(uint64_t bytes)> charge;  // before it grows: whether it may; after it shrank
};

class Replica final : public WindowTracker::Owner, public std::enable_shared_from_this<Replica> {
 public:
  // What it is made with, all of which outlives it.
  struct Surroundings {
    GlobalTier& tier;
    WindowTracker* tracker = nullptr;  // null where this host can map nothing
    std::chrono::milliseconds fill_timeout{10'000};
    ReplicaTraffic* traffic = nullptr;
  };
  // Of a value that the global tier has; nothing is fetched yet.
  static Result<std::shared_ptr<Replica>> of_snapshot(ValueId id, std::shared_ptr<Snapshot> snapshot,
                                                      const Surroundings& surroundings);
  // Of a value that is made here: zeros, known to nobody else until they are pushed.
  static Result<std::shared_ptr<Replica>> of_zeros(ValueId id, uint64_t size_bytes, const Surroundings& surroundings);
  ~Replica() override;
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  const ValueId& id() const { return id_; }
  uint64_t size_bytes() const { return size_bytes_.load(std::memory_order_acquire); }
  // That its clean pages are of; all zero: never pushed.
  Version version() const { return state_.lock()->version; }
  bool published() const { return state_.lock()->published; }
  int fd() const { return file_.get(); }
  bool can_be_mapped() const { return tracker_ != nullptr; }

  // ---- windows ----
  // Around the time that [at, at + size_bytes) of this process is a shared mapping of the file, from its beginning.
  Result<void> add_window(uint8_t* at, uint64_t size_bytes, bool writable);
  void remove_window(uint8_t* at);
  // False once windows that exist should not be shown to further calls: the value was removed, or a page could not be
  // had.
  bool windows_reusable() const { return !windows_stale_.load(std::memory_order_relaxed); }
  void retire_windows() { windows_stale_.store(true, std::memory_order_relaxed); }

  // ---- waiting at a byte of the value ----
  // An operation that ends with wake(), if `as_expected` says so while nobody can wake; else null. Whoever gives up
  // says so with stop_waiting().
  std::shared_ptr<Operation> wait_at(uint64_t offset, const std::function<bool()>& as_expected);
  void stop_waiting(uint64_t offset, const Operation& operation);
  // Ends at most `count` operations that wait at that byte, longest first; how many.
  uint32_t wake(uint64_t offset, uint32_t count);
  bool waited_for(uint64_t offset) const { return waits_.lock()->contains(offset); }

  // ---- reads and writes of the host ----
  // Copies at most `to`'s bytes from `offset`; 0 at the end and past it. Nothing where something must be fetched first,
  // or a pull is under way: fetch(), which blocks, and again. EFAULT and the like: as errno, negative.
  std::optional<ssize_t> try_read(uint64_t offset, std::span<const iovec> to);
  // The same for writing, all of it inside the value's size.
  std::optional<ssize_t> try_write(uint64_t offset, std::span<const iovec> from);
  // Makes the value longer (by zeros) or shorter; others see it after a push. False where a pull or a copy is under
  // way, or where it does not have the expected size. An error where memory is short, or the charge was refused.
  Result<bool> try_resize(uint64_t size_bytes, const Resize& resize = {});

  // ---- blocking ----
  // Sees to it that these bytes are here.
  Result<void> fetch(ByteRange range, Deadline deadline);
  // Waits until no push, pull or copy is under way.
  Result<void> settle(Deadline deadline);
  // Publishes what is dirty in whole pages that the range touches. After an error it is as dirty as before.
  Result<Version> push(const PushOptions& options, Deadline deadline);
  // From now on pushes merge: what they add to the value (kSum), or its changed elements (kMin, kMax), counted from
  // what this host last got from the global tier or gave to it. A push whose answer was lost is applied once all the
  // same. kFailedPrecondition where something is dirty; kInvalidArgument where the size is not that of whole elements.
  Result<void> set_merging(const Merging& merging, Deadline deadline);
  Merging merging() const { return state_.lock()->merging; }
  // Takes over the newest version: of the pages that are here and not dirty those that changed, now; absent chunks when
  // they are touched. kNotFound: the value was removed.
  Result<Version> pull(Deadline deadline);

  // Whether there is anything that a push would publish. Scans the windows.
  bool dirty();
  bool mapped() const { return !state_.lock()->windows.empty(); }
  // Of the value, that have been fetched; for metrics and tests.
  uint64_t fetched_bytes() const { return fetched_bytes_.load(std::memory_order_relaxed); }

  bool fill(uint64_t offset) override;

 private:
  struct Window {
    uint64_t size_bytes = 0;
    bool writable = false;
  };
  enum class ChunkState : uint8_t { kPresent, kAbsent, kFetching };
  struct State {
    Version version;                     // number 0: of an epoch of which nothing is here
    bool published = false;              // the global tier has, or had, the value
    uint64_t published_size = 0;         // of the value there at that version
    uint64_t fetch_end = 0;              // of the snapshot's bytes, those up to here are the value's still
    std::shared_ptr<Snapshot> snapshot;  // while chunks are absent
    std::vector<ChunkState> chunks;
    size_t absent = 0;            // chunks that are not present
    std::vector<uint64_t> dirty;  // pages of each chunk, lowest bit first
    std::map<uint8_t*, Window> windows;
    Merging merging;
  };
  // A push that merges, and how the bytes it took stood: to be sent again where it is not known whether it was applied.
  struct MergePush {
    Push push;
    Bytes bytes;                                      // of its patches
    Bytes now;                                        // of its runs, as they were
    std::vector<std::pair<uint64_t, uint64_t>> runs;  // [begin, end) each
  };

  Replica(ValueId id, const Surroundings& surroundings);
  void count_fetched(uint64_t bytes);
  Result<void> make_file(uint64_t size_bytes);
  Result<void> resize_content(uint64_t size_bytes);
  static bool all_present(const State& state, uint64_t offset, uint64_t size_bytes);
  Result<void> clear_tail();
  Result<void> lengthen_file(uint64_t size_bytes);
  Result<void> clear_file_from(uint64_t size_bytes);
  static void mark_dirty(State& state, uint64_t begin, uint64_t end);
  // Of the bytes [from, to), whole pages.
  static void scan_windows(State& state, uint64_t from = 0, uint64_t to = UINT64_MAX);
  // Sees to it that `chunk` is here, and with it absent ones that follow, before `chunks_end` and as many as are read
  // at once. The first chunk that it has not looked at.
  Result<uint64_t> fetch_chunks(uint64_t chunk, uint64_t chunks_end, Deadline deadline);
  Result<void> fill_chunks(Snapshot& snapshot, uint64_t begin, uint64_t size_bytes, Deadline deadline);
  Result<void> splice_into_file(uint64_t offset, std::span<uint8_t> bytes);
  static Result<void> write_file(int file, uint64_t offset, ByteSpan bytes);
  Result<Bytes> read_file(int file, uint64_t offset, uint64_t size_bytes) const;
  // What came from the global tier: into the file, and into the base.
  Result<void> write_content(uint64_t offset, ByteSpan bytes);
  void account(State& state, const Pushed& pushed, uint64_t bytes);
  Result<Version> push_overwriting(Push push, std::vector<uint64_t> taken, uint64_t size, Deadline deadline);
  Result<std::unique_ptr<MergePush>> make_merge_push(Push push, const Merging& merging,
                                                     const std::vector<uint64_t>& taken, uint64_t size) const;
  // Sends unsettled_. Where it is known that it was not applied, its pages are dirty again.
  Result<Version> settle_merge(Deadline deadline);
  Result<void> merge_run(uint64_t begin, ByteSpan theirs, const Merging& merging);

  const ValueId id_;
  GlobalTier& tier_;
  WindowTracker* const tracker_;
  const std::chrono::milliseconds fill_timeout_;
  ReplicaTraffic* const traffic_;
  UniqueFd file_;
  std::atomic<uint64_t> size_bytes_ = 0;
  std::atomic<bool> windows_stale_ = false;
  std::atomic<uint64_t> fetched_bytes_ = 0;
  std::timed_mutex turn_;                 // of pushes and pulls
  UniqueFd base_;                         // where pushes merge: the bytes they count from; of who has the turn
  std::unique_ptr<MergePush> unsettled_;  // of who has the turn
  std::atomic<bool> has_unsettled_ = false;
  std::shared_mutex content_;  // shared: who copies into or out of the file; exclusive: a pull
  Guarded<State> state_;
  std::condition_variable chunk_came_;
  Guarded<std::multimap<uint64_t, std::shared_ptr<Operation>>> waits_;  // by offset, longest first
};

}  // namespace spore::state

// The local tier: the replicas of this host, and what they may take.
//
//   LocalTier { tenant, key -> Replica }  --pin, push, remove, list-->  GlobalTier
//
// A replica is opened once for everybody on the host. It and its whole size count against two budgets, its tenant's and
// the host's, from when it is opened. Where there is no room, clean replicas that nobody uses go, those first that were
// opened longest ago; a dirty one never goes, so in the end opening fails with kResourceExhausted. Where the host keeps
// books of its memory, they count there too, and these must have room as well.
//
// Methods that say so block; the others may be called by threads that run guests. Any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/guarded.h"
#include "base/memory_account.h"
#include "state/replica.h"

namespace spore::state {

struct LocalTierOptions {
  uint64_t bytes_max = 4ull << 30;             // of all replicas
  uint64_t bytes_per_tenant_max = 4ull << 30;  // of one tenant's
  size_t replicas_max = 4'096;                 // each holds a descriptor
  size_t replicas_per_tenant_max = 2'048;
  MemoryBooks* memory = nullptr;                   // outlives the tier; null: they count nowhere else
  std::chrono::milliseconds fill_timeout{10'000};  // for a page that a guest touches and that is not here
};

struct LocalTierStats {
  size_t replicas = 0;
  uint64_t bytes = 0;  // charged
  size_t windows = 0;
  uint64_t evicted = 0;
  uint64_t pushes = 0;  // from here on: since the start
  uint64_t pushed_bytes = 0;
  uint64_t fetched_bytes = 0;
};

class LocalTier {
 public:
  // Both outlive it. `tracker`: null where this host can map nothing.
  LocalTier(GlobalTier& global, WindowTracker* tracker, LocalTierOptions options);

  GlobalTier& global() { return global_; }

  // What makes other users let go of clean replicas, called where the budget is met: for instance idle Faaslets, which
  // keep their windows. Before the first open().
  void on_shortage(std::function<void()> let_go) { let_go_ = std::move(let_go); }
  void let_go() const {
    if (let_go_) let_go_();
  }

  // The replica, if it is open. Never blocks.
  std::shared_ptr<Replica> find(const ValueId& id);
  // Blocks. Opens the value, and makes it where there is none and `size_bytes` is given. kNotFound; kInvalidArgument
  // where it has another size than given; kResourceExhausted.
  Result<std::shared_ptr<Replica>> open(const ValueId& id, std::optional<uint64_t> size_bytes, Deadline deadline);
  // Blocks. Makes the value. kAlreadyExists where there is one, here or in the global tier; else as open().
  Result<std::shared_ptr<Replica>> create(const ValueId& id, uint64_t size_bytes, Deadline deadline);
  // Blocks. Removes the value, here and in the global tier. kNotFound where it was in neither.
  Result<void> remove(const ValueId& id, Deadline deadline);
  // Forgets the replica with all that was not pushed; windows on it are shown to no further call.
  void discard(const ValueId& id);
  // Blocks. Puts bytes behind the value's end, in the global tier at once, and here where the replica held the version
  // before; makes the value where there is none. The offset at which they are. `once` as in Push.
  Result<uint64_t> append(const ValueId& id, ByteSpan bytes, std::string once, Deadline deadline);
  // Never blocks. Changes what the replica is charged for. False: no room, or it is not the replica of its key any
  // more.
  bool charge(const Replica& replica, uint64_t size_bytes);
  // Blocks. Sees to it that a charge of so many bytes has room, until somebody else takes it. kResourceExhausted.
  Result<void> make_room_for(const Replica& replica, uint64_t size_bytes);

  // Blocks. Keys of the tenant with that prefix that come after `after`, sorted, those that nobody has pushed yet too;
  // as many as have, with one byte more for each, `bytes_max` bytes (at least kKeyBytesMax + 1).
  Result<std::vector<std::string>> list(const std::string& tenant, const std::string& prefix, const std::string& after,
                                        uint64_t bytes_max, Deadline deadline);
  // Whether anything was written here that nobody has pushed.
  bool has_unpushed();
  // Clean replicas that nobody uses go, of that account's tenant or any, opened longest ago first, until they were
  // charged with so many bytes. How many they were.
  uint64_t shed(const MemoryAccount* of, uint64_t bytes);
  LocalTierStats stats() const;

 private:
  struct Entry {
    std::shared_ptr<Replica> replica;  // null while it is being opened
    uint64_t charged_bytes = 0;
    std::list<ValueId>::iterator age;
  };
  struct State {
    std::unordered_map<ValueId, Entry, ValueIdHash> entries;
    std::list<ValueId> by_age;  // opened longest ago first
    struct OfTenant {
      size_t replicas = 0;
      uint64_t bytes = 0;
      MemoryCharge charge;  // of these bytes
    };
    std::unordered_map<std::string, OfTenant> tenants;
    LocalTierStats stats;
  };

  bool has_room(const State& state, const std::string& tenant, uint64_t size_bytes) const;
  State::OfTenant& of_tenant(State& state, const std::string& tenant) const;
  // False where the host's books have no room.
  bool account(State& state, const std::string& tenant, Entry& entry, uint64_t size_bytes) const;
  bool is_bound_by_tenant(const State& state, const std::string& tenant, uint64_t size_bytes) const;
  static bool is_idle(const Entry& entry);
  void drop(State& state, std::unordered_map<ValueId, Entry, ValueIdHash>::iterator entry) const;
  bool forget(const ValueId& id);
  enum class Existing { kSameSize, kRefused };
  // `charge`: at once, with the entry that is there.
  Result<void> make_room(const ValueId& id, uint64_t more_bytes, bool charge);
  Result<std::shared_ptr<Replica>> open(const ValueId& id, std::optional<uint64_t> size_bytes, Existing existing,
                                        Deadline deadline);
  Result<std::shared_ptr<Replica>> make(const ValueId& id, std::optional<uint64_t> size_bytes, Existing existing,
                                        Deadline deadline);

  GlobalTier& global_;
  WindowTracker* const tracker_;
  const LocalTierOptions options_;
  std::function<void()> let_go_;
  ReplicaTraffic traffic_;
  Guarded<State> state_;
  std::condition_variable opened_;
};

}  // namespace spore::state

// The Faaslets of a host that do not run, and the slots of all of them.
//
//   slots:     reserved --> spare --> of a Faaslet (running, waiting inside a call, or idle) --> cleared --> spare
//   Faaslets:  made --> running --> idle, in its slot --> idle, parked without a slot --> gone
//
// An idle Faaslet was reset after its last call and serves the next call of the same image; nothing of it is ever seen
// by another image. Where a slot is needed and none is left, the Faaslet that has been idle longest is parked: it gives
// its slot away and keeps only how it differs from its image, which after a reset is nothing. Where there are more idle
// ones than allowed, of a function, a tenant or the host, or memory runs short, those that have been idle longest go.
//
// A slot that served one image is cleared as a whole before it serves another. One thread keeps some spare ones, so
// that a call finds one ready, and looks after memory. All methods may be called from any thread.
#pragma once

#include <boost/intrusive/list.hpp>
#include <condition_variable>
#include <functional>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/guarded.h"
#include "base/memory_account.h"
#include "faaslet/faaslet.h"
#include "functions/function.h"
#include "host/entry.h"
#include "host/host_state.h"

namespace spore::worker {

// How many slots a process can have on this machine, and what it is that ends there.
struct SlotLimit {
  size_t slots = 0;
  std::string bound_by;
};
SlotLimit slot_limit();

struct PoolOptions {
  size_t slots_max = 0;  // Faaslets that are not parked; 0: what slot_limit() says
  size_t spare_slots = 16;
  size_t idle_max = 100'000;  // idle Faaslets, parked ones too
  size_t idle_per_tenant_max = 50'000;
  size_t idle_per_function_max = 10'000;
  uint64_t idle_bytes_max = 0;   // memory that idle Faaslets hold; 0: a quarter of the machine's
  uint64_t memory_left_min = 0;  // less available memory on the machine, and half of the idle ones go; 0: a 20th
  std::function<uint64_t()> memory_available;  // in bytes; default: as the kernel says
  MemoryBooks* memory = nullptr;               // outlives the pool; null: what Faaslets take counts nowhere
};

struct PoolStats {
  size_t slots = 0;  // in all
  size_t slots_max = 0;
  size_t slots_spare = 0;
  size_t idle_resident = 0;
  size_t idle_parked = 0;
  uint64_t idle_bytes = 0;
  uint64_t restored = 0;  // Faaslets made
  uint64_t reused = 0;    // calls that found an idle one
  uint64_t parked = 0;    // idle ones that gave their slot away
  uint64_t evicted = 0;   // idle ones that went for want of room
  uint64_t shed = 0;      // of them, those that shed() took
};

// What is computed once for each module: how its imports are linked and where calls enter.
struct Program {
  std::vector<faaslet::HostFunction> links;
  host::Entry entry;
  bool may_call = false;  // other functions
};

class FaasletPool {
  struct Shelf;
  struct Tenant;
  struct OfHost;
  struct OfTenant;
  struct OfFunction;
  template <class Tag>
  using Hook = boost::intrusive::list_base_hook<boost::intrusive::tag<Tag>>;

 public:
  // A Faaslet with what it points to. Who holds it may use it; the pool keeps the idle ones.
  class Instance : public Hook<OfHost>, public Hook<OfTenant>, public Hook<OfFunction> {
   public:
    ~Instance();
    faaslet::Faaslet& faaslet() { return *faaslet_; }
    host::HostState& state() { return state_; }
    const host::Entry& entry() const { return program_->entry; }
    bool may_call() const { return program_->may_call; }
    // Whose tenant's it is; null: nothing counts.
    const MemoryAccountPtr& account() const { return shelf_.tenant->account; }

   private:
    friend class FaasletPool;
    template <class Tag>
    using ListOf = boost::intrusive::list<Instance, boost::intrusive::base_hook<Hook<Tag>>>;
    Instance(FaasletPool& pool, Shelf& shelf) : pool_(pool), shelf_(shelf) {}

    FaasletPool& pool_;
    Shelf& shelf_;
    std::shared_ptr<const faaslet::ProtoFaaslet> proto_;
    std::shared_ptr<const Program> program_;
    host::HostState state_;
    std::unique_ptr<faaslet::Faaslet> faaslet_;
    uint64_t seat_ = 0;     // where it ran last
    uint64_t bytes_ = 0;    // counted while it is idle
    bool settled_ = false;  // while it is idle: charged for what it holds alone
  };

  // `reclaim`: asked for a slot when no idle Faaslet has one; it may park a call that waits. Called without locks.
  explicit FaasletPool(PoolOptions options, std::function<std::optional<faaslet::Slot>()> reclaim = {});
  // No instance may be left outside.
  ~FaasletPool();
  FaasletPool(const FaasletPool&) = delete;
  FaasletPool& operator=(const FaasletPool&) = delete;

  // An idle Faaslet of the function's image, in a slot; null where there is none. `seat` names the caller's: one that
  // ran there before is preferred.
  std::unique_ptr<Instance> take(const functions::LoadedFunction& function, uint64_t seat);
  // A new one. kInvalidModule: it cannot be linked; kResourceExhausted: no slot.
  Result<std::unique_ptr<Instance>> restore(const functions::LoadedFunction& function);
  // Back after a call, to be idle: it is reset here, and retired where that fails.
  void give(std::unique_ptr<Instance> instance, uint64_t seat);
  // A slot for a Faaslet that waits without one.
  Result<void> give_slot(Instance& instance);

  // Drops idle Faaslets of images that nobody else holds any more: of functions that were removed or replaced.
  void drop_unused();
  // Idle Faaslets, of that account or all, are charged for no more than they hold.
  void settle_idle(const MemoryAccount* of = nullptr);
  // Idle Faaslets, of that account or any, go until what was charged for them is `bytes`: those that were idle longest,
  // and of a few of these the largest first. What was.
  uint64_t shed(const MemoryAccount* of, uint64_t bytes);
  // The same for half of all.
  void shed_half();
  // Unmaps the windows of idle Faaslets.
  void drop_windows();
  PoolStats stats() const;

 private:
  struct Shelf {  // the Faaslets of one image
    const faaslet::ProtoFaaslet* proto = nullptr;
    Tenant* tenant = nullptr;
    size_t alive = 0;  // idle or outside
    size_t idle = 0;
    Instance::ListOf<OfFunction> list;  // the one used last first; parked ones behind those that are not
  };
  struct Tenant {
    std::string name;
    size_t shelves = 0;
    size_t idle = 0;
    MemoryAccountPtr account;
    Instance::ListOf<OfTenant> list;  // idle longest first
  };
  struct State {
    std::unordered_map<const faaslet::ProtoFaaslet*, std::unique_ptr<Shelf>> shelves;
    std::unordered_map<std::string, std::unique_ptr<Tenant>> tenants;
    Instance::ListOf<OfHost> resident;  // idle longest first
    Instance::ListOf<OfHost> parked;
    std::vector<faaslet::Slot> spare;
    PoolStats counts;
    bool stopping = false;
  };
  using Instances = std::vector<std::unique_ptr<Instance>>;
  struct CachedProgram {
    std::weak_ptr<const faaslet::LoadedObject> object;
    std::shared_ptr<const Program> program;
  };

  Result<std::shared_ptr<const Program>> program_of(const std::shared_ptr<const faaslet::LoadedObject>& object);
  Result<faaslet::Slot> empty_slot();
  Result<faaslet::Slot> find_slot();
  void put_used(faaslet::Slot slot);
  // With the state's lock held.
  Shelf& shelf_of(State& state, const functions::LoadedFunction& function);
  static std::unique_ptr<Instance> unlink(State& state, Instance& instance);
  static void link(State& state, Instance& instance);
  static faaslet::Slot park(State& state, Instance& instance);
  void evict_beyond_limits(State& state, Shelf& shelf, Instances& out);
  static void evict_oldest(State& state, Instances& out);
  static void evict_half(State& state, Instances& out);
  template <class List>
  static Instance& to_shed(List& list);
  void housekeeping_loop();

  PoolOptions options_;
  const std::function<std::optional<faaslet::Slot>()> reclaim_;
  Guarded<State> state_;
  Guarded<std::unordered_map<const faaslet::LoadedObject*, CachedProgram>> programs_;
  std::condition_variable work_;  // the housekeeper's
  std::condition_variable slot_came_;
  std::thread housekeeper_;
};

}  // namespace spore::worker

#include "worker/pool.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>

#include "base/check.h"
#include "base/fd.h"
#include "host/imports.h"
#include "state/window_tracker.h"
#include "wasm/abi.h"

namespace spore::worker {

using faaslet::Slot;

namespace {

// Of a Faaslet that is kept, beside its pages: page tables, mappings and the objects.
constexpr uint64_t kResidentOverheadBytes = 16 << 10;
constexpr uint64_t kParkedOverheadBytes = 4 << 10;
constexpr size_t kOwnSeatLooks = 4;  // how many idle ones are looked at for one of the caller's seat
constexpr size_t kShedLooks = 8;     // of those that have been idle longest, to find the largest
constexpr size_t kShedMax = 4'096;   // that go at once
constexpr auto kHousekeeping = std::chrono::seconds(1);
constexpr int kSlotAttemptsMax = 20;
constexpr auto kSlotWait = std::chrono::milliseconds(5);
// What the process maps besides slots, and what a slot takes: image, growth, and the guards between.
constexpr uint64_t kOtherMappings = 2'000 + 2 * state::kWindowsOfProcessMax;
constexpr uint64_t kMappingsPerSlot = 4;

std::optional<uint64_t> number_in(const char* path, std::string_view behind = "") {
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t at = text.find(behind);
  if (at == std::string::npos) return std::nullopt;
  const size_t digits = text.find_first_of("0123456789", at + behind.size());
  uint64_t value = 0;
  if (digits == std::string::npos) return std::nullopt;
  std::from_chars(text.data() + digits, text.data() + text.size(), value);
  return value;
}

uint64_t memory_of(std::string_view field) { return number_in("/proc/meminfo", field).value_or(0) << 10; }
uint64_t memory_total() { return memory_of("MemTotal:"); }

}  // namespace

SlotLimit slot_limit() {
  constexpr uint64_t kAddressSpaceBytes = 1ull << 47;
  constexpr uint64_t kSlotBytes = wasm::kSlotBelowBytes + wasm::kSlotAboveBytes;
  SlotLimit limit{(kAddressSpaceBytes - wasm::kArenaBytes) / kSlotBytes - 64,
                  "the address space (128 TiB, a slot takes 6.25 GiB)"};
  const auto tighten = [&](uint64_t slots, std::string why) {
    if (slots < limit.slots) limit = {slots, std::move(why)};
  };
  const uint64_t mappings = number_in("/proc/sys/vm/max_map_count").value_or(65'530);
  tighten((mappings - std::min(mappings, kOtherMappings)) / kMappingsPerSlot,
          "vm.max_map_count (" + std::to_string(mappings) + ", a slot takes up to " + std::to_string(kMappingsPerSlot) +
              " mappings)");
  if (const uint64_t memory = memory_total())
    tighten(memory / 2 / (40 << 10), "memory (" + std::to_string(memory >> 20) + " MiB, an idle Faaslet takes 40 KiB)");
  return limit;
}

// ---- instances ------------------------------------------------------------------------------------------------------

FaasletPool::Instance::~Instance() {
  if (faaslet_ && faaslet_->has_slot()) pool_.put_used(faaslet_->take_slot());
  faaslet_.reset();
  auto state = pool_.state_.lock();
  if (--shelf_.alive > 0) return;
  Tenant& tenant = *shelf_.tenant;
  const bool last = --tenant.shelves == 0;
  state->shelves.erase(shelf_.proto);
  if (last) state->tenants.erase(std::string(tenant.name));
}

FaasletPool::Shelf& FaasletPool::shelf_of(State& state, const functions::LoadedFunction& function) {
  auto& shelf = state.shelves[function.proto.get()];
  if (shelf) return *shelf;
  shelf = std::make_unique<Shelf>();
  shelf->proto = function.proto.get();
  auto& tenant = state.tenants[function.id.tenant];
  if (!tenant) {
    tenant = std::make_unique<Tenant>();
    tenant->name = function.id.tenant;
    if (options_.memory) tenant->account = options_.memory->account_of(tenant->name);
  }
  ++tenant->shelves;
  shelf->tenant = tenant.get();
  return *shelf;
}

void FaasletPool::link(State& state, Instance& instance) {
  Shelf& shelf = instance.shelf_;
  const bool resident = instance.faaslet_->has_slot();
  instance.settled_ = false;
  (resident ? state.resident : state.parked).push_back(instance);
  if (resident)
    shelf.list.push_front(instance);
  else
    shelf.list.push_back(instance);
  shelf.tenant->list.push_back(instance);
  ++shelf.idle;
  ++shelf.tenant->idle;
  ++(resident ? state.counts.idle_resident : state.counts.idle_parked);
  instance.bytes_ = resident ? instance.faaslet_->kept_bytes() + kResidentOverheadBytes
                             : instance.faaslet_->parked_bytes() + kParkedOverheadBytes;
  state.counts.idle_bytes += instance.bytes_;
}

std::unique_ptr<FaasletPool::Instance> FaasletPool::unlink(State& state, Instance& instance) {
  Shelf& shelf = instance.shelf_;
  const bool resident = instance.faaslet_->has_slot();
  auto& of_host = resident ? state.resident : state.parked;
  of_host.erase(of_host.iterator_to(instance));
  shelf.list.erase(shelf.list.iterator_to(instance));
  shelf.tenant->list.erase(shelf.tenant->list.iterator_to(instance));
  --shelf.idle;
  --shelf.tenant->idle;
  --(resident ? state.counts.idle_resident : state.counts.idle_parked);
  state.counts.idle_bytes -= instance.bytes_;
  return std::unique_ptr<Instance>(&instance);
}

// An idle Faaslet gives its slot away; as it has not run since its reset, it keeps nothing. It stays as idle as it was.
Slot FaasletPool::park(State& state, Instance& instance) {
  auto slot = instance.faaslet_->move_out();
  CHECK(slot.has_value(), slot.error().message);
  state.resident.erase(state.resident.iterator_to(instance));
  state.parked.push_back(instance);
  auto& list = instance.shelf_.list;
  list.splice(list.end(), list, list.iterator_to(instance));
  --state.counts.idle_resident;
  ++state.counts.idle_parked;
  ++state.counts.parked;
  instance.settled_ = true;
  state.counts.idle_bytes -= instance.bytes_ - kParkedOverheadBytes;
  instance.bytes_ = kParkedOverheadBytes;
  return std::move(*slot);
}

// ---- slots ----------------------------------------------------------------------------------------------------------

Result<Slot> FaasletPool::empty_slot() {
  // A slot that is just being cleared or reserved is in no list; it is worth a moment's wait.
  for (int attempt = 0;; ++attempt) {
    auto slot = find_slot();
    if (slot || slot.error().code != ErrorCode::kResourceExhausted || attempt == kSlotAttemptsMax) return slot;
    auto state = state_.lock();
    slot_came_.wait_for(state.lock(), kSlotWait);
  }
}

Result<Slot> FaasletPool::find_slot() {
  std::optional<Error> refused;  // by the kernel
  {
    auto state = state_.lock();
    if (!state->spare.empty()) {
      Slot slot = std::move(state->spare.back());
      state->spare.pop_back();
      if (state->spare.size() < options_.spare_slots / 2) work_.notify_one();
      return slot;
    }
    if (state->counts.slots < options_.slots_max) {
      ++state->counts.slots;
      state.lock().unlock();
      auto slot = Slot::reserve();
      if (slot) return slot;
      refused = std::move(slot.error());  // the process may have no more room than this
      state.lock().lock();
      --state->counts.slots;
    }
    if (!state->resident.empty()) {
      Slot slot = park(*state, state->resident.front());
      state.lock().unlock();
      TRY(slot.clear());
      return slot;
    }
  }
  if (reclaim_) {
    if (auto slot = reclaim_()) {
      TRY(slot->clear());
      return std::move(*slot);
    }
  }
  if (refused) return std::unexpected(std::move(*refused));
  return fail(ErrorCode::kResourceExhausted,
              "all " + std::to_string(options_.slots_max) + " slots of this host are in use by calls");
}

// Cleared right here: by another thread it would cost this one's TLB as well.
void FaasletPool::put_used(Slot slot) {
  std::optional<Slot> cleared;  // destroyed outside the lock, where it is not kept
  if (slot.clear()) cleared = std::move(slot);
  auto state = state_.lock();
  if (cleared && state->spare.size() < options_.spare_slots)
    state->spare.push_back(std::move(*cleared));
  else
    --state->counts.slots;
  slot_came_.notify_one();
  state.lock().unlock();
}

// ---- Faaslets -------------------------------------------------------------------------------------------------------

std::unique_ptr<FaasletPool::Instance> FaasletPool::take(const functions::LoadedFunction& function, uint64_t seat) {
  std::unique_ptr<Instance> instance;
  {
    auto state = state_.lock();
    const auto found = state->shelves.find(function.proto.get());
    if (found == state->shelves.end() || found->second->list.empty()) return nullptr;
    // They keep windows on state of the tenant whose calls they ran.
    CHECK(found->second->tenant->name == function.id.tenant, function.id.text());
    auto& list = found->second->list;
    Instance* wanted = &list.front();
    size_t looks = kOwnSeatLooks;
    for (Instance& idle : list) {
      if (looks-- == 0 || !idle.faaslet_->has_slot()) break;
      if (idle.seat_ != seat) continue;
      wanted = &idle;
      break;
    }
    instance = unlink(*state, *wanted);
    ++state->counts.reused;
  }
  if (!instance->faaslet_->has_slot() && !give_slot(*instance)) return nullptr;
  return instance;
}

Result<std::unique_ptr<FaasletPool::Instance>> FaasletPool::restore(const functions::LoadedFunction& function) {
  ASSIGN_OR_RETURN(auto program, program_of(function.proto->object()));
  ASSIGN_OR_RETURN(auto slot, empty_slot());
  std::unique_ptr<Instance> instance;
  {
    auto state = state_.lock();
    Shelf& shelf = shelf_of(*state, function);
    ++shelf.alive;
    ++state->counts.restored;
    instance.reset(new Instance(*this, shelf));
  }
  instance->proto_ = function.proto;
  instance->program_ = std::move(program);
  ASSIGN_OR_RETURN(instance->faaslet_, faaslet::Faaslet::restore(std::move(slot), function.proto,
                                                                 instance->program_->links, &instance->state_));
  instance->faaslet_->charge_to(instance->account());
  return instance;
}

Result<void> FaasletPool::give_slot(Instance& instance) {
  ASSIGN_OR_RETURN(auto slot, empty_slot());
  return instance.faaslet_->move_into(std::move(slot));
}

void FaasletPool::give(std::unique_ptr<Instance> instance, uint64_t seat) {
  instance->state_ = {};
  if (options_.idle_max == 0 || !instance->faaslet_->reset()) return;
  instance->seat_ = seat;
  Instances evicted;  // destroyed outside the lock
  auto state = state_.lock();
  Shelf& shelf = instance->shelf_;
  link(*state, *instance.release());
  evict_beyond_limits(*state, shelf, evicted);
  state.lock().unlock();
}

void FaasletPool::evict_beyond_limits(State& state, Shelf& shelf, Instances& out) {
  const auto evict = [&](Instance& instance) {
    out.push_back(unlink(state, instance));
    ++state.counts.evicted;
  };
  if (shelf.idle > options_.idle_per_function_max) evict(shelf.list.back());
  if (shelf.tenant->idle > options_.idle_per_tenant_max) evict(shelf.tenant->list.front());
  while (state.counts.idle_resident + state.counts.idle_parked > options_.idle_max ||
         (state.counts.idle_bytes > options_.idle_bytes_max && state.counts.idle_resident > 1))
    evict_oldest(state, out);
}

// Of the parked ones, which were idle longest; then of the others.
void FaasletPool::evict_oldest(State& state, Instances& out) {
  auto& list = state.parked.empty() ? state.resident : state.parked;
  out.push_back(unlink(state, list.front()));
  ++state.counts.evicted;
}

void FaasletPool::evict_half(State& state, Instances& out) {
  for (size_t left = (state.counts.idle_resident + state.counts.idle_parked + 1) / 2; left > 0; --left)
    evict_oldest(state, out);
}

// Since somebody last looked only the last ones in a tenant's list can have come: it is in the order in which they did,
// and those that are parked meanwhile are the first.
void FaasletPool::settle_idle(const MemoryAccount* of) {
  if (!options_.memory) return;
  const auto settle = [](auto& list) {
    for (auto at = list.rbegin(); at != list.rend() && !at->settled_; ++at) {
      at->faaslet_->settle_memory();
      at->settled_ = true;
    }
  };
  auto state = state_.lock();
  if (of) {
    const auto found = state->tenants.find(of->tenant());
    if (found != state->tenants.end()) settle(found->second->list);
  } else {
    for (auto& [name, tenant] : state->tenants) settle(tenant->list);
  }
}

template <class List>
FaasletPool::Instance& FaasletPool::to_shed(List& list) {
  Instance* largest = &list.front();
  size_t looks = kShedLooks;
  for (Instance& idle : list) {
    if (looks-- == 0) break;
    if (idle.faaslet_->charged_bytes() > largest->faaslet_->charged_bytes()) largest = &idle;
  }
  return *largest;
}

uint64_t FaasletPool::shed(const MemoryAccount* of, uint64_t bytes) {
  uint64_t freed = 0;
  Instances gone;  // destroyed outside the lock
  auto state = state_.lock();
  const auto take_from = [&](auto& list) {
    while (freed < bytes && !list.empty() && gone.size() < kShedMax) {
      Instance& instance = to_shed(list);
      freed += instance.faaslet_->charged_bytes();
      gone.push_back(unlink(*state, instance));
      ++state->counts.evicted;
      ++state->counts.shed;
    }
  };
  if (of) {
    const auto found = state->tenants.find(of->tenant());
    if (found != state->tenants.end()) take_from(found->second->list);
  } else {
    take_from(state->resident);
    take_from(state->parked);
  }
  state.lock().unlock();
  return freed;
}

void FaasletPool::shed_half() {
  Instances gone;  // destroyed outside the lock
  auto state = state_.lock();
  evict_half(*state, gone);
  state->counts.shed += gone.size();
  state.lock().unlock();
}

void FaasletPool::drop_unused() {
  Instances dropped;  // destroyed outside the lock
  auto state = state_.lock();
  for (auto& [proto, shelf] : state->shelves) {
    if (shelf->list.empty()) continue;
    const auto& holder = shelf->list.front().proto_;
    if (static_cast<size_t>(holder.use_count()) > 2 * shelf->alive) continue;  // an instance and its Faaslet hold it
    while (!shelf->list.empty()) dropped.push_back(unlink(*state, shelf->list.front()));
  }
  state.lock().unlock();
}

void FaasletPool::drop_windows() {
  auto state = state_.lock();
  for (Instance& idle : state->resident) idle.faaslet_->unmap_windows();
}

Result<std::shared_ptr<const Program>> FaasletPool::program_of(
    const std::shared_ptr<const faaslet::LoadedObject>& object) {
  {
    auto programs = programs_.lock();
    const auto found = programs->find(object.get());
    // An entry of a module that is gone may lie under the address of a new one.
    if (found != programs->end() && found->second.object.lock() == object) return found->second.program;
  }
  auto program = std::make_shared<Program>();
  ASSIGN_OR_RETURN(program->links, host::link(object->module()));
  ASSIGN_OR_RETURN(program->entry, host::find_entry(object->module()));
  program->may_call = host::may_call(object->module());
  auto programs = programs_.lock();
  std::erase_if(*programs, [](const auto& entry) { return entry.second.object.expired(); });
  (*programs)[object.get()] = {object, program};
  return program;
}

PoolStats FaasletPool::stats() const {
  auto state = state_.lock();
  PoolStats out = state->counts;
  out.slots_max = options_.slots_max;
  out.slots_spare = state->spare.size();
  return out;
}

// ---- housekeeping ---------------------------------------------------------------------------------------------------

FaasletPool::FaasletPool(PoolOptions options, std::function<std::optional<Slot>()> reclaim)
    : options_(std::move(options)), reclaim_(std::move(reclaim)) {
  if (options_.slots_max == 0) options_.slots_max = slot_limit().slots;
  if (options_.idle_bytes_max == 0) options_.idle_bytes_max = memory_total() / 4;
  if (options_.memory_left_min == 0) options_.memory_left_min = memory_total() / 20;
  if (!options_.memory_available) options_.memory_available = [] { return memory_of("MemAvailable:"); };
  (void)faaslet::forbid_huge_pages();  // where that is refused, each slot tells it
  housekeeper_ = std::thread([this] { housekeeping_loop(); });
}

FaasletPool::~FaasletPool() {
  state_.lock()->stopping = true;
  work_.notify_one();
  housekeeper_.join();
  Instances left;
  {
    auto state = state_.lock();
    while (!state->resident.empty()) left.push_back(unlink(*state, state->resident.front()));
    while (!state->parked.empty()) left.push_back(unlink(*state, state->parked.front()));
  }
  left.clear();
  CHECK(state_.lock()->shelves.empty(), "instances of the pool are still outside");
}

void FaasletPool::housekeeping_loop() {
  auto last_round = std::chrono::steady_clock::now();
  auto state = state_.lock();
  while (!state->stopping) {
    const bool refill = state->spare.size() < options_.spare_slots && state->counts.slots < options_.slots_max;
    if (!refill) work_.wait_until(state.lock(), last_round + kHousekeeping);
    if (state->stopping) break;
    if (refill) {
      ++state->counts.slots;
      state.lock().unlock();
      auto reserved = Slot::reserve();
      state.lock().lock();
      if (reserved) {
        state->spare.push_back(std::move(*reserved));
        slot_came_.notify_one();
      } else {  // the process has no room for more
        --state->counts.slots;
        options_.spare_slots = state->spare.size();
      }
    }

    const auto now = std::chrono::steady_clock::now();
    if (now < last_round + kHousekeeping) continue;
    last_round = now;
    state.lock().unlock();
    drop_unused();
    settle_idle();
    const bool short_of_memory = options_.memory_available() < options_.memory_left_min;
    Instances evicted;
    state.lock().lock();
    if (short_of_memory) evict_half(*state, evicted);
    state.lock().unlock();
    evicted.clear();
    state.lock().lock();
  }
}

}  // namespace spore::worker

#include "state/local_tier.h"

#include <algorithm>
#include <set>

namespace spore::state {

LocalTier::LocalTier(GlobalTier& global, WindowTracker* tracker, LocalTierOptions options)
    : global_(global), tracker_(tracker), options_(options) {}

std::shared_ptr<Replica> LocalTier::find(const ValueId& id) {
  auto state = state_.lock();
  const auto found = state->entries.find(id);
  return found == state->entries.end() ? nullptr : found->second.replica;
}

// ---- budget ---------------------------------------------------------------------------------------------------------

bool LocalTier::is_bound_by_tenant(const State& state, const std::string& tenant, uint64_t size_bytes) const {
  const auto found = state.tenants.find(tenant);
  if (found == state.tenants.end()) return size_bytes > options_.bytes_per_tenant_max;
  const State::OfTenant& of = found->second;
  return of.replicas > options_.replicas_per_tenant_max ||
         size_bytes > options_.bytes_per_tenant_max - std::min(options_.bytes_per_tenant_max, of.bytes) ||
         (of.charge.account() && size_bytes > of.charge.account()->total().room());
}

// For so many bytes more; the entry is there already.
bool LocalTier::has_room(const State& state, const std::string& tenant, uint64_t size_bytes) const {
  return size_bytes <= options_.bytes_max - std::min(options_.bytes_max, state.stats.bytes) &&
         state.entries.size() <= options_.replicas_max &&
         (!options_.memory || size_bytes <= options_.memory->total().room()) &&
         !is_bound_by_tenant(state, tenant, size_bytes);
}

LocalTier::State::OfTenant& LocalTier::of_tenant(State& state, const std::string& tenant) const {
  State::OfTenant& of = state.tenants[tenant];
  if (options_.memory && !of.charge.account())
    of.charge = MemoryCharge(options_.memory->account_of(tenant), MemoryKind::kState);
  return of;
}

bool LocalTier::account(State& state, const std::string& tenant, Entry& entry, uint64_t size_bytes) const {
  State::OfTenant& of = of_tenant(state, tenant);
  const uint64_t bytes = of.bytes + size_bytes - entry.charged_bytes;
  if (of.charge.cover_at_once(bytes) != MemoryAccount::Refusal::kNone) return false;
  of.charge.lower(bytes);
  of.bytes = bytes;
  state.stats.bytes += size_bytes - entry.charged_bytes;
  entry.charged_bytes = size_bytes;
  return true;
}

bool LocalTier::is_idle(const Entry& entry) {
  const auto& replica = entry.replica;
  return replica && replica.use_count() == 1 && !replica->mapped() && !replica->dirty();
}

void LocalTier::drop(State& state, std::unordered_map<ValueId, Entry, ValueIdHash>::iterator entry) const {
  account(state, entry->first.tenant, entry->second, 0);
  const auto tenant = state.tenants.find(entry->first.tenant);
  if (--tenant->second.replicas == 0) state.tenants.erase(tenant);
  state.by_age.erase(entry->second.age);
  state.entries.erase(entry);
}

bool LocalTier::charge(const Replica& replica, uint64_t size_bytes) {
  const ValueId& id = replica.id();
  auto state = state_.lock();
  const auto found = state->entries.find(id);
  if (found == state->entries.end() || found->second.replica.get() != &replica) return false;
  const uint64_t charged = found->second.charged_bytes;
  if (size_bytes > charged && !has_room(*state, id.tenant, size_bytes - charged)) return false;
  return account(*state, id.tenant, found->second, size_bytes);
}

Result<void> LocalTier::make_room_for(const Replica& replica, uint64_t size_bytes) {
  uint64_t charged = 0;
  {
    auto state = state_.lock();
    const auto found = state->entries.find(replica.id());
    if (found == state->entries.end() || found->second.replica.get() != &replica)
      return fail(ErrorCode::kFailedPrecondition, "state \"" + replica.id().key + "\" was removed");
    charged = found->second.charged_bytes;
  }
  return make_room(replica.id(), size_bytes - std::min(charged, size_bytes), false);
}

Result<void> LocalTier::make_room(const ValueId& id, uint64_t more_bytes, bool charge) {
  std::vector<std::shared_ptr<Replica>> evicted;  // destroyed outside the lock
  MemoryAccountPtr account_of_tenant;
  enum Attempt : uint8_t { kAsItIs, kAfterLettingGo, kAfterAsking };
  for (Attempt attempt = kAsItIs;;) {
    {
      auto state = state_.lock();
      const bool of_tenant_only = is_bound_by_tenant(*state, id.tenant, more_bytes);
      for (auto at = state->by_age.begin(); at != state->by_age.end() && !has_room(*state, id.tenant, more_bytes);) {
        const auto entry = state->entries.find(*at++);
        if (!is_idle(entry->second)) continue;
        if (of_tenant_only && entry->first.tenant != id.tenant) continue;
        evicted.push_back(entry->second.replica);
        ++state->stats.evicted;
        drop(*state, entry);
      }
      if (has_room(*state, id.tenant, more_bytes) &&
          (!charge || account(*state, id.tenant, state->entries.at(id), more_bytes)))
        return {};
      account_of_tenant = options_.memory ? options_.memory->account_of(id.tenant) : nullptr;
    }
    evicted.clear();
    if (attempt == kAsItIs && let_go_) {
      let_go_();
      attempt = kAfterLettingGo;
    } else if (attempt != kAfterAsking && account_of_tenant && more_bytes > account_of_tenant->room()) {
      const bool by_tenant = more_bytes > account_of_tenant->total().room();
      options_.memory->ask_for_room(by_tenant ? account_of_tenant.get() : nullptr, more_bytes);
      attempt = kAfterAsking;
    } else {
      break;
    }
  }
  return fail(ErrorCode::kResourceExhausted, "no room for the " + std::to_string(more_bytes) + " bytes of state \"" +
                                                 id.key + "\": what this host may hold is in use or not yet pushed");
}

uint64_t LocalTier::shed(const MemoryAccount* of, uint64_t bytes) {
  std::vector<std::shared_ptr<Replica>> evicted;  // destroyed outside the lock
  uint64_t freed = 0;
  auto state = state_.lock();
  for (auto at = state->by_age.begin(); at != state->by_age.end() && freed < bytes;) {
    const auto entry = state->entries.find(*at++);
    if (!is_idle(entry->second) || (of && entry->first.tenant != of->tenant())) continue;
    evicted.push_back(entry->second.replica);
    freed += entry->second.charged_bytes;
    ++state->stats.evicted;
    drop(*state, entry);
  }
  state.lock().unlock();
  return freed;
}

// ---- opening --------------------------------------------------------------------------------------------------------

Result<std::shared_ptr<Replica>> LocalTier::make(const ValueId& id, std::optional<uint64_t> size_bytes,
                                                 Existing existing, Deadline deadline) {
  TRY(check_key(id.key));
  auto snapshot = global_.pin(id, deadline);
  if (!snapshot && (snapshot.error().code != ErrorCode::kNotFound || !size_bytes))
    return std::unexpected(std::move(snapshot).error().within("open state \"" + id.key + "\""));
  if (snapshot && existing == Existing::kRefused)
    return fail(ErrorCode::kAlreadyExists, "state \"" + id.key + "\" exists");
  const uint64_t size = snapshot ? (*snapshot)->manifest().size_bytes : *size_bytes;
  if (size > kValueBytesMax)
    return fail(ErrorCode::kInvalidArgument, "state \"" + id.key + "\": a value can have at most " +
                                                 std::to_string(kValueBytesMax) + " bytes, not " +
                                                 std::to_string(size));
  TRY(make_room(id, size, true));
  const Replica::Surroundings surroundings{
      .tier = global_, .tracker = tracker_, .fill_timeout = options_.fill_timeout, .traffic = &traffic_};
  if (snapshot) return Replica::of_snapshot(id, std::move(*snapshot), surroundings);
  return Replica::of_zeros(id, size, surroundings);
}

Result<std::shared_ptr<Replica>> LocalTier::open(const ValueId& id, std::optional<uint64_t> size_bytes,
                                                 Deadline deadline) {
  return open(id, size_bytes, Existing::kSameSize, deadline);
}

Result<std::shared_ptr<Replica>> LocalTier::create(const ValueId& id, uint64_t size_bytes, Deadline deadline) {
  return open(id, size_bytes, Existing::kRefused, deadline);
}

Result<std::shared_ptr<Replica>> LocalTier::open(const ValueId& id, std::optional<uint64_t> size_bytes,
                                                 Existing existing, Deadline deadline) {
  std::shared_ptr<Replica> replica;
  {
    auto state = state_.lock();
    for (;;) {
      const auto found = state->entries.find(id);
      if (found == state->entries.end()) break;
      if ((replica = found->second.replica)) break;
      if (opened_.wait_until(state.lock(), deadline) == std::cv_status::timeout)
        return fail(ErrorCode::kDeadlineExceeded,
                    "open state \"" + id.key + "\": the global tier did not answer in time");
    }
    if (replica && existing == Existing::kRefused)
      return fail(ErrorCode::kAlreadyExists, "state \"" + id.key + "\" exists");
    if (!replica) {
      state->entries[id].age = state->by_age.insert(state->by_age.end(), id);
      ++of_tenant(*state, id.tenant).replicas;
    }
  }
  if (!replica) {
    auto made = make(id, size_bytes, existing, deadline);
    auto state = state_.lock();
    const auto entry = state->entries.find(id);
    if (made) {
      entry->second.replica = replica = std::move(*made);
    } else {
      drop(*state, entry);
    }
    opened_.notify_all();
    if (!made) return std::unexpected(std::move(made).error());
  }
  if (size_bytes && *size_bytes != replica->size_bytes())
    return fail(ErrorCode::kInvalidArgument, "state \"" + id.key + "\" has " + std::to_string(replica->size_bytes()) +
                                                 " bytes, not " + std::to_string(*size_bytes));
  return replica;
}

Result<void> LocalTier::remove(const ValueId& id, Deadline deadline) {
  TRY(check_key(id.key));
  const auto removed = global_.remove(id, std::nullopt, deadline);
  if (!removed && removed.error().code != ErrorCode::kNotFound) return removed;
  return forget(id) ? Result<void>() : removed;
}

void LocalTier::discard(const ValueId& id) { forget(id); }

bool LocalTier::forget(const ValueId& id) {
  std::shared_ptr<Replica> replica;  // destroyed outside the lock
  auto state = state_.lock();
  const auto found = state->entries.find(id);
  if (found == state->entries.end() || !found->second.replica) return false;
  replica = found->second.replica;
  drop(*state, found);
  state.lock().unlock();
  replica->retire_windows();
  return true;
}

Result<uint64_t> LocalTier::append(const ValueId& id, ByteSpan bytes, std::string once, Deadline deadline) {
  TRY(check_key(id.key));
  Push push;
  push.append = bytes;
  push.once = std::move(once);
  ASSIGN_OR_RETURN(const Pushed pushed, global_.push(id, push, deadline));
  // A replica that is clean follows; one that has something of its own to publish keeps to its version.
  if (const auto replica = find(id); replica && !replica->dirty()) TRY(replica->pull(deadline));
  return pushed.after.size_bytes - bytes.size();
}

// ---- looking --------------------------------------------------------------------------------------------------------

Result<std::vector<std::string>> LocalTier::list(const std::string& tenant, const std::string& prefix,
                                                 const std::string& after, uint64_t bytes_max, Deadline deadline) {
  if (bytes_max < kKeyBytesMax + 1)
    return fail(ErrorCode::kInvalidArgument,
                "a list of keys needs room for at least " + std::to_string(kKeyBytesMax + 1) + " bytes");
  std::set<std::string> unpublished;
  {
    auto state = state_.lock();
    for (const auto& [id, entry] : state->entries)
      if (id.tenant == tenant && id.key.starts_with(prefix) && id.key > after && entry.replica &&
          !entry.replica->published())
        unpublished.insert(id.key);
  }
  std::vector<std::string> out;
  uint64_t bytes = 0;
  const auto add = [&](std::string key) {
    bytes += key.size() + 1;
    if (bytes <= bytes_max) out.push_back(std::move(key));
    return bytes <= bytes_max;
  };
  constexpr size_t kPage = 256;
  std::string from = after;
  do {
    ASSIGN_OR_RETURN(KeyPage page, global_.list(tenant, prefix, from, kPage, deadline));
    for (KeyPage::Entry& entry : page.entries) {
      if (entry.key <= after) continue;
      while (!unpublished.empty() && *unpublished.begin() < entry.key)
        if (!add(std::move(unpublished.extract(unpublished.begin()).value()))) return out;
      unpublished.erase(entry.key);
      if (!add(std::move(entry.key))) return out;
    }
    from = std::move(page.next);
  } while (!from.empty());
  while (!unpublished.empty())
    if (!add(std::move(unpublished.extract(unpublished.begin()).value()))) break;
  return out;
}

bool LocalTier::has_unpushed() {
  std::vector<std::shared_ptr<Replica>> replicas;  // looked at outside the lock
  {
    auto state = state_.lock();
    for (const auto& [id, entry] : state->entries)
      if (entry.replica) replicas.push_back(entry.replica);
  }
  return std::ranges::any_of(replicas, [](const auto& replica) { return replica->dirty(); });
}

LocalTierStats LocalTier::stats() const {
  auto state = state_.lock();
  LocalTierStats out = state->stats;
  out.replicas = state->entries.size();
  out.windows = tracker_ ? tracker_->windows() : 0;
  out.pushes = traffic_.pushes.load(std::memory_order_relaxed);
  out.pushed_bytes = traffic_.pushed_bytes.load(std::memory_order_relaxed);
  out.fetched_bytes = traffic_.fetched_bytes.load(std::memory_order_relaxed);
  return out;
}

}  // namespace spore::state

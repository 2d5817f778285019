// What each tenant may keep in the global tier: a GlobalTier in front of another, which refuses what would be more.
//
// Whoever makes a value or makes one longer is asked for what the tenant has by then (GlobalTier::usage(), which the
// stores count as they go) and what others on this host are about to add. So pushes through one QuotaTier never go past
// the quota, though one that meets others close to it may be refused though it would just have fitted. Where several
// hosts share a store, each may add what it has under way at once. What does not grow is never refused, however much
// there is. Any thread.
#pragma once

#include <limits>
#include <unordered_map>

#include "base/guarded.h"
#include "state/global_tier.h"

namespace spore::state {

// Of one tenant.
struct StoreQuota {
  uint64_t keys_max = std::numeric_limits<uint64_t>::max();
  uint64_t bytes_max = std::numeric_limits<uint64_t>::max();  // sum of its values' sizes
};

class QuotaTier final : public GlobalTier {
 public:
  // `tier` outlives it.
  QuotaTier(GlobalTier& tier, StoreQuota quota) : tier_(tier), quota_(quota) {}

  // kResourceExhausted also where the tenant would have more than its quota.
  Result<Pushed> push(const ValueId& id, const Push& push, Deadline deadline) override;

  Result<std::shared_ptr<Snapshot>> pin(const ValueId& id, Deadline deadline) override {
    return tier_.pin(id, deadline);
  }
  Result<Manifest> describe(const ValueId& id, Deadline deadline) override { return tier_.describe(id, deadline); }
  Result<void> remove(const ValueId& id, std::optional<Version> expected, Deadline deadline) override {
    return tier_.remove(id, expected, deadline);
  }
  Result<KeyPage> list(const std::string& tenant, const std::string& prefix, const std::string& from, size_t limit,
                       Deadline deadline) override {
    return tier_.list(tenant, prefix, from, limit, deadline);
  }
  Result<Usage> usage(const std::string& tenant, Deadline deadline) override { return tier_.usage(tenant, deadline); }
  Result<std::optional<LockGrant>> try_lock(const ValueId& id, LockMode mode, const std::string& owner,
                                            std::chrono::milliseconds lease, Deadline deadline) override {
    return tier_.try_lock(id, mode, owner, lease, deadline);
  }
  Result<void> renew_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                          Deadline deadline) override {
    return tier_.renew_lock(id, owner, lease, deadline);
  }
  Result<void> unlock(const ValueId& id, const std::string& owner, Deadline deadline) override {
    return tier_.unlock(id, owner, deadline);
  }
  std::string name() const override { return tier_.name(); }

 private:
  class Growth;
  Result<void> check(const std::string& tenant, const Usage& growth, Deadline deadline);

  GlobalTier& tier_;
  const StoreQuota quota_;
  Guarded<std::unordered_map<std::string, Usage>> growing_;  // what pushes that are under way add, by tenant
};

}  // namespace spore::state

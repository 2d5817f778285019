// In a process of a tenant's: the global tier, as far as it is the tenant's. Each method is a request to the host
// (processes/tier_service.h answers it). Any thread, as any GlobalTier.
#pragma once

#include "processes/host_line.h"
#include "state/global_tier.h"

namespace spore::processes {

class RemoteTier final : public state::GlobalTier {
 public:
  // `host` outlives it and its snapshots.
  RemoteTier(HostLine& host, std::string tenant) : host_(host), tenant_(std::move(tenant)) {}

  Result<std::shared_ptr<state::Snapshot>> pin(const state::ValueId& id, state::Deadline deadline) override;
  Result<state::Manifest> describe(const state::ValueId& id, state::Deadline deadline) override;
  Result<state::Pushed> push(const state::ValueId& id, const state::Push& push, state::Deadline deadline) override;
  Result<void> remove(const state::ValueId& id, std::optional<state::Version> expected,
                      state::Deadline deadline) override;
  Result<state::KeyPage> list(const std::string& tenant, const std::string& prefix, const std::string& from,
                              size_t limit, state::Deadline deadline) override;
  Result<state::Usage> usage(const std::string& tenant, state::Deadline deadline) override;
  Result<std::optional<state::LockGrant>> try_lock(const state::ValueId& id, state::LockMode mode,
                                                   const std::string& owner, std::chrono::milliseconds lease,
                                                   state::Deadline deadline) override;
  Result<void> renew_lock(const state::ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                          state::Deadline deadline) override;
  Result<void> unlock(const state::ValueId& id, const std::string& owner, state::Deadline deadline) override;
  std::string name() const override { return "the host's store, for " + tenant_; }

 private:
  Result<Bytes> ask(const std::string& tenant, RequestKind kind, ByteWriter arguments, state::Deadline deadline);

  HostLine& host_;
  const std::string tenant_;
};

}  // namespace spore::processes

// The host's answers to what a process of a tenant's asks of the global tier (processes/remote_tier.h): the state of
// that tenant, whatever the process says. What it sends is checked here as far as it is to be read at all; whether a
// store accepts it is the store's to say, as it checks all it is given. Any thread; answer() blocks as the store does.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "base/guarded.h"
#include "processes/protocol.h"
#include "state/global_tier.h"

namespace spore::processes {

class TierService {
 public:
  // `tier` outlives it; null: there is no state. `request_max`: how long one may take.
  TierService(state::GlobalTier* tier, std::string tenant, std::chrono::milliseconds request_max)
      : tier_(tier), tenant_(std::move(tenant)), request_max_(request_max) {}

  // Of a kind up to kUnlock. kInvalidArgument: it is no such request.
  Result<Bytes> answer(RequestKind kind, ByteSpan arguments);

  static constexpr size_t kSnapshotsMax = 16'384;  // pinned at once

 private:
  struct Pinned {
    uint64_t last = 0;
    std::unordered_map<uint64_t, std::shared_ptr<state::Snapshot>> snapshots;
  };
  Result<std::shared_ptr<state::Snapshot>> snapshot(uint64_t number) const;
  Result<Bytes> pin(const state::ValueId& id, state::Deadline deadline);
  Result<Bytes> read(ByteReader& in, state::Deadline deadline);
  Result<Bytes> changed_pages(ByteReader& in, state::Deadline deadline);
  Result<Bytes> list(ByteReader& in, state::Deadline deadline);

  state::GlobalTier* const tier_;
  const std::string tenant_;
  const std::chrono::milliseconds request_max_;
  Guarded<Pinned> pinned_;
};

}  // namespace spore::processes

// The global tier in memory: the plainest thing that keeps every sentence of global_tier.h. What the other tiers are
// compared with in tests, and a tier for tests of what lies above. Nothing of it is fast: values are copied for each
// pin, page by page.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <string>

#include "base/guarded.h"
#include "state/global_tier.h"

namespace spore::state {

class ReferenceTier final : public GlobalTier {
 public:
  // `clock` tells how late it is for leases; the steady clock where it is empty.
  explicit ReferenceTier(std::function<Clock::time_point()> clock = {});

  Result<std::shared_ptr<Snapshot>> pin(const ValueId& id, Deadline deadline) override;
  Result<Manifest> describe(const ValueId& id, Deadline deadline) override;
  Result<Pushed> push(const ValueId& id, const Push& push, Deadline deadline) override;
  Result<void> remove(const ValueId& id, std::optional<Version> expected, Deadline deadline) override;
  Result<KeyPage> list(const std::string& tenant, const std::string& prefix, const std::string& from, size_t limit,
                       Deadline deadline) override;
  Result<Usage> usage(const std::string& tenant, Deadline deadline) override;
  Result<std::optional<LockGrant>> try_lock(const ValueId& id, LockMode mode, const std::string& owner,
                                            std::chrono::milliseconds lease, Deadline deadline) override;
  Result<void> renew_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                          Deadline deadline) override;
  Result<void> unlock(const ValueId& id, const std::string& owner, Deadline deadline) override;
  std::string name() const override { return "memory"; }

 private:
  struct Cut {
    uint64_t size_bytes;
    uint64_t number;  // of the push that made everything from that size on zero
  };
  struct Content {
    std::map<uint64_t, Bytes> pages;            // those somebody wrote to
    std::map<uint64_t, uint64_t> page_numbers;  // of the push that patched each page last
    std::vector<Cut> cuts;

    void read(uint64_t offset, std::span<uint8_t> to) const;
    void write(uint64_t offset, ByteSpan bytes);
    void cut(uint64_t size_bytes, uint64_t number);
    uint64_t number_of(uint64_t page) const;
  };
  struct Value {
    Manifest manifest;
    Content content;
    std::map<std::string, Pushed> once;
    std::list<std::string> once_order;  // oldest first
  };
  struct Lock {
    uint64_t token = 0;
    std::string writer;  // empty: nobody
    Clock::time_point writer_until;
    bool poisoned = false;  // the last writer, before the one there is, lost it
    std::map<std::string, Clock::time_point> readers;

    // Ends leases that ran out.
    void settle(Clock::time_point now);
  };
  struct State {
    std::map<ValueId, Value> values;
    std::map<ValueId, Lock> locks;
    uint64_t epoch = 0;
  };
  class Pin;

  void apply(State& state, const ValueId& id, const Push& push, const std::vector<Patch>& patches, uint64_t size_after);

  const std::function<Clock::time_point()> clock_;
  Guarded<State> state_;
};

}  // namespace spore::state

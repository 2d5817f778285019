// What the tests of locks share: a time that they move, and a global tier that can be cut off.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>

#include "state/locks.h"
#include "state/reference_tier.h"

namespace spore::state {

// Of all hosts of a test. Far ahead of the real one: deadlines of requests, which tiers compare with the real time, are
// never near.
struct TestTime {
  std::chrono::nanoseconds passed{0};
  const Clock::time_point steady_start = Clock::now() + std::chrono::hours(10);

  BootClock::time_point boot() const { return BootClock::time_point(std::chrono::hours(1)) + passed; }
  Clock::time_point steady() const { return steady_start + passed; }
  LockTable::Now now() const { return {.boot = boot(), .steady = steady()}; }
};

// A tier as one host reaches it.
class CuttableTier final : public GlobalTier {
 public:
  enum class Link { kGood, kCut, kAnswersLost };
  explicit CuttableTier(GlobalTier& tier) : tier_(tier) {}
  std::atomic<Link> link = Link::kGood;
  std::atomic<int> requests = 0, renewals = 0;

  Result<std::shared_ptr<Snapshot>> pin(const ValueId& id, Deadline deadline) override {
    return tier_.pin(id, deadline);
  }
  Result<Manifest> describe(const ValueId& id, Deadline deadline) override { return tier_.describe(id, deadline); }
  Result<Pushed> push(const ValueId& id, const Push& push, Deadline deadline) override {
    return tier_.push(id, push, deadline);
  }
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
    return through<std::optional<LockGrant>>([&] { return tier_.try_lock(id, mode, owner, lease, deadline); });
  }
  Result<void> renew_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                          Deadline deadline) override {
    ++renewals;
    return through<void>([&] { return tier_.renew_lock(id, owner, lease, deadline); });
  }
  Result<void> unlock(const ValueId& id, const std::string& owner, Deadline deadline) override {
    return through<void>([&] { return tier_.unlock(id, owner, deadline); });
  }
  std::string name() const override { return tier_.name(); }

 private:
  template <class T>
  Result<T> through(auto request) {
    ++requests;
    if (link == Link::kCut) return fail(ErrorCode::kUnavailable, "the wire is cut");
    Result<T> result = request();
    if (link == Link::kAnswersLost) return fail(ErrorCode::kDeadlineExceeded, "no answer");
    return result;
  }
  GlobalTier& tier_;
};

inline uint64_t read_counter(GlobalTier& tier, const ValueId& id, Deadline deadline) {
  auto snapshot = tier.pin(id, deadline);
  if (!snapshot) return 0;
  uint64_t value = 0;
  EXPECT_TRUE((*snapshot)->read(0, {reinterpret_cast<uint8_t*>(&value), sizeof value}, deadline));
  return value;
}

inline Result<Pushed> push_counter(GlobalTier& tier, const ValueId& id, uint64_t value, uint64_t token,
                                   Deadline deadline) {
  uint8_t bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  return tier.push(id, {.patches = {{.offset = 0, .bytes = bytes}}, .size_bytes = sizeof value, .lock_token = token},
                   deadline);
}

inline std::string outcome(const std::shared_ptr<Operation>& operation) {
  if (!operation->ended()) return "waits";
  const auto result = operation->result();
  return result ? std::to_string(*result) : std::string(to_string(result.error().code));
}

inline std::string outcome(const Result<void>& result) {
  return result ? std::string("good") : std::string(to_string(result.error().code));
}

}  // namespace spore::state

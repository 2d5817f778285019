#include "faaslet/cpu_limit.h"

#include <algorithm>

namespace spore::faaslet {

namespace {

using std::chrono::nanoseconds;

constexpr nanoseconds kDebtMax = std::chrono::milliseconds(5);
constexpr nanoseconds kSavedMax = std::chrono::milliseconds(50);

int64_t count(Clock::time_point time) { return nanoseconds(time.time_since_epoch()).count(); }

}  // namespace

void CpuQuota::charge(nanoseconds used, Clock::time_point now) {
  const int64_t cost = used.count() / percent_ * 100 + used.count() % percent_ * 100 / percent_;
  int64_t before = paid_at_.load(std::memory_order_relaxed);
  while (!paid_at_.compare_exchange_weak(before, std::max(before, count(now - kSavedMax)) + cost,
                                         std::memory_order_relaxed)) {
  }
}

Clock::time_point CpuQuota::runs_again(Clock::time_point now) const {
  const Clock::time_point paid_at{nanoseconds(paid_at_.load(std::memory_order_relaxed))};
  return paid_at - now > kDebtMax ? paid_at : now;
}

}  // namespace spore::faaslet

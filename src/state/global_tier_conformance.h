// What every GlobalTier must do: one test for each sentence of global_tier.h. The tests are in
// global_tier_*conformance_test.cc; a tier's own test takes part with
//
//   INSTANTIATE_TEST_SUITE_P(RocksDb, GlobalTierConformance, testing::Values(TierKind{"RocksDb", make_tier}),
//   kind_name);
//
// Each test works in tenants of its own, with names drawn at random, so that tests may share one store.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <ostream>
#include <random>
#include <string>

#include "state/global_tier.h"

namespace spore::state {

struct TierKind {
  std::string name;
  // A tier; what it needs (a directory, a server) lives as long as the pointer. Null: it cannot be had here, the test
  // is skipped.
  std::function<std::shared_ptr<GlobalTier>()> make;
};
inline std::string kind_name(const testing::TestParamInfo<TierKind>& info) { return info.param.name; }
inline void PrintTo(const TierKind& kind, std::ostream* out) { *out << kind.name; }

class GlobalTierConformance : public testing::TestWithParam<TierKind> {
 protected:
  void SetUp() override;

  // Generous: no test may depend on it.
  static Deadline soon() { return Clock::now() + std::chrono::seconds(60); }
  ValueId id(const std::string& key) const { return {.tenant = tenant_, .key = key}; }

  // These fail the test where the tier says no.
  Pushed push(const ValueId& value, const Push& what);
  Pushed put(const ValueId& value, ByteSpan bytes);  // replaces the whole value
  Pushed put(const ValueId& value, std::string_view text) { return put(value, as_bytes(text)); }
  Pushed patch(const ValueId& value, uint64_t offset, ByteSpan bytes);
  Bytes read(Snapshot& snapshot);
  Bytes read(const ValueId& value);  // empty where there is none
  std::string text(const ValueId& value);
  uint64_t changed(Snapshot& snapshot, uint32_t chunk, uint64_t since);
  std::vector<std::string> keys(const std::string& prefix, const std::string& from = "", size_t limit = 1000);
  // Asks until the lock is granted, a minute at most.
  LockGrant lock_patiently(const ValueId& value, LockMode mode, const std::string& owner,
                           std::chrono::milliseconds lease);

  std::shared_ptr<GlobalTier> tier_;
  std::string tenant_;  // "t-" and 16 hexadecimal digits
};

// The code of a result that is an error; a text that no code has where it is none.
template <class T>
std::string code_of(const Result<T>& result) {
  return result ? std::string("no error") : std::string(to_string(result.error().code));
}
#define EXPECT_FAILS(expression, error_code)                                                                       \
  do {                                                                                                             \
    auto fails_result = (expression);                                                                              \
    EXPECT_EQ(code_of(fails_result), to_string(error_code)) << (fails_result ? "" : fails_result.error().message); \
  } while (0)

// Pseudo-random bytes without zeros in them.
Bytes noise(size_t size, uint64_t seed);

}  // namespace spore::state

#include "bin/state_copy.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include "state/rocksdb_tier.h"

namespace spore::bin {
namespace {

using state::ValueId;

// A store in a directory of its own, which goes with it.
class Store {
 public:
  Store() {
    char name[] = "/tmp/spore-state-copy-XXXXXX";
    if (!::mkdtemp(name)) throw std::runtime_error("no directory for a store");
    directory_ = name;
    auto opened = state::RocksDbTier::open(directory_ / "state", {});
    if (!opened) throw std::runtime_error(opened.error().message);
    tier_ = std::move(*opened);
  }
  ~Store() {
    tier_.reset();
    std::filesystem::remove_all(directory_);
  }
  state::GlobalTier& tier() { return *tier_; }

 private:
  std::filesystem::path directory_;
  std::unique_ptr<state::GlobalTier> tier_;
};

state::Deadline soon() { return state::Clock::now() + std::chrono::seconds(60); }

void put(state::GlobalTier& tier, const ValueId& id, ByteSpan bytes) {
  state::Push push{.size_bytes = bytes.size(), .replace = true};
  if (!bytes.empty()) push.patches.push_back({.offset = 0, .bytes = bytes});
  const auto pushed = tier.push(id, push, soon());
  ASSERT_TRUE(pushed.has_value()) << pushed.error().message;
}

Bytes get(state::GlobalTier& tier, const ValueId& id) {
  const auto pinned = tier.pin(id, soon());
  if (!pinned) return {};
  Bytes out((*pinned)->manifest().size_bytes);
  EXPECT_TRUE((*pinned)->read(0, out, soon()).has_value());
  return out;
}

Bytes pattern(size_t size) {
  Bytes out(size);
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<uint8_t>(i % 251 + 1);
  return out;
}

const auto kNoProgress = [](double) {};

TEST(StateCopy, CopiesAllValuesOfOneTenant) {
  Store from_store, to_store;
  state::GlobalTier &from = from_store.tier(), &to = to_store.tier();
  const Bytes small = pattern(5), page = pattern(4096);
  for (int i = 0; i < 1'001; ++i) put(from, {"t", "k" + std::to_string(i)}, small);  // more than a page of keys
  put(from, {"t", "empty"}, {});
  put(from, {"other", "k0"}, page);
  const auto totals = copy_state(from, to, "t", IfThere::kFail, kNoProgress);
  ASSERT_TRUE(totals.has_value()) << totals.error().message;
  EXPECT_EQ(totals->values, 1'002u);
  EXPECT_EQ(totals->bytes, 5'005u);
  EXPECT_EQ(to.usage("t", soon())->keys, 1'002u);
  EXPECT_EQ(to.usage("other", soon())->keys, 0u);
  EXPECT_EQ(get(to, {"t", "k1000"}), small);
  EXPECT_TRUE(to.describe({"t", "empty"}, soon()).has_value());
}

TEST(StateCopy, CopiesWhatTakesManyPushesWithItsHolesAndItsEnd) {
  Store from_store, to_store;
  state::GlobalTier &from = from_store.tier(), &to = to_store.tier();
  Bytes value(40'000'000);
  const Bytes part = pattern(300'000);
  std::ranges::copy(part, value.begin() + 100);
  std::ranges::copy(part, value.begin() + 17'000'000);
  value.back() = 9;
  put(from, {"t", "large"}, value);
  double last = 0;
  ASSERT_TRUE(copy_state(from, to, "t", IfThere::kFail, [&](double share) {
                EXPECT_GT(share, last);
                last = share;
              }).has_value());
  EXPECT_EQ(last, 1.0);
  EXPECT_TRUE(get(to, {"t", "large"}) == value);
}

TEST(StateCopy, ReplacesOnlyWhenItIsToldTo) {
  Store from_store, to_store;
  state::GlobalTier &from = from_store.tier(), &to = to_store.tier();
  const Bytes before = pattern(9'000), after = pattern(10);
  put(from, {"t", "k"}, after);
  put(to, {"t", "k"}, before);
  const auto refused = copy_state(from, to, "t", IfThere::kFail, kNoProgress);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(refused.error().message.substr(0, 3), "k: ");
  EXPECT_EQ(get(to, {"t", "k"}), before);
  ASSERT_TRUE(copy_state(from, to, "t", IfThere::kReplace, kNoProgress).has_value());
  EXPECT_EQ(get(to, {"t", "k"}), after);
}

TEST(StateCopy, EndsWhereSomebodyElseWritesTheValueMeanwhile) {
  Store from_store, to_store;
  state::GlobalTier &from = from_store.tier(), &to = to_store.tier();
  put(from, {"t", "k"}, pattern(40'000'000));
  bool first = true;
  const auto copied = copy_state(from, to, "t", IfThere::kFail, [&](double) {
    if (std::exchange(first, false)) put(to, {"t", "k"}, pattern(3));
  });
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(get(to, {"t", "k"}), pattern(3));
}

}  // namespace
}  // namespace spore::bin

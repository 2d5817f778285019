// The locks of every GlobalTier, and what their tokens do to pushes.
#include <atomic>
#include <thread>

#include "state/global_tier_conformance.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLong(60'000);

}  // namespace

TEST_P(GlobalTierConformance, AWriterExcludesAllOthers) {
  auto grant = tier_->try_lock(id("k"), LockMode::kWrite, "a", kLong, soon());
  ASSERT_TRUE(grant) << grant.error().message;
  ASSERT_TRUE(*grant);
  EXPECT_NE((*grant)->token, 0u);
  EXPECT_FALSE((*grant)->poisoned);
  EXPECT_FALSE(*tier_->try_lock(id("k"), LockMode::kWrite, "b", kLong, soon()));
  EXPECT_FALSE(*tier_->try_lock(id("k"), LockMode::kRead, "b", kLong, soon()));
  EXPECT_TRUE(*tier_->try_lock(id("other"), LockMode::kWrite, "b", kLong, soon()));
  ASSERT_TRUE(tier_->unlock(id("k"), "a", soon()));
  auto next = tier_->try_lock(id("k"), LockMode::kWrite, "b", kLong, soon());
  ASSERT_TRUE(*next);
  EXPECT_GT((*next)->token, (*grant)->token);
  EXPECT_FALSE((*next)->poisoned);
}

TEST_P(GlobalTierConformance, ReadersShareAndExcludeAWriter) {
  for (const char* reader : {"a", "b", "c"}) {
    auto grant = tier_->try_lock(id("k"), LockMode::kRead, reader, kLong, soon());
    ASSERT_TRUE(grant) << grant.error().message;
    ASSERT_TRUE(*grant);
    EXPECT_NE((*grant)->token, 0u);
  }
  EXPECT_FALSE(*tier_->try_lock(id("k"), LockMode::kWrite, "w", kLong, soon()));
  for (const char* reader : {"a", "c"}) ASSERT_TRUE(tier_->unlock(id("k"), reader, soon()));
  EXPECT_FALSE(*tier_->try_lock(id("k"), LockMode::kWrite, "w", kLong, soon()));
  ASSERT_TRUE(tier_->unlock(id("k"), "b", soon()));
  EXPECT_TRUE(*tier_->try_lock(id("k"), LockMode::kWrite, "w", kLong, soon()));
}

TEST_P(GlobalTierConformance, AskingAgainInTheSameModeRenews) {
  auto first = tier_->try_lock(id("k"), LockMode::kWrite, "a", kLong, soon());
  ASSERT_TRUE(*first);
  auto again = tier_->try_lock(id("k"), LockMode::kWrite, "a", kLong, soon());
  ASSERT_TRUE(*again);
  EXPECT_EQ((*again)->token, (*first)->token);
  // It is held once, however often it was asked for.
  ASSERT_TRUE(tier_->unlock(id("k"), "a", soon()));
  EXPECT_FAILS(tier_->unlock(id("k"), "a", soon()), ErrorCode::kFailedPrecondition);
  ASSERT_TRUE(*tier_->try_lock(id("k"), LockMode::kRead, "a", kLong, soon()));
  ASSERT_TRUE(*tier_->try_lock(id("k"), LockMode::kRead, "a", kLong, soon()));
  ASSERT_TRUE(tier_->unlock(id("k"), "a", soon()));
  EXPECT_TRUE(*tier_->try_lock(id("k"), LockMode::kWrite, "b", kLong, soon()));
}

TEST_P(GlobalTierConformance, OnesOwnLockExcludesTheOtherMode) {
  ASSERT_TRUE(*tier_->try_lock(id("r"), LockMode::kRead, "a", kLong, soon()));
  EXPECT_FALSE(*tier_->try_lock(id("r"), LockMode::kWrite, "a", kLong, soon()));
  ASSERT_TRUE(*tier_->try_lock(id("w"), LockMode::kWrite, "a", kLong, soon()));
  EXPECT_FALSE(*tier_->try_lock(id("w"), LockMode::kRead, "a", kLong, soon()));
}

TEST_P(GlobalTierConformance, RenewingAndGivingBackWhatIsNotHeldFails) {
  EXPECT_FAILS(tier_->renew_lock(id("k"), "a", kLong, soon()), ErrorCode::kFailedPrecondition);
  EXPECT_FAILS(tier_->unlock(id("k"), "a", soon()), ErrorCode::kFailedPrecondition);
  ASSERT_TRUE(*tier_->try_lock(id("k"), LockMode::kWrite, "a", kLong, soon()));
  EXPECT_FAILS(tier_->renew_lock(id("k"), "b", kLong, soon()), ErrorCode::kFailedPrecondition);
  EXPECT_FAILS(tier_->unlock(id("k"), "b", soon()), ErrorCode::kFailedPrecondition);
  EXPECT_TRUE(tier_->renew_lock(id("k"), "a", kLong, soon()));
  EXPECT_TRUE(tier_->unlock(id("k"), "a", soon()));
}

TEST_P(GlobalTierConformance, OwnersAndLeasesHaveLimits) {
  const auto lock = [&](const std::string& owner, milliseconds lease) {
    return tier_->try_lock(id("k"), LockMode::kRead, owner, lease, soon());
  };
  EXPECT_FAILS(lock(std::string(65, 'o'), kLong), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(lock("", kLong), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(lock("a", milliseconds(0)), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(lock("a", milliseconds(-5)), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(lock("a", std::chrono::hours(24) + milliseconds(1)), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(*lock(std::string(64, 'o'), std::chrono::hours(24)));
  EXPECT_TRUE(*lock(std::string("odd\0 {owner}\xff", 13), milliseconds(1)));
}

TEST_P(GlobalTierConformance, ALeaseThatRanOutPoisonsTheLockForTheNext) {
  auto lost = tier_->try_lock(id("k"), LockMode::kWrite, "a", milliseconds(30), soon());
  ASSERT_TRUE(*lost);
  // Readers and the next writer are told, the one after that is not.
  EXPECT_TRUE(lock_patiently(id("k"), LockMode::kRead, "r", kLong).poisoned);
  ASSERT_TRUE(tier_->unlock(id("k"), "r", soon()));
  const LockGrant next = lock_patiently(id("k"), LockMode::kWrite, "b", kLong);
  EXPECT_TRUE(next.poisoned);
  EXPECT_GT(next.token, (*lost)->token);
  EXPECT_FAILS(tier_->renew_lock(id("k"), "a", kLong, soon()), ErrorCode::kFailedPrecondition);
  EXPECT_FAILS(tier_->unlock(id("k"), "a", soon()), ErrorCode::kFailedPrecondition);
  // Asking again, as after a lost answer, gives the same.
  EXPECT_TRUE((*tier_->try_lock(id("k"), LockMode::kWrite, "b", kLong, soon()))->poisoned);
  ASSERT_TRUE(tier_->unlock(id("k"), "b", soon()));
  EXPECT_FALSE(lock_patiently(id("k"), LockMode::kWrite, "c", kLong).poisoned);
}

TEST_P(GlobalTierConformance, AReaderWhoseLeaseRanOutPoisonsNothing) {
  ASSERT_TRUE(*tier_->try_lock(id("k"), LockMode::kRead, "a", milliseconds(30), soon()));
  EXPECT_FALSE(lock_patiently(id("k"), LockMode::kWrite, "b", kLong).poisoned);
  EXPECT_FAILS(tier_->unlock(id("k"), "a", soon()), ErrorCode::kFailedPrecondition);
}

TEST_P(GlobalTierConformance, ARenewedLeaseOutlivesItsFirstEnd) {
  ASSERT_TRUE(*tier_->try_lock(id("k"), LockMode::kWrite, "a", milliseconds(2000), soon()));
  ASSERT_TRUE(tier_->renew_lock(id("k"), "a", kLong, soon()));
  // A lease of the length that the first one had, begun later, runs out: so the first one would have.
  ASSERT_TRUE(*tier_->try_lock(id("beside"), LockMode::kWrite, "x", milliseconds(2000), soon()));
  lock_patiently(id("beside"), LockMode::kWrite, "y", kLong);
  EXPECT_FALSE(*tier_->try_lock(id("k"), LockMode::kWrite, "b", kLong, soon()));
  EXPECT_TRUE(tier_->unlock(id("k"), "a", soon()));
}

TEST_P(GlobalTierConformance, AStalePushIsRefused) {
  put(id("k"), "0");
  const uint64_t first = lock_patiently(id("k"), LockMode::kWrite, "a", kLong).token;
  const auto append = [&](uint64_t token, const std::string& once = "") {
    return tier_->push(id("k"), {.append = as_bytes("x"), .once = once, .lock_token = token}, soon());
  };
  EXPECT_TRUE(append(first, "name"));
  ASSERT_TRUE(tier_->unlock(id("k"), "a", soon()));
  const uint64_t second = lock_patiently(id("k"), LockMode::kWrite, "b", milliseconds(30)).token;
  EXPECT_FAILS(append(first), ErrorCode::kFailedPrecondition);
  EXPECT_TRUE(append(second));
  const uint64_t third = lock_patiently(id("k"), LockMode::kWrite, "c", kLong).token;
  EXPECT_FAILS(append(second), ErrorCode::kFailedPrecondition);
  EXPECT_TRUE(append(third));
  EXPECT_TRUE(append(0));
  EXPECT_TRUE(append(first, "name"));  // that one was applied in its time
  EXPECT_EQ(text(id("k")), "0xxxx");
}

TEST_P(GlobalTierConformance, AReadersTokenIsGoodUntilSomebodyWrites) {
  put(id("k"), "0");
  const uint64_t token = lock_patiently(id("k"), LockMode::kRead, "a", kLong).token;
  EXPECT_TRUE(tier_->push(id("k"), {.lock_token = token}, soon()));
  ASSERT_TRUE(tier_->unlock(id("k"), "a", soon()));
  lock_patiently(id("k"), LockMode::kWrite, "b", kLong);
  EXPECT_FAILS(tier_->push(id("k"), {.lock_token = token}, soon()), ErrorCode::kFailedPrecondition);
}

TEST_P(GlobalTierConformance, AReaderThatFollowsAWriterWhoLostItSeesNoPushOfThatWriter) {
  put(id("k"), "0");
  const auto append = [&](uint64_t token) {
    return tier_->push(id("k"), {.append = as_bytes("x"), .lock_token = token}, soon());
  };
  const uint64_t lost = lock_patiently(id("k"), LockMode::kWrite, "a", milliseconds(30)).token;
  const LockGrant reader = lock_patiently(id("k"), LockMode::kRead, "r", kLong);
  EXPECT_TRUE(reader.poisoned);
  EXPECT_FAILS(append(lost), ErrorCode::kFailedPrecondition);
  EXPECT_EQ(text(id("k")), "0");
  // A second reader changes nothing for the first.
  const LockGrant second = lock_patiently(id("k"), LockMode::kRead, "s", kLong);
  EXPECT_TRUE(second.poisoned);
  EXPECT_EQ(second.token, reader.token);
  EXPECT_TRUE(append(reader.token));
  for (const char* owner : {"r", "s"}) ASSERT_TRUE(tier_->unlock(id("k"), owner, soon()));
  const LockGrant writer = lock_patiently(id("k"), LockMode::kWrite, "w", kLong);
  EXPECT_TRUE(writer.poisoned);
  EXPECT_GT(writer.token, reader.token);
  ASSERT_TRUE(tier_->unlock(id("k"), "w", soon()));
  EXPECT_FALSE(lock_patiently(id("k"), LockMode::kRead, "r", kLong).poisoned);
}

TEST_P(GlobalTierConformance, ALockThatIsPoisonedStaysSoWithoutAValue) {
  lock_patiently(id("k"), LockMode::kWrite, "a", milliseconds(30));
  EXPECT_TRUE(lock_patiently(id("k"), LockMode::kRead, "r", kLong).poisoned);
  ASSERT_TRUE(tier_->unlock(id("k"), "r", soon()));
  EXPECT_TRUE(lock_patiently(id("k"), LockMode::kWrite, "b", kLong).poisoned);
}

TEST_P(GlobalTierConformance, LocksNeedNoValueAndTokensGrowAcrossItsRemoval) {
  const uint64_t first = lock_patiently(id("k"), LockMode::kWrite, "a", kLong).token;
  EXPECT_TRUE(tier_->push(id("k"), {.size_bytes = 1, .lock_token = first}, soon()));
  EXPECT_TRUE(tier_->remove(id("k"), std::nullopt, soon()));
  // Removal does not end the lock.
  EXPECT_FALSE(*tier_->try_lock(id("k"), LockMode::kWrite, "b", kLong, soon()));
  EXPECT_TRUE(tier_->push(id("k"), {.size_bytes = 1, .lock_token = first}, soon()));
  ASSERT_TRUE(tier_->unlock(id("k"), "a", soon()));
  ASSERT_TRUE(tier_->remove(id("k"), std::nullopt, soon()));
  const uint64_t second = lock_patiently(id("k"), LockMode::kWrite, "b", kLong).token;
  EXPECT_GT(second, first);
  EXPECT_FAILS(tier_->push(id("k"), {.size_bytes = 1, .lock_token = first}, soon()), ErrorCode::kFailedPrecondition);
}

TEST_P(GlobalTierConformance, OneHolderAtATimeFromManyThreads) {
  constexpr int kThreads = 4, kRounds = 25;
  std::atomic<int> inside = 0;
  std::atomic<uint64_t> last_token = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      const std::string owner = "owner-" + std::to_string(t);
      for (int i = 0; i < kRounds; ++i) {
        const LockGrant grant = lock_patiently(id("k"), LockMode::kWrite, owner, kLong);
        EXPECT_EQ(inside.fetch_add(1), 0);
        EXPECT_LT(last_token.exchange(grant.token), grant.token);
        inside.fetch_sub(1);
        EXPECT_TRUE(tier_->unlock(id("k"), owner, soon()));
      }
    });
}

}  // namespace spore::state

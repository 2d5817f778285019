// What happens between a request to the global tier and its answer.
#include "state/lock_table.h"

#include "state/locks_test_world.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = LockTable::Request::Kind;
using Lane = LockTable::Lane;
constexpr auto kRead = LockMode::kRead, kWrite = LockMode::kWrite;

class LockTables : public testing::Test {
 protected:
  std::shared_ptr<Operation> lock(LockMode mode, LockHolder holder, milliseconds timeout = seconds(60)) {
    return table_.lock(id_, mode, LockScope::kGlobal, holder, time_.steady() + timeout, time_.now());
  }
  LockTable::Request take(Lane lane, Kind kind) {
    auto request = table_.take(lane, time_.now());
    if (!request) {
      ADD_FAILURE() << "nothing is due";
      return {};
    }
    EXPECT_EQ(request->kind, kind);
    return *request;
  }
  LockTable::Request ask() { return take(Lane::kAsk, Kind::kTryLock); }
  bool idle() { return !table_.take(Lane::kAsk, time_.now()) && !table_.take(Lane::kRenew, time_.now()); }
  void grant(const LockTable::Request& request, bool poisoned = false) {
    table_.finish(request, LockGrant{.token = ++token_, .poisoned = poisoned}, time_.now());
  }
  void answer(const LockTable::Request& request) { table_.finish(request, std::nullopt, time_.now()); }
  void fails(const LockTable::Request& request, ErrorCode code) {
    table_.finish(request, fail(code, "no"), time_.now());
  }
  void pass(milliseconds time) {
    time_.passed += time;
    table_.expire(time_.now());
  }

  TestTime time_;
  LockTable table_{LockOptions{}, "prefix", 1};
  const ValueId id_{.tenant = "t", .key = "k"};
  uint64_t token_ = 0;
};

}  // namespace

TEST_F(LockTables, OnlyTheHeadOfTheQueueAsksAndOneQuestionIsUnderWay) {
  const auto first = lock(kRead, {"1"});
  const auto second = lock(kRead, {"2"});
  const auto request = ask();
  EXPECT_TRUE(idle());
  grant(request);
  EXPECT_EQ(outcome(first), "0");
  EXPECT_EQ(outcome(second), "waits");
  const auto next = ask();
  EXPECT_NE(next.name, request.name);
  EXPECT_LE(next.name.size(), 64u);
  grant(next);
  EXPECT_EQ(outcome(second), "0");
}

TEST_F(LockTables, NamesOfTheLongestFitTheStore) {
  LockTable table(LockOptions{}, std::string(16, 'p'), 1);
  const auto waiting =
      table.lock(id_, kWrite, LockScope::kGlobal, {std::string(32, 'o')}, time_.steady() + seconds(1), time_.now());
  EXPECT_LE(table.take(Lane::kAsk, time_.now())->name.size(), 51u) << "and thirteen digits of a number";
}

TEST_F(LockTables, TheLeaseCountsFromBeforeTheQuestionWasSent) {
  const auto operation = lock(kWrite, {"1"});
  const auto request = ask();
  pass(seconds(9));
  grant(request);
  EXPECT_EQ(outcome(operation), "0");
  pass(milliseconds(999));
  EXPECT_FALSE(table_.lost(id_, "1", time_.now()));
  pass(milliseconds(1));
  EXPECT_TRUE(table_.lost(id_, "1", time_.now()));
}

TEST_F(LockTables, TheLeaseCountsFromBeforeTheRenewalWasSent) {
  lock(kWrite, {"1"});
  grant(ask());
  EXPECT_FALSE(table_.take(Lane::kRenew, time_.now()));
  pass(milliseconds(3'334));
  const auto renewal = take(Lane::kRenew, Kind::kRenew);
  pass(seconds(6));
  answer(renewal);
  pass(milliseconds(3'999));
  EXPECT_FALSE(table_.lost(id_, "1", time_.now()));
  pass(milliseconds(1));
  EXPECT_TRUE(table_.lost(id_, "1", time_.now()));
}

TEST_F(LockTables, AGrantThatComesAfterItsLeaseIsNone) {
  const auto operation = lock(kWrite, {"1"});
  const auto request = ask();
  pass(seconds(10));
  grant(request);
  EXPECT_EQ(outcome(operation), "waits");
  grant(ask());
  EXPECT_EQ(outcome(operation), "0");
}

TEST_F(LockTables, ARenewalThatIsAnsweredAfterTheLeasesEndDoesNotBringItBack) {
  lock(kWrite, {"1"});
  grant(ask());
  pass(seconds(9));
  const auto renewal = take(Lane::kRenew, Kind::kRenew);
  EXPECT_LE(renewal.timeout, seconds(1));
  pass(seconds(1));
  answer(renewal);
  EXPECT_TRUE(table_.lost(id_, "1", time_.now()));
  EXPECT_EQ(table_.token(id_, "1"), token_);
}

TEST_F(LockTables, TheStoresWordThatItIsGoneIsTaken) {
  lock(kWrite, {"1"});
  grant(ask());
  pass(seconds(4));
  fails(take(Lane::kRenew, Kind::kRenew), ErrorCode::kFailedPrecondition);
  EXPECT_TRUE(table_.lost(id_, "1", time_.now()));
  EXPECT_EQ(outcome(table_.unlock(id_, LockScope::kGlobal, "1", time_.now())), "failed precondition");
  EXPECT_TRUE(idle()) << "there is nothing to give back";
}

TEST_F(LockTables, AWaitThatEndsWhileItsQuestionIsUnderWayGivesBackWhatItGets) {
  const auto first = lock(kWrite, {"1"}, seconds(1));
  const auto second = lock(kWrite, {"2"});
  const auto request = ask();
  pass(seconds(1));
  EXPECT_EQ(outcome(first), "deadline exceeded");
  EXPECT_TRUE(idle());
  grant(request);
  const auto unlock = take(Lane::kAsk, Kind::kUnlock);
  EXPECT_EQ(unlock.name, request.name);
  EXPECT_TRUE(idle()) << "the next asks when it is free";
  answer(unlock);
  grant(ask());
  EXPECT_EQ(outcome(second), "0");
}

TEST_F(LockTables, AWaitThatEndsWhileItsQuestionIsUnderWayPassesThePoisonOn) {
  lock(kWrite, {"1"}, seconds(1));
  const auto request = ask();
  pass(seconds(1));
  grant(request, true);
  EXPECT_EQ(take(Lane::kAsk, Kind::kLapse).name, request.name);
}

TEST_F(LockTables, AfterAQuestionWithoutAnAnswerItIsAskedAgainBeforeItIsGivenBack) {
  lock(kWrite, {"1"}, seconds(1));
  fails(ask(), ErrorCode::kDeadlineExceeded);
  table_.release_all("1", true, time_.now());
  grant(ask());
  answer(take(Lane::kAsk, Kind::kUnlock));
  EXPECT_TRUE(idle());
}

TEST_F(LockTables, WhatCannotBeGivenBackIsForgottenAfterItsLease) {
  lock(kWrite, {"1"});
  grant(ask());
  EXPECT_TRUE(table_.unlock(id_, LockScope::kGlobal, "1", time_.now()));
  for (int i = 0; i < 100; ++i) {
    fails(take(Lane::kAsk, Kind::kUnlock), ErrorCode::kUnavailable);
    pass(milliseconds(100));
    const auto due = table_.next_due(Lane::kAsk);
    ASSERT_TRUE(due);
    if (*due > time_.boot()) pass(std::chrono::ceil<milliseconds>(*due - time_.boot()));
    if (time_.passed >= seconds(10)) break;
  }
  EXPECT_TRUE(idle());
  pass(seconds(1));
  EXPECT_TRUE(idle());
  EXPECT_FALSE(table_.next_due(Lane::kAsk)) << "nothing is left of it";
}

TEST_F(LockTables, GivingBackWaitsForTheRenewalThatIsUnderWay) {
  lock(kWrite, {"1"});
  grant(ask());
  pass(seconds(4));
  const auto renewal = take(Lane::kRenew, Kind::kRenew);
  table_.release_all("1", true, time_.now());
  EXPECT_TRUE(idle()) << "else the renewal could come last";
  answer(renewal);
  take(Lane::kAsk, Kind::kLapse);
}

TEST_F(LockTables, AStoreThatIsFullEndsTheWait) {
  const auto first = lock(kWrite, {"1"});
  const auto second = lock(kWrite, {"2"});
  fails(ask(), ErrorCode::kResourceExhausted);
  EXPECT_EQ(outcome(first), "resource exhausted");
  grant(ask());
  EXPECT_EQ(outcome(second), "0");
}

TEST_F(LockTables, RequestsThatFailNeverTakeAllThreads) {
  const auto other = [&](const std::string& key) {
    table_.lock({"t", key}, kWrite, LockScope::kGlobal, {"o" + key}, time_.steady() + seconds(60), time_.now());
  };
  for (int i = 0; i < 3; ++i) other(std::to_string(i));
  for (int i = 0; i < 3; ++i) fails(ask(), ErrorCode::kDeadlineExceeded);
  pass(seconds(1));
  const auto suspect = ask();  // with one of two threads
  EXPECT_TRUE(idle());
  other("good");
  EXPECT_EQ(ask().id.key, "good");
  EXPECT_TRUE(idle());
  fails(suspect, ErrorCode::kDeadlineExceeded);
  EXPECT_NE(ask().id.key, "good");
}

}  // namespace spore::state

#include "state/locks.h"

#include "state/locks_test_world.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Link = CuttableTier::Link;
constexpr auto kRead = LockMode::kRead, kWrite = LockMode::kWrite;
constexpr auto kLocal = LockScope::kLocal, kGlobal = LockScope::kGlobal;

// Two hosts over one store. Nothing happens but in settle() and pass().
class Locks : public testing::Test {
 protected:
  struct Host {
    CuttableTier tier;
    std::unique_ptr<LockService> locks;
    explicit Host(GlobalTier& store) : tier(store) {}
  };

  LockOptions options() {
    LockOptions options;
    options.asking_threads = 0;
    options.boot_now = [this] { return time_.boot(); };
    options.steady_now = [this] { return time_.steady(); };
    return options;
  }
  void SetUp() override {
    for (auto& host : {&a_, &b_}) (*host)->locks = std::make_unique<LockService>((*host)->tier, options());
  }
  std::shared_ptr<Operation> lock(LockMode mode, LockScope scope, LockHolder holder, milliseconds timeout = seconds(60),
                                  Host* host = nullptr) {
    auto operation = (host ? host : a_.get())->locks->lock(id_, mode, scope, holder, time_.steady() + timeout);
    settle();
    return operation;
  }
  std::string unlock(LockScope scope, const std::string& owner, Host* host = nullptr) {
    auto result = (host ? host : a_.get())->locks->unlock(id_, scope, owner);
    settle();
    return outcome(result);
  }
  void end_call(const std::string& owner, bool died, Host* host = nullptr) {
    (host ? host : a_.get())->locks->release_all(owner, died);
    settle();
  }
  void settle() {
    if (!a_stopped_) a_->locks->step();
    b_->locks->step();
  }
  void pass(milliseconds time) {
    for (const auto end = time_.passed + time; time_.passed < end;) {
      time_.passed = std::min<std::chrono::nanoseconds>(end, time_.passed + milliseconds(5));
      settle();
    }
  }

  TestTime time_;
  ReferenceTier store_{[this] { return time_.steady(); }};
  const ValueId id_{.tenant = "t", .key = "k"};
  bool a_stopped_ = false;
  std::unique_ptr<Host> a_ = std::make_unique<Host>(store_), b_ = std::make_unique<Host>(store_);
};

// What is so for both scopes.
class LocksOfScope : public Locks, public testing::WithParamInterface<LockScope> {};
INSTANTIATE_TEST_SUITE_P(Scopes, LocksOfScope, testing::Values(kLocal, kGlobal),
                         [](const auto& info) { return info.param == kLocal ? "Local" : "Global"; });

}  // namespace

TEST_P(LocksOfScope, AWriterExcludesAllOthers) {
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"1"})), "0");
  const auto writer = lock(kWrite, GetParam(), {"2"});
  const auto reader = lock(kRead, GetParam(), {"3"});
  pass(seconds(30));
  EXPECT_EQ(outcome(writer), "waits");
  EXPECT_EQ(outcome(reader), "waits");
  EXPECT_EQ(unlock(GetParam(), "1"), "good");
  pass(milliseconds(100));
  EXPECT_EQ(outcome(writer), "0");
  EXPECT_EQ(outcome(reader), "waits");
  EXPECT_EQ(unlock(GetParam(), "2"), "good");
  EXPECT_EQ(outcome(reader), "0");
}

TEST_P(LocksOfScope, ReadersShare) {
  for (const char* owner : {"1", "2", "3"}) EXPECT_EQ(outcome(lock(kRead, GetParam(), {owner})), "0");
  const auto writer = lock(kWrite, GetParam(), {"4"});
  for (const char* owner : {"1", "2", "3"}) {
    EXPECT_EQ(outcome(writer), "waits");
    EXPECT_EQ(unlock(GetParam(), owner), "good");
  }
  EXPECT_EQ(outcome(writer), "0");
}

TEST_P(LocksOfScope, FirstComeFirstServedAndReadersDoNotPassAWriter) {
  EXPECT_EQ(outcome(lock(kRead, GetParam(), {"r0"})), "0");
  const auto w1 = lock(kWrite, GetParam(), {"w1"});
  const auto r1 = lock(kRead, GetParam(), {"r1"});
  const auto r2 = lock(kRead, GetParam(), {"r2"});
  const auto w2 = lock(kWrite, GetParam(), {"w2"});
  const auto r3 = lock(kRead, GetParam(), {"r3"});
  const auto all = [&] {
    std::string out;
    for (const auto& operation : {w1, r1, r2, w2, r3}) out += outcome(operation)[0];
    return out;
  };
  pass(seconds(1));
  EXPECT_EQ(all(), "wwwww");
  unlock(GetParam(), "r0");
  pass(milliseconds(100));
  EXPECT_EQ(all(), "0wwww");
  unlock(GetParam(), "w1");
  pass(milliseconds(100));
  EXPECT_EQ(all(), "000ww");
  unlock(GetParam(), "r2");
  unlock(GetParam(), "r1");
  pass(milliseconds(100));
  EXPECT_EQ(all(), "0000w");
  unlock(GetParam(), "w2");
  pass(milliseconds(100));
  EXPECT_EQ(all(), "00000");
}

TEST_P(LocksOfScope, AWaitEndsAtItsDeadlineAndMakesWay) {
  EXPECT_EQ(outcome(lock(kRead, GetParam(), {"1"})), "0");
  const auto writer = lock(kWrite, GetParam(), {"2"}, seconds(5));
  const auto reader = lock(kRead, GetParam(), {"3"}, seconds(50));
  const auto bounded_by_its_call =
      lock(kWrite, GetParam(), {.owner = "4", .until = time_.steady() + seconds(7)}, seconds(50));
  pass(milliseconds(4'990));
  EXPECT_EQ(outcome(writer), "waits");
  pass(milliseconds(10));
  EXPECT_EQ(outcome(writer), "deadline exceeded");
  EXPECT_EQ(outcome(reader), "0");
  EXPECT_EQ(unlock(GetParam(), "2"), "not found");
  pass(seconds(2));
  EXPECT_EQ(outcome(bounded_by_its_call), "deadline exceeded");
  EXPECT_EQ(a_->locks->stats().waiting, 0u);
  EXPECT_EQ(a_->locks->stats().expired, 2u);
}

TEST_P(LocksOfScope, TakingItTwiceIsADeadlockExceptForReading) {
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"1"})), "0");
  for (LockMode mode : {kRead, kWrite}) EXPECT_EQ(outcome(lock(mode, GetParam(), {"1"})), "failed precondition");
  const auto waiting = lock(kWrite, GetParam(), {"2"});
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"2"})), "failed precondition");
  end_call("2", false);
  EXPECT_EQ(outcome(waiting), "unavailable");
  EXPECT_EQ(unlock(GetParam(), "1"), "good");

  EXPECT_EQ(outcome(lock(kRead, GetParam(), {"3"})), "0");
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"3"})), "failed precondition");
  const auto writer = lock(kWrite, GetParam(), {"4"});
  EXPECT_EQ(outcome(lock(kRead, GetParam(), {"3"})), "0") << "behind the writer, who waits for it";
  EXPECT_EQ(unlock(GetParam(), "3"), "good");
  pass(milliseconds(100));
  EXPECT_EQ(outcome(writer), "waits");
  EXPECT_EQ(unlock(GetParam(), "3"), "good");
  EXPECT_EQ(outcome(writer), "0");
}

TEST_P(LocksOfScope, UnlockWithoutLock) {
  EXPECT_EQ(unlock(GetParam(), "1"), "not found");
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"2"})), "0");
  const auto waiting = lock(kWrite, GetParam(), {"1"});
  EXPECT_EQ(unlock(GetParam(), "1"), "not found");
  EXPECT_EQ(unlock(GetParam() == kLocal ? kGlobal : kLocal, "2"), "not found");
  EXPECT_EQ(unlock(GetParam(), "2"), "good");
  EXPECT_EQ(unlock(GetParam(), "2"), "not found");
  EXPECT_EQ(outcome(waiting), "0");
}

TEST_P(LocksOfScope, LockWithoutUnlockEndsWithTheCall) {
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"1"})), "0");
  const auto waiting = lock(kWrite, GetParam(), {"2"});
  end_call("1", false);
  EXPECT_EQ(outcome(waiting), "0");
  EXPECT_EQ(unlock(GetParam(), "1"), "not found");
}

TEST_P(LocksOfScope, AnAncestorsLockIsADeadlock) {
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"parent"})), "0");
  for (LockMode mode : {kRead, kWrite})
    EXPECT_EQ(outcome(lock(mode, GetParam(), {"child", {"root", "parent"}})), "failed precondition");
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"stranger", {"root"}})), "waits");
  end_call("stranger", false);
  EXPECT_EQ(unlock(GetParam(), "parent"), "good");
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"child", {"root", "parent"}})), "0");
}

TEST_P(LocksOfScope, AChildReadsWithItsAncestorAheadOfWriters) {
  EXPECT_EQ(outcome(lock(kRead, GetParam(), {"parent"})), "0");
  const auto writer = lock(kWrite, GetParam(), {"writer"});
  const auto reader = lock(kRead, GetParam(), {"reader"});
  EXPECT_EQ(outcome(lock(kRead, GetParam(), {"child", {"parent"}})), "0");
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"other child", {"parent"}})), "failed precondition");
  EXPECT_EQ(outcome(writer), "waits");
  EXPECT_EQ(outcome(reader), "waits");
}

TEST_P(LocksOfScope, WhoWaitsIsToldWhenAnAncestorGetsTheLock) {
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"stranger"})), "0");
  const auto parent = lock(kWrite, GetParam(), {"parent"});
  const auto child = lock(kWrite, GetParam(), {"child", {"parent"}});
  EXPECT_EQ(outcome(child), "waits");
  unlock(GetParam(), "stranger");
  EXPECT_EQ(outcome(parent), "0");
  EXPECT_EQ(outcome(child), "failed precondition");
}

TEST_P(LocksOfScope, AWriterThatDiesLeavesItPoisonedUntilAWriterGivesItBack) {
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"1"})), "0");
  const auto reader = lock(kRead, GetParam(), {"2"});
  const auto writer = lock(kWrite, GetParam(), {"3"});
  end_call("1", true);
  pass(milliseconds(100));
  EXPECT_EQ(outcome(reader), "1");
  EXPECT_EQ(outcome(lock(kRead, GetParam(), {"2"})), "1");
  end_call("2", true);
  pass(milliseconds(100));
  EXPECT_EQ(outcome(writer), "1") << "a reader that dies changes nothing";
  const auto next = lock(kWrite, GetParam(), {"4"});
  end_call("3", true);
  pass(milliseconds(100));
  EXPECT_EQ(outcome(next), "1") << "it died again";
  EXPECT_EQ(unlock(GetParam(), "4"), "good");
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {"5"})), "0");
  end_call("5", false);
  EXPECT_EQ(outcome(lock(kRead, GetParam(), {"6"})), "0") << "a call that ends well poisons nothing";
}

TEST_P(LocksOfScope, WhoAsksBeyondTheBoundsIsRefused) {
  LockOptions bounds = options();
  bounds.per_owner_max = 2;
  bounds.waiting_per_key_max = 2;
  bounds.per_tenant_max = 5;
  bounds.total_max = 6;
  a_->locks = std::make_unique<LockService>(a_->tier, bounds);
  const auto ask = [&](const std::string& tenant, const std::string& key, const std::string& owner) {
    return a_->locks->lock({tenant, key}, kWrite, GetParam(), {owner}, time_.steady() + seconds(60));
  };
  std::vector<std::shared_ptr<Operation>> good{ask("t", "k", "1"), ask("t", "l", "1")};
  settle();
  EXPECT_EQ(outcome(ask("t", "m", "1")), "resource exhausted");
  for (const char* owner : {"2", "3"}) good.push_back(ask("t", "k", owner));
  EXPECT_EQ(outcome(ask("t", "k", "4")), "resource exhausted");
  good.push_back(ask("t", "m", "5"));
  EXPECT_EQ(outcome(ask("t", "n", "6")), "resource exhausted");
  good.push_back(ask("u", "n", "6"));
  EXPECT_EQ(outcome(ask("v", "n", "7")), "resource exhausted");
  settle();
  std::string all;
  for (const auto& operation : good) all += outcome(operation)[0];
  EXPECT_EQ(all, "00ww00");
  for (const char* owner : {"1", "2", "3", "5", "6"}) end_call(owner, false);
  pass(milliseconds(100));
  const auto again = ask("v", "n", "7");
  settle();
  EXPECT_EQ(outcome(again), "0") << "what has been given back does not count";
}

TEST_P(LocksOfScope, BadKeysAndOwnersAreRefused) {
  for (const std::string& key : {std::string(), std::string(513, 'x'), std::string("a\0b", 3)})
    EXPECT_EQ(outcome(a_->locks->lock({"t", key}, kWrite, GetParam(), {"1"}, time_.steady() + seconds(1))),
              "invalid argument");
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {""})), "invalid argument");
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {std::string(33, 'o')})), "invalid argument");
  EXPECT_EQ(outcome(lock(kWrite, GetParam(), {std::string(32, 'o')})), "0");
  EXPECT_EQ(outcome(a_->locks->lock({"other", "k"}, kWrite, GetParam(), {"1"}, time_.steady() + seconds(1))),
            GetParam() == kLocal ? "0" : "waits");
  settle();
  EXPECT_EQ(a_->locks->stats().held, 2u) << "keys of two tenants are not one";
}

TEST_F(Locks, LocalAndGlobalLocksOfAKeyAreTwo) {
  EXPECT_EQ(outcome(lock(kWrite, kLocal, {"1"})), "0");
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"2"})), "0");
  EXPECT_EQ(outcome(lock(kWrite, kLocal, {"3"}, seconds(60), b_.get())), "0") << "local to another host";
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"4"}, seconds(60), b_.get())), "waits");
  EXPECT_EQ(a_->locks->token(id_, "1"), 0u);
  EXPECT_NE(a_->locks->token(id_, "2"), 0u);
}

TEST_F(Locks, ALocalLockThatIsFreeIsGrantedAtOnceWhateverTheDeadline) {
  EXPECT_EQ(outcome(a_->locks->lock(id_, kWrite, kLocal, {"1"}, time_.steady())), "0");
  EXPECT_EQ(outcome(a_->locks->lock(id_, kWrite, kLocal, {"2"}, time_.steady())), "deadline exceeded");
}

TEST_F(Locks, OnlySoManyPoisonedLocksAreRemembered) {
  LockOptions bounds = options();
  bounds.poisoned_per_tenant_max = 2;
  a_->locks = std::make_unique<LockService>(a_->tier, bounds);
  const auto ask = [&](const std::string& key, const std::string& owner) {
    return outcome(a_->locks->lock({"t", key}, kWrite, kLocal, {owner}, time_.steady() + seconds(60)));
  };
  for (const char* key : {"a", "b", "c"}) {
    EXPECT_EQ(ask(key, "1"), "0");
    end_call("1", true);
  }
  EXPECT_EQ(ask("a", "2"), "0");
  EXPECT_EQ(ask("b", "2"), "1");
  EXPECT_EQ(ask("c", "2"), "1");
}

// ---- leases ---------------------------------------------------------------------------------------------------------

TEST_F(Locks, AGlobalLockExcludesOtherHostsForAsLongAsItIsHeld) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"})), "0");
  const uint64_t token = a_->locks->token(id_, "1");
  const auto other = lock(kWrite, kGlobal, {"2"}, seconds(600), b_.get());
  pass(seconds(120));
  EXPECT_EQ(outcome(other), "waits");
  EXPECT_FALSE(a_->locks->lost(id_, "1"));
  EXPECT_GE(a_->tier.renewals, 120 / 4);
  EXPECT_LE(a_->tier.renewals, 120 / 3 + 1) << "at a third of ten seconds, not all the time";
  EXPECT_LE(b_->tier.requests, 120'000 / 10 + 10) << "polls no faster than poll_max / 2";
  EXPECT_EQ(unlock(kGlobal, "1"), "good");
  EXPECT_EQ(a_->locks->token(id_, "1"), 0u);
  pass(milliseconds(20));
  EXPECT_EQ(outcome(other), "0");
  EXPECT_GT(b_->locks->token(id_, "2"), token);
}

TEST_F(Locks, ALeaseIsNotRenewedPastTheCallsDeadline) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {.owner = "1", .until = time_.steady() + seconds(20)})), "0");
  const auto other = lock(kWrite, kGlobal, {"2"}, seconds(600), b_.get());
  pass(seconds(20));
  EXPECT_EQ(outcome(other), "waits");
  EXPECT_FALSE(a_->locks->lost(id_, "1"));
  pass(milliseconds(10'030));
  EXPECT_TRUE(a_->locks->lost(id_, "1"));
  EXPECT_EQ(outcome(other), "1");
}

TEST_F(Locks, AHostThatWasStoppedKnowsOnWakingThatItsLockIsLost) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"})), "0");
  const uint64_t token = a_->locks->token(id_, "1");
  ASSERT_TRUE(push_counter(store_, id_, 1, token, time_.steady() + seconds(1)));
  const auto other = lock(kWrite, kGlobal, {"2"}, seconds(600), b_.get());
  a_stopped_ = true;
  pass(milliseconds(9'995));
  EXPECT_FALSE(a_->locks->lost(id_, "1"));
  EXPECT_EQ(outcome(other), "waits");
  pass(milliseconds(35));
  EXPECT_EQ(outcome(other), "1");
  // It wakes. No thread of the service has run yet.
  EXPECT_TRUE(a_->locks->lost(id_, "1"));
  EXPECT_EQ(a_->locks->token(id_, "1"), token) << "the old one, for the store to refuse";
  EXPECT_EQ(push_counter(store_, id_, 2, token, time_.steady() + seconds(1)).error().code,
            ErrorCode::kFailedPrecondition);
  a_stopped_ = false;
  settle();
  EXPECT_TRUE(a_->locks->lost(id_, "1"));
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"})), "failed precondition") << "not before it is given back";
  EXPECT_EQ(unlock(kGlobal, "1"), "failed precondition");
  EXPECT_EQ(unlock(kGlobal, "1"), "not found");
  EXPECT_EQ(a_->locks->stats().lost, 1u);
  const auto again = lock(kWrite, kGlobal, {"1"});
  EXPECT_EQ(unlock(kGlobal, "2", b_.get()), "good");
  pass(milliseconds(100));
  EXPECT_EQ(outcome(again), "0");
}

TEST_F(Locks, CallsOfTheHostNeedNotWaitForALockThatIsLost) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"})), "0");
  const auto next = lock(kWrite, kGlobal, {"2"});
  a_->tier.link = Link::kCut;
  pass(seconds(11));
  EXPECT_TRUE(a_->locks->lost(id_, "1"));
  EXPECT_EQ(outcome(next), "waits");
  a_->tier.link = Link::kGood;
  pass(milliseconds(500));
  EXPECT_EQ(outcome(next), "1");
  EXPECT_EQ(unlock(kGlobal, "1"), "failed precondition");
  EXPECT_NE(a_->locks->token(id_, "2"), 0u) << "giving back a lost one takes nothing from the next";
}

TEST_F(Locks, AShortCutIsSurvived) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"})), "0");
  for (Link link : {Link::kCut, Link::kAnswersLost}) {
    a_->tier.link = link;
    pass(milliseconds(6'000));
    a_->tier.link = Link::kGood;
    pass(seconds(10));
    EXPECT_FALSE(a_->locks->lost(id_, "1"));
  }
}

TEST_F(Locks, RenewalsThatAreNotAnsweredDoNotCount) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"})), "0");
  a_->tier.link = Link::kAnswersLost;
  pass(milliseconds(9'995));
  EXPECT_FALSE(a_->locks->lost(id_, "1"));
  pass(milliseconds(5));
  EXPECT_TRUE(a_->locks->lost(id_, "1"));
  a_->tier.link = Link::kGood;
  pass(seconds(1));
  EXPECT_TRUE(a_->locks->lost(id_, "1")) << "for ever";
}

TEST_F(Locks, WhileTheStoreIsAwayWaitsGoOnUntilTheirDeadlineAndSayWhy) {
  a_->tier.link = Link::kCut;
  const auto patient = lock(kWrite, kGlobal, {"1"}, seconds(70));
  const auto other = a_->locks->lock({"t", "l"}, kWrite, kGlobal, {"2"}, time_.steady() + seconds(5));
  EXPECT_EQ(outcome(lock(kWrite, kLocal, {"3"})), "0");
  pass(seconds(60));
  EXPECT_EQ(outcome(patient), "waits");
  ASSERT_EQ(outcome(other), "deadline exceeded");
  EXPECT_NE(other->result().error().message.find("the wire is cut"), std::string::npos)
      << other->result().error().message;
  EXPECT_LE(a_->tier.requests, 65'000 / 250 * 2 + 40) << "backs off";
  a_->tier.link = Link::kGood;
  pass(milliseconds(500));
  EXPECT_EQ(outcome(patient), "0");
}

TEST_F(Locks, AGrantThatNobodyHeardOfIsGivenBack) {
  a_->tier.link = Link::kAnswersLost;
  const auto unheard = lock(kWrite, kGlobal, {"1"}, seconds(2));
  const auto other = lock(kWrite, kGlobal, {"2"}, seconds(60), b_.get());
  pass(seconds(2));
  EXPECT_EQ(outcome(unheard), "deadline exceeded");
  EXPECT_EQ(outcome(other), "waits");
  a_->tier.link = Link::kGood;
  pass(milliseconds(600));
  EXPECT_EQ(outcome(other), "0");
}

TEST_F(Locks, APoisonedGrantThatNobodyHeardOfLeavesItPoisoned) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"}, seconds(60), b_.get())), "0");
  end_call("1", true, b_.get());
  pass(milliseconds(5));
  a_->tier.link = Link::kAnswersLost;
  const auto unheard = lock(kWrite, kGlobal, {"2"}, seconds(2));
  pass(milliseconds(2'100));
  EXPECT_EQ(outcome(unheard), "deadline exceeded");
  a_->tier.link = Link::kGood;
  pass(milliseconds(600));
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"3"}, seconds(60), b_.get())), "1");
}

TEST_F(Locks, GivingBackIsRepeatedUntilTheStoreHasHeardOfIt) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"})), "0");
  a_->tier.link = Link::kCut;
  EXPECT_EQ(unlock(kGlobal, "1"), "good") << "does not wait for the store";
  const auto other = lock(kWrite, kGlobal, {"2"}, seconds(60), b_.get());
  pass(seconds(2));
  EXPECT_EQ(outcome(other), "waits");
  a_->tier.link = Link::kGood;
  pass(milliseconds(600));
  EXPECT_EQ(outcome(other), "0");
}

TEST_F(Locks, ADyingHostsLocksRunOutPoisonedAndAStoppingOneGivesBackWhatItsCallsGaveUp) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"})), "0");
  a_->locks->release_all("1", false);  // no step any more
  const auto waiting = a_->locks->lock({"t", "other"}, kWrite, kGlobal, {"3"}, time_.steady() + seconds(60));
  a_->locks = std::make_unique<LockService>(a_->tier, options());
  EXPECT_EQ(outcome(waiting), "unavailable");
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"1"})), "0") << "given back";
  a_->locks = std::make_unique<LockService>(a_->tier, options());  // with the lock held
  const auto next = lock(kWrite, kGlobal, {"1"});
  pass(milliseconds(9'990));
  EXPECT_EQ(outcome(next), "waits") << "a host that was started anew is not the one that had it";
  pass(milliseconds(50));
  EXPECT_EQ(outcome(next), "1");
}

TEST_F(Locks, AHostThatNeverLetsGoLeavesTheOthersATurn) {
  EXPECT_EQ(outcome(lock(kWrite, kGlobal, {"0"})), "0");
  const auto other = lock(kWrite, kGlobal, {"other"}, seconds(60), b_.get());
  // Host a's calls hold it for 50 ms each, with the next one waiting always.
  std::shared_ptr<Operation> last, next;
  int rounds = 0;
  while (!other->ended() && rounds < 1'000) {
    next = lock(kWrite, kGlobal, {std::to_string(++rounds)});
    pass(milliseconds(50));
    unlock(kGlobal, std::to_string(rounds - 1));
    while (!next->ended() && !other->ended()) pass(milliseconds(5));
  }
  EXPECT_EQ(outcome(other), "0");
  EXPECT_LE(rounds, 2'000 / 50 + 2);
}

}  // namespace spore::state

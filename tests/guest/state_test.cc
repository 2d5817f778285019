// What guests see of state, on two hosts with one global tier.
#include <gtest/gtest.h>

#include "guest_runner.h"
#include "host/state_access.h"
#include "state/reference_tier.h"

namespace spore::host {

namespace {

using Kind = CallResult::Kind;

struct StateHost {
  explicit StateHost(state::GlobalTier& global, state::LocalTierOptions options = {})
      : tracker(*state::WindowTracker::start(2)), tier(global, tracker.get(), options), locks(global, {}) {}
  GuestRun run(std::vector<std::string> arguments, const std::string& tenant = "t",
               std::function<void(std::function<void()>)> meanwhile = {}) {
    CallSetup setup;
    setup.state_services = &services;
    setup.tenant = tenant;
    setup.call_key = "call " + std::to_string(++calls);
    return run_guest("state", std::move(arguments), std::move(setup), {}, std::move(meanwhile));
  }
  std::unique_ptr<state::WindowTracker> tracker;
  state::LocalTier tier;
  state::BlockingPool pool{{.threads = 2}};
  state::LockService locks;
  StateServices services{.tier = &tier, .pool = &pool, .locks = &locks};
  int calls = 0;
};

class GuestState : public ::testing::Test {
 protected:
  static void expect_ok(const GuestRun& run) {
    EXPECT_TRUE(run.result.kind == Kind::kExited && run.result.exit_code == 0) << run.summary();
  }
  static std::string output(const GuestRun& run) { return std::string(as_text(run.state.output)); }

  state::ReferenceTier global_;
  StateHost a_{global_}, b_{global_};
};

constexpr int kENOENT = 44, kENOTSUP = 58, kENOMEM = 48;

}  // namespace

TEST_F(GuestState, BadKeysSizesAndRangesAreRefused) { expect_ok(a_.run({"bad"})); }

TEST_F(GuestState, AWindowAndTheHostShowTheSameBytes) {
  const GuestRun run = a_.run({"windows"});
  expect_ok(run);
  EXPECT_EQ(output(run), "written by the host");
}

TEST_F(GuestState, WhatIsOutsideAWindowTraps) {
  for (const char* how :
       {"read-only", "past", "before", "copy-read-only", "copy-past", "host-read-only", "host-past", "unmapped"}) {
    const GuestRun run = a_.run({"touch", how});
    EXPECT_EQ(run.result.kind, Kind::kTrapped) << how << run.summary();
    EXPECT_EQ(run.result.trap.kind, wasm::TrapKind::kMemoryOutOfBounds) << how;
  }
}

TEST_F(GuestState, IsKeptFromCallToCall) {
  EXPECT_TRUE(output(a_.run({"count"})).starts_with("1 at "));
  EXPECT_TRUE(output(a_.run({"count"})).starts_with("2 at "));
}

TEST_F(GuestState, MemoryGrowsUpToTheWindows) { expect_ok(a_.run({"grow"})); }

TEST_F(GuestState, AnotherHostSeesItAfterPushAndPull) {
  expect_ok(a_.run({"put", "key", "first"}));
  EXPECT_EQ(b_.run({"get", "key"}).result.exit_code, kENOENT);
  expect_ok(a_.run({"push", "key"}));
  EXPECT_EQ(output(b_.run({"get", "key"})), "first");
  expect_ok(a_.run({"put", "key", "other"}));
  expect_ok(a_.run({"push", "key"}));
  EXPECT_EQ(output(b_.run({"get", "key"})), "first");
  expect_ok(b_.run({"pull", "key"}));
  EXPECT_EQ(output(b_.run({"get", "key"})), "other");
  expect_ok(b_.run({"delete", "key"}));
  EXPECT_EQ(b_.run({"get", "key"}).result.exit_code, kENOENT);
}

TEST_F(GuestState, OfAnotherTenantDoesNotExist) {
  expect_ok(a_.run({"put", "key", "mine"}));
  expect_ok(a_.run({"push", "key"}));
  for (const char* command : {"get", "push", "pull", "delete"})
    EXPECT_EQ(a_.run({command, "key"}, "u").result.exit_code, kENOENT) << command;
  EXPECT_EQ(output(a_.run({"get", "key"})), "mine");
}

TEST_F(GuestState, APushIfTheVersionIsStillThatOne) { expect_ok(a_.run({"cas", "key"})); }

TEST_F(GuestState, ListsKeysInPages) { expect_ok(a_.run({"lists"})); }

TEST_F(GuestState, ASpinOnAFlagEndsWhenAnotherWritesIt) {
  const auto run = a_.run({"spin"}, "t", [&](std::function<void()>) {
    std::shared_ptr<state::Replica> replica;
    while (!(replica = a_.tier.find({"t", "flag"})) || !replica->mapped()) std::this_thread::yield();
    const uint32_t value = 17;
    const iovec buffer{const_cast<uint32_t*>(&value), sizeof(value)};
    EXPECT_EQ(replica->try_write(0, {&buffer, 1}), 4);
  });
  EXPECT_EQ(run.result.exit_code, 17) << run.summary();
}

TEST_F(GuestState, AWaitAtAWordEndsWhenItIsNotified) {
  // The other is no guest here: a thread has one seat, and this one's waits.
  const auto run = a_.run({"waits"}, "t", [&](std::function<void()>) {
    const state::ValueId id{"t", "word"};
    std::shared_ptr<state::Replica> replica;
    while (!(replica = a_.tier.find(id)) || !replica->mapped()) std::this_thread::yield();
    const uint32_t value = 33;
    const iovec buffer{const_cast<uint32_t*>(&value), sizeof(value)};
    while (!replica->waited_for(0)) std::this_thread::yield();
    EXPECT_EQ(replica->try_write(0, {&buffer, 1}), 4);
    EXPECT_EQ(replica->wake(0, 100), 1u);
  });
  EXPECT_EQ(run.result.exit_code, 33) << run.summary();
  EXPECT_EQ(a_.run({"notifies"}).result.exit_code, 0);
}

TEST_F(GuestState, LocksExcludeAndAreGivenBack) { expect_ok(a_.run({"locks"})); }

TEST_F(GuestState, IsNotOfferedWhereThereIsNone) {
  EXPECT_EQ(run_guest("state", {"get", "key"}).result.exit_code, kENOTSUP);
}

TEST_F(GuestState, ABudgetThatIsMetIsToldToTheGuest) {
  StateHost small(global_, {.bytes_max = 1'000});
  expect_ok(small.run({"put", "a", std::string(600, 'x')}));
  const GuestRun run = small.run({"put", "b", std::string(600, 'x')});
  EXPECT_EQ(run.result.exit_code, 100);
  expect_ok(small.run({"push", "a"}));
  expect_ok(small.run({"put", "b", std::string(600, 'x')}));
  EXPECT_EQ(output(small.run({"get", "b"})), std::string(600, 'x'));
  const GuestRun no_room = small.run({"get", "a"});
  EXPECT_EQ(no_room.result.exit_code, kENOMEM) << no_room.summary();
  EXPECT_NE(as_text(no_room.state.log).find("no room for the 600 bytes of state \"a\""), std::string::npos);
}

}  // namespace spore::host

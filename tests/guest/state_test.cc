// What guests see of state, on two hosts with one global tier.
#include <gtest/gtest.h>

#include "state/reference_tier.h"
#include "state_host.h"

namespace spore::host {

namespace {

using Kind = CallResult::Kind;

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

TEST_F(GuestState, BadKeysSizesAndRangesAreRefused) { expect_ok(a_.run("state", {"bad"})); }

TEST_F(GuestState, AWindowAndTheHostShowTheSameBytes) {
  const GuestRun run = a_.run("state", {"windows"});
  expect_ok(run);
  EXPECT_EQ(output(run), "written by the host");
}

TEST_F(GuestState, WhatIsOutsideAWindowTraps) {
  for (const char* how :
       {"read-only", "past", "before", "copy-read-only", "copy-past", "host-read-only", "host-past", "unmapped"}) {
    const GuestRun run = a_.run("state", {"touch", how});
    EXPECT_EQ(run.result.kind, Kind::kTrapped) << how << run.summary();
    EXPECT_EQ(run.result.trap.kind, wasm::TrapKind::kMemoryOutOfBounds) << how;
  }
}

TEST_F(GuestState, IsKeptFromCallToCall) {
  EXPECT_TRUE(output(a_.run("state", {"count"})).starts_with("1 at "));
  EXPECT_TRUE(output(a_.run("state", {"count"})).starts_with("2 at "));
}

TEST_F(GuestState, MemoryGrowsUpToTheWindows) { expect_ok(a_.run("state", {"grow"})); }

TEST_F(GuestState, AnotherHostSeesItAfterPushAndPull) {
  expect_ok(a_.run("state", {"put", "key", "first"}));
  EXPECT_EQ(b_.run("state", {"get", "key"}).result.exit_code, kENOENT);
  expect_ok(a_.run("state", {"push", "key"}));
  EXPECT_EQ(output(b_.run("state", {"get", "key"})), "first");
  expect_ok(a_.run("state", {"put", "key", "other"}));
  expect_ok(a_.run("state", {"push", "key"}));
  EXPECT_EQ(output(b_.run("state", {"get", "key"})), "first");
  expect_ok(b_.run("state", {"pull", "key"}));
  EXPECT_EQ(output(b_.run("state", {"get", "key"})), "other");
  expect_ok(b_.run("state", {"delete", "key"}));
  EXPECT_EQ(b_.run("state", {"get", "key"}).result.exit_code, kENOENT);
}

TEST_F(GuestState, IsPushedAtTheEndOfACallThatIsConfiguredSo) {
  expect_ok(a_.run("state", {"put", "key", "first"}, {.push_on_success = true}));
  EXPECT_EQ(output(b_.run("state", {"get", "key"})), "first");
  EXPECT_EQ(a_.run("state", {"put", "key", "other", "3"}, {.push_on_success = true}).result.exit_code, 3);
  expect_ok(b_.run("state", {"pull", "key"}));
  EXPECT_EQ(output(b_.run("state", {"get", "key"})), "first");
  // Another call pushes it with what it writes itself.
  expect_ok(a_.run("state", {"put", "key", "third"}, {.push_on_success = true}));
  expect_ok(b_.run("state", {"pull", "key"}));
  EXPECT_EQ(output(b_.run("state", {"get", "key"})), "third");
  // Somebody removed what it had here: that is told, and the replica goes.
  expect_ok(b_.run("state", {"delete", "key"}));
  const GuestRun removed = a_.run("state", {"put", "key", "again"}, {.push_on_success = true});
  EXPECT_EQ(removed.result.kind, Kind::kNotPushed) << removed.summary();
  EXPECT_EQ(removed.result.error.code, ErrorCode::kNotFound) << removed.summary();
  expect_ok(a_.run("state", {"put", "key", "again"}, {.push_on_success = true}));
  EXPECT_EQ(output(b_.run("state", {"get", "key"})), "again");
}

TEST_F(GuestState, OfAnotherTenantDoesNotExist) {
  expect_ok(a_.run("state", {"put", "key", "mine"}));
  expect_ok(a_.run("state", {"push", "key"}));
  for (const char* command : {"get", "push", "pull", "delete"})
    EXPECT_EQ(a_.run("state", {command, "key"}, {.tenant = "u"}).result.exit_code, kENOENT) << command;
  EXPECT_EQ(output(a_.run("state", {"get", "key"})), "mine");
}

TEST_F(GuestState, APushIfTheVersionIsStillThatOne) { expect_ok(a_.run("state", {"cas", "key"})); }

TEST_F(GuestState, ListsKeysInPages) { expect_ok(a_.run("state", {"lists"})); }

TEST_F(GuestState, ASpinOnAFlagEndsWhenAnotherWritesIt) {
  const auto set_flag = [&](std::function<void()>) {
    std::shared_ptr<state::Replica> replica;
    while (!(replica = a_.tier.find({"t", "flag"})) || !replica->mapped()) std::this_thread::yield();
    const uint32_t value = 17;
    const iovec buffer{const_cast<uint32_t*>(&value), sizeof(value)};
    EXPECT_EQ(replica->try_write(0, {&buffer, 1}), 4);
  };
  const auto run = a_.run("state", {"spin"}, {.meanwhile = set_flag});
  EXPECT_EQ(run.result.exit_code, 17) << run.summary();
}

TEST_F(GuestState, AWaitAtAWordEndsWhenItIsNotified) {
  // The other is no guest here: a thread has one seat, and this one's waits.
  const auto notify = [&](std::function<void()>) {
    const state::ValueId id{"t", "word"};
    std::shared_ptr<state::Replica> replica;
    while (!(replica = a_.tier.find(id)) || !replica->mapped()) std::this_thread::yield();
    const uint32_t value = 33;
    const iovec buffer{const_cast<uint32_t*>(&value), sizeof(value)};
    while (!replica->waited_for(0)) std::this_thread::yield();
    EXPECT_EQ(replica->try_write(0, {&buffer, 1}), 4);
    EXPECT_EQ(replica->wake(0, 100), 1u);
  };
  const auto run = a_.run("state", {"waits"}, {.meanwhile = notify});
  EXPECT_EQ(run.result.exit_code, 33) << run.summary();
  EXPECT_EQ(a_.run("state", {"notifies"}).result.exit_code, 0);
}

TEST_F(GuestState, LocksExcludeAndAreGivenBack) { expect_ok(a_.run("state", {"locks"})); }

TEST_F(GuestState, IsNotOfferedWhereThereIsNone) {
  EXPECT_EQ(run_guest("state", {"get", "key"}).result.exit_code, kENOTSUP);
}

TEST_F(GuestState, ABudgetThatIsMetIsToldToTheGuest) {
  StateHost small(global_, {.bytes_max = 1'000});
  expect_ok(small.run("state", {"put", "a", std::string(600, 'x')}));
  const GuestRun run = small.run("state", {"put", "b", std::string(600, 'x')});
  EXPECT_EQ(run.result.exit_code, 100);
  expect_ok(small.run("state", {"push", "a"}));
  expect_ok(small.run("state", {"put", "b", std::string(600, 'x')}));
  EXPECT_EQ(output(small.run("state", {"get", "b"})), std::string(600, 'x'));
  const GuestRun no_room = small.run("state", {"get", "a"});
  EXPECT_EQ(no_room.result.exit_code, kENOMEM) << no_room.summary();
  EXPECT_NE(as_text(no_room.state.log).find("no room for the 600 bytes of state \"a\""), std::string::npos);
}

}  // namespace spore::host

// State as files, as guests see it, on two hosts with one global tier. Most checks are in the guest.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "guest_runner.h"
#include "host/state_access.h"
#include "state/reference_tier.h"

namespace spore::host {

namespace {

using Kind = CallResult::Kind;
using state::Deadline;

// A global tier that can be away, or not answer.
class CuttableTier final : public state::GlobalTier {
 public:
  std::atomic<bool> away = false;
  void hold(bool held) {
    const std::lock_guard lock(mutex_);
    is_held_ = held;
    changed_.notify_all();
  }

  Result<std::shared_ptr<state::Snapshot>> pin(const state::ValueId& id, Deadline deadline) override {
    TRY(reach());
    return tier_.pin(id, deadline);
  }
  Result<state::Manifest> describe(const state::ValueId& id, Deadline deadline) override {
    TRY(reach());
    return tier_.describe(id, deadline);
  }
  Result<state::Pushed> push(const state::ValueId& id, const state::Push& push, Deadline deadline) override {
    TRY(reach());
    return tier_.push(id, push, deadline);
  }
  Result<void> remove(const state::ValueId& id, std::optional<state::Version> expected, Deadline deadline) override {
    TRY(reach());
    return tier_.remove(id, expected, deadline);
  }
  Result<state::KeyPage> list(const std::string& tenant, const std::string& prefix, const std::string& from,
                              size_t limit, Deadline deadline) override {
    TRY(reach());
    return tier_.list(tenant, prefix, from, limit, deadline);
  }
  Result<state::Usage> usage(const std::string& tenant, Deadline deadline) override {
    return tier_.usage(tenant, deadline);
  }
  Result<std::optional<state::LockGrant>> try_lock(const state::ValueId& id, state::LockMode mode,
                                                   const std::string& owner, std::chrono::milliseconds lease,
                                                   Deadline deadline) override {
    return tier_.try_lock(id, mode, owner, lease, deadline);
  }
  Result<void> renew_lock(const state::ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                          Deadline deadline) override {
    return tier_.renew_lock(id, owner, lease, deadline);
  }
  Result<void> unlock(const state::ValueId& id, const std::string& owner, Deadline deadline) override {
    return tier_.unlock(id, owner, deadline);
  }
  std::string name() const override { return tier_.name(); }

 private:
  Result<void> reach() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !is_held_; });
    if (away) return fail(ErrorCode::kUnavailable, "the store is away");
    return {};
  }
  state::ReferenceTier tier_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_held_ = false;
};

struct FilesHost {
  explicit FilesHost(state::GlobalTier& global, state::LocalTierOptions options = {})
      : tracker(*state::WindowTracker::start(2)), tier(global, tracker.get(), options) {}
  CallSetup setup(const std::string& tenant) {
    CallSetup setup;
    setup.preopens.push_back({.guest_path = "/spore", .source = Preopen::Source::kCallFiles});
    setup.preopens.push_back({.guest_path = "/", .access = Access::kReadWrite, .source = Preopen::Source::kLocalLayer});
    setup.state_services = &services;
    setup.tenant = tenant;
    setup.call_key = "call " + std::to_string(++calls);
    setup.push_on_success = push_on_success;
    return setup;
  }
  // The exit code, which is an errno; -1 where it did not come to that.
  int run(std::vector<std::string> arguments, const std::string& tenant = "t") {
    GuestRun run = run_guest("state_files", std::move(arguments), setup(tenant));
    output = as_text(run.state.output);
    log = as_text(run.state.log);
    run.state.close_all();
    return run.result.kind == Kind::kExited ? run.result.exit_code : -1;
  }
  std::unique_ptr<state::WindowTracker> tracker;
  state::LocalTier tier;
  state::BlockingPool pool{{.threads = 2}};
  StateServices services{.tier = &tier, .pool = &pool};
  int calls = 0;
  bool push_on_success = false;
  std::string output, log;  // of the last run
};

class GuestStateFiles : public ::testing::Test {
 protected:
  // A section of the guest.
  void check(const char* section) { EXPECT_EQ(a_.run({section}), 0) << a_.log; }
  void expect_text(FilesHost& host, std::vector<std::string> arguments, const std::string& text) {
    EXPECT_EQ(host.run(arguments), 0) << arguments.front() << " " << host.log;
    EXPECT_EQ(host.output, text);
  }

  CuttableTier global_;
  FilesHost a_{global_}, b_{global_};
};

constexpr int kEEXIST = 20, kEHOSTUNREACH = 23, kENOENT = 44, kENOSPC = 51, kEPERM = 63;

}  // namespace

TEST_F(GuestStateFiles, ReadWriteSeekAndSizeAsFilesDo) { check("file"); }

TEST_F(GuestStateFiles, PathsThatAreNoKeysAndOperationsThatAreNotOfferedAreRefused) { check("refused"); }

TEST_F(GuestStateFiles, AreListedWithSmallBuffersWhileTheyChange) { check("list"); }

TEST_F(GuestStateFiles, AndWindowsOfOneValueShowTheSameBytes) { check("window"); }

TEST_F(GuestStateFiles, TheEndOfACallPublishesWhereItIsConfiguredSo) {
  a_.push_on_success = true;
  ASSERT_EQ(a_.run({"put", "k", "first"}), 0) << a_.log;
  expect_text(b_, {"get", "k"}, "first");
  expect_text(a_, {"get", "k"}, "first");
  global_.away = true;  // who only reads what is here pushes nothing
  expect_text(a_, {"get", "k"}, "first");
  EXPECT_EQ(a_.run({"put", "k", "other"}), -1);
  global_.away = false;
  expect_text(b_, {"get", "k", "r"}, "first");
}

TEST_F(GuestStateFiles, OnlySyncPublishes) {
  ASSERT_EQ(a_.run({"put", "k", "first"}), 0) << a_.log;
  expect_text(a_, {"get", "k"}, "first");
  EXPECT_EQ(b_.run({"get", "k"}), kENOENT);
  EXPECT_EQ(b_.run({"stat", "k"}), kENOENT);
  ASSERT_EQ(a_.run({"sync", "k"}), 0) << a_.log;
  expect_text(b_, {"stat", "k"}, "5");
  EXPECT_EQ(b_.tier.find({"t", "k"}), nullptr);  // to ask for its size opened nothing
  expect_text(b_, {"get", "k"}, "first");
  for (const char* how : {"tf", "tF", "ts", "td"}) {
    ASSERT_EQ(a_.run({"put", "k", how, how}), 0) << a_.log;
    expect_text(b_, {"get", "k"}, "first");
    expect_text(b_, {"get", "k", "r"}, how);
    ASSERT_EQ(a_.run({"put", "k", "first", "tf"}), 0) << a_.log;
    expect_text(b_, {"get", "k", "r"}, "first");
  }
}

TEST_F(GuestStateFiles, OfZeroBytesCanBePublished) {
  ASSERT_EQ(a_.run({"put", "k", "", "f"}), 0) << a_.log;
  expect_text(b_, {"stat", "k"}, "0");
  EXPECT_EQ(b_.run({"create", "k"}), kEEXIST);
  EXPECT_EQ(a_.run({"create", "k"}), kEEXIST);
  EXPECT_EQ(a_.run({"create", "other"}), 0);
  EXPECT_EQ(b_.run({"create", "other"}), 0);  // each of them knows only its own
  EXPECT_EQ(b_.run({"mkdir", "k"}), kEEXIST);
  EXPECT_EQ(b_.run({"mkdir", "new"}), 0);
}

TEST_F(GuestStateFiles, OpenedToPullTakeOverTheNewestVersion) {
  ASSERT_EQ(a_.run({"put", "k", "first", "f"}), 0);
  expect_text(b_, {"get", "k"}, "first");
  // What was not pushed stays. Both are of the same page.
  ASSERT_EQ(b_.run({"put", "k", "mine!"}), 0);
  ASSERT_EQ(a_.run({"put", "k", "other", "f"}), 0);
  expect_text(b_, {"get", "k", "r"}, "mine!");
  ASSERT_EQ(b_.run({"sync", "k"}), 0);
  expect_text(a_, {"get", "k", "r"}, "mine!");
  // Known here only: there is nothing newer.
  ASSERT_EQ(a_.run({"put", "own", "text"}), 0);
  expect_text(a_, {"get", "own", "r"}, "text");
  // Removed elsewhere: it begins anew, where it may be made.
  ASSERT_EQ(a_.run({"remove", "k"}), 0);
  expect_text(b_, {"get", "k"}, "mine!");
  EXPECT_EQ(b_.run({"get", "k", "r"}), kENOENT);
  ASSERT_EQ(b_.run({"put", "k", "new", "rf"}), 0) << b_.log;
  expect_text(a_, {"get", "k"}, "new");
}

TEST_F(GuestStateFiles, GrowAndAreCutAcrossHosts) {
  ASSERT_EQ(a_.run({"size", "k", "3000000"}), 0) << a_.log;
  ASSERT_EQ(a_.run({"put", "k", "begin", "f"}), 0);
  expect_text(b_, {"at", "k", "4"}, "n");
  const auto replica = b_.tier.find({"t", "k"});
  EXPECT_EQ(replica->fetched_bytes(), state::kChunkBytes);  // of 3 MB
  // Behind the end that b has not fetched yet.
  ASSERT_EQ(b_.run({"put", "k", "end", "af"}), 0) << b_.log;
  EXPECT_EQ(replica->size_bytes(), 3'000'003u);
  ASSERT_EQ(a_.run({"get", "k", "r"}), 0);
  EXPECT_EQ(a_.output.size(), 3'000'003u);
  EXPECT_TRUE(a_.output.starts_with("begin") && a_.output.ends_with(std::string("\0end", 4)));
  ASSERT_EQ(b_.run({"size", "k", "2"}), 0);
  ASSERT_EQ(b_.run({"sync", "k"}), 0);
  expect_text(a_, {"get", "k", "r"}, "be");
}

TEST_F(GuestStateFiles, OfAnotherTenantDoNotExist) {
  ASSERT_EQ(a_.run({"put", "k", "mine", "f"}), 0);
  for (const char* command : {"get", "stat", "remove", "sync"})
    EXPECT_EQ(a_.run({command, "k"}, "u"), kENOENT) << command;
  EXPECT_EQ(a_.run({"ls", "/spore/state"}, "u"), 0);
  EXPECT_EQ(a_.output, "");
  ASSERT_EQ(a_.run({"put", "k", "other"}, "u"), 0);
  for (const char* path : {"../t/k", "..%2Ft%2Fk", "%2E%2E%2Ft%2Fk", "t/k"})
    EXPECT_TRUE(a_.run({"get", path}, "u") == kENOENT || a_.run({"get", path}, "u") == kEPERM) << path;
  expect_text(a_, {"get", "k"}, "mine");
  expect_text(a_, {"ls", "/spore/state"}, "k\n");
}

TEST_F(GuestStateFiles, ListPushedAndUnpushedValues) {
  ASSERT_EQ(b_.run({"put", "b/1", "x", "f"}), 0);
  ASSERT_EQ(a_.run({"put", "a%20b", "x"}), 0);
  ASSERT_EQ(a_.run({"put", "c", "x", "f"}), 0);
  expect_text(a_, {"ls", "/spore/state"}, "a%20b\nb%2F1\nc\n");
  expect_text(b_, {"ls", "/spore/state"}, "b%2F1\nc\n");
  ASSERT_EQ(a_.run({"ls", "/spore"}), 0);
  EXPECT_TRUE(a_.output.size() == 20 && a_.output.find("state/\n") != std::string::npos) << a_.output;
}

TEST_F(GuestStateFiles, ABudgetThatIsMetIsNoSpace) {
  FilesHost small(global_, {.bytes_max = 10'000, .bytes_per_tenant_max = 8'000});
  ASSERT_EQ(small.run({"put", "a", std::string(5'000, 'x')}), 0) << small.log;
  // Neither a new value nor more of it; what is there stays, and the budget with it.
  EXPECT_EQ(small.run({"put", "b", std::string(5'000, 'y')}), kENOSPC);
  EXPECT_NE(small.log.find("no room for the 5000 bytes of state \"b\""), std::string::npos) << small.log;
  EXPECT_EQ(small.run({"put", "a", std::string(5'000, 'z'), "a"}), kENOSPC);
  EXPECT_EQ(small.run({"size", "a", "8001"}), kENOSPC);
  EXPECT_EQ(small.run({"size", "a", "8001", "a"}), kENOSPC);
  expect_text(small, {"get", "a"}, std::string(5'000, 'x'));
  EXPECT_EQ(small.tier.stats().bytes, 5'000u);
  EXPECT_EQ(small.run({"size", "a", "8000"}), 0) << small.log;
  EXPECT_EQ(small.run({"size", "a", "100"}), 0);
  EXPECT_EQ(small.tier.stats().bytes, 100u);
  // Clean values make room.
  ASSERT_EQ(small.run({"size", "a", "6000"}), 0);
  ASSERT_EQ(small.run({"sync", "a"}), 0);
  ASSERT_EQ(small.run({"put", "b", std::string(5'000, 'y')}), 0) << small.log;
  EXPECT_EQ(small.tier.stats().evicted, 1u);
  EXPECT_EQ(small.run({"get", "a"}), kENOSPC);
  EXPECT_EQ(small.run({"remove", "b"}), 0);
  EXPECT_EQ(small.tier.stats().bytes, 0u);
  ASSERT_EQ(small.run({"stat", "a"}), 0) << small.log;
}

TEST_F(GuestStateFiles, AppendsOfManyCallsAllStay) {
  constexpr int kCalls = 2, kLines = 2'000;
  // Another one appends through its own replica reference while the guest does.
  GuestRun run = run_guest("state_files", {"appends", "log", std::to_string(kLines)}, a_.setup("t"), {}, [&](auto) {
    std::shared_ptr<state::Replica> replica;
    while (!(replica = a_.tier.find({"t", "log"})) || replica->size_bytes() == 0) std::this_thread::yield();
    for (int i = 0; i < kLines;) {
      const uint64_t size = replica->size_bytes();
      const auto charge = [&](uint64_t bytes) { return a_.tier.charge(*replica, bytes); };
      const auto grown = replica->try_resize(size + 11, {.expected = size, .charge = charge});
      if (!grown || !*grown) continue;
      const iovec line{const_cast<char*>("ABCDEFGHIJ\n"), 11};
      while (!replica->try_write(size, {&line, 1})) std::this_thread::yield();
      ++i;
    }
  });
  run.state.close_all();
  ASSERT_EQ(run.result.exit_code, 0) << run.summary();
  ASSERT_EQ(a_.run({"get", "log"}), 0);
  ASSERT_EQ(a_.output.size(), 11u * kCalls * kLines);
  int digits = 0, letters = 0;
  for (size_t at = 0; at < a_.output.size(); at += 11) {
    digits += a_.output.compare(at, 11, "0123456789\n") == 0;
    letters += a_.output.compare(at, 11, "ABCDEFGHIJ\n") == 0;
  }
  EXPECT_EQ(digits, kLines);
  EXPECT_EQ(letters, kLines);
  EXPECT_EQ(a_.tier.stats().bytes, a_.output.size());
}

TEST_F(GuestStateFiles, AStoreThatIsAwayIsToldAndNothingIsLost) {
  ASSERT_EQ(a_.run({"put", "k", "first", "f"}), 0);
  ASSERT_EQ(a_.run({"put", "k", "other"}), 0);
  global_.away = true;
  for (const auto& command : std::vector<std::vector<std::string>>{{"sync", "k"},
                                                                   {"put", "k", "other", "s"},
                                                                   {"get", "k", "r"},
                                                                   {"get", "new"},
                                                                   {"put", "new", "x"},
                                                                   {"create", "new"},
                                                                   {"stat", "new"},
                                                                   {"remove", "k"},
                                                                   {"mkdir", "new"}}) {
    EXPECT_EQ(a_.run(command), kEHOSTUNREACH) << command.front();
    EXPECT_NE(a_.log.find("the store is away"), std::string::npos) << command.front();
  }
  a_.run({"ls", "/spore/state"});
  EXPECT_EQ(a_.output, "");
  expect_text(a_, {"get", "k"}, "other");
  global_.away = false;
  ASSERT_EQ(a_.run({"sync", "k"}), 0);
  expect_text(b_, {"get", "k"}, "other");
}

TEST_F(GuestStateFiles, WaitForTheStoreWithoutHoldingTheSeat) {
  ASSERT_EQ(a_.run({"put", "k", "first", "f"}), 0);
  ASSERT_EQ(a_.run({"put", "k", "other"}), 0);
  for (const auto& command : std::vector<std::vector<std::string>>{{"sync", "k"},
                                                                   {"get", "new"},
                                                                   {"put", "k", "text!", "s"},
                                                                   {"stat", "new"},
                                                                   {"remove", "k"},
                                                                   {"mkdir", "new"},
                                                                   {"ls", "/spore/state"}}) {
    global_.hold(true);
    GuestRun run = run_guest("state_files", command, a_.setup("t"),
                             {.deadline = faaslet::Clock::now() + std::chrono::milliseconds(50)});
    EXPECT_EQ(run.result.kind, Kind::kInterrupted) << command.front() << run.summary();
    global_.hold(false);
  }
}

TEST_F(GuestStateFiles, AValueWhosePushesMergeKeepsItsSize) {
  ASSERT_EQ(a_.run({"put", "k", "8 bytes!", "f"}), 0);
  const auto replica = a_.tier.find({"t", "k"});
  ASSERT_TRUE(replica->set_merging({state::MergeOp::kSum, state::Element::kI64},
                                   state::Clock::now() + std::chrono::seconds(10)));
  EXPECT_EQ(a_.run({"put", "k", "more", "a"}), kEPERM);
  EXPECT_EQ(a_.run({"put", "k", "all anew", "t"}), kEPERM);
  EXPECT_EQ(a_.run({"size", "k", "16"}), kEPERM);
  EXPECT_EQ(a_.run({"put", "k", "8 others"}), 0);
  expect_text(a_, {"get", "k"}, "8 others");
}

TEST_F(GuestStateFiles, DoNotExistWhereThereIsNoState) {
  const auto run = [&](std::vector<std::string> arguments) {
    CallSetup setup = a_.setup("t");
    setup.state_services = nullptr;
    return run_guest("state_files", std::move(arguments), std::move(setup));
  };
  EXPECT_EQ(run({"get", "k"}).result.exit_code, kENOENT);
  EXPECT_EQ(run({"put", "k", "x"}).result.exit_code, kENOENT);
  EXPECT_EQ(run({"ls", "/spore/state"}).result.exit_code, kENOENT);
  const std::string names(as_text(run({"ls", "/spore"}).state.output));
  EXPECT_TRUE(names.size() == 13 && names.find("state") == std::string::npos) << names;
}

}  // namespace spore::host

// Calls of other functions as guests see them: by imports, by files, by Faasm's names, by the SDKs. Who runs calls is
// played by Children below; the worker's own are tested in src/worker and tests/system.
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <cstring>
#include <filesystem>
#include <map>

#include "guest_runner.h"
#include "host/child_calls.h"
#include "state/reference_tier.h"
#include "state_host.h"

namespace spore::host {

namespace {

using Kind = CallResult::Kind;

// Functions, by name:
//   echo        gives its input        later   the same, once it is awaited or somebody waits for its descriptor
//   fail        exit code 3            never   does not end
//   trap        traps                  full    meets a limit
class Children final : public ChildCalls {
 public:
  Result<uint32_t> begin(ChildRequest request) override {
    const std::string name = request.function.substr(0, request.function.find('@'));
    Child child;
    child.input = std::move(request.input);
    if (request.table_index) {
      child.input.resize(4);
      std::memcpy(child.input.data(), &*request.table_index, 4);
    } else if (name.empty() || name.find_first_not_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos) {
      return fail(ErrorCode::kInvalidArgument, "no such name can be");
    } else if (name == "full") {
      return fail(ErrorCode::kResourceExhausted, "the host's queue is full");
    } else if (name != "echo" && name != "fail" && name != "trap" && name != "later" && name != "never") {
      return fail(ErrorCode::kNotFound, "there is no function " + name);
    }
    child.comes_later = name == "later";
    if (name == "echo" || request.table_index) child.end();
    if (name == "fail")
      child.result = {.exit_code = 3, .message = "it exited with code 3", .output = Bytes(7, 'x')}, child.ended = true;
    if (name == "trap")
      child.result = {.error = wasi::Errno::kChild, .message = "it trapped: unreachable"}, child.ended = true;
    all_.emplace(++last_, std::move(child));
    return last_;
  }
  Status status(uint32_t handle) override {
    const auto found = all_.find(handle);
    return found == all_.end() ? Status::kUnknown : found->second.ended ? Status::kEnded : Status::kRunning;
  }
  const ChildResult& result(uint32_t handle) override { return all_.at(handle).result; }
  bool await(std::span<const uint32_t> handles) override {
    for (const uint32_t handle : handles) {
      const auto found = all_.find(handle);
      if (found == all_.end() || found->second.ended) return false;
      if (!found->second.comes_later) continue;
      found->second.end();
      return false;
    }
    return true;
  }
  int fd(uint32_t handle) override {
    const auto found = all_.find(handle);
    if (found == all_.end()) return -1;
    Child& child = found->second;
    if (child.comes_later && !child.ended) child.end();
    if (!child.event.valid()) child.event = UniqueFd(::eventfd(child.ended ? 1 : 0, EFD_CLOEXEC));
    return child.event.get();
  }
  bool cancel(uint32_t handle) override {
    const auto found = all_.find(handle);
    if (found == all_.end()) return false;
    if (!std::exchange(found->second.ended, true))
      found->second.result = {.error = wasi::Errno::kCanceled, .message = "it was cancelled"};
    return true;
  }
  bool close(uint32_t handle) override { return all_.erase(handle) == 1; }
  Result<std::string> begin_detached(const ChildRequest& request, const std::string& once) override {
    if (request.function != "echo") return fail(ErrorCode::kNotFound, "there is no function " + request.function);
    detached.push_back(request.function + " " + std::string(as_text(request.input)) + " " + once);
    return std::string(32, 'd');
  }
  std::vector<std::string> ancestors() const override { return {}; }
  size_t open() const { return all_.size(); }

  std::vector<std::string> detached;

 private:
  struct Child {
    Bytes input;
    ChildResult result;
    bool ended = false;
    bool comes_later = false;
    UniqueFd event;
    void end() {
      result.output = input;
      ended = true;
    }
  };
  std::map<uint32_t, Child> all_;
  uint32_t last_ = 0;
};

class GuestChain : public ::testing::Test {
 protected:
  GuestRun run(const std::string& guest, std::vector<std::string> arguments, std::string_view input = "input",
               bool has_children = true) {
    CallSetup setup;
    setup.preopens.push_back({.guest_path = "/spore", .source = Preopen::Source::kCallFiles});
    setup.preopens.push_back({.guest_path = "/", .access = Access::kReadWrite, .source = Preopen::Source::kLocalLayer});
    setup.tenant = "t";
    setup.call_key = "call " + std::to_string(++calls_);
    setup.input.assign(input.begin(), input.end());
    setup.limits.input_bytes_max = 100;
    if (has_children) {
      setup.children = children_ = std::make_shared<Children>();
      setup.state_services = &host_.services;
    }
    GuestRun out = run_guest(guest, std::move(arguments), std::move(setup));
    if (out.state.locks_taken) host_.locks.release_all(out.state.call_key, true);
    return out;
  }
  static void expect_ok(const GuestRun& run) {
    EXPECT_TRUE(run.result.kind == Kind::kExited && run.result.exit_code == 0) << run.summary();
  }

  state::ReferenceTier global_;
  StateHost host_{global_};
  std::shared_ptr<Children> children_;  // of the last run
  int calls_ = 0;
};

}  // namespace

TEST_F(GuestChain, ImportsBeginAwaitAndReadOrSayWhyNot) {
  expect_ok(run("chain", {"imports"}));
  EXPECT_EQ(children_->detached, std::vector<std::string>{"echo hello call 1.0"});
}

// The same steps in each language; one whose tools are not here is skipped.
class ChainBindings : public GuestChain, public ::testing::WithParamInterface<const char*> {};

TEST_P(ChainBindings, ReachEveryCall) {
  if (!std::filesystem::exists(std::filesystem::path(GUEST_MODULES) / (std::string(GetParam()) + ".wasm")))
    GTEST_SKIP() << "no tools for " << GetParam() << " when this was configured";
  expect_ok(run(GetParam(), {"calls"}, "calls"));
  EXPECT_EQ(children_->detached.size(), GetParam() == std::string("objects") ? 0u : 1u);
  EXPECT_LE(children_->open(), 2u);  // the others were closed
}

INSTANTIATE_TEST_SUITE_P(In, ChainBindings,
                         ::testing::Values("objects", "bindings_rust", "bindings_go", "bindings_assemblyscript"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(GuestChain, FilesAreCalls) {
  GuestRun out = run("chain", {"files"});
  expect_ok(out);
  EXPECT_NE(as_text(out.state.log).find("/spore/call/nobody: there is no function nobody"), std::string::npos);
  EXPECT_EQ(children_->open(), 0u);  // each was closed with its descriptor
}

TEST_F(GuestChain, IsNotOfferedWhereNobodyRunsCalls) { expect_ok(run("chain", {"none"}, "", /*has_children=*/false)); }

TEST_F(GuestChain, PointersOutsideMemoryTrap) {
  for (int which = 0; which <= 10; ++which) {
    const GuestRun out = run("chain", {"wild", std::to_string(which)});
    EXPECT_EQ(out.result.kind, Kind::kTrapped) << which << out.summary();
    EXPECT_EQ(out.result.trap.kind, wasm::TrapKind::kMemoryOutOfBounds) << which;
    EXPECT_EQ(children_->detached.size(), 0u);
  }
}

TEST_F(GuestChain, FaasmsNamesDoWhatTheySay) {
  const GuestRun out = run("faasm", {"all"});
  expect_ok(out);
  EXPECT_EQ(as_text(out.state.output), "this");
  EXPECT_NE(as_text(out.state.log).find("__faasm_await_call: call 3 failed: it trapped: unreachable"),
            std::string::npos)
      << as_text(out.state.log);
}

TEST_F(GuestChain, WhatFaasmLetsGoWrongTrapsWithAMessage) {
  static constexpr const char* kSaid[] = {
      "__faasm_chain_name(\"nobody\"): there is none",
      "__faasm_chain_name(\"full\"): a limit is reached",
      "it cannot be",
      "a text of more than 128 bytes",
      "__faasm_await_call: there is no such call",
      "__faasm_await_call_output: there is no such call",
      "__faasm_read_state(\"none\"): there is none",
      "__faasm_read_state(\"k\"): it has 10 bytes, not 9",
      "__faasm_read_state: ",
      "a text of more than 512 bytes",
      "__faasm_read_state_ptr(\"k\"): it cannot be",
      "a value of no bytes cannot be mapped",
      "the 6 bytes at 5 are not inside one of 10",
      "it has 10 bytes, not 9",
      "__faasm_read_state_offset(\"none\"): there is none",
      "the 0 bytes at 11 are not inside one of 10",
      "the 3 bytes at 8 are not inside one of 10",
      "it has 10 bytes, not 20",
      "__faasm_push_state(\"none\"): there is none",
      "__faasm_pull_state(\"none\"): there is none",
      "__faasm_pull_state(\"k\"): it cannot be",
      "it has 0 elements, not 1",
      "element 0 of 5 bytes does not fit in the 4 that are left",
      "it has 0 elements, not 4294967295",
      "the 4294967295 bytes at 0 are not inside one of 10",
      "__faasm_unlock_state_read(\"k\"): there is none",
      "__faasm_unlock_state_global(\"k\"): there is none",
      "__faasm_lock_state_write(\"k\"): this call, or one that waits for it, holds the lock",
  };
  for (size_t which = 0; which < std::size(kSaid); ++which) {
    global_.remove({"t", "list/appended"}, std::nullopt, state::Clock::now() + std::chrono::seconds(1));
    host_.tier.discard({"t", "list/appended"});
    const GuestRun out = run("faasm", {"wrong", std::to_string(which)});
    EXPECT_EQ(out.result.kind, Kind::kTrapped) << which << out.summary();
    EXPECT_EQ(out.result.trap.kind, wasm::TrapKind::kHostCall) << which;
    EXPECT_NE(out.result.trap.message.find(kSaid[which]), std::string::npos) << which << out.summary();
  }
}

TEST_F(GuestChain, FaasmsPointersOutsideMemoryTrap) {
  for (int which = 0; which <= 33; ++which) {
    const GuestRun out = run("faasm", {"wild", std::to_string(which)});
    EXPECT_EQ(out.result.kind, Kind::kTrapped) << which << out.summary();
    EXPECT_EQ(out.result.trap.kind, wasm::TrapKind::kMemoryOutOfBounds) << which << out.summary();
  }
}

TEST_F(GuestChain, FaasmsNamesTrapWhereNobodyRunsCallsAndThereIsNoState) {
  for (const char* command : {"wrong", "wild"}) {
    const GuestRun out = run("faasm", {command, "0"}, "", /*has_children=*/false);
    EXPECT_EQ(out.result.kind, Kind::kTrapped) << out.summary();
    EXPECT_NE(out.result.trap.message.find("this host does not offer it"), std::string::npos) << out.summary();
  }
}

}  // namespace spore::host

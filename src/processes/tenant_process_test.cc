// The host against processes that do all but what they should: each is this program once more, in one of the tests of
// HostileProcess, which the broker starts as it would start `spore tenant-process`. It takes root.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <future>
#include <random>

#include "isolation/apart.h"
#include "processes/link.h"
#include "processes/protocol.h"
#include "processes/tenant_processes.h"
#include "state/reference_tier.h"

namespace spore::processes {
namespace {

using namespace std::chrono_literals;
using worker::CallResult;
using worker::CallStatus;

// ---- the process's side ---------------------------------------------------------------------------------------------

Frame frame(FrameKind kind, Bytes body = {}, uint64_t id = 0) {
  return {.kind = static_cast<uint16_t>(kind), .id = id, .body = std::move(body)};
}

Bytes ended(const CallId& id, const CallResult& result) {
  ByteWriter out;
  for (const uint8_t byte : id.bytes) out.write(byte);
  write_ended(out, result);
  return out.take();
}

// What a process does; for ever, where it does not end.
class Hostile {
 public:
  Hostile() : link_(UniqueFd(isolation::kApartSocket), kFrameDescriptorsMax) {}
  Link& link() { return link_; }
  void send(Frame sent) { (void)link_.send(std::move(sent)); }
  void be_ready() { send(frame(FrameKind::kReady)); }
  // The next frame of that kind.
  Frame wait(FrameKind kind) {
    for (;;) {
      pollfd ready{link_.fd(), POLLIN, 0};
      ::poll(&ready, 1, -1);
      auto received = link_.receive(UINT64_MAX);
      if (!received) ::_exit(0);
      if (*received && (*received)->kind == static_cast<uint16_t>(kind)) return std::move(**received);
    }
  }
  CallId wait_for_call() {
    const Frame call = wait(FrameKind::kCall);
    ByteSpan input;
    return CallFrame::parse(call.body, input)->id;
  }
  [[noreturn]] void stay() {
    for (;;) ::pause();
  }

 private:
  Link link_;
};

TEST(HostileProcess, DISABLED_IsNeverReady) { Hostile().stay(); }
TEST(HostileProcess, DISABLED_EndsAtOnce) { ::_exit(3); }
TEST(HostileProcess, DISABLED_SpeaksGarbage) {
  Hostile self;
  std::mt19937 random(1);
  std::string garbage(1'000, 'x');
  for (char& c : garbage) c = static_cast<char>(random());
  ::send(isolation::kApartSocket, garbage.data(), garbage.size(), 0);
  self.stay();
}
TEST(HostileProcess, DISABLED_SendsDescriptors) {
  Hostile self;
  self.be_ready();
  self.wait_for_call();
  Frame with = frame(FrameKind::kReady);
  with.descriptors.emplace_back(::dup(STDIN_FILENO));
  self.send(std::move(with));
  self.stay();
}
TEST(HostileProcess, DISABLED_EndsAnotherCall) {
  Hostile self;
  self.be_ready();
  CallId id = self.wait_for_call();
  id.bytes[0] ^= 1;
  self.send(frame(FrameKind::kEnded, ended(id, {})));
  self.stay();
}
TEST(HostileProcess, DISABLED_EndsACallTwice) {
  Hostile self;
  self.be_ready();
  const CallId id = self.wait_for_call();
  for (int i = 0; i < 2; ++i) self.send(frame(FrameKind::kEnded, ended(id, {})));
  self.stay();
}
TEST(HostileProcess, DISABLED_GivesTooMuchOutput) {
  Hostile self;
  self.be_ready();
  CallResult result;
  result.output.resize(1'001);
  self.send(frame(FrameKind::kEnded, ended(self.wait_for_call(), result)));
  self.stay();
}
TEST(HostileProcess, DISABLED_GivesAnImpossibleResult) {
  Hostile self;
  self.be_ready();
  CallResult result;
  result.status = static_cast<CallStatus>(200);
  self.send(frame(FrameKind::kEnded, ended(self.wait_for_call(), result)));
  self.stay();
}
TEST(HostileProcess, DISABLED_GivesANegativeTime) {
  Hostile self;
  self.be_ready();
  CallResult result;
  result.usage.cpu = std::chrono::microseconds(-1);
  self.send(frame(FrameKind::kEnded, ended(self.wait_for_call(), result)));
  self.stay();
}
TEST(HostileProcess, DISABLED_NeverEndsACall) {
  Hostile self;
  self.be_ready();
  for (;;) self.wait_for_call();
}
TEST(HostileProcess, DISABLED_LeavesUnasked) {
  Hostile self;
  self.be_ready();
  self.wait_for_call();
  self.send(frame(FrameKind::kLeaves));
  self.stay();
}
TEST(HostileProcess, DISABLED_SendsTheHostsFrames) {
  Hostile self;
  self.be_ready();
  self.wait_for_call();
  self.send(frame(FrameKind::kCall, {1, 2, 3}));
  self.stay();
}
TEST(HostileProcess, DISABLED_AsksForTheImpossible) {
  Hostile self;
  self.be_ready();
  self.wait_for_call();
  self.send(frame(FrameKind::kRequest, {static_cast<uint8_t>(kRequestKindMax) + 1}, 1));
  self.stay();
}
TEST(HostileProcess, DISABLED_AsksWithoutListening) {
  Hostile self;
  self.be_ready();
  self.wait_for_call();
  ByteWriter list;
  list.write<uint8_t>(static_cast<uint8_t>(RequestKind::kList));
  list.write(INT64_MAX);
  list.write_text("");
  list.write_text("");
  list.write<uint64_t>(1'000);
  for (uint64_t id = 1;; ++id) self.send(frame(FrameKind::kRequest, list.bytes(), id));
}
// Requests that are almost right, of all kinds, then an orderly end of the call.
TEST(HostileProcess, DISABLED_AsksMadly) {
  Hostile self;
  self.be_ready();
  const CallId id = self.wait_for_call();
  std::mt19937 random(std::random_device{}());
  for (uint64_t number = 1; number <= 3'000; ++number) {
    ByteWriter request;
    request.write(static_cast<uint8_t>(random() % (static_cast<unsigned>(kRequestKindMax) + 1)));
    if (random() % 2)
      for (const uint8_t byte : id.bytes) request.write(byte);
    for (unsigned parts = random() % 6; parts > 0; --parts) {
      if (random() % 2)
        request.write_text(random() % 2 ? "../other/function" : "k");
      else
        request.write<uint64_t>(random() % 3 ? random() % 5 : ~0ull);
    }
    self.send(frame(FrameKind::kRequest, request.take(), number));
    (void)self.wait(FrameKind::kAnswer);
  }
  CallResult result;
  result.output = {'o', 'k'};
  self.send(frame(FrameKind::kEnded, ended(id, result)));
  self.stay();
}
TEST(HostileProcess, DISABLED_SaysMuch) {
  Hostile self;
  const std::string line = "\x1b[2J" + std::string(2'000, 'x') + "\n";
  for (int i = 0; i < 5'000; ++i) (void)!::write(STDERR_FILENO, line.data(), line.size());
  self.be_ready();
  self.send(frame(FrameKind::kEnded, ended(self.wait_for_call(), {})));
  self.stay();
}
// What it finds of the host, as a call's output.
TEST(HostileProcess, DISABLED_LooksAround) {
  Hostile self;
  self.be_ready();
  const CallId id = self.wait_for_call();
  CallResult result;
  std::string found = std::to_string(::getpid()) + " " + std::to_string(::getppid());
  for (int fd = 0; fd < 1'024; ++fd)
    if (::fcntl(fd, F_GETFD) >= 0) found += " " + std::to_string(fd);
  for (char** variable = environ; *variable; ++variable) found += *variable;
  const auto confined = isolation::confine({});
  found += confined ? " confined" : confined.error().message;
  found += ::access("/etc", F_OK) == 0 ? " /etc" : "";
  found += ::access("/../etc", F_OK) == 0 ? " /../etc" : "";
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) found += " mount";
  found += ::access("/proc/self", F_OK) == 0 ? " /proc" : "";
  found += std::ofstream("/new").is_open() ? " writes" : "";
  found += std::ofstream("/proc/sys/kernel/core_pattern").is_open() ? " sysctl" : "";
  result.output.assign(found.begin(), found.end());
  self.send(frame(FrameKind::kEnded, ended(id, result)));
  self.stay();
}

// ---- the host's side ------------------------------------------------------------------------------------------------

class TenantProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0 || !isolation::check_apart_rights()) GTEST_SKIP() << "processes apart take root";
  }

  void begin(const std::string& process, ProcessOptions options = {}) {
    auto broker = isolation::Broker::start(
        isolation::apart_operations({.arguments = {"processes_test", "--gtest_also_run_disabled_tests",
                                                   "--gtest_filter=HostileProcess.DISABLED_" + process}}));
    ASSERT_TRUE(broker) << broker.error().message;
    broker_ = std::move(*broker);
    processes_ = std::make_unique<TenantProcesses>(std::move(options),
                                                   ProcessServices{.broker = broker_.get(), .state = &store_});
  }
  void TearDown() override {
    processes_.reset();
    broker_.reset();
  }

  std::future<CallResult> start(std::chrono::milliseconds timeout = 20'000ms) {
    auto function = std::make_shared<functions::LoadedFunction>();
    function->id = {"own", "function"};
    function->version.number = 1;
    function->version.config.output_max_bytes = 1'000;
    worker::CallRequest request;
    request.function = std::move(function);
    last_ = request.id;
    auto promise = std::make_shared<std::promise<CallResult>>();
    processes_->start(std::move(request), Clock::now() + timeout,
                      [promise](CallResult result) { promise->set_value(std::move(result)); });
    return promise->get_future();
  }
  void expect_end(const std::string& process, CallStatus status, std::string_view because,
                  ProcessOptions options = {}) {
    begin(process, std::move(options));
    if (!processes_) return;
    const CallResult result = start().get();
    EXPECT_EQ(result.status, status) << worker::to_string(result.status);
    EXPECT_NE(result.error.message.find(because), std::string::npos) << result.error.message;
    processes_->stop();
    EXPECT_EQ(processes_->stats().processes, 0u);
    EXPECT_EQ(processes_->stats().calls, 0u);
  }

  state::ReferenceTier store_;
  CallId last_;
  std::unique_ptr<isolation::Broker> broker_;
  std::unique_ptr<TenantProcesses> processes_;
};

TEST_F(TenantProcessTest, OneThatIsNeverReadyIsGivenUp) {
  expect_end("IsNeverReady", CallStatus::kFailed, "it is not ready in time, and was killed by signal 9",
             {.start_max = 300ms});
}
TEST_F(TenantProcessTest, OneThatEndsAtOnceIsGivenUp) {
  expect_end("EndsAtOnce", CallStatus::kFailed, "it ended, and ");
}
TEST_F(TenantProcessTest, OneThatSpeaksGarbageIsKilled) {
  expect_end("SpeaksGarbage", CallStatus::kFailed, "was killed by signal 9");
}
TEST_F(TenantProcessTest, OneThatSendsDescriptorsIsKilled) {
  expect_end("SendsDescriptors", CallStatus::kProcessEnded, "descriptors come that nobody asked for");
}
TEST_F(TenantProcessTest, OneThatEndsACallThatItDoesNotHaveIsKilled) {
  expect_end("EndsAnotherCall", CallStatus::kProcessEnded, "the end of a call that it does not have");
}
TEST_F(TenantProcessTest, ACallEndsOnce) {
  begin("EndsACallTwice");
  ASSERT_TRUE(processes_);
  EXPECT_EQ(start().get().status, CallStatus::kOk);
  while (processes_->stats().died == 0) std::this_thread::sleep_for(5ms);
}
TEST_F(TenantProcessTest, OneThatGivesMoreThanACallMayIsKilled) {
  expect_end("GivesTooMuchOutput", CallStatus::kProcessEnded, "more output or log than a call may have");
}
TEST_F(TenantProcessTest, OneThatGivesAnImpossibleResultIsKilled) {
  expect_end("GivesAnImpossibleResult", CallStatus::kProcessEnded, "the end of a call cannot be read");
}
TEST_F(TenantProcessTest, OneThatGivesANegativeTimeIsKilled) {
  expect_end("GivesANegativeTime", CallStatus::kProcessEnded, "the end of a call cannot be read");
}
TEST_F(TenantProcessTest, OneThatLeavesUnaskedIsKilled) {
  expect_end("LeavesUnasked", CallStatus::kProcessEnded, "it leaves without being asked");
}
TEST_F(TenantProcessTest, OneThatSpeaksAsTheHostIsKilled) {
  expect_end("SendsTheHostsFrames", CallStatus::kProcessEnded, "a frame of kind 2");
}
TEST_F(TenantProcessTest, OneThatAsksForTheImpossibleIsKilled) {
  expect_end("AsksForTheImpossible", CallStatus::kProcessEnded, "a request of no kind");
}
TEST_F(TenantProcessTest, OneThatDoesNotTakeItsAnswersIsKilled) {
  for (int i = 0; i < 300; ++i)
    ASSERT_TRUE(store_.push({"own", "key-" + std::to_string(i) + std::string(400, 'k')}, {.append = as_bytes("x")},
                            Clock::now() + 10s));
  expect_end("AsksWithoutListening", CallStatus::kProcessEnded, "was killed by signal 9",
             {.grace = 2'000ms, .queued_bytes_max = 4 << 20});
}
TEST_F(TenantProcessTest, MadRequestsAreAnsweredAndNothingElseHappens) {
  begin("AsksMadly");
  ASSERT_TRUE(processes_);
  ASSERT_TRUE(store_.push({"other", "k"}, {.append = as_bytes("theirs")}, Clock::now() + 10s));
  const CallResult result = start(60'000ms).get();
  EXPECT_EQ(result.status, CallStatus::kOk) << result.error.message;
  EXPECT_EQ(as_text(result.output), "ok");
  EXPECT_EQ(store_.describe({"other", "k"}, Clock::now() + 10s)->version.number, 1u);
  EXPECT_EQ(processes_->stats().died, 0u);
}
TEST_F(TenantProcessTest, ACallThatItDoesNotEndInTimeEndsWithIt) {
  begin("NeverEndsACall", {.grace = 200ms});
  ASSERT_TRUE(processes_);
  const auto before = Clock::now();
  const CallResult result = start(1'000ms).get();  // the process is there before
  EXPECT_EQ(result.status, CallStatus::kProcessEnded);
  EXPECT_NE(result.error.message.find("it did not end a call in time"), std::string::npos) << result.error.message;
  EXPECT_GE(Clock::now() - before, 1'200ms);
}
TEST_F(TenantProcessTest, ACancelledCallThatItDoesNotEndEndsWithIt) {
  begin("NeverEndsACall", {.grace = 200ms});
  ASSERT_TRUE(processes_);
  auto result = start(3'600'000ms);
  while (processes_->stats().started == 0) std::this_thread::sleep_for(5ms);
  std::this_thread::sleep_for(300ms);
  processes_->cancel({"own", "function"}, last_);
  EXPECT_EQ(result.get().status, CallStatus::kProcessEnded);
}
TEST_F(TenantProcessTest, CallsThatWaitForAProcessEndInTimeOrWhenCancelled) {
  begin("IsNeverReady", {.start_max = 60'000ms});
  ASSERT_TRUE(processes_);
  EXPECT_EQ(start(100ms).get().status, CallStatus::kTimedOut);
  auto result = start();
  processes_->cancel({"own", "function"}, last_);
  EXPECT_EQ(result.get().status, CallStatus::kCancelled);
  auto left = start();
  processes_->stop();
  EXPECT_EQ(left.get().status, CallStatus::kCancelled);
  EXPECT_EQ(start().get().status, CallStatus::kDraining);
}
TEST_F(TenantProcessTest, ThereIsABoundOfCalls) {
  begin("NeverEndsACall", {.grace = 100ms, .calls_max = 3});
  ASSERT_TRUE(processes_);
  std::vector<std::future<CallResult>> calls;
  for (int i = 0; i < 3; ++i) calls.push_back(start());
  EXPECT_EQ(start().get().status, CallStatus::kTenantQueueFull);
}
TEST_F(TenantProcessTest, WhatItSaysIsCutAndCleaned) {
  begin("SaysMuch");
  ASSERT_TRUE(processes_);
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(start().get().status, CallStatus::kOk);
  processes_->stop();
  const std::string said = ::testing::internal::GetCapturedStdout();
  EXPECT_LT(said.size(), 200'000u);
  EXPECT_NE(said.find("xxxx"), std::string::npos);
  EXPECT_EQ(said.find("\x1b[2J"), std::string::npos);
  EXPECT_NE(said.find("says more than is shown"), std::string::npos);
}
TEST_F(TenantProcessTest, AProcessHasNothingOfTheHosts) {
  ::setenv("SPORE_TEST_SECRET", "secret", 1);
  const UniqueFd open(::open("/etc/passwd", O_RDONLY));  // not close-on-exec
  begin("LooksAround");
  ASSERT_TRUE(processes_);
  const CallResult result = start().get();
  EXPECT_EQ(as_text(result.output), "1 0 0 1 2 3 confined mount mount /proc");
}
TEST_F(TenantProcessTest, KilledOnesOfTheBrokersAreForgotten) {
  begin("NeverEndsACall", {.pause_min = 1ms, .pause_max = 1ms, .grace = 50ms});
  ASSERT_TRUE(processes_);
  for (int i = 0; i < 70; ++i) EXPECT_EQ(start(10ms).get().status == CallStatus::kOk, false);
  EXPECT_EQ(processes_->stats().calls, 0u);
}

}  // namespace
}  // namespace spore::processes

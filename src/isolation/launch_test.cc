#include "isolation/launch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

namespace spore::isolation {
namespace {

using namespace std::chrono_literals;

Broker::Clock::time_point soon() { return Broker::Clock::now() + 10s; }

class LaunchTest : public testing::Test {
 protected:
  std::unique_ptr<Broker> broker(size_t running_max = 4) {
    auto started =
        Broker::start(launch_operations({.path = "/bin/sh",
                                         .descriptors = 2,
                                         .running_max = running_max,
                                         .check = [](const std::vector<std::string>& arguments) -> Result<void> {
                                           if (arguments.size() == 2 && arguments[0] == "-c") return {};
                                           return fail(ErrorCode::kInvalidArgument, "not with these");
                                         }}));
    EXPECT_TRUE(started) << started.error().message;
    return std::move(*started);
  }
  Result<Launched> start(Broker& broker, const std::string& script) {
    output_ = std::move(*make_memfd("output"));
    const UniqueFd input = std::move(*make_memfd("input", as_bytes("given")));
    return launch(broker, {"-c", script}, std::array{output_.get(), input.get()}, soon());
  }
  // The status of its end, and what it has written.
  int wait_for(Broker& broker, const Launched& launched) {
    pollfd end{launched.pid_descriptor.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&end, 1, 10'000), 1);
    const auto status = end_of_launched(broker, launched.pid, soon());
    EXPECT_TRUE(status) << status.error().message;
    ::lseek(output_.get(), 0, SEEK_SET);
    said_ = as_text(*read_all(output_.get()));
    return status.value_or(-1);
  }

  UniqueFd output_;
  std::string said_;
};

TEST_F(LaunchTest, ItHasTheDescriptorsNoEnvironmentAndNoRights) {
  ::setenv("SPORE_TEST_SECRET", "told", 1);
  const auto helper = broker();
  const auto launched = start(*helper,
                              "ls /proc/self/fd | tr '\\n' ' '; cat /proc/self/fd/3; echo; cat /proc/$$/environ;"
                              "grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs|PPid)' /proc/$$/status >&2; exit 5");
  ::unsetenv("SPORE_TEST_SECRET");
  ASSERT_TRUE(launched) << launched.error().message;
  EXPECT_EQ(WEXITSTATUS(wait_for(*helper, *launched)), 5);
  EXPECT_TRUE(said_.starts_with("0 1 2 3 4 given\n")) << said_;            // 4: the folder that ls reads
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)  // their options
  EXPECT_EQ(said_.find("told"), std::string::npos);
#endif
  EXPECT_NE(said_.find("PPid:\t" + std::to_string(helper->pid())), std::string::npos) << said_;
  EXPECT_NE(said_.find("NoNewPrivs:\t1"), std::string::npos) << said_;
  for (const char* set : {"CapEff", "CapPrm", "CapBnd"})
    if (::geteuid() == 0 || set != std::string("CapBnd"))
      EXPECT_NE(said_.find(set + std::string(":\t0000000000000000")), std::string::npos) << said_;
  EXPECT_EQ(end_of_launched(*helper, launched->pid, soon()).error().code, ErrorCode::kInvalidArgument) << "forgotten";
}

TEST_F(LaunchTest, RefusesWhatItMayNotStart) {
  const auto helper = broker(1);
  const std::array given{STDERR_FILENO, STDERR_FILENO};
  EXPECT_EQ(launch(*helper, {"-s"}, given, soon()).error().message, "not with these");
  EXPECT_FALSE(launch(*helper, {"-c", "exit"}, std::span(given).first(1), soon()));
  EXPECT_FALSE(launch(*helper, std::vector<std::string>(65, "-c"), given, soon()));
  EXPECT_EQ(end_of_launched(*helper, 1, soon()).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(end_of_launched(*helper, helper->pid(), soon()).error().code, ErrorCode::kInvalidArgument);

  const auto sleeps = start(*helper, "sleep 60");
  ASSERT_TRUE(sleeps) << sleeps.error().message;
  EXPECT_EQ(end_of_launched(*helper, sleeps->pid, soon()).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(launch(*helper, {"-c", "exit"}, given, soon()).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(::syscall(SYS_pidfd_send_signal, sleeps->pid_descriptor.get(), SIGKILL, nullptr, 0), 0);
  EXPECT_EQ(WTERMSIG(wait_for(*helper, *sleeps)), SIGKILL);
  const auto next = start(*helper, "exit");
  ASSERT_TRUE(next) << next.error().message;
  EXPECT_EQ(wait_for(*helper, *next), 0);
}

TEST_F(LaunchTest, WhatItHasStartedEndsWithIt) {
  for (const bool killed : {false, true}) {
    auto helper = broker();
    const auto sleeps = start(*helper, "sleep 60");
    ASSERT_TRUE(sleeps) << sleeps.error().message;
    if (killed) ::kill(helper->pid(), SIGKILL);
    helper.reset();
    pollfd end{sleeps->pid_descriptor.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&end, 1, 10'000), 1);
  }
}

TEST_F(LaunchTest, WhatIsNotThereIsSaid) {
  auto helper = Broker::start(
      launch_operations({.path = "/nowhere/program", .check = [](const auto&) -> Result<void> { return {}; }}));
  ASSERT_TRUE(helper);
  const auto refused = launch(**helper, {}, std::array{STDERR_FILENO}, soon());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_NE(refused.error().message.find("/nowhere/program"), std::string::npos) << refused.error().message;
}

}  // namespace
}  // namespace spore::isolation

// Input, output, log and the end of a call.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "guest_runner.h"

namespace spore::host {
namespace {

Bytes bytes_of(std::string_view text) { return Bytes(text.begin(), text.end()); }

TEST(Calls, InputIsStandardInputAndStandardOutputIsOutput) {
  CallSetup setup;
  std::string large;
  for (int i = 0; i < 50'000; ++i) large += "line " + std::to_string(i) + "\n";
  std::string wanted = large;
  for (char& c : wanted) c = static_cast<char>(::toupper(c));
  setup.input = bytes_of(large);
  const GuestRun run = run_guest("upper", {}, std::move(setup));
  EXPECT_EQ(run.result.exit_code, 0) << run.summary();
  EXPECT_TRUE(as_text(run.state.output) == wanted) << run.state.output.size() << " bytes";
  EXPECT_EQ(as_text(run.state.log), std::to_string(large.size()) + " bytes\n");
}

TEST(Calls, EmptyInputIsTheEnd) {
  const GuestRun run = run_guest("upper");
  EXPECT_EQ(run.result.exit_code, 0) << run.summary();
  EXPECT_TRUE(run.state.output.empty());
}

TEST(Calls, ReactorReadsItsInputAndAppendsToItsOutput) {
  CallSetup setup;
  setup.input = bytes_of("abcdefghij");
  const GuestRun run = run_guest("reactor", {}, std::move(setup));
  EXPECT_EQ(run.result.kind, CallResult::Kind::kExited) << run.summary();
  EXPECT_EQ(run.result.exit_code, 41);  // _initialize has run, once
  EXPECT_EQ(as_text(run.state.output), "jihgfedcba");
}

TEST(Calls, BadPointersToSporesCallsTrap) {
  for (const char* which : {"0", "1", "2", "6"}) {
    const GuestRun run = run_guest("wild", {which});
    EXPECT_EQ(run.result.kind, CallResult::Kind::kTrapped) << which << run.summary();
    EXPECT_EQ(run.result.trap.kind, wasm::TrapKind::kMemoryOutOfBounds) << which;
    EXPECT_NE(run.result.trap.message.find("outside memory"), std::string::npos) << run.summary();
    EXPECT_FALSE(run.state.output_overflow);
  }
  EXPECT_EQ(run_guest("wild", {"8"}).result.exit_code, 6);
}

TEST(Calls, AbortOfAssemblyScriptTellsItsMessage) {
  const GuestRun run = run_guest("wild", {"3"});
  EXPECT_EQ(run.result.trap.kind, wasm::TrapKind::kHostCall) << run.summary();
  EXPECT_EQ(run.result.trap.message, "abort: bad \u20ac \U0001F600 \uFFFD! at a.ts:7:9");
  EXPECT_EQ(run_guest("wild", {"4"}).result.trap.message, "abort");
  EXPECT_EQ(run_guest("wild", {"5"}).result.trap.message,
            "abort: (a string outside memory) at (a string outside memory):1:1");
}

TEST(Calls, ConsoleOfAssemblyScriptIsOutput) {
  const GuestRun run = run_guest("wild", {"7"});
  EXPECT_EQ(run.result.exit_code, 5) << run.summary();
  EXPECT_EQ(as_text(run.state.output), "bad \u20ac \U0001F600 \uFFFD!\n");
}

TEST(Calls, OutputOverTheLimitEndsTheCall) {
  for (const char* where : {"1", "3"}) {
    CallSetup setup;
    setup.limits.output_bytes_max = 100'000;
    const GuestRun run = run_guest("flood", {where}, std::move(setup));
    EXPECT_EQ(run.result.kind, CallResult::Kind::kTrapped) << run.summary();
    EXPECT_EQ(run.result.trap.kind, wasm::TrapKind::kHostCall);
    EXPECT_NE(run.result.trap.message.find("larger than 100000 bytes"), std::string::npos) << run.summary();
    EXPECT_TRUE(run.state.output_overflow);
    EXPECT_LE(run.state.output.size(), 100'000u);
  }
}

TEST(Calls, LogOverTheLimitIsCutAndTheCallGoesOn) {
  CallSetup setup;
  setup.limits.log_bytes_max = 10'000;
  const GuestRun run = run_guest("flood", {"2"}, std::move(setup));
  EXPECT_EQ(run.result.kind, CallResult::Kind::kExited) << run.result.trap.message;
  EXPECT_EQ(run.result.exit_code, 0);
  EXPECT_TRUE(run.state.log_truncated);
  EXPECT_LT(run.state.log.size(), 10'100u);
  EXPECT_TRUE(as_text(run.state.log).ends_with("[log cut off after 10000 bytes]\n"));
}

TEST(Calls, DeadlineEndsAParkedGuest) {
  const GuestRun run =
      run_guest("wait", {"ever"}, {}, {.deadline = faaslet::Clock::now() + std::chrono::milliseconds(20)});
  EXPECT_EQ(run.result.kind, CallResult::Kind::kInterrupted) << run.summary();
  EXPECT_EQ(run.result.trap.kind, wasm::TrapKind::kInterrupted);
}

TEST(Calls, DeadlineEndsAGuestThatComputes) {
  const GuestRun run =
      run_guest("wait", {"spin"}, {}, {.deadline = faaslet::Clock::now() + std::chrono::milliseconds(20)});
  EXPECT_EQ(run.result.kind, CallResult::Kind::kInterrupted) << run.summary();
}

TEST(Calls, InterruptEndsAParkedGuest) {
  const GuestRun run = run_guest("wait", {"ever"}, {}, {}, [](auto interrupt) { interrupt(); });
  EXPECT_EQ(run.result.kind, CallResult::Kind::kInterrupted) << run.summary();
}

TEST(Calls, InterruptEndsAGuestThatComputes) {
  const GuestRun run = run_guest("wait", {"spin"}, {}, {}, [](auto interrupt) { interrupt(); });
  EXPECT_EQ(run.result.kind, CallResult::Kind::kInterrupted) << run.summary();
}

TEST(Calls, InterruptEndsAGuestThatCallsTheHostWithoutEnd) {
  CallSetup setup;
  setup.limits.output_bytes_max = UINT64_MAX;
  // Standard output goes to a device that takes everything.
  UniqueFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  setup.streams.out = null.get();
  const GuestRun run = run_guest("flood", {"1"}, std::move(setup), {}, [](auto interrupt) { interrupt(); });
  EXPECT_EQ(run.result.kind, CallResult::Kind::kInterrupted) << run.summary();
}

}  // namespace
}  // namespace spore::host

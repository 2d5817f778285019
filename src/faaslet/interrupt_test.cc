// Every class of program counter (seat.cc has the table) meets a fault and an interrupt. The stubs are single-stepped:
// a tracer lets the interrupt through at each of their instructions in turn.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <thread>

#include "faaslet/faaslet.h"
#include "faaslet/guarded_copy.h"
#include "support/runtime.h"

extern "C" {
extern const char spore_enter[], spore_sigreturn[];
}

namespace spore::faaslet {
namespace {

using testing::prepare;
using testing::restore;
using wasm::TrapKind;

constexpr const char* kCallsTheHost = R"((module
  (import "h" "f" (func $f (param i32) (result i32)))
  (func (export "run") (result i32) (i32.add (call $f (i32.const 1)) (call $f (i32.const 2))))
  (func $deep (export "deep") (param i32) (result i32)
    (i32.add (call $f (local.get 0)) (call $deep (i32.add (local.get 0) (i32.const 1)))))
  (func (export "trap") unreachable)))";

const HostFunction kAddTen = [](HostCall& call) {
  call.set_result<uint32_t>(0, call.argument<uint32_t>(0) + 10);
  return HostResult::kDone;
};

TEST(Faults, InAHostCallStubIsAStackOverflow) {
  // Each level calls the host, whose stub pushes onto the guest's stack, so some of these overflow there and some in
  // the guest's own call. All are the same to the guest.
  for (wasm::Tier tier : {wasm::Tier::kFast, wasm::Tier::kOptimised}) {
    compiler::Options options;
    options.tier = tier;
    const auto ready = prepare(kCallsTheHost, options);
    ASSERT_TRUE(ready.has_value());
    auto faaslet = restore(*ready, {&kAddTen, 1});
    const wasm::Cell zero;
    const Outcome outcome = testing::call(*faaslet, "deep", {&zero, 1});
    ASSERT_EQ(outcome.kind, Outcome::Kind::kTrapped);
    EXPECT_EQ(outcome.trap.kind, TrapKind::kStackOverflow);
    EXPECT_EQ(outcome.trap.stack.size(), kFramesMax);
  }
}

TEST(Faults, InAGuardedCopyMakesItReturnFalse) {
  testing::seat();
  char buffer[64] = {};
  void* hole = ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_FALSE(guarded_copy(buffer, hole, sizeof(buffer)));
  EXPECT_FALSE(guarded_copy(hole, buffer, sizeof(buffer)));
  EXPECT_FALSE(guarded_fill(hole, 1, 8));
  EXPECT_TRUE(guarded_copy(buffer, "abc", 4));
  EXPECT_STREQ(buffer, "abc");
  ::munmap(hole, 4096);
}

#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
TEST(FaultsDeathTest, OfOurOwnEndTheProcess) {
  testing::seat();
  EXPECT_EXIT(*reinterpret_cast<volatile int*>(8) = 1, ::testing::KilledBySignal(SIGSEGV), "");
}
#endif

TEST(Interrupts, InAHostFunctionAreSeenWhenItReturns) {
  const auto ready = prepare(kCallsTheHost);
  ASSERT_TRUE(ready.has_value());
  struct World {
    uint64_t generation = 0;
    int calls = 0;
  } world;
  const HostFunction interrupts_itself = [](HostCall& call) {
    auto& world = call.state<World>();
    ++world.calls;
    testing::seat().interrupt(world.generation);
    return HostResult::kDone;
  };
  auto faaslet = restore(*ready, {&interrupts_itself, 1}, &world);
  world.generation = testing::seat().begin_call();
  const Outcome outcome = faaslet->start(testing::seat(), testing::exported_function(faaslet->module(), "run"));
  testing::seat().end_call();
  ASSERT_EQ(outcome.kind, Outcome::Kind::kTrapped);
  EXPECT_EQ(outcome.trap.kind, TrapKind::kInterrupted);
  EXPECT_EQ(world.calls, 1);
  ASSERT_EQ(outcome.trap.stack.size(), 2u);
  EXPECT_EQ(outcome.trap.stack[1].function, "run");
}

TEST(Interrupts, BeforeTheGuestBeginsAreSeenAtEntry) {
  const auto ready = prepare(kCallsTheHost);
  ASSERT_TRUE(ready.has_value());
  auto faaslet = restore(*ready, {&kAddTen, 1});
  Seat& seat = testing::seat();
  seat.interrupt(seat.begin_call());
  const Outcome outcome = faaslet->start(seat, testing::exported_function(faaslet->module(), "run"));
  seat.end_call();
  ASSERT_EQ(outcome.kind, Outcome::Kind::kTrapped);
  EXPECT_EQ(outcome.trap.kind, TrapKind::kInterrupted);
}

TEST(Interrupts, OfAnEarlierCallDoNothing) {
  const auto ready = prepare(kCallsTheHost);
  ASSERT_TRUE(ready.has_value());
  auto faaslet = restore(*ready, {&kAddTen, 1});
  Seat& seat = testing::seat();
  const uint64_t earlier = seat.begin_call();
  seat.end_call();
  seat.begin_call();
  seat.interrupt(earlier);
  const Outcome outcome = faaslet->start(seat, testing::exported_function(faaslet->module(), "run"));
  seat.end_call();
  EXPECT_EQ(outcome.kind, Outcome::Kind::kReturned);
}

// ---- single steps ---------------------------------------------------------------------------------------------------

enum ChildExit { kReturnedWell = 0, kInterruptedWell = 1, kWrong = 2, kParkedWell = 3 };

enum class Ask { kInterrupt, kPreempt };

// In the child: one call with an interrupt waiting behind the signal mask, then another that must be untouched.
int run_traced(const testing::Ready& ready, const char* name, Ask ask) {
  auto faaslet = restore(ready, {&kAddTen, 1});
  Seat& seat = testing::seat();
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGURG);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  const uint64_t generation = seat.begin_call();
  if (ask == Ask::kInterrupt)
    seat.interrupt(generation);
  else
    seat.preempt(generation);
  const uint32_t function = testing::exported_function(faaslet->module(), name);
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  ::raise(SIGSTOP);
  Outcome outcome = faaslet->start(seat, function);
  const bool parked = outcome.kind == Outcome::Kind::kParked;
  if (parked) outcome = faaslet->resume(seat);
  seat.end_call();
  auto again = restore(ready, {&kAddTen, 1});
  const Outcome second = testing::call(*again, "run");
  if (second.kind != Outcome::Kind::kReturned || static_cast<uint32_t>(again->result(0).low) != 23) return kWrong;
  if (outcome.kind == Outcome::Kind::kTrapped)
    return outcome.trap.kind == TrapKind::kInterrupted || outcome.trap.kind == TrapKind::kUnreachable ? kInterruptedWell
                                                                                                      : kWrong;
  if (outcome.kind != Outcome::Kind::kReturned || static_cast<uint32_t>(faaslet->result(0).low) != 23) return kWrong;
  return parked ? kParkedWell : kReturnedWell;
}

// Lets the interrupt through at the `step`-th instruction of stubs or guest code. The child's exit code, or -1 when it
// ended before that many.
int interrupt_at_step(const testing::Ready& ready, const char* name, int step, Ask ask) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(run_traced(ready, name, ask));
  int status = 0;
  ::waitpid(child, &status, 0);  // the stop
  const auto stubs_begin = reinterpret_cast<uint64_t>(spore_enter);
  const auto stubs_end = reinterpret_cast<uint64_t>(spore_sigreturn);
  int seen = 0;
  bool reached = false;
  while (!reached) {
    if (::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) break;
    if (::waitpid(child, &status, 0) != child || WIFEXITED(status) || WIFSIGNALED(status)) break;
    user_regs_struct registers{};
    ::ptrace(PTRACE_GETREGS, child, nullptr, &registers);
    const bool stub = registers.rip >= stubs_begin && registers.rip < stubs_end;
    const bool guest = registers.rip >= wasm::kArenaBase && registers.rip < wasm::kArenaBase + wasm::kArenaBytes;
    if ((stub || guest) && seen++ == step) {
      uint64_t none = 0;
      ::ptrace(PTRACE_SETSIGMASK, child, sizeof(none), &none);
      reached = true;
    }
  }
  int signal = reached ? SIGURG : 0;
  while (!WIFEXITED(status) && !WIFSIGNALED(status)) {
    ::ptrace(PTRACE_CONT, child, nullptr, signal);
    if (::waitpid(child, &status, 0) != child) break;
    signal = WIFSTOPPED(status) && WSTOPSIG(status) != SIGTRAP ? WSTOPSIG(status) : 0;
  }
  if (WIFSIGNALED(status)) return 128 + WTERMSIG(status);
  return reached ? WEXITSTATUS(status) : -1;
}

class SingleStep : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Exports, SingleStep, ::testing::Values("run", "trap"));

// At each instruction of a call in turn: how often it ended in which way, all of them good ones.
std::map<int, int> at_each_step(const char* name, Ask ask, std::initializer_list<int> good) {
  std::map<int, int> counts;
  const auto ready = prepare(kCallsTheHost);
  EXPECT_TRUE(ready.has_value());
  testing::seat();
  for (int step = 0; ready && step < 5000; ++step) {
    const int result = interrupt_at_step(*ready, name, step, ask);
    if (result == -1) return counts;
    ++counts[result];
    EXPECT_TRUE(std::ranges::find(good, result) != good.end()) << "step " << step << ": exit " << result;
    if (::testing::Test::HasFailure()) return counts;
  }
  ADD_FAILURE() << "the call does not end";
  return counts;
}

TEST_P(SingleStep, AnInterruptAtAnyInstructionEndsThisCallOnly) {
  auto counts = at_each_step(GetParam(), Ask::kInterrupt, {kReturnedWell, kInterruptedWell});
  std::printf("%d interrupted, %d too late\n", counts[kInterruptedWell], counts[kReturnedWell]);
  EXPECT_GT(counts[kInterruptedWell], 30);
}

TEST(SingleStepPreemption, AtAnyInstructionChangesNothing) {
  auto counts = at_each_step("run", Ask::kPreempt, {kReturnedWell, kParkedWell});
  std::printf("%d parked, %d did not\n", counts[kParkedWell], counts[kReturnedWell]);
  EXPECT_GT(counts[kParkedWell], 30);
}

}  // namespace
}  // namespace spore::faaslet

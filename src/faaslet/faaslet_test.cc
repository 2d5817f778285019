#include "faaslet/faaslet.h"

#include <gtest/gtest.h>

#include <thread>

#include "support/runtime.h"

namespace spore::faaslet {
namespace {

using testing::call;
using testing::prepare;
using testing::restore;
using wasm::Cell;
using wasm::Tier;
using wasm::TrapKind;

class FaasletTest : public ::testing::TestWithParam<Tier> {
 protected:
  testing::Ready ready(std::string_view text) {
    compiler::Options options;
    options.tier = GetParam();
    auto result = prepare(text, options);
    EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
    return result ? *result : testing::Ready{};
  }
  Outcome trap_of(std::string_view body) {
    const auto module = ready(
        "(module (memory 1) (table 2 funcref) (type $t (func)) (func $other (param i32))"
        " (elem (i32.const 1) $other) (func $run (export \"run\") " +
        std::string(body) + "))");
    return call(*restore(module), "run");
  }
};
INSTANTIATE_TEST_SUITE_P(Tiers, FaasletTest, ::testing::Values(Tier::kFast, Tier::kOptimised),
                         [](const auto& info) { return std::string(wasm::to_string(info.param)); });

TEST_P(FaasletTest, ComputesFromArgumentsToResults) {
  const auto module = ready(R"((module
    (func (export "fac") (param i64) (result i64)
      (if (result i64) (i64.eqz (local.get 0)) (then (i64.const 1))
        (else (i64.mul (local.get 0) (call 0 (i64.sub (local.get 0) (i64.const 1)))))))
    (func (export "swap") (param i32 f64) (result f64 i32) (local.get 1) (local.get 0))))");
  auto faaslet = restore(module);
  const Cell five{5, 0};
  EXPECT_EQ(call(*faaslet, "fac", {&five, 1}).kind, Outcome::Kind::kReturned);
  EXPECT_EQ(faaslet->result(0).low, 120u);
  const Cell pair[] = {{7, 0}, {std::bit_cast<uint64_t>(2.5), 0}};
  EXPECT_EQ(call(*faaslet, "swap", pair).kind, Outcome::Kind::kReturned);
  EXPECT_EQ(std::bit_cast<double>(faaslet->result(0).low), 2.5);
  EXPECT_EQ(static_cast<uint32_t>(faaslet->result(1).low), 7u);
}

TEST_P(FaasletTest, LoopsCarryLocalsAndSum) {
  const auto module = ready(R"((module (func (export "sum") (param $n i32) (result i32) (local $i i32) (local $s i32)
    (block $done (loop $again
      (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
      (local.set $s (i32.add (local.get $s) (local.get $i)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $again)))
    (local.get $s))))");
  auto faaslet = restore(module);
  const Cell n{1000, 0};
  EXPECT_EQ(call(*faaslet, "sum", {&n, 1}).kind, Outcome::Kind::kReturned);
  EXPECT_EQ(static_cast<uint32_t>(faaslet->result(0).low), 499500u);
}

TEST_P(FaasletTest, EachTrapHasItsKind) {
  struct Case {
    const char* body;
    TrapKind kind;
  };
  const Case cases[] = {
      {"unreachable", TrapKind::kUnreachable},
      {"(drop (i32.load (i32.const 65536)))", TrapKind::kMemoryOutOfBounds},
      {"(drop (i32.load offset=0x7fffffff (i32.const -1)))", TrapKind::kMemoryOutOfBounds},
      {"(drop (i32.load offset=0xffffffff (i32.const -1)))", TrapKind::kMemoryOutOfBounds},
      {"(drop (i32.mul (i32.load (i32.const 65536)) (i32.const 0)))", TrapKind::kMemoryOutOfBounds},
      {"(i64.store (i32.const 65529) (i64.const 1))", TrapKind::kMemoryOutOfBounds},
      {"(memory.fill (i32.const 65535) (i32.const 1) (i32.const 2))", TrapKind::kMemoryOutOfBounds},
      {"(drop (i32.div_u (i32.const 1) (i32.const 0)))", TrapKind::kIntegerDivideByZero},
      {"(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", TrapKind::kIntegerOverflow},
      {"(drop (i32.trunc_f32_s (f32.const nan)))", TrapKind::kInvalidConversion},
      {"(drop (i32.trunc_f64_u (f64.const 4294967296)))", TrapKind::kIntegerOverflow},
      {"(call_indirect (type $t) (i32.const 2))", TrapKind::kIndirectCallOutOfBounds},
      {"(call_indirect (type $t) (i32.const 0))", TrapKind::kIndirectCallNull},
      {"(call_indirect (type $t) (i32.const 1))", TrapKind::kIndirectCallType},
      {"(drop (table.get 0 (i32.const 2)))", TrapKind::kTableOutOfBounds},
      {"(call $run)", TrapKind::kStackOverflow},
  };
  for (const Case& c : cases) {
    const Outcome outcome = trap_of(c.body);
    EXPECT_EQ(outcome.kind, Outcome::Kind::kTrapped) << c.body;
    EXPECT_EQ(outcome.trap.kind, c.kind) << c.body << ": " << outcome.trap.message;
    ASSERT_FALSE(outcome.trap.stack.empty()) << c.body;
    EXPECT_EQ(outcome.trap.stack[0].function, "run") << c.body;
  }
}

TEST_P(FaasletTest, TrapNamesTheGuestsStack) {
  const auto module = ready(R"((module
    (func $inner (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
    (func $middle (param i32) (result i32) (i32.add (call $inner (local.get 0)) (i32.const 1)))
    (func $outer (export "run") (result i32) (i32.add (call $middle (i32.const 0)) (i32.const 1)))))");
  const Outcome outcome = call(*restore(module), "run");
  ASSERT_EQ(outcome.kind, Outcome::Kind::kTrapped);
  ASSERT_EQ(outcome.trap.stack.size(), 3u);
  EXPECT_EQ(outcome.trap.stack[0].function, "inner");
  EXPECT_EQ(outcome.trap.stack[1].function, "middle");
  EXPECT_EQ(outcome.trap.stack[2].function, "outer");
}

TEST_P(FaasletTest, FaasletsDoNotSeeEachOthersWrites) {
  const auto module = ready(R"((module (memory 1) (global $g (mut i32) (i32.const 3)) (data (i32.const 8) "\05")
    (func (export "bump") (result i32)
      (global.set $g (i32.add (global.get $g) (i32.const 1)))
      (i32.store8 (i32.const 8) (i32.add (i32.load8_u (i32.const 8)) (i32.const 1)))
      (i32.add (global.get $g) (i32.load8_u (i32.const 8))))))");
  auto a = restore(module);
  auto b = restore(module);
  for (uint32_t expected : {10u, 12u, 14u}) {
    call(*a, "bump");
    EXPECT_EQ(static_cast<uint32_t>(a->result(0).low), expected);
  }
  call(*b, "bump");
  EXPECT_EQ(static_cast<uint32_t>(b->result(0).low), 10u);
}

TEST_P(FaasletTest, MemoryGrowsToItsMaximumAndNoFurther) {
  const auto module = ready(R"((module (memory 1 3)
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "touch") (param i32) (i32.store (local.get 0) (i32.const 1)))))");
  auto faaslet = restore(module);
  auto grow = [&](uint64_t delta) {
    const Cell argument{delta, 0};
    call(*faaslet, "grow", {&argument, 1});
    return static_cast<int32_t>(faaslet->result(0).low);
  };
  const Cell last{3 * 65536 - 4, 0};
  EXPECT_EQ(call(*faaslet, "touch", {&last, 1}).kind, Outcome::Kind::kTrapped);
  EXPECT_EQ(grow(2), 1);
  EXPECT_EQ(grow(1), -1);
  EXPECT_EQ(grow(0), 3);
  EXPECT_EQ(call(*faaslet, "touch", {&last, 1}).kind, Outcome::Kind::kReturned);
}

struct Script {
  int parks = 0;
  std::vector<uint32_t> seen;
};

TEST_P(FaasletTest, HostFunctionsReturnParkTrapAndExit) {
  const auto module = ready(R"((module (import "h" "step" (func $step (param i32) (result i32)))
    (func $run (export "run") (param i32) (result i32)
      (i32.add (i32.const 100) (i32.add (call $step (local.get 0)) (call $step (i32.const 1)))))))");
  const HostFunction step = [](HostCall& call) {
    auto& script = call.state<Script>();
    const auto argument = call.argument<uint32_t>(0);
    if (argument == 2 && script.parks++ < 2) return call.park({.deadline = Clock::time_point::max()});
    script.seen.push_back(argument);
    if (argument == 3) return call.trap(TrapKind::kHostCall, "no three");
    if (argument == 4) return call.exit(44);
    call.set_result<uint32_t>(0, argument * 10);
    return HostResult::kDone;
  };
  Script script;
  auto run = [&](uint32_t argument, std::unique_ptr<Faaslet>& faaslet) {
    faaslet = restore(module, {&step, 1}, &script);
    const Cell cell{argument, 0};
    return call(*faaslet, "run", {&cell, 1});
  };
  std::unique_ptr<Faaslet> faaslet;
  EXPECT_EQ(run(1, faaslet).kind, Outcome::Kind::kReturned);
  EXPECT_EQ(static_cast<uint32_t>(faaslet->result(0).low), 120u);

  EXPECT_EQ(run(2, faaslet).kind, Outcome::Kind::kParked);
  EXPECT_EQ(faaslet->resume(testing::seat()).kind, Outcome::Kind::kParked);
  EXPECT_EQ(faaslet->resume(testing::seat()).kind, Outcome::Kind::kReturned);
  EXPECT_EQ(static_cast<uint32_t>(faaslet->result(0).low), 130u);

  const Outcome trapped = run(3, faaslet);
  EXPECT_EQ(trapped.kind, Outcome::Kind::kTrapped);
  EXPECT_EQ(trapped.trap.message, "no three");
  ASSERT_EQ(trapped.trap.stack.size(), 2u);
  EXPECT_EQ(trapped.trap.stack[0].function, "h.step");
  EXPECT_EQ(trapped.trap.stack[1].function, "run");

  const Outcome exited = run(4, faaslet);
  EXPECT_EQ(exited.kind, Outcome::Kind::kExited);
  EXPECT_EQ(exited.exit_code, 44);
}

TEST_P(FaasletTest, InterruptStopsALoopAndNotTheNextCall) {
  const auto module = ready(R"((module (func $spin (export "spin") (loop (br 0))) (func (export "nop"))))");
  auto faaslet = restore(module);
  Seat& seat = testing::seat();
  const uint64_t generation = seat.begin_call();
  std::jthread stopper([&] { seat.interrupt(generation); });
  const Outcome outcome = faaslet->start(seat, testing::exported_function(faaslet->module(), "spin"));
  stopper.join();
  seat.end_call();
  EXPECT_EQ(outcome.kind, Outcome::Kind::kTrapped);
  EXPECT_EQ(outcome.trap.kind, TrapKind::kInterrupted);
  seat.interrupt(generation);
  EXPECT_EQ(call(*faaslet, "nop").kind, Outcome::Kind::kReturned);
}

TEST_P(FaasletTest, ACopyBetweenMemoriesGoesFromTheSecondToTheFirst) {
  const auto module =
      ready(R"((module (memory 1) (memory 3) (data (memory 0) (i32.const 8) "\2a") (func (export "run") (result i32)
    (memory.copy 1 0 (i32.const 131072) (i32.const 8) (i32.const 1)) (i32.load8_u 1 (i32.const 131072)))))");
  auto faaslet = restore(module);
  ASSERT_EQ(call(*faaslet, "run").kind, Outcome::Kind::kReturned);
  EXPECT_EQ(faaslet->result(0).low, 42u);
}

}  // namespace
}  // namespace spore::faaslet

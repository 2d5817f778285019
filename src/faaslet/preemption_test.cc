// Guests that give up their seat between any two instructions, and go on there as if nothing had been.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>

#include "base/check.h"
#include "faaslet/faaslet.h"
#include "support/runtime.h"

namespace spore::faaslet {
namespace {

using testing::prepare;
using testing::restore;

// Integers, floats, vectors, memory, calls and a deep stack, all live at once; the result depends on each of them.
constexpr const char* kMixes = R"((module
  (import "h" "f" (func $f (param i32) (result i32)))
  (memory 1)
  (func $leaf (param $x i64) (param $y f64) (result f64)
    (f64.add (local.get $y) (f64.convert_i64_s (i64.and (local.get $x) (i64.const 7)))))
  (func $down (param $n i32) (param $x i64) (result i64)
    (if (result i64) (i32.eqz (local.get $n)) (then (local.get $x))
      (else (i64.add (i64.mul (local.get $x) (i64.const 3))
        (call $down (i32.sub (local.get $n) (i32.const 1))
                    (i64.xor (local.get $x) (i64.extend_i32_u (local.get $n))))))))
  (func (export "run") (param $rounds i32) (result i64)
    (local $i i32) (local $x i64) (local $y f64) (local $v v128) (local $w v128)
    (local.set $x (i64.const 88172645463325252))
    (local.set $v (v128.const i32x4 1 2 3 4))
    (local.set $w (v128.const f32x4 1.5 2.5 3.5 4.5))
    (loop $next
      (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
      (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
      (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
      (local.set $y (call $leaf (local.get $x) (f64.mul (local.get $y) (f64.const 0.999))))
      (local.set $v (i32x4.add (i32x4.mul (local.get $v) (v128.const i32x4 3 5 7 9))
                               (i32x4.splat (i32.wrap_i64 (local.get $x)))))
      (local.set $w (f32x4.add (f32x4.mul (local.get $w) (f32x4.splat (f32.const 0.5)))
                               (f32x4.convert_i32x4_s (local.get $v))))
      (i64.store (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 0xfff8)) (local.get $x))
      (if (i32.eqz (i32.and (local.get $i) (i32.const 63)))
        (then (local.set $x (i64.add (local.get $x) (call $down (i32.const 100) (local.get $x))))))
      (if (i32.eqz (i32.and (local.get $i) (i32.const 255)))
        (then (local.set $x (i64.add (local.get $x) (i64.extend_i32_u (call $f (local.get $i)))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $rounds))))
    (i64.add (i64.add (local.get $x) (i64.trunc_sat_f64_s (f64.mul (local.get $y) (f64.const 1e6))))
      (i64.add (i64.add (i64x2.extract_lane 0 (local.get $v)) (i64x2.extract_lane 1 (local.get $v)))
               (i64.add (i64x2.extract_lane 0 (local.get $w)) (i64x2.extract_lane 1 (local.get $w))))))
  (func (export "forever") (loop $l (br $l)))))";

const HostFunction kCounts = [](HostCall& call) {
  ++call.state<std::atomic<int>>();
  call.set_result<uint32_t>(0, call.argument<uint32_t>(0) + 10);
  return HostResult::kDone;
};

class Preemption : public ::testing::TestWithParam<wasm::Tier> {
 protected:
  testing::Ready ready() {
    compiler::Options options;
    options.tier = GetParam();
    auto ready = prepare(kMixes, options);
    EXPECT_TRUE(ready.has_value());
    return std::move(*ready);
  }
  std::atomic<int> host_calls_{0};
};
INSTANTIATE_TEST_SUITE_P(Tiers, Preemption, ::testing::Values(wasm::Tier::kFast, wasm::Tier::kOptimised));

// Asks for the seat again and again, until it ends.
class Preempter {
 public:
  Preempter(Seat& seat, uint64_t generation)
      : thread_([this, &seat, generation] {
          while (!done_) {
            seat.preempt(generation);
            std::this_thread::sleep_for(std::chrono::microseconds(30));
          }
        }) {}
  ~Preempter() {
    done_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

TEST_P(Preemption, OftenChangesNothing) {
  const auto guest = ready();
  const wasm::Cell rounds{.low = 5'000'000, .high = 0};
  auto undisturbed = restore(guest, {&kCounts, 1}, &host_calls_);
  ASSERT_EQ(testing::call(*undisturbed, "run", {&rounds, 1}).kind, Outcome::Kind::kReturned);
  const int host_calls = host_calls_.exchange(0);

  auto faaslet = restore(guest, {&kCounts, 1}, &host_calls_);
  Seat& seat = testing::seat();
  const uint64_t generation = seat.begin_call();
  int parks = 0;
  Outcome outcome;
  {
    const Preempter preempter(seat, generation);
    outcome = faaslet->start(seat, testing::exported_function(faaslet->module(), "run"), {&rounds, 1});
    for (; outcome.kind == Outcome::Kind::kParked; ++parks) {
      ASSERT_TRUE(outcome.wait.preempted);
      ASSERT_FALSE(outcome.wait.deadline);
      ASSERT_FALSE(faaslet->stack().empty());
      outcome = faaslet->resume(seat);
    }
  }
  seat.end_call();
  ASSERT_EQ(outcome.kind, Outcome::Kind::kReturned);
  EXPECT_EQ(faaslet->result(0).low, undisturbed->result(0).low);
  EXPECT_EQ(host_calls_, host_calls) << "a host function must not run twice";
  EXPECT_EQ(std::memcmp(faaslet->memory(), undisturbed->memory(), faaslet->memory_bytes()), 0);
  EXPECT_GT(parks, 10);
}

TEST_P(Preemption, GoesOnOnAnotherThread) {
  const auto guest = ready();
  const wasm::Cell rounds{.low = 5'000'000, .high = 0};
  auto undisturbed = restore(guest, {&kCounts, 1}, &host_calls_);
  ASSERT_EQ(testing::call(*undisturbed, "run", {&rounds, 1}).kind, Outcome::Kind::kReturned);

  auto faaslet = restore(guest, {&kCounts, 1}, &host_calls_);
  std::optional<Outcome> outcome;
  int parks = 0;
  while (!outcome || outcome->kind == Outcome::Kind::kParked) {
    std::thread([&] {  // with a signal stack of its own, which is gone afterwards
      Seat seat;
      const uint64_t generation = seat.begin_call();
      const Preempter preempter(seat, generation);
      outcome = outcome ? faaslet->resume(seat)
                        : faaslet->start(seat, testing::exported_function(faaslet->module(), "run"), {&rounds, 1});
      seat.end_call();
    })
        .join();
    ++parks;
  }
  ASSERT_EQ(outcome->kind, Outcome::Kind::kReturned);
  EXPECT_EQ(faaslet->result(0).low, undisturbed->result(0).low);
  EXPECT_GT(parks, 3);
}

TEST_P(Preemption, OfAnEndlessGuestCanEndWithAReset) {
  const auto guest = ready();
  auto faaslet = restore(guest, {&kCounts, 1}, &host_calls_);
  Seat& seat = testing::seat();
  for (int i = 0; i < 20; ++i) {
    const uint64_t generation = seat.begin_call();
    {
      const Preempter preempter(seat, generation);
      const Outcome outcome = faaslet->start(seat, testing::exported_function(faaslet->module(), "forever"));
      ASSERT_EQ(outcome.kind, Outcome::Kind::kParked);
      EXPECT_FALSE(faaslet->can_move());
      const auto stack = faaslet->stack();
      ASSERT_FALSE(stack.empty());
    }
    seat.end_call();
    ASSERT_TRUE(faaslet->reset());
    EXPECT_TRUE(faaslet->can_move());
    const wasm::Cell rounds{.low = 100, .high = 0};
    ASSERT_EQ(testing::call(*faaslet, "run", {&rounds, 1}).kind, Outcome::Kind::kReturned);
    ASSERT_TRUE(faaslet->reset());
  }
}

TEST_P(Preemption, AnInterruptEndsAGuestThatIsParked) {
  const auto guest = ready();
  auto faaslet = restore(guest, {&kCounts, 1}, &host_calls_);
  Seat& seat = testing::seat();
  const uint64_t generation = seat.begin_call();
  {
    const Preempter preempter(seat, generation);
    ASSERT_EQ(faaslet->start(seat, testing::exported_function(faaslet->module(), "forever")).kind,
              Outcome::Kind::kParked);
  }
  const auto stack = faaslet->stack();
  seat.interrupt(generation);
  const Outcome outcome = faaslet->resume(seat);
  seat.end_call();
  ASSERT_EQ(outcome.kind, Outcome::Kind::kTrapped);
  EXPECT_EQ(outcome.trap.kind, wasm::TrapKind::kInterrupted);
  ASSERT_EQ(stack.size(), 1u);
  ASSERT_EQ(outcome.trap.stack.size(), 1u) << "it did not go on, so it is where it was";
  EXPECT_EQ(outcome.trap.stack[0].code_offset, stack[0].code_offset);
}

TEST_P(Preemption, OfAnEarlierCallDoesNothing) {
  const auto guest = ready();
  auto faaslet = restore(guest, {&kCounts, 1}, &host_calls_);
  Seat& seat = testing::seat();
  const uint64_t earlier = seat.begin_call();
  seat.preempt(earlier);
  seat.end_call();
  seat.begin_call();
  seat.preempt(earlier);
  const wasm::Cell rounds{.low = 1'000, .high = 0};
  EXPECT_EQ(faaslet->start(seat, testing::exported_function(faaslet->module(), "run"), {&rounds, 1}).kind,
            Outcome::Kind::kReturned);
  seat.end_call();
}

// Of signals that wait to be handled the kernel keeps one.
const HostFunction kSends = [](HostCall& call) {
  sigset_t one, before;
  sigemptyset(&one);
  sigaddset(&one, SIGURG);
  pthread_sigmask(SIG_BLOCK, &one, &before);
  call.state<std::function<void()>>()();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  call.set_result<uint32_t>(0, 0);
  return HostResult::kDone;
};
constexpr std::string_view kSendsAndGoesOn = R"((module
  (import "test" "f" (func $f (param i32) (result i32)))
  (func (export "run") (local $i i32)
    (drop (call $f (i32.const 0)))
    (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 1000))))))
  )";

Outcome after(Seat& seat, const std::function<void(uint64_t generation)>& send) {
  auto ready = prepare(std::string(kSendsAndGoesOn));
  CHECK(ready.has_value());
  std::function<void()> sends = [&send, generation = seat.begin_call()] { send(generation); };
  auto faaslet = restore(*ready, {&kSends, 1}, &sends);
  const Outcome outcome = faaslet->start(seat, testing::exported_function(faaslet->module(), "run"));
  seat.offer_core(false);
  seat.end_call();
  return outcome;
}

TEST(Signals, ThatMergeLoseNothing) {
  Seat& seat = testing::seat();
  const auto waits = [] {
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGURG) == 1;
  };
  const auto offer = [&] {
    seat.offer_core(true);
    while (!waits()) std::this_thread::sleep_for(std::chrono::microseconds(100));
  };
  Outcome outcome = after(seat, [&](uint64_t generation) { seat.preempt(generation), seat.interrupt(generation); });
  EXPECT_EQ(outcome.kind, Outcome::Kind::kTrapped);
  outcome = after(seat, [&](uint64_t generation) { seat.interrupt(generation), seat.preempt(generation); });
  EXPECT_EQ(outcome.kind, Outcome::Kind::kTrapped);
  outcome = after(seat, [&](uint64_t generation) { offer(), seat.preempt(generation); });
  EXPECT_EQ(outcome.kind, Outcome::Kind::kParked);
  EXPECT_TRUE(outcome.wait.preempted);
  outcome = after(seat, [&](uint64_t generation) { offer(), seat.interrupt(generation); });
  EXPECT_EQ(outcome.kind, Outcome::Kind::kTrapped);
  EXPECT_EQ(outcome.trap.kind, wasm::TrapKind::kInterrupted);
  // Taken away, as the kernel does with that of a timer that stops.
  outcome = after(seat, [&](uint64_t generation) {
    seat.interrupt(generation);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGURG);
    ASSERT_EQ(sigwaitinfo(&one, nullptr), SIGURG);
    seat.offer_core(false);
  });
  EXPECT_EQ(outcome.kind, Outcome::Kind::kTrapped);
}

}  // namespace
}  // namespace spore::faaslet

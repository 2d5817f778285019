#include "worker/worker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>

#include "worker/test_pool.h"

namespace spore::worker {
namespace {

using namespace testing;
using functions::LoadedFunction;

constexpr std::string_view kEcho = R"((module
  (import "spore" "input_size" (func $size (result i32)))
  (import "spore" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "spore_call") (local $n i32)
    (local.set $n (call $read (i32.const 0) (i32.const 0) (call $size)))
    (drop (call $write (i32.const 0) (local.get $n))))))";
constexpr std::string_view kEndless = R"((module (func $spin (export "spore_call") (loop $again (br $again)))))";

// Calls host functions without end.
constexpr std::string_view kEndlessHostCalls = R"((module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "spore_call") (loop $again (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0))) (br $again)))))";

// Waits until a call runs, which only shows in the statistics.
void wait_until_running(Worker& worker, size_t count) {
  while (worker.stats().running < count) std::this_thread::yield();
}

void wait_until_parked(Worker& worker, size_t count) {
  while (worker.stats().parked < count || worker.stats().running) std::this_thread::yield();
}

TEST(Worker, GivesInputAndTakesOutput) {
  Pool pool({.seats = 1}, 1);
  const CallResult result = call(pool, request(function(kEcho), "hello"));
  EXPECT_EQ(result.status, CallStatus::kOk);
  EXPECT_EQ(as_text(result.output), "hello");
  EXPECT_EQ(result.start, StartKind::kRestored);
  EXPECT_GE(result.duration, result.queued);
}

TEST(Worker, RunsACallOnTheThreadThatBringsIt) {
  Pool pool({.seats = 1}, 2);
  const auto echo = function(kEcho);
  std::promise<bool> ran_here;
  pool.post([&] {
    bool done = false;
    pool.worker.submit(request(echo), [&](CallResult) { done = true; });
    ran_here.set_value(done);
  });
  EXPECT_TRUE(ran_here.get_future().get());
}

TEST(Worker, TellsHowACallEnded) {
  Pool pool({.seats = 1}, 1);
  const CallResult exited = call(pool, request(function(R"((module (func (export "spore_call") (result i32)
    (i32.const 3))))")));
  EXPECT_EQ(exited.status, CallStatus::kExited);
  EXPECT_EQ(exited.exit_code, 3);
  const CallResult trapped = call(pool, request(function(R"((module (func $inner unreachable)
    (func (export "spore_call") (call $inner))))")));
  EXPECT_EQ(trapped.status, CallStatus::kTrapped);
  EXPECT_EQ(trapped.trap.kind, wasm::TrapKind::kUnreachable);
  ASSERT_GE(trapped.trap.stack.size(), 1u);
  const CallResult failed = call(pool, request(function(R"((module (func (export "other"))))")));
  EXPECT_EQ(failed.status, CallStatus::kFailed);
  EXPECT_NE(failed.error.message.find("spore_call"), std::string::npos) << failed.error.message;
}

TEST(Worker, MoreOutputThanAllowedEndsTheCall) {
  Pool pool({.seats = 1}, 1);
  functions::FunctionConfig config;
  config.output_max_bytes = 1000;
  const auto endless = function(R"((module
    (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "spore_call") (loop $again (drop (call $write (i32.const 0) (i32.const 100))) (br $again)))))",
                                config);
  EXPECT_EQ(call(pool, request(endless)).status, CallStatus::kOutputTooLarge);
}

TEST(Worker, NothingOfACallReachesTheNext) {
  Pool pool({.seats = 1}, 1);
  // Adds to a global, to memory, to grown memory and to a table, and gives what it found.
  const auto counter = function(R"((module
    (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
    (memory (export "memory") 1 100) (global $g (mut i32) (i32.const 1)) (table 2 10 funcref) (elem declare func $f)
    (func $f)
    (func (export "spore_call")
      (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
      (i32.store (i32.const 4) (global.get $g))
      (global.set $g (i32.add (global.get $g) (i32.const 1)))
      (i32.store (i32.const 8) (memory.grow (i32.const 20)))
      (i32.store (i32.const 12) (i32.load (i32.const 1000000)))
      (i32.store (i32.const 1000000) (i32.const 77))
      (i32.store (i32.const 16) (table.size 0))
      (i32.store (i32.const 20) (ref.is_null (table.get 0 (i32.const 0))))
      (table.set 0 (i32.const 0) (ref.func $f))
      (drop (table.grow 0 (ref.func $f) (i32.const 3)))
      (drop (call $write (i32.const 0) (i32.const 24))))))");
  const CallResult first = call(pool, request(counter));
  EXPECT_EQ(first.status, CallStatus::kOk) << first.trap.message;
  const uint32_t expected[] = {1, 1, 1, 0, 2, 1};
  ASSERT_EQ(first.output.size(), sizeof(expected));
  EXPECT_EQ(std::memcmp(first.output.data(), expected, sizeof(expected)), 0);
  for (int i = 0; i < 3; ++i) {
    const CallResult next = call(pool, request(counter));
    EXPECT_EQ(next.start, StartKind::kWarm);
    EXPECT_EQ(next.output, first.output);
  }
}

TEST(Worker, MemoryThatACallGrewIsGoneInTheNext) {
  Pool pool({.seats = 1}, 1);
  // Grows where there is input, then reads past the first page.
  const auto reader = function(R"((module
    (import "spore" "input_size" (func $size (result i32)))
    (memory (export "memory") 1)
    (func (export "spore_call")
      (if (call $size) (then (drop (memory.grow (i32.const 1)))))
      (drop (i32.load (i32.const 70000))))))");
  EXPECT_EQ(call(pool, request(reader, "grow")).status, CallStatus::kOk);
  const CallResult next = call(pool, request(reader));
  EXPECT_EQ(next.start, StartKind::kWarm);
  EXPECT_EQ(next.trap.kind, wasm::TrapKind::kMemoryOutOfBounds);
  EXPECT_EQ(call(pool, request(reader, "grow")).status, CallStatus::kOk);
}

TEST(Worker, AFaasletServesAfterATrapInTheSameThread) {
  Pool pool({.seats = 1}, 1);
  const auto moody = function(R"((module
    (import "spore" "input_size" (func $size (result i32)))
    (func $deep (call $deep))
    (func (export "spore_call") (if (call $size) (then (call $deep))))))");
  EXPECT_EQ(call(pool, request(moody, "x")).trap.kind, wasm::TrapKind::kStackOverflow);
  const CallResult next = call(pool, request(moody));
  EXPECT_EQ(next.status, CallStatus::kOk);
  EXPECT_EQ(next.start, StartKind::kWarm);
}

TEST(Worker, AnotherFunctionOnTheThreadStartsFromItsOwnImage) {
  Pool pool({.seats = 1}, 1);
  const auto echo = function(kEcho);
  const auto other = function(R"((module (memory 1) (data (i32.const 0) "data")
    (func (export "spore_call") (if (i32.ne (i32.load (i32.const 0)) (i32.const 0x61746164)) (then unreachable)))))");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(as_text(call(pool, request(echo, "abc")).output), "abc");
    const CallResult result = call(pool, request(other));
    EXPECT_EQ(result.status, CallStatus::kOk);
    EXPECT_EQ(result.start, i == 0 ? StartKind::kRestored : StartKind::kWarm);
  }
}

TEST(Worker, ForgettingDropsIdleFaasletsOfImagesThatNobodyHolds) {
  Pool pool({.seats = 1}, 1);
  auto echo = function(kEcho);
  std::weak_ptr<const faaslet::ProtoFaaslet> image = echo->proto;
  call(pool, request(echo));
  echo.reset();
  EXPECT_FALSE(image.expired());
  // The thread itself holds it until it has left the call, which is a moment after `done`.
  std::promise<void> left;
  pool.post([&] { left.set_value(); });
  left.get_future().wait();
  pool.worker.forget_unused();
  EXPECT_TRUE(image.expired());
}

TEST(Worker, AnEndlessCallTimesOutAndItsSeatIsFreeAgain) {
  Pool pool({.seats = 1}, 1);
  CallRequest endless = request(function(kEndless));
  endless.timeout = std::chrono::milliseconds(20);
  const CallResult result = call(pool, std::move(endless));
  EXPECT_EQ(result.status, CallStatus::kTimedOut);
  EXPECT_GE(result.duration, std::chrono::milliseconds(20));
  EXPECT_GE(result.trap.stack.size(), 1u);
  EXPECT_EQ(call(pool, request(function(kEcho), "next")).status, CallStatus::kOk);
}

TEST(Worker, ACallThatWaitsTooLongNeverStarts) {
  Pool pool({.seats = 1, .preempt = false}, 1);
  auto running = start(pool.worker, request(function(kEndless)));
  wait_until_running(pool.worker, 1);
  CallRequest late = request(function(kEcho));
  late.timeout = std::chrono::milliseconds(20);
  const CallResult result = call(pool, std::move(late));
  EXPECT_EQ(result.status, CallStatus::kTimedOut);
  EXPECT_EQ(result.start, StartKind::kNone);
  pool.worker.cancel_all();
  EXPECT_EQ(running.get().status, CallStatus::kCancelled);
}

TEST(Worker, WaitingCallsRunInOrderWhenASeatIsFree) {
  Pool pool({.seats = 1, .preempt = false}, 1);  // one thread, so that they also end in order
  CallRequest first = request(function(kEndless));
  const CallId first_id = first.id;
  auto running = start(pool.worker, std::move(first));
  wait_until_running(pool.worker, 1);
  const auto echo = function(kEcho);
  constexpr int kCalls = 50;
  Guarded<std::vector<std::string>> outputs;
  std::promise<void> all;
  for (int i = 0; i < kCalls; ++i) {
    pool.worker.submit(request(echo, std::to_string(i)), [&](CallResult result) {
      auto list = outputs.lock();
      list->emplace_back(as_text(result.output));
      if (list->size() == kCalls) all.set_value();
    });
  }
  EXPECT_EQ(pool.worker.stats().waiting, static_cast<size_t>(kCalls));
  EXPECT_TRUE(pool.worker.cancel(first_id));
  all.get_future().wait();
  for (int i = 0; i < kCalls; ++i) EXPECT_EQ((*outputs.lock())[static_cast<size_t>(i)], std::to_string(i));
  EXPECT_EQ(running.get().status, CallStatus::kCancelled);
}

TEST(Worker, TheQueueIsBoundedInAllAndForEachTenant) {
  Pool pool({.seats = 1, .queue_max = 3, .queue_per_tenant_max = 2, .queue_bytes_max = 100, .preempt = false}, 1);
  auto running = start(pool.worker, request(function(kEndless)));
  wait_until_running(pool.worker, 1);
  const auto echo = function(kEcho), other = function(kEcho, {}, "other");
  EXPECT_EQ(call(pool, request(other, std::string(101, 'x'))).status, CallStatus::kQueueFull);
  CallRequest with_variables = request(other, std::string(50, 'x'));
  with_variables.environment = {std::string(25, 'x'), std::string(26, 'x')};
  EXPECT_EQ(call(pool, std::move(with_variables)).status, CallStatus::kQueueFull);
  auto one = start(pool.worker, request(echo)), two = start(pool.worker, request(echo));
  EXPECT_EQ(call(pool, request(echo)).status, CallStatus::kTenantQueueFull);
  auto three = start(pool.worker, request(other));
  EXPECT_EQ(call(pool, request(other)).status, CallStatus::kQueueFull);
  pool.worker.cancel_all();
  EXPECT_EQ(one.get().status, CallStatus::kCancelled);
  EXPECT_EQ(three.get().status, CallStatus::kCancelled);
  // What was cancelled gives its room back.
  EXPECT_EQ(running.get().status, CallStatus::kCancelled);
  EXPECT_EQ(call(pool, request(echo)).status, CallStatus::kOk);
}

TEST(Worker, CancellingEndsOneCall) {
  Pool pool({.seats = 1, .preempt = false}, 1);
  CallRequest endless = request(function(kEndless)), waits = request(function(kEcho));
  const CallId endless_id = endless.id, waits_id = waits.id;
  auto running = start(pool.worker, std::move(endless));
  wait_until_running(pool.worker, 1);
  auto waiting = start(pool.worker, std::move(waits));
  EXPECT_FALSE(pool.worker.cancel(CallId::random()));
  EXPECT_TRUE(pool.worker.cancel(waits_id));
  EXPECT_EQ(waiting.get().status, CallStatus::kCancelled);
  EXPECT_FALSE(pool.worker.cancel(waits_id));
  EXPECT_TRUE(pool.worker.cancel(endless_id));
  EXPECT_EQ(running.get().status, CallStatus::kCancelled);
}

TEST(Worker, DrainingRefusesNewCallsAndLetsOthersEnd) {
  Pool pool({.seats = 1, .preempt = false}, 1);
  CallRequest endless = request(function(kEndless));
  endless.timeout = std::chrono::milliseconds(50);
  auto running = start(pool.worker, std::move(endless));
  auto waiting = start(pool.worker, request(function(kEcho)));
  pool.worker.drain();
  EXPECT_EQ(call(pool, request(function(kEcho))).status, CallStatus::kDraining);
  EXPECT_EQ(running.get().status, CallStatus::kTimedOut);
  EXPECT_EQ(waiting.get().status, CallStatus::kOk);
}

TEST(Worker, GuestsTellMicrosecondsUnlessTheirTenantIsTrustedWithMore) {
  Pool pool({.seats = 1, .precise_clocks = {"trusted"}}, 1);
  // Its output: the resolution and a hundred looks at each of the four clocks.
  constexpr std::string_view kLooks = R"((module
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_res_get" (func $resolution (param i32 i32) (result i32)))
    (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "spore_call") (local $i i32)
      (loop $again
        (drop (call $resolution (i32.and (local.get $i) (i32.const 3)) (i32.const 0)))
        (drop (call $time (i32.and (local.get $i) (i32.const 3)) (i64.const 1) (i32.const 8)))
        (drop (call $write (i32.const 0) (i32.const 16)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const 400)))))))";
  const auto off_the_step = [&](std::string tenant, uint64_t resolution) {
    const CallResult result = call(pool, request(function(kLooks, {}, std::move(tenant))));
    EXPECT_EQ(result.output.size(), 6400u);
    int off = 0;
    for (size_t at = 0; at + 16 <= result.output.size(); at += 16) {
      uint64_t values[2];
      std::memcpy(values, result.output.data() + at, sizeof(values));
      EXPECT_EQ(values[0], resolution);
      off += values[1] % 1'000 != 0;
    }
    return off;
  };
  EXPECT_EQ(off_the_step("tenant", 1'000), 0);
  EXPECT_GT(off_the_step("trusted", 1), 300);
}

TEST(Worker, ACallThatUsesUpItsCpuTimeEnds) {
  Pool pool({.seats = 1}, 1);
  functions::FunctionConfig config;
  config.cpu_ms = 50;
  for (const auto text : {kEndless, kEndlessHostCalls}) {
    const CallResult result = call(pool, request(function(text, config)));
    EXPECT_EQ(result.status, CallStatus::kOutOfCpuTime);
    EXPECT_EQ(result.trap.message, "the call used up its 50 ms of CPU time");
    EXPECT_GE(result.usage.cpu, std::chrono::milliseconds(50));
    EXPECT_LT(result.usage.cpu, std::chrono::milliseconds(100));
  }
  EXPECT_EQ(call(pool, request(function(kEcho, config), "after")).status, CallStatus::kOk);
}

// A share is held by all calls of a function together, in guest code and in host functions; others do not notice.
TEST(Worker, CallsOfAFunctionShareItsShareOfACore) {
  constexpr std::chrono::milliseconds kTime(1'000);
  functions::FunctionConfig config;
  config.cpu_percent = 20;
  for (const auto text : {kEndless, kEndlessHostCalls}) {
    Pool pool({.seats = 3}, 3);
    const auto limited = function(text, config);
    std::vector<std::future<CallResult>> busy;
    for (int i = 0; i < 2; ++i) {
      auto spins = request(limited);
      spins.timeout = kTime;
      busy.push_back(start(pool.worker, std::move(spins)));
    }
    EXPECT_EQ(call(pool, request(function(kEcho), "meanwhile")).status, CallStatus::kOk);
    std::chrono::microseconds used{0};
    for (auto& call : busy) {
      const CallResult result = call.get();
      EXPECT_EQ(result.status, CallStatus::kTimedOut);
      EXPECT_LT(result.duration, 2 * kTime);
      used += result.usage.cpu;
    }
    EXPECT_GT(used, kTime / 8);
    EXPECT_LT(used, kTime * 3 / 10);
  }
}

// Its function has used its share, so that it waits before it begins, without a seat.
TEST(Worker, ACallOfAFunctionThatOwesCpuTimeCanBeCancelled) {
  Pool pool({.seats = 1}, 1);
  functions::FunctionConfig config;
  config.cpu_percent = 1;
  config.cpu_ms = 100;  // ten seconds' worth
  const auto limited = function(kEndless, config);
  const auto owing = std::make_shared<LoadedFunction>(*function(kEcho));
  owing->cpu_quota = std::make_shared<faaslet::CpuQuota>(1);
  owing->cpu_quota->charge(std::chrono::milliseconds(100), Clock::now());
  auto waiting = start(pool.worker, request(owing));
  wait_until_parked(pool.worker, 1);
  EXPECT_EQ(call(pool, request(function(kEcho), "meanwhile")).status, CallStatus::kOk);
  pool.worker.cancel_all();
  EXPECT_EQ(waiting.get().status, CallStatus::kCancelled);
  auto sleeping = start(pool.worker, request(limited));
  wait_until_running(pool.worker, 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // by now it sleeps in the guest
  pool.worker.cancel_all();
  EXPECT_EQ(sleeping.get().status, CallStatus::kCancelled);
}

// Sleeps for `ms`, then writes "slept".
std::shared_ptr<const LoadedFunction> sleeper(uint64_t ms) {
  return function(R"((module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
    (memory (export "memory") 1) (data (i32.const 200) "slept")
    (func (export "spore_call")
      (i32.store (i32.const 16) (i32.const 1))
      (i64.store (i32.const 24) (i64.const )" +
                  std::to_string(ms * 1'000'000) + R"())
      (if (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 150)) (then unreachable))
      (drop (call $write (i32.const 200) (i32.const 5))))))");
}

TEST(Worker, CallsThatSleepHoldNoSeat) {
  Pool pool({.seats = 1}, 1);
  const auto sleeps_long = sleeper(3'600'000);
  std::vector<std::future<CallResult>> sleeping;
  for (int i = 0; i < 20; ++i) sleeping.push_back(start(pool.worker, request(sleeps_long)));
  wait_until_parked(pool.worker, 20);
  EXPECT_EQ(as_text(call(pool, request(function(kEcho), "meanwhile")).output), "meanwhile");
  pool.worker.cancel_all();
  for (auto& call : sleeping) EXPECT_EQ(call.get().status, CallStatus::kCancelled);
  EXPECT_TRUE(pool.worker.stats().idle());
}

TEST(Worker, CallsThatWaitGiveUpTheirSlotsAndGoOnInOthers) {
  WorkerOptions options{.seats = 2};
  options.pool.slots_max = 3;
  options.pool.spare_slots = 1;
  Pool pool(options, 3);
  const auto sleeps = sleeper(300);
  std::vector<std::future<CallResult>> sleeping;
  for (int i = 0; i < 30; ++i) sleeping.push_back(start(pool.worker, request(sleeps)));
  wait_until_parked(pool.worker, 30);
  EXPECT_LE(pool.worker.stats().pool.slots, 3u);
  EXPECT_GT(pool.worker.stats().parked_bytes, 0u);
  EXPECT_EQ(as_text(call(pool, request(function(kEcho), "meanwhile")).output), "meanwhile");
  for (auto& call : sleeping) {
    const CallResult result = call.get();
    EXPECT_EQ(result.status, CallStatus::kOk) << result.error.message << result.trap.message;
    EXPECT_EQ(as_text(result.output), "slept");
  }
  EXPECT_EQ(pool.worker.stats().parked_bytes, 0u);
}

TEST(Worker, CancelledCallsWithoutASlotGiveTheirMemoryBack) {
  WorkerOptions options{.seats = 1, .parked_bytes_max = 100 << 10};
  options.pool.slots_max = 2;
  options.pool.spare_slots = 1;
  Pool pool(options, 2);
  const auto sleeps = sleeper(3'600'000);
  std::vector<std::future<CallResult>> sleeping;
  for (int i = 0; i < 4; ++i) {
    sleeping.push_back(start(pool.worker, request(sleeps)));
    wait_until_parked(pool.worker, static_cast<size_t>(i + 1));
  }
  EXPECT_GT(pool.worker.stats().parked_bytes, 0u);
  pool.worker.cancel_all();
  for (auto& call : sleeping) EXPECT_EQ(call.get().status, CallStatus::kCancelled);
  EXPECT_EQ(pool.worker.stats().parked_bytes, 0u);
}

TEST(Worker, ACallThatSleptGoesOn) {
  Pool pool({.seats = 2}, 3);
  const auto sleeps = sleeper(5);
  std::vector<std::future<CallResult>> sleeping;
  for (int i = 0; i < 50; ++i) sleeping.push_back(start(pool.worker, request(sleeps)));
  for (auto& call : sleeping) {
    const CallResult result = call.get();
    EXPECT_EQ(result.status, CallStatus::kOk) << result.trap.message;
    EXPECT_EQ(as_text(result.output), "slept");
    EXPECT_GE(result.duration, std::chrono::milliseconds(5));
  }
}

TEST(Worker, ACallThatSleepsTooLongTimesOut) {
  Pool pool({.seats = 1}, 1);
  CallRequest sleeps = request(sleeper(3'600'000));
  sleeps.timeout = std::chrono::milliseconds(20);
  const CallResult result = call(pool, std::move(sleeps));
  EXPECT_EQ(result.status, CallStatus::kTimedOut);
  EXPECT_EQ(result.start, StartKind::kRestored);
}

TEST(Worker, MoreSleepersThanMayParkHoldTheirSeats) {
  Pool pool({.seats = 2, .parked_max = 1}, 3);
  const auto sleeps = sleeper(3'600'000);
  auto parked = start(pool.worker, request(sleeps));
  wait_until_parked(pool.worker, 1);
  auto seated = start(pool.worker, request(sleeps));
  wait_until_running(pool.worker, 1);
  EXPECT_EQ(as_text(call(pool, request(function(kEcho), "meanwhile")).output), "meanwhile");
  pool.worker.cancel_all();
  EXPECT_EQ(parked.get().status, CallStatus::kCancelled);
  EXPECT_EQ(seated.get().status, CallStatus::kCancelled);
}

// Reads up to 100 bytes of its standard input, and writes them.
constexpr std::string_view kReads = R"((module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\64\00\00\00")
  (func (export "spore_call")
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $write (i32.const 16) (i32.load (i32.const 8)))))))";

// A pipe as the input of a call.
struct PipedInput : StreamedCall {
  PipedInput() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    from = UniqueFd(ends[0]);
    to = UniqueFd(ends[1]);
  }
  int input() const override { return from.get(); }
  bool hold_input(uint64_t) override { return true; }
  int begin_output(Bytes&) override { return -1; }
  void send(std::string_view text) const {
    EXPECT_EQ(::write(to.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  UniqueFd from, to;
};

TEST(Worker, CallsThatWaitForADescriptorHoldNoSeat) {
  Pool pool({.seats = 1}, 2);
  const auto reads = function(kReads);
  std::vector<std::shared_ptr<PipedInput>> inputs;
  std::vector<std::future<CallResult>> waiting;
  for (int i = 0; i < 100; ++i) {
    CallRequest asked = request(reads);
    asked.streams = inputs.emplace_back(std::make_shared<PipedInput>());
    waiting.push_back(start(pool.worker, std::move(asked)));
  }
  wait_until_parked(pool.worker, 100);
  EXPECT_EQ(as_text(call(pool, request(function(kEcho), "meanwhile")).output), "meanwhile");
  for (int i = 99; i >= 0; --i) inputs[i]->send("input " + std::to_string(i));
  for (int i = 0; i < 100; ++i) {
    const CallResult result = waiting[i].get();
    EXPECT_EQ(result.status, CallStatus::kOk) << result.trap.message;
    EXPECT_EQ(as_text(result.output), "input " + std::to_string(i));
  }
  EXPECT_TRUE(pool.worker.stats().idle());
}

TEST(Worker, ACallThatWaitsForADescriptorCanTimeOutAndBeCancelled) {
  Pool pool({.seats = 1}, 2);
  const auto reads = function(kReads);
  CallRequest late = request(reads), given_up = request(reads), served = request(reads);
  const auto input = std::make_shared<PipedInput>();
  late.streams = std::make_shared<PipedInput>();
  given_up.streams = std::make_shared<PipedInput>();
  served.streams = input;
  late.timeout = std::chrono::milliseconds(50);
  const CallId id = given_up.id;
  auto late_end = start(pool.worker, std::move(late));
  auto given_up_end = start(pool.worker, std::move(given_up));
  auto served_end = start(pool.worker, std::move(served));
  EXPECT_EQ(late_end.get().status, CallStatus::kTimedOut);
  wait_until_parked(pool.worker, 2);
  EXPECT_TRUE(pool.worker.cancel(id));
  EXPECT_EQ(given_up_end.get().status, CallStatus::kCancelled);
  input->send("still here");
  EXPECT_EQ(as_text(served_end.get().output), "still here");
}

TEST(Worker, ConfiguredArgumentsAndEnvironmentComeFirst) {
  Pool pool({.seats = 1}, 1);
  functions::FunctionConfig config;
  config.args = {"one"};
  config.env = {{"A", "1"}};
  // Writes the number of arguments and of environment variables.
  const auto counts = function(R"((module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
    (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "spore_call")
      (drop (call $args (i32.const 0) (i32.const 100)))
      (drop (call $environ (i32.const 4) (i32.const 100)))
      (drop (call $write (i32.const 0) (i32.const 8))))))",
                               config);
  CallRequest asked = request(counts);
  asked.arguments = {"two", "three"};
  asked.environment = {"B=2", "C=3"};
  const CallResult result = call(pool, std::move(asked));
  const uint32_t expected[] = {4, 3};
  ASSERT_EQ(result.output.size(), sizeof(expected)) << result.trap.message;
  EXPECT_EQ(std::memcmp(result.output.data(), expected, sizeof(expected)), 0);
}

TEST(CallId, IsRandom) {
  const CallId a = CallId::random(), b = CallId::random();
  EXPECT_FALSE(a == b);
  EXPECT_EQ(a.text().size(), 32u);
}

}  // namespace
}  // namespace spore::worker

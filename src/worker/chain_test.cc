// Calls that make calls, all of one module: what a call does is said by the table entry that it enters at.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "worker/test_pool.h"

namespace spore::worker {
namespace {

using namespace testing;
using wasi = host::wasi::Errno;

// Entries of the table.
enum Entry : uint32_t { kEcho, kSpin, kTrap, kExit3, kRecurse, kTree, kSpinners, kBig };

// What the exported function is told: it begins `count` calls of `entry`, whose input is the three numbers behind, then
// does `then`, and writes for each the code of its end.
enum Then : uint32_t {
  kAwaitEach,
  kReturn,
  kAwaitAny,
  kMessage,
  kTwice,
  kOutputs,
  kClose,
  kCancel,
  kCompute,
  kOddities
};
struct Order {
  uint32_t then = kAwaitEach;
  uint32_t entry = kEcho;
  uint32_t count = 1;
  uint32_t timeout_ms = UINT32_MAX;
  uint32_t input[3] = {0, 0, 0};
};

constexpr std::string_view kModule = R"((module
  (import "spore" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
  (import "spore" "call_self" (func $call (param i32 i32 i32) (result i64)))
  (import "spore" "call_await" (func $await (param i32 i32) (result i64)))
  (import "spore" "call_await_any" (func $any (param i32 i32 i32) (result i64)))
  (import "spore" "call_output_size" (func $output_size (param i32) (result i64)))
  (import "spore" "call_output_read" (func $output_read (param i32 i64 i32 i32) (result i64)))
  (import "spore" "call_message" (func $message (param i32 i32 i32) (result i64)))
  (import "spore" "call_cancel" (func $cancel (param i32) (result i64)))
  (import "spore" "call_close" (func $close (param i32) (result i64)))
  (memory (export "memory") 17)
  (table (export "table") 10 funcref)
  (elem (i32.const 0) $echo $spin $trap $exit3 $recurse $tree $spinners $big $with_parameter)
  (func $put (param $value i64)
    (i64.store (i32.const 64) (local.get $value))
    (drop (call $write (i32.const 64) (i32.const 8))))
  (func $echo (drop (call $write (i32.const 0) (call $read (i32.const 0) (i32.const 0) (i32.const 65536)))))
  (func $spin (loop $again (br $again)))
  (func $trap unreachable)
  (func $exit3 (result i32) (drop (call $write (i32.const 0) (i32.const 5))) (i32.const 3))
  (func $with_parameter (param i32))
  ;; input[0] more below this one.
  (func $recurse
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 4)))
    (if (i32.load (i32.const 0)) (then
      (i32.store (i32.const 0) (i32.sub (i32.load (i32.const 0)) (i32.const 1)))
      (call $put (call $await (i32.wrap_i64 (call $call (i32.const 4) (i32.const 0) (i32.const 4))) (i32.const -1))))))
  ;; input[0] calls, each of which makes input[1], each of which makes input[2].
  (func $tree (local $n i32)
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 12)))
    (local.set $n (i32.load (i32.const 0)))
    (i32.store (i32.const 12) (i32.const 0))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $n)))
        (i32.store (i32.const 16) (i32.wrap_i64 (call $call (i32.const 5) (i32.const 4) (i32.const 12))))
        (i32.store (i32.add (i32.const 1000) (i32.mul (local.get $n) (i32.const 4))) (i32.load (i32.const 16)))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $next)))
    (local.set $n (i32.load (i32.const 0)))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $n)))
        (if (i64.ne (i64.const 0) (call $await
              (i32.load (i32.add (i32.const 1000) (i32.mul (local.get $n) (i32.const 4)))) (i32.const -1)))
          (then unreachable))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $next))))
  ;; The same, but the last ones never end, and nobody returns before them.
  (func $spinners (local $n i32)
    (if (i32.eqz (call $read (i32.const 0) (i32.const 0) (i32.const 12))) (then (call $spin)))
    (local.set $n (i32.load (i32.const 0)))
    (if (i32.eqz (local.get $n)) (then (call $spin)))
    (i32.store (i32.const 12) (i32.const 0))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $n)))
        (drop (call $call (i32.const 6) (i32.const 4) (i32.const 12)))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $next)))
    (drop (call $await (i32.const 1) (i32.const -1))))
  (func $big (local $n i32)
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 4)))
    (local.set $n (i32.load (i32.const 0)))
    (loop $next
      (drop (call $write (i32.const 65536) (i32.const 1048576)))
      (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
  (func $handle (param $i i32) (result i32) (i32.add (i32.const 65536) (i32.mul (local.get $i) (i32.const 4))))
  (func (export "spore_call") (local $i i32) (local $count i32) (local $then i32) (local $left i32) (local $code i64)
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 28)))
    (local.set $then (i32.load (i32.const 0)))
    (local.set $count (i32.load (i32.const 8)))
    (block $begun
      (loop $next
        (br_if $begun (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $code (call $call (i32.load (i32.const 4)) (i32.const 16) (i32.const 12)))
        (if (i64.lt_s (local.get $code) (i64.const 0))
          (then (call $put (local.get $code)) (local.set $count (local.get $i)) (br $begun)))
        (i32.store (call $handle (local.get $i)) (i32.wrap_i64 (local.get $code)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (if (i32.eq (local.get $then) (i32.const 1)) (then (return)))
    (if (i32.eq (local.get $then) (i32.const 2)) (then
      ;; Awaits any until none is left, and puts each position in the order of their ends.
      (local.set $left (local.get $count))
      (block $done
        (loop $next
          (br_if $done (i32.eqz (local.get $left)))
          (local.set $code (call $any (i32.const 65536) (local.get $left) (i32.load (i32.const 12))))
          (call $put (local.get $code))
          (br_if $done (i64.lt_s (local.get $code) (i64.const 0)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (i32.store (call $handle (i32.wrap_i64 (local.get $code))) (i32.load (call $handle (local.get $left))))
          (br $next)))
      (return)))
    (if (i32.eq (local.get $then) (i32.const 6)) (then
      (call $put (call $close (i32.const 1)))
      (call $put (call $await (i32.const 1) (i32.const -1)))
      (return)))
    (if (i32.eq (local.get $then) (i32.const 7)) (then (call $put (call $cancel (i32.const 1)))))
    (if (i32.eq (local.get $then) (i32.const 8)) (then (call $spin)))
    (if (i32.eq (local.get $then) (i32.const 9)) (then
      (call $put (call $await (i32.const 0) (i32.const -1)))
      (call $put (call $await (i32.const 2) (i32.const -1)))
      (call $put (call $cancel (i32.const 9)))
      (call $put (call $close (i32.const -1)))
      (call $put (call $output_size (i32.const 7)))
      (call $put (call $any (i32.const 0) (i32.const 0) (i32.const -1)))
      (call $put (call $call (i32.const 9) (i32.const 0) (i32.const 0)))
      (call $put (call $call (i32.const 10) (i32.const 0) (i32.const 0)))
      (call $put (call $call (i32.const 8) (i32.const 0) (i32.const 0)))
      (return)))
    (local.set $i (i32.const 0))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (call $put (call $await (i32.load (call $handle (local.get $i))) (i32.load (i32.const 12))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (if (i32.eq (local.get $then) (i32.const 3)) (then
      (drop (call $write (i32.const 0) (i32.wrap_i64 (call $message (i32.const 1) (i32.const 0) (i32.const 1000)))))))
    (if (i32.eq (local.get $then) (i32.const 4)) (then
      (call $put (call $await (i32.const 1) (i32.const -1)))
      (call $put (call $output_size (i32.const 1)))
      (call $put (call $output_read (i32.const 1) (i64.const 4) (i32.const 1000) (i32.const 100)))
      (drop (call $write (i32.const 1000) (i32.const 8)))
      (call $put (call $output_read (i32.const 1) (i64.const -1) (i32.const 1000) (i32.const 100)))))
    (if (i32.eq (local.get $then) (i32.const 5)) (then
      (call $put (call $output_size (i32.const 1))))))))";

std::shared_ptr<const functions::LoadedFunction> chain(functions::FunctionConfig config = {}) {
  static const auto ready = spore::testing::prepare(kModule);
  EXPECT_TRUE(ready.has_value()) << (ready ? "" : ready.error().message);
  functions::LoadedFunction out;
  out.id = {"tenant", "chain"};
  out.version.number = 1;
  out.version.config = std::move(config);
  out.proto = ready->proto;
  return std::make_shared<functions::LoadedFunction>(std::move(out));
}

CallRequest ask(const Order& order, functions::FunctionConfig config = {}) {
  CallRequest request;
  request.function = chain(std::move(config));
  request.input.resize(sizeof(order));
  std::memcpy(request.input.data(), &order, sizeof(order));
  return request;
}

std::vector<int64_t> codes(const CallResult& result, size_t count_max = SIZE_MAX) {
  std::vector<int64_t> out(std::min(result.output.size() / 8, count_max));
  std::memcpy(out.data(), result.output.data(), 8 * out.size());
  return out;
}

constexpr int64_t failed(wasi error) { return -static_cast<int64_t>(error); }

// After every test: no seat, no slot and nothing that waits is left in use.
void expect_nothing_left(Pool& pool) {
  const auto left = [&] {
    const WorkerStats stats = pool.worker.stats();
    // A slot that is being prepared ahead counts as neither for a moment.
    return !stats.idle() || stats.pool.slots != stats.pool.slots_spare + stats.pool.idle_resident;
  };
  for (int i = 0; i < 5'000 && left(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const WorkerStats stats = pool.worker.stats();
  EXPECT_EQ(stats.running, 0u);
  EXPECT_EQ(stats.waiting, 0u);
  EXPECT_EQ(stats.parked, 0u);
  EXPECT_EQ(stats.parked_bytes, 0u);
  EXPECT_EQ(stats.pool.slots, stats.pool.slots_spare + stats.pool.idle_resident);
}

TEST(Chain, ACallAwaitsAnother) {
  for (const unsigned threads : {1u, 2u}) {
    Pool pool({.seats = threads}, threads);
    const CallResult result = call(pool, ask({.then = kTwice, .input = {7, 8, 9}}));
    ASSERT_EQ(result.status, CallStatus::kOk) << result.trap.message << as_text(result.log);
    ASSERT_EQ(result.output.size(), 6 * 8u);
    EXPECT_EQ(codes(result, 4), (std::vector<int64_t>{0, 0, 12, 8}));  // awaited twice; its size; how much was read
    const uint32_t read[] = {8, 9};
    EXPECT_EQ(std::memcmp(result.output.data() + 32, read, 8), 0);
    EXPECT_EQ(codes(result)[5], 0) << "behind the end";
    expect_nothing_left(pool);
  }
}

TEST(Chain, EndsAsItsChildrenSay) {
  Pool pool({.seats = 2}, 3);
  const struct {
    Entry entry;
    int64_t code;
    std::string_view message;
  } cases[] = {{kExit3, 3, "it exited with code 3"}, {kTrap, failed(wasi::kChild), "unreachable"}};
  for (const auto& expected : cases) {
    const CallResult result = call(pool, ask({.then = kMessage, .entry = expected.entry}));
    ASSERT_EQ(result.status, CallStatus::kOk) << result.trap.message;
    EXPECT_EQ(codes(result)[0], expected.code);
    EXPECT_NE(as_text(result.output).find(expected.message), std::string_view::npos) << as_text(result.output);
  }
  // What one that exits with a code has written is there.
  const CallResult wrote = call(pool, ask({.then = kOutputs, .entry = kExit3}));
  EXPECT_EQ(codes(wrote), (std::vector<int64_t>{3, 5}));
  expect_nothing_left(pool);
}

TEST(Chain, AnAwaitCanBeGivenUp) {
  Pool pool({.seats = 4}, 5);  // one is left for the parent
  const CallResult result = call(pool, ask({.entry = kSpin, .timeout_ms = 20}));
  EXPECT_EQ(result.status, CallStatus::kOk);
  EXPECT_EQ(codes(result), std::vector<int64_t>{failed(wasi::kAgain)});
  const CallResult any = call(pool, ask({.then = kAwaitAny, .entry = kSpin, .count = 3, .timeout_ms = 20}));
  EXPECT_EQ(codes(any), std::vector<int64_t>{failed(wasi::kAgain)});
  expect_nothing_left(pool);
}

TEST(Chain, ChildrenEndWithTheirParent) {
  for (const unsigned seats : {1u, 2u, 4u}) {
    Pool pool({.seats = seats}, seats + 1);
    // Three levels of ten: the last never end.
    EXPECT_EQ(call(pool, ask({.then = kReturn, .entry = kSpinners, .count = 5, .input = {10, 10, 0}})).status,
              CallStatus::kOk);
    expect_nothing_left(pool);
  }
}

TEST(Chain, CancellingReachesTheWholeTree) {
  Pool pool({.seats = 2}, 3);
  for (int i = 0; i < 30; ++i) {
    CallRequest request = ask({.then = kAwaitEach, .entry = kSpinners, .count = 5, .input = {10, 9, 0}});  // 501 calls
    const CallId id = request.id;
    auto future = start(pool.worker, std::move(request));
    std::this_thread::sleep_for(std::chrono::microseconds(i * i * 60));  // at every stage
    while (!pool.worker.cancel(id)) std::this_thread::yield();
    ASSERT_EQ(future.wait_for(std::chrono::seconds(1)), std::future_status::ready);
    EXPECT_EQ(future.get().status, CallStatus::kCancelled);
    const auto until = Clock::now() + std::chrono::seconds(1);
    while (!pool.worker.stats().idle() && Clock::now() < until) std::this_thread::yield();
    ASSERT_TRUE(pool.worker.stats().idle()) << "something still runs a second later";
  }
  expect_nothing_left(pool);
}

TEST(Chain, ADeadlineReachesTheWholeTree) {
  Pool pool({.seats = 2}, 3);
  functions::FunctionConfig config;
  config.timeout_ms = 60;
  const CallResult result = call(pool, ask({.entry = kSpinners, .count = 3, .input = {3, 3, 0}}, config));
  EXPECT_EQ(result.status, CallStatus::kTimedOut);
  expect_nothing_left(pool);
}

TEST(Chain, AChildCanBeCancelledAndClosed) {
  Pool pool({.seats = 2}, 3);
  EXPECT_EQ(codes(call(pool, ask({.then = kCancel, .entry = kSpin}))),
            (std::vector<int64_t>{0, failed(wasi::kCanceled)}));
  EXPECT_EQ(codes(call(pool, ask({.then = kClose, .entry = kSpin}))), (std::vector<int64_t>{0, failed(wasi::kBadf)}));
  expect_nothing_left(pool);
}

TEST(Chain, ManyParentsOnTwoSeatsFinish) {
  Pool pool({.seats = 2}, 3);
  std::vector<std::future<CallResult>> parents;
  for (int i = 0; i < 100; ++i)
    parents.push_back(start(pool.worker, ask({.entry = kTree, .count = 10, .input = {2, 0, 0}})));
  for (auto& parent : parents) {
    const CallResult result = parent.get();
    EXPECT_EQ(result.status, CallStatus::kOk) << result.trap.message;
    EXPECT_EQ(codes(result), std::vector<int64_t>(10, 0));
  }
  expect_nothing_left(pool);
}

TEST(Chain, WithAShortQueueTheRestIsRefusedCleanly) {
  Pool pool({.seats = 2, .queue_max = 10}, 3);
  std::vector<std::future<CallResult>> parents;
  for (int i = 0; i < 100; ++i)
    parents.push_back(start(pool.worker, ask({.entry = kTree, .count = 10, .input = {2, 0, 0}})));
  size_t ran = 0, refused = 0;
  for (auto& parent : parents) {
    const CallResult result = parent.get();
    if (result.status == CallStatus::kQueueFull) {
      ++refused;
      continue;
    }
    ++ran;
    EXPECT_EQ(result.status, CallStatus::kOk) << result.trap.message;
    for (const int64_t code : codes(result))
      EXPECT_TRUE(code == 0 || code == failed(wasi::kAgain) || code == failed(wasi::kChild)) << code;
  }
  EXPECT_GT(ran, 0u);
  EXPECT_GT(refused, 0u);
  expect_nothing_left(pool);
}

TEST(Chain, AThousandDeep) {
  Pool pool({.seats = 2}, 3);
  const CallResult result = call(pool, ask({.entry = kRecurse, .input = {999, 0, 0}}));
  EXPECT_EQ(result.status, CallStatus::kOk) << result.trap.message;
  EXPECT_EQ(codes(result), std::vector<int64_t>{0});
  const auto graph = pool.worker.graph(result.id);
  ASSERT_TRUE(graph);
  EXPECT_EQ(graph->calls.size(), 1'001u);
  EXPECT_EQ(graph->calls.back().depth, 1'000u);
  expect_nothing_left(pool);
}

TEST(Chain, AThousandAtOnce) {
  Pool pool({.seats = 2}, 3);
  EXPECT_EQ(codes(call(pool, ask({.count = 1'000}))), std::vector<int64_t>(1'000, 0));
  std::vector<int64_t> ends = codes(call(pool, ask({.then = kAwaitAny, .count = 1'000})));
  EXPECT_EQ(ends.size(), 1'000u);
  EXPECT_TRUE(std::ranges::all_of(ends, [](int64_t position) { return position >= 0 && position < 1'000; }));
  expect_nothing_left(pool);
}

TEST(Chain, LimitsOfATree) {
  WorkerOptions options{.seats = 2};
  options.chain = {.depth_max = 5, .children_max = 20, .tree_calls_max = 60, .tree_bytes_max = 4 << 20};
  Pool pool(options, 3);
  // Each call on the way says what the one below it came to; the lowest could not call.
  EXPECT_EQ(call(pool, ask({.entry = kRecurse, .input = {100, 0, 0}})).status, CallStatus::kOk);
  const auto deep = codes(call(pool, ask({.count = 100'000})));
  ASSERT_EQ(deep.size(), 21u);
  EXPECT_EQ(deep[0], failed(wasi::kAgain)) << "a hundred thousand are refused";
  EXPECT_EQ(std::accumulate(deep.begin() + 1, deep.end(), int64_t{0}), 0);
  const CallResult wide = call(pool, ask({.then = kAwaitEach, .entry = kTree, .count = 10, .input = {10, 0, 0}}));
  EXPECT_NE(std::ranges::count(codes(wide), 0), 10);
  // Two outputs of 3 MiB are more than may be kept: of the one that ends last the parent is told so.
  auto big = codes(call(pool, ask({.entry = kBig, .count = 2, .input = {3, 0, 0}})));
  std::ranges::sort(big, std::greater());
  EXPECT_EQ(big, (std::vector<int64_t>{0, failed(wasi::kOverflow)}));
  expect_nothing_left(pool);
}

TEST(Chain, AnOutputMayBeAsLargeAsItsFunctionSays) {
  Pool pool({.seats = 2}, 3);
  EXPECT_EQ(codes(call(pool, ask({.entry = kBig, .count = 1, .input = {100, 0, 0}}))),
            std::vector<int64_t>{failed(wasi::kOverflow)});
  functions::FunctionConfig config;
  config.output_max_bytes = 100ull << 20;
  EXPECT_EQ(codes(call(pool, ask({.entry = kBig, .count = 1, .input = {100, 0, 0}}, config))), std::vector<int64_t>{0});
  expect_nothing_left(pool);
}

TEST(Chain, OddHandlesAndEntries) {
  Pool pool({.seats = 2}, 3);
  const auto bad = failed(wasi::kBadf), invalid = failed(wasi::kInval);
  EXPECT_EQ(codes(call(pool, ask({.then = kOddities}))),
            (std::vector<int64_t>{bad, bad, bad, bad, bad, invalid, invalid, invalid, invalid}));
  expect_nothing_left(pool);
}

TEST(Chain, AFunctionWithALimitRunsNoMoreAtOnce) {
  Pool pool({.seats = 4}, 5);
  functions::FunctionConfig config;
  config.concurrency_max = 2;
  const auto limited = chain(config);
  const auto spin = [&] {
    CallRequest request = ask({.then = kCompute, .count = 0}, config);
    request.timeout = std::chrono::milliseconds(100);
    return request;
  };
  std::vector<std::future<CallResult>> calls;
  for (int i = 0; i < 4; ++i) calls.push_back(start(pool.worker, spin()));
  while (pool.worker.stats().running < 2) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(pool.worker.stats().running, 2u);
  EXPECT_EQ(pool.worker.stats().waiting, 2u);
  // Another function is not held up.
  EXPECT_EQ(call(pool, ask({.input = {1, 2, 3}})).status, CallStatus::kOk);
  for (auto& future : calls) EXPECT_EQ(future.get().status, CallStatus::kTimedOut);
  // A call that awaits its own function's calls does not wait for itself.
  config.concurrency_max = 1;
  const CallResult nested = call(pool, ask({.entry = kTree, .count = 3, .input = {3, 2, 0}}, config));
  EXPECT_EQ(codes(nested), std::vector<int64_t>(3, 0));
  expect_nothing_left(pool);
}

TEST(Chain, ATenantWithALimitLeavesSeatsToOthers) {
  Pool pool({.seats = 3, .tenant_concurrency_max = 1}, 4);
  std::vector<std::future<CallResult>> calls;
  for (int i = 0; i < 3; ++i) {
    CallRequest request = ask({.then = kCompute, .count = 0});
    request.timeout = std::chrono::milliseconds(100);
    calls.push_back(start(pool.worker, std::move(request)));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(pool.worker.stats().running, 1u);
  CallRequest other = ask({});
  auto function = std::make_shared<functions::LoadedFunction>(*other.function);
  function->id.tenant = "other";
  other.function = function;
  EXPECT_EQ(call(pool, std::move(other)).status, CallStatus::kOk);
  for (auto& future : calls) EXPECT_EQ(future.get().status, CallStatus::kTimedOut);
  expect_nothing_left(pool);
}

TEST(Chain, TheGraphTellsWhoCalledWhom) {
  Pool pool({.seats = 2}, 3);
  const CallResult result = call(pool, ask({.entry = kTree, .count = 2, .input = {3, 0, 0}}));
  const auto graph = pool.worker.graph(result.id);
  ASSERT_TRUE(graph);
  EXPECT_EQ(graph->tenant, "tenant");
  ASSERT_EQ(graph->calls.size(), 9u);
  EXPECT_EQ(graph->calls[0].parent, SIZE_MAX);
  for (size_t i = 0; i < graph->calls.size(); ++i) {
    const CallRecord& record = graph->calls[i];
    EXPECT_EQ(record.function, "chain");
    EXPECT_EQ(record.status, CallStatus::kOk);
    ASSERT_TRUE(record.started && record.ended);
    EXPECT_LE(record.submitted, *record.started);
    EXPECT_LE(*record.started, *record.ended);
    if (i == 0) continue;
    ASSERT_LT(record.parent, i);
    EXPECT_EQ(record.depth, graph->calls[record.parent].depth + 1);
    EXPECT_LE(*record.ended, *graph->calls[record.parent].ended);
  }
  EXPECT_FALSE(pool.worker.graph(CallId::random()));
}

TEST(Chain, ParentsGiveUpTheirSlotsToTheirChildren) {
  WorkerOptions options{.seats = 2};
  options.pool.slots_max = 6;
  options.pool.spare_slots = 0;
  Pool pool(options, 3);
  const CallResult result = call(pool, ask({.entry = kRecurse, .input = {40, 0, 0}}));
  EXPECT_EQ(result.status, CallStatus::kOk) << result.trap.message;
  EXPECT_EQ(codes(result), std::vector<int64_t>{0}) << as_text(result.log);
}

}  // namespace
}  // namespace spore::worker

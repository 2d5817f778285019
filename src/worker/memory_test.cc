// What calls may take of memory: limits of the tenant and the host, who makes room, who waits, and that all is given
// back.
#include <gtest/gtest.h>

#include <random>

#include "worker/test_pool.h"

namespace spore::worker {
namespace {

using namespace testing;
using std::chrono::milliseconds;

constexpr uint64_t kMiB = 1 << 20;

// Exit code: how many MiB it could grow by, of 200.
constexpr std::string_view kGrow = R"((module (memory (export "memory") 1)
    (func (export "spore_call") (result i32) (local $mib i32) (local $at i32)
      (block $full (loop $more
        (br_if $full (i32.eq (local.get $mib) (i32.const 200)))
        (local.set $at (memory.grow (i32.const 16)))
        (br_if $full (i32.eq (local.get $at) (i32.const -1)))
        (memory.fill (i32.mul (local.get $at) (i32.const 65536)) (i32.const 1) (i32.const 1048576))
        (local.set $mib (i32.add (local.get $mib) (i32.const 1)))
        (br $more)))
      (local.get $mib))))";

// 16 MiB of memory; sleeps for as many ns as the input's first 8 bytes say.
constexpr std::string_view kSleep16 = R"((module
    (import "spore" "input_read" (func $read (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 256)
    (func (export "spore_call")
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 8)))
      (i32.store (i32.const 48) (i32.const 1))
      (i64.store (i32.const 56) (i64.load (i32.const 0)))
      (if (call $poll (i32.const 32) (i32.const 128) (i32.const 1) (i32.const 192)) (then unreachable)))))";

constexpr std::string_view kSpin = R"((module (memory (export "memory") 256)
    (func (export "spore_call") (loop $again (br $again)))))";

// Writes 1 MiB eight times to the output.
constexpr std::string_view kOutput = R"((module
    (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
    (memory (export "memory") 16) (data (i32.const 0) "x")
    (func (export "spore_call") (local $n i32)
      (loop $again
        (drop (call $write (i32.const 0) (i32.const 1048576)))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $n) (i32.const 8)))))))";

// Writes MiB after MiB to a file of its own. Exit code: how many were written, of 60.
constexpr std::string_view kFile = R"((module
    (import "wasi_snapshot_preview1" "path_open"
      (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 32) (data (i32.const 0) "f")
    (func (export "spore_call") (result i32) (local $mib i32)
      (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1) (i64.const 64)
        (i64.const 0) (i32.const 0) (i32.const 16)) (then unreachable))
      (i32.store (i32.const 32) (i32.const 4096))
      (i32.store (i32.const 36) (i32.const 1048576))
      (block $full (loop $more
        (br_if $full (i32.eq (local.get $mib) (i32.const 60)))
        (br_if $full (call $write (i32.load (i32.const 16)) (i32.const 32) (i32.const 1) (i32.const 40)))
        (br_if $full (i32.ne (i32.load (i32.const 40)) (i32.const 1048576)))
        (local.set $mib (i32.add (local.get $mib) (i32.const 1)))
        (br $more)))
      (local.get $mib))))";

WorkerOptions options(MemoryBooks& books, milliseconds memory_wait = milliseconds(20)) {
  WorkerOptions out{.seats = 4, .memory = &books, .memory_wait = memory_wait};
  out.pool.slots_max = 200;
  out.pool.spare_slots = 2;
  return out;
}

// Of the worker's making room.
struct World {
  explicit World(MemoryBooksOptions limits, milliseconds memory_wait = milliseconds(20), unsigned threads = 4)
      : books(std::move(limits)), pool(options(books, memory_wait), threads) {
    books.on_shortage([this](const MemoryAccount* of, uint64_t bytes) { pool.worker.make_room(of, bytes); });
  }
  MemoryBooks books;
  Pool pool;
};

CallRequest sleeping(std::shared_ptr<const functions::LoadedFunction> function, milliseconds time) {
  CallRequest out = request(std::move(function));
  const int64_t ns = std::chrono::nanoseconds(time).count();
  out.input.resize(sizeof(ns));
  std::memcpy(out.input.data(), &ns, sizeof(ns));
  return out;
}

void wait_until(const std::function<bool()>& done) {
  const auto deadline = Clock::now() + std::chrono::seconds(30);
  while (!done()) {
    ASSERT_LT(Clock::now(), deadline);
    std::this_thread::sleep_for(milliseconds(1));
  }
}

TEST(Memory, GrowFailsInsideTheGuestAtTheTenantsLimitAndNobodyElseNotices) {
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 100 * kMiB});
  const auto hostile = function(kGrow, {}, "hostile"), other = function(kGrow, {}, "other");
  std::vector<std::future<CallResult>> calls;
  for (int i = 0; i < 16; ++i) calls.push_back(start(world.pool.worker, request(hostile)));
  const CallResult good = call(world.pool, request(other));
  EXPECT_GT(good.exit_code, 90);
  for (auto& each : calls) {
    const CallResult ended = each.get();
    // Many may have begun at once, so that none had much; some may have found no room to begin in.
    if (ended.status == CallStatus::kTenantMemory) continue;
    EXPECT_LT(ended.exit_code, 100) << to_string(ended.status) << ended.trap.message << ended.error.message;
  }
  EXPECT_LE(world.books.account_of("hostile")->total().bytes(), 100 * kMiB);
}

TEST(Memory, ALimitOfATenantsOwnCounts) {
  World world(
      {.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 100 * kMiB, .tenant_bytes_max = {{"small", 20 * kMiB}}});
  const CallResult small = call(world.pool, request(function(kGrow, {}, "small")));
  EXPECT_GT(small.exit_code, 10);
  EXPECT_LT(small.exit_code, 20);
}

TEST(Memory, IdleFaasletsGoFirstThoseOfTheTenant) {
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 60 * kMiB});
  const auto sleep = function(kSleep16, {}, "tenant"), grow = function(kGrow, {}, "tenant");
  const auto others = function(kSleep16, {}, "other");
  EXPECT_EQ(call(world.pool, sleeping(sleep, milliseconds(0))).status, CallStatus::kOk);
  EXPECT_EQ(call(world.pool, sleeping(others, milliseconds(0))).status, CallStatus::kOk);
  EXPECT_GT(call(world.pool, request(grow)).exit_code, 44) << "what an idle one could touch is nobody's need";
  EXPECT_GE(world.pool.worker.stats().pool.shed, 1u) << "and in the end what it holds";
  // So does one that holds as much as it may. Who has asked for room in vain does so again after 10 ms only.
  std::this_thread::sleep_for(milliseconds(30));
  const auto again = function(kGrow, {}, "tenant");
  EXPECT_GT(call(world.pool, request(again)).exit_code, 44);
  EXPECT_EQ(call(world.pool, sleeping(others, milliseconds(0))).start, StartKind::kWarm) << "others' stay";
}

TEST(Memory, ACallWaitsForMemoryAndBeginsWhenThereIsSome) {
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 30 * kMiB}, milliseconds(20'000));
  auto spins = request(function(kSpin));
  spins.timeout = milliseconds(300);
  auto first = start(world.pool.worker, std::move(spins));
  wait_until([&] { return world.pool.worker.stats().running == 1; });
  auto second = start(world.pool.worker, sleeping(function(kSleep16), milliseconds(0)));
  wait_until([&] { return world.pool.worker.stats().held == 1; });
  EXPECT_EQ(world.pool.worker.stats().waiting, 1u);
  EXPECT_EQ(call(world.pool, request(function(kGrow, {}, "other"))).status, CallStatus::kExited);
  EXPECT_EQ(first.get().status, CallStatus::kTimedOut);
  const CallResult ended = second.get();
  EXPECT_EQ(ended.status, CallStatus::kOk) << ended.error.message;
  EXPECT_EQ(world.pool.worker.stats().held, 0u);
}

TEST(Memory, ACallThatFindsNoneInItsTimeIsRefusedAndToldWhy) {
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 30 * kMiB});
  auto first = start(world.pool.worker, request(function(kSpin)));
  wait_until([&] { return world.pool.worker.stats().running == 1; });
  const CallResult refused = call(world.pool, sleeping(function(kSleep16), milliseconds(0)));
  EXPECT_EQ(refused.status, CallStatus::kTenantMemory);
  EXPECT_EQ(refused.start, StartKind::kNone);
  EXPECT_NE(refused.error.message.find("of the 30 MiB that tenant tenant may have"), std::string::npos)
      << refused.error.message;
  EXPECT_GE(world.books.refused(MemoryAccount::Refusal::kTenant), 1u);
  world.pool.worker.cancel_all();
  first.get();
}

TEST(Memory, AHeldCallCanBeCancelledAndTimesOut) {
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 30 * kMiB}, milliseconds(20'000));
  auto first = start(world.pool.worker, request(function(kSpin)));
  wait_until([&] { return world.pool.worker.stats().running == 1; });
  auto held = sleeping(function(kSleep16), milliseconds(0));
  const CallId id = held.id;
  auto cancelled = start(world.pool.worker, std::move(held));
  wait_until([&] { return world.pool.worker.stats().held == 1; });
  EXPECT_TRUE(world.pool.worker.cancel(id));
  EXPECT_EQ(cancelled.get().status, CallStatus::kCancelled);
  auto brief = sleeping(function(kSleep16), milliseconds(0));
  brief.timeout = milliseconds(50);
  EXPECT_EQ(call(world.pool, std::move(brief)).status, CallStatus::kTenantMemory);
  world.pool.worker.cancel_all();
  first.get();
}

TEST(Memory, CallsThatWaitCountForWhatTheyHold) {
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 60 * kMiB}, milliseconds(20'000));
  const auto sleep = function(kSleep16);
  std::vector<std::future<CallResult>> calls;
  for (int i = 0; i < 50; ++i) calls.push_back(start(world.pool.worker, sleeping(sleep, milliseconds(4'000))));
  wait_until([&] { return world.pool.worker.stats().parked == 50; });
  EXPECT_LE(world.books.total().bytes(), 60 * kMiB);
  for (auto& each : calls) {
    const CallResult ended = each.get();
    EXPECT_EQ(ended.status, CallStatus::kOk) << ended.error.message;
  }
}

TEST(Memory, ACallWhoseMemoryIsGoneWhenItGoesOnEndsAndSaysWhy) {
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 60 * kMiB});
  const auto spin = function(kSpin), spin_too = function(kSpin);
  auto sleeps = start(world.pool.worker, sleeping(function(kSleep16), milliseconds(400)));
  wait_until([&] { return world.pool.worker.stats().parked == 1; });
  // Takes what that one does not hold while it sleeps, and goes on for longer.
  auto takes = start(world.pool.worker, request(spin));
  wait_until([&] { return world.pool.worker.stats().running == 1; });
  auto takes_too = start(world.pool.worker, request(spin_too));
  wait_until([&] { return world.pool.worker.stats().running == 2; });
  const CallResult ended = sleeps.get();
  EXPECT_EQ(ended.status, CallStatus::kFailed);
  EXPECT_EQ(ended.error.code, ErrorCode::kResourceExhausted);
  EXPECT_NE(ended.error.message.find("60 MiB"), std::string::npos) << ended.error.message;
  world.pool.worker.cancel_all();
  takes.get(), takes_too.get();
}

TEST(Memory, AHostThatIsShortOfItHoldsCallsUntilThatIsOver) {
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 100 * kMiB}, milliseconds(20'000));
  const auto sleep = function(kSleep16);
  EXPECT_EQ(call(world.pool, sleeping(sleep, milliseconds(0))).status, CallStatus::kOk);
  world.pool.worker.set_short_of_memory(true);
  std::vector<std::future<CallResult>> calls;
  for (int i = 0; i < 20; ++i) calls.push_back(start(world.pool.worker, sleeping(sleep, milliseconds(0))));
  wait_until([&] { return world.pool.worker.stats().held == 20; });
  world.pool.worker.set_short_of_memory(false);
  for (auto& each : calls) EXPECT_EQ(each.get().status, CallStatus::kOk);
}

TEST(Memory, AHostThatStaysShortRefuses) {
  World world({});
  world.pool.worker.set_short_of_memory(true);
  const CallResult refused = call(world.pool, sleeping(function(kSleep16), milliseconds(0)));
  EXPECT_EQ(refused.status, CallStatus::kHostMemory);
  EXPECT_EQ(refused.error.message, "this machine is short of memory");
}

TEST(Memory, OutputsAndFilesCount) {
  {
    World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 14 * kMiB});
    const CallResult ended = call(world.pool, request(function(kOutput)));
    EXPECT_EQ(ended.status, CallStatus::kTrapped);
    EXPECT_NE(ended.trap.message.find("no room for the output"), std::string::npos) << ended.trap.message;
  }
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 40 * kMiB});
  EXPECT_EQ(call(world.pool, request(function(kOutput))).output.size(), 8 * kMiB);
  const CallResult files = call(world.pool, request(function(kFile)));
  if (files.status == CallStatus::kTrapped) GTEST_SKIP() << "calls can have no files here";
  EXPECT_GT(files.exit_code, 25);
  EXPECT_LT(files.exit_code, 40);
}

TEST(Memory, AnInputThatHasNoRoomIsRefused) {
  World world({.bytes_max = 400 * kMiB, .bytes_per_tenant_max = 30 * kMiB});
  const CallResult refused = call(world.pool, request(function(kSleep16), std::string(31 * kMiB, 'x')));
  EXPECT_EQ(refused.status, CallStatus::kTenantMemory);
}

// Whatever calls do and however they end, nothing stays charged: a charge that nobody gives back shows here.
TEST(Memory, AllOfItIsGivenBack) {
  MemoryBooks books({.bytes_max = 150 * kMiB, .bytes_per_tenant_max = 70 * kMiB});
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  size_t outcomes[static_cast<size_t>(kCallStatusLast) + 1] = {};
  {
    WorkerOptions settings = options(books, milliseconds(50));
    settings.pool.slots_max = 12;
    Pool pool(settings, 4);
    books.on_shortage([&](const MemoryAccount* of, uint64_t bytes) { pool.worker.make_room(of, bytes); });
    std::vector<std::shared_ptr<const functions::LoadedFunction>> functions;
    for (const char* tenant : {"a", "b", "c"})
      for (const auto text : {kGrow, kSleep16, kSpin, kOutput, kFile}) functions.push_back(function(text, {}, tenant));
    std::deque<std::future<CallResult>> calls;
    for (int i = 0; i < 600; ++i) {
      auto next = sleeping(functions[random() % functions.size()], milliseconds(random() % 40));
      next.timeout = milliseconds(50 + random() % 100);
      if (random() % 4 == 0) next.input.resize(random() % kMiB);
      const CallId id = next.id;
      calls.push_back(start(pool.worker, std::move(next)));
      if (random() % 10 == 0) pool.worker.cancel(id);
      EXPECT_LE(books.total().bytes(), 150 * kMiB);
      while (calls.size() > 24) {
        ++outcomes[static_cast<size_t>(calls.front().get().status)];
        calls.pop_front();
      }
    }
    for (auto& each : calls) ++outcomes[static_cast<size_t>(each.get().status)];
    for (const char* tenant : {"a", "b", "c"}) EXPECT_LE(books.account_of(tenant)->total().bytes(), 70 * kMiB);
  }
  for (const CallStatus status : {CallStatus::kOk, CallStatus::kExited, CallStatus::kTimedOut, CallStatus::kCancelled})
    EXPECT_GT(outcomes[static_cast<size_t>(status)], 0u) << to_string(status);
  EXPECT_EQ(books.total().bytes(), 0u);
  for (const uint64_t bytes : books.total().by_kind()) EXPECT_EQ(bytes, 0u);
}

}  // namespace
}  // namespace spore::worker

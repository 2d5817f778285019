#include "worker/pool.h"

#include <gtest/gtest.h>

#include "host/run.h"
#include "support/runtime.h"

namespace spore::worker {
namespace {

using functions::LoadedFunction;
using Instance = FaasletPool::Instance;

// Counts its calls in memory: always the first, unless something of an earlier one is left. Grows by 10 pages.
constexpr std::string_view kCounter = R"((module (memory (export "memory") 1 100)
    (func (export "spore_call") (result i32)
      (i32.store (i32.const 100) (i32.add (i32.load (i32.const 100)) (i32.const 1)))
      (drop (memory.grow (i32.const 10)))
      (i32.store (i32.const 200000) (i32.const 1))
      (i32.load (i32.const 100)))))";

std::shared_ptr<const LoadedFunction> function(std::string tenant = "tenant", std::string_view text = kCounter) {
  auto ready = testing::prepare(text);
  EXPECT_TRUE(ready.has_value()) << (ready ? "" : ready.error().message);
  LoadedFunction out;
  out.id = {std::move(tenant), "function"};
  out.proto = ready->proto;
  return std::make_shared<LoadedFunction>(std::move(out));
}

// Runs a call; its exit code.
int run(Instance& instance) {
  testing::seat().begin_call();
  const auto result = host::run(instance.faaslet(), instance.state(), testing::seat(), instance.entry());
  testing::seat().end_call();
  EXPECT_EQ(result.kind, host::CallResult::Kind::kExited) << result.trap.message;
  return result.exit_code;
}

std::unique_ptr<Instance> lease(FaasletPool& pool, const LoadedFunction& function, uint64_t seat = 1) {
  auto idle = pool.take(function, seat);
  if (idle) return idle;
  auto made = pool.restore(function);
  EXPECT_TRUE(made.has_value()) << (made ? "" : made.error().message);
  return made ? std::move(*made) : nullptr;
}

// Runs `count` Faaslets of the function and leaves them idle.
void make_idle(FaasletPool& pool, const LoadedFunction& function, size_t count) {
  std::vector<std::unique_ptr<Instance>> instances;
  for (size_t i = 0; i < count; ++i) instances.push_back(lease(pool, function));
  for (auto& instance : instances) {
    EXPECT_EQ(run(*instance), 1);
    pool.give(std::move(instance), 1);
  }
}

PoolOptions options(PoolOptions out = {}) {
  if (out.slots_max == 0) out.slots_max = 100;
  out.spare_slots = 2;
  return out;
}

TEST(FaasletPool, AnIdleFaasletServesTheNextCallAsIfItWereTheFirst) {
  FaasletPool pool(options());
  const auto counter = function();
  for (int call = 0; call < 10; ++call) {
    auto instance = lease(pool, *counter);
    EXPECT_EQ(run(*instance), 1);
    pool.give(std::move(instance), 1);
  }
  EXPECT_EQ(pool.stats().restored, 1u);
  EXPECT_EQ(pool.stats().reused, 9u);
  EXPECT_EQ(pool.stats().idle_resident, 1u);
}

TEST(FaasletPool, AnotherImageNeverGetsIt) {
  FaasletPool pool(options());
  const auto one = function(), same_code = function(), other = function("other");
  make_idle(pool, *one, 1);
  EXPECT_EQ(pool.take(*same_code, 1), nullptr);
  EXPECT_EQ(pool.take(*other, 1), nullptr);
  EXPECT_NE(pool.take(*one, 1), nullptr);
}

TEST(FaasletPool, PrefersOneOfTheSameSeat) {
  FaasletPool pool(options());
  const auto counter = function();
  std::vector<std::unique_ptr<Instance>> instances;
  for (int i = 0; i < 3; ++i) instances.push_back(lease(pool, *counter));
  std::vector<Instance*> of_seat;
  for (uint64_t seat = 0; auto& instance : instances) {
    of_seat.push_back(instance.get());
    pool.give(std::move(instance), ++seat);
  }
  EXPECT_EQ(pool.take(*counter, 2).get(), of_seat[1]);
}

TEST(FaasletPool, ParksTheLongestIdleWhereSlotsRunOutAndItStillServes) {
  FaasletPool pool(options({.slots_max = 3}));
  const auto counter = function();
  std::vector<std::shared_ptr<const LoadedFunction>> others;
  for (int i = 0; i < 5; ++i) {
    others.push_back(function("tenant " + std::to_string(i)));
    make_idle(pool, *others.back(), 1);
  }
  const PoolStats stats = pool.stats();
  EXPECT_EQ(stats.idle_resident + stats.slots_spare, 3u);
  EXPECT_EQ(stats.idle_resident + stats.idle_parked, 5u);
  EXPECT_LE(stats.slots, 3u);
  EXPECT_GE(stats.parked, 2u);
  for (const auto& other : others) {
    auto instance = pool.take(*other, 1);
    ASSERT_NE(instance, nullptr);
    EXPECT_EQ(run(*instance), 1);
    pool.give(std::move(instance), 1);
  }
  EXPECT_LE(pool.stats().slots, 3u);
}

TEST(FaasletPool, SaysWhenCallsHoldAllSlots) {
  FaasletPool pool(options({.slots_max = 2}));
  const auto counter = function();
  auto one = lease(pool, *counter), two = lease(pool, *counter);
  const auto third = pool.restore(*counter);
  ASSERT_FALSE(third.has_value());
  EXPECT_EQ(third.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(third.error().message.find("2 slots"), std::string::npos) << third.error().message;
  one.reset();
  EXPECT_TRUE(pool.restore(*counter).has_value());
}

TEST(FaasletPool, AsksForASlotBeforeItGivesUp) {
  std::optional<faaslet::Slot> offered = *faaslet::Slot::reserve();
  int asked = 0;
  FaasletPool pool(options({.slots_max = 1}), [&] {
    ++asked;
    return std::exchange(offered, std::nullopt);
  });
  const auto counter = function();
  auto one = lease(pool, *counter);
  auto two = lease(pool, *counter);
  EXPECT_EQ(run(*two), 1);
  EXPECT_FALSE(pool.restore(*counter).has_value());
  EXPECT_GE(asked, 2);
}

TEST(FaasletPool, BoundsTheIdleOnesOfAFunctionATenantAndTheHost) {
  const auto a = function("a"), also_a = function("a"), b = function("b");
  {
    FaasletPool pool(options({.idle_per_function_max = 2}));
    make_idle(pool, *a, 5);
    make_idle(pool, *b, 1);
    EXPECT_EQ(pool.stats().idle_resident, 3u);
    EXPECT_EQ(pool.stats().evicted, 3u);
  }
  {
    FaasletPool pool(options({.idle_per_tenant_max = 3}));
    make_idle(pool, *a, 2);
    make_idle(pool, *also_a, 2);
    make_idle(pool, *b, 2);
    EXPECT_EQ(pool.stats().idle_resident, 5u);
  }
  {
    FaasletPool pool(options({.idle_max = 4}));
    make_idle(pool, *a, 3);
    make_idle(pool, *b, 3);
    EXPECT_EQ(pool.stats().idle_resident, 4u);
    EXPECT_NE(pool.take(*b, 1), nullptr);
  }
  {
    FaasletPool pool(options({.idle_bytes_max = 100 << 10}));
    make_idle(pool, *a, 50);
    EXPECT_LE(pool.stats().idle_bytes, 100u << 10);
    EXPECT_GE(pool.stats().idle_resident, 1u);
  }
}

TEST(FaasletPool, TheLongestIdleGoFirst) {
  FaasletPool pool(options({.idle_max = 2}));
  const auto first = function("a"), second = function("b"), third = function("c");
  make_idle(pool, *first, 1);
  make_idle(pool, *second, 1);
  make_idle(pool, *third, 1);
  EXPECT_EQ(pool.take(*first, 1), nullptr);
  EXPECT_NE(pool.take(*second, 1), nullptr);
  EXPECT_NE(pool.take(*third, 1), nullptr);
}

TEST(FaasletPool, DropsWhatNobodyElseHoldsAnyMore) {
  FaasletPool pool(options());
  auto gone = function();
  const auto stays = function();
  make_idle(pool, *gone, 3);
  make_idle(pool, *stays, 1);
  const std::weak_ptr<const faaslet::ProtoFaaslet> image = gone->proto;
  pool.drop_unused();
  EXPECT_EQ(pool.stats().idle_resident, 4u);
  gone.reset();
  pool.drop_unused();
  EXPECT_EQ(pool.stats().idle_resident, 1u);
  EXPECT_TRUE(image.expired());
}

TEST(FaasletPool, ShedsIdleFaasletsUnderMemoryPressure) {
  std::atomic<uint64_t> available = 1ull << 40;
  PoolOptions with = options({.memory_left_min = 1 << 30});
  with.memory_available = [&] { return available.load(); };
  FaasletPool pool(with);
  const auto counter = function();
  make_idle(pool, *counter, 8);
  EXPECT_EQ(pool.stats().idle_resident, 8u);
  available = 1 << 20;
  while (pool.stats().idle_resident > 0) std::this_thread::yield();
  EXPECT_EQ(pool.stats().evicted, 8u);
  auto instance = lease(pool, *counter);
  EXPECT_EQ(run(*instance), 1);
}

TEST(FaasletPool, KeepsSpareSlotsReady) {
  FaasletPool pool(options());
  while (pool.stats().slots_spare < 2) std::this_thread::yield();
  const auto counter = function();
  const auto instance = lease(pool, *counter);
  while (pool.stats().slots_spare < 2) std::this_thread::yield();
  EXPECT_EQ(pool.stats().slots, 3u);
}

TEST(SlotLimit, NamesWhatBinds) {
  const SlotLimit limit = slot_limit();
  EXPECT_GT(limit.slots, 100u);
  EXPECT_FALSE(limit.bound_by.empty());
}

}  // namespace
}  // namespace spore::worker

// Seats are shared: between tenants, between the calls of one, and whatever others do, a short call gets one soon.
#include <gtest/gtest.h>

#include "worker/test_pool.h"

namespace spore::worker {
namespace {

using namespace testing;
using namespace std::chrono_literals;
using functions::LoadedFunction;
using Function = std::shared_ptr<const LoadedFunction>;

constexpr std::string_view kSpin = R"((module (func $spin (export "spore_call") (loop $again (br $again)))))";
constexpr std::string_view kNothing = R"((module (func (export "spore_call"))))";
// Computes for about a millisecond.
// Computes for about a millisecond.
constexpr std::string_view kShort = R"((module (memory 1) (func (export "spore_call") (local $i i32)
  (loop $again
    (i32.store (i32.const 0) (i32.mul (i32.add (i32.load (i32.const 0)) (local.get $i)) (i32.const 1664525)))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $again (i32.lt_u (local.get $i) (i32.const 500000)))))))";

Function named(std::string_view text, std::string tenant, std::string name, uint32_t weight = 100) {
  functions::FunctionConfig config;
  config.cpu_weight = weight;
  auto out = std::make_shared<LoadedFunction>(*function(text, config, std::move(tenant)));
  out->id.name = std::move(name);
  return out;
}

// Calls that run until they are cancelled.
class Spinners {
 public:
  Spinners(Pool& pool, const Function& function, int count) : pool_(pool) {
    for (int i = 0; i < count; ++i) {
      CallRequest call = request(function);
      ids_.push_back(call.id);
      results_.push_back(start(pool.worker, std::move(call)));
    }
  }
  ~Spinners() { end(); }
  // The CPU time that they have used.
  std::chrono::microseconds end() {
    for (const CallId& id : std::exchange(ids_, {})) EXPECT_TRUE(pool_.worker.cancel(id));
    std::chrono::microseconds used{0};
    for (auto& result : std::exchange(results_, {})) {
      const CallResult ended = result.get();
      EXPECT_EQ(ended.status, CallStatus::kCancelled);
      used += ended.usage.cpu;
    }
    return used;
  }

 private:
  Pool& pool_;
  std::vector<CallId> ids_;
  std::vector<std::future<CallResult>> results_;
};

// Until this process has computed for so long: longer by the clock where others want the machine too.
void let_compute(std::chrono::milliseconds time) {
  const auto used = [] {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  };
  const auto end = used() + time;
  for (const auto late = Clock::now() + 30s; used() < end && Clock::now() < late;) std::this_thread::sleep_for(10ms);
}

double ratio(std::chrono::microseconds a, std::chrono::microseconds b) {
  return static_cast<double>(a.count()) / static_cast<double>(std::max<int64_t>(b.count(), 1));
}

TEST(Fairness, EndlessCallsMakeWayForOthers) {
  Pool pool({.seats = 1}, 1);
  const auto spin = named(kSpin, "a", "spin"), same = named(kNothing, "a", "nothing"),
             other = named(kNothing, "b", "nothing");
  Spinners spinners(pool, spin, 3);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(call(pool, request(i % 2 ? same : other)).status, CallStatus::kOk);
    std::this_thread::sleep_for(1ms);
  }
}

TEST(Fairness, APreemptedCallTimesOutWithItsStack) {
  Pool pool({.seats = 1}, 1);
  const auto spin = named(kSpin, "a", "spin");
  std::vector<std::future<CallResult>> calls;
  for (int i = 0; i < 4; ++i) {
    CallRequest call = request(spin);
    call.timeout = 1s;  // all of them begin before
    calls.push_back(start(pool.worker, std::move(call)));
  }
  for (auto& ended : calls) {
    const CallResult result = ended.get();
    EXPECT_EQ(result.status, CallStatus::kTimedOut);
    ASSERT_GE(result.trap.stack.size(), 1u) << result.trap.message;
    EXPECT_EQ(result.trap.stack[0].function, "spin");
  }
}

TEST(Fairness, TenantsHaveEqualSharesHoweverManyCallsTheyMake) {
  Pool pool({.seats = 1}, 1);
  Spinners many(pool, named(kSpin, "a", "spin"), 20);
  Spinners one(pool, named(kSpin, "b", "spin"), 1);
  let_compute(1s);
  const auto of_one = one.end(), of_many = many.end();
  EXPECT_NEAR(ratio(of_one, of_many), 1, 0.2) << of_one.count() << " " << of_many.count();
}

TEST(Fairness, CallsOfATenantShareByWeight) {
  Pool pool({.seats = 1}, 1);
  Spinners light(pool, named(kSpin, "a", "light", 100), 1);
  Spinners heavy(pool, named(kSpin, "a", "heavy", 300), 1);
  let_compute(1s);
  const auto of_heavy = heavy.end(), of_light = light.end();
  EXPECT_NEAR(ratio(of_heavy, of_light), 3, 0.45) << of_heavy.count() << " " << of_light.count();
}

TEST(Fairness, ManyShortCallsLeaveTimeToALongOne) {
  Pool pool({.seats = 1}, 1);
  Spinners spinner(pool, named(kSpin, "a", "spin"), 1);
  const auto brief = named(kShort, "a", "short");
  const auto until = Clock::now() + 1s;
  std::deque<std::future<CallResult>> waiting;
  std::chrono::microseconds of_short{0};
  const auto take = [&] {
    const CallResult result = waiting.front().get();
    EXPECT_EQ(result.status, CallStatus::kOk);
    of_short += result.usage.cpu;
    waiting.pop_front();
  };
  while (Clock::now() < until) {
    while (waiting.size() < 30) waiting.push_back(start(pool.worker, request(brief)));
    take();
  }
  while (!waiting.empty()) take();
  const auto of_long = spinner.end();
  EXPECT_NEAR(ratio(of_short, of_long), 3, 0.9) << of_short.count() << " " << of_long.count();
}

// Calls of one function that compute for long begin a few at a time; those of others do not wait for them.
TEST(Fairness, AFunctionHasFewCallsThatAreHalfDone) {
  Pool pool({.seats = 1}, 1);
  Spinners spinners(pool, named(kSpin, "a", "spin"), 500);
  const auto light = named(kNothing, "a", "nothing");
  const auto until = Clock::now() + 500ms;
  int answered = 0;
  for (; Clock::now() < until; ++answered) {
    ASSERT_EQ(call(pool, request(light)).status, CallStatus::kOk);
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_GT(answered, 3);
  EXPECT_LT(pool.worker.stats().pool.slots, 40u);
}

TEST(Fairness, ATreeOfCallsLeavesSeatsToOthers) {
  Pool pool({.seats = 1}, 1);
  // Calls itself and awaits that, again and again, and gives its seat to that each time.
  const auto chains = named(R"((module
    (import "spore" "call_self" (func $call (param i32 i32 i32) (result i64)))
    (import "spore" "call_await" (func $await (param i32 i32) (result i64)))
    (import "spore" "call_close" (func $close (param i32) (result i64)))
    (memory (export "memory") 1)
    (table (export "table") 1 funcref)
    (elem (i32.const 0) $nothing)
    (func $nothing)
    (func (export "spore_call") (local $child i32)
      (loop $again
        (local.set $child (i32.wrap_i64 (call $call (i32.const 0) (i32.const 0) (i32.const 0))))
        (drop (call $await (local.get $child) (i32.const -1)))
        (drop (call $close (local.get $child)))
        (br $again)))))",
                            "a", "chains");
  Spinners trees(pool, chains, 4);
  const auto light = named(kNothing, "b", "nothing");
  for (int i = 0; i < 30; ++i) EXPECT_EQ(call(pool, request(light)).status, CallStatus::kOk);
}

TEST(Fairness, AnIdleTenantSavesNothingUp) {
  Pool pool({.seats = 1}, 1);
  const auto a = named(kSpin, "a", "spin"), b = named(kSpin, "b", "spin");
  {
    Spinners alone(pool, a, 2);
    std::this_thread::sleep_for(500ms);
  }
  Spinners late(pool, b, 2);
  Spinners early(pool, a, 2);
  std::this_thread::sleep_for(500ms);
  const auto of_late = late.end(), of_early = early.end();
  EXPECT_NEAR(ratio(of_late, of_early), 1, 0.25) << of_late.count() << " " << of_early.count();
}

}  // namespace
}  // namespace spore::worker

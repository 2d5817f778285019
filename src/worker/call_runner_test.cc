// Calls that the worker gives to a runner: to whoever submits, awaits or cancels them they are as any other.
#include "worker/call_runner.h"

#include <gtest/gtest.h>

#include <future>

#include "worker/test_pool.h"

namespace spore::worker {
namespace {

using namespace testing;
using namespace std::chrono_literals;

// Keeps what it is given until the test ends it.
class HoldingRunner final : public CallRunner {
 public:
  struct Held {
    CallRequest request;
    Clock::time_point deadline;
    CallDone done;
  };
  void start(CallRequest request, Clock::time_point deadline, CallDone done) override {
    held_.lock()->push_back({std::move(request), deadline, std::move(done)});
    came_.notify_all();
  }
  void cancel(const functions::FunctionId& function, const CallId& id) override {
    EXPECT_EQ(function.tenant, "tenant");
    cancelled_.lock()->push_back(id);
    came_.notify_all();
  }
  RunnerStats stats() const override { return {.calls = held_.lock()->size()}; }

  Held take() {
    auto held = held_.lock();
    EXPECT_TRUE(came_.wait_for(held.lock(), 30s, [&] { return !held->empty(); }));
    Held first = std::move(held->front());
    held->pop_front();
    return first;
  }
  void wait_for_cancel(const CallId& id) {
    auto cancelled = cancelled_.lock();
    EXPECT_TRUE(
        came_.wait_for(cancelled.lock(), 30s, [&] { return std::ranges::find(*cancelled, id) != cancelled->end(); }));
  }
  static void end(Held held, CallStatus status, std::string_view output = "") {
    CallResult result;
    result.id = held.request.id;
    result.status = status;
    result.output.assign(output.begin(), output.end());
    held.done(std::move(result));
  }

 private:
  Guarded<std::deque<Held>> held_;
  Guarded<std::vector<CallId>> cancelled_;
  std::condition_variable came_;
};

// One that may not run here.
std::shared_ptr<const functions::LoadedFunction> apart(std::string name = "apart") {
  functions::LoadedFunction out;
  out.id = {"tenant", std::move(name)};
  out.version.number = 3;
  return std::make_shared<const functions::LoadedFunction>(std::move(out));
}

// All that there is.
class OnlyApart final : public FunctionSource {
 public:
  Function find(const functions::FunctionId& id, std::optional<uint64_t>) override {
    return id.name == "apart" ? apart() : nullptr;
  }
  bool exists(const functions::FunctionId& id, std::optional<uint64_t>) override { return id.name == "later"; }
  void load(const functions::FunctionId&, std::optional<uint64_t>,
            std::function<void(Result<Function>)> loaded) override {
    loaded(apart("later"));
  }
};

// Calls the function that its input names with that as input, waits for it, and gives its output.
constexpr std::string_view kCalls = R"((module
  (import "spore" "input_size" (func $size (result i32)))
  (import "spore" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
  (import "spore" "call" (func $call (param i32 i32 i32 i32) (result i64)))
  (import "spore" "call_await" (func $await (param i32 i32) (result i64)))
  (import "spore" "call_output_size" (func $output_size (param i32) (result i64)))
  (import "spore" "call_output_read" (func $output_read (param i32 i64 i32 i32) (result i64)))
  (memory (export "memory") 1)
  (func (export "spore_call") (local $n i32) (local $child i32)
    (local.set $n (call $read (i32.const 0) (i32.const 0) (call $size)))
    (local.set $child (i32.wrap_i64 (call $call (i32.const 0) (local.get $n) (i32.const 0) (local.get $n))))
    (drop (call $await (local.get $child) (i32.const -1)))
    (local.set $n (i32.wrap_i64 (call $output_read (local.get $child) (i64.const 0) (i32.const 0)
      (i32.wrap_i64 (call $output_size (local.get $child))))))
    (drop (call $write (i32.const 0) (local.get $n))))))";

constexpr std::string_view kNothing = R"((module (func (export "spore_call"))))";

TEST(CallRunner, GetsTheCallWholeAndItsEndIsTheCalls) {
  HoldingRunner runner;
  Pool pool({.seats = 1, .runner = &runner}, 1);
  CallRequest asked = request(apart(), "input");
  const CallId id = asked.id;
  asked.timeout = 5'000ms;
  const auto before = Clock::now();
  auto future = start(pool.worker, std::move(asked));
  auto held = runner.take();
  EXPECT_EQ(held.request.id, id);
  EXPECT_EQ(as_text(held.request.input), "input");
  EXPECT_GE(held.deadline, before + 5'000ms);
  EXPECT_LE(held.deadline, Clock::now() + 5'000ms);
  EXPECT_EQ(pool.worker.stats().elsewhere, 1u);
  EXPECT_EQ(pool.worker.stats().running, 0u);
  EXPECT_FALSE(pool.worker.stats().idle());
  HoldingRunner::end(std::move(held), CallStatus::kOk, "output");
  const CallResult result = future.get();
  EXPECT_EQ(result.status, CallStatus::kOk);
  EXPECT_EQ(as_text(result.output), "output");
  EXPECT_TRUE(pool.worker.stats().idle());
}

TEST(CallRunner, WithoutOneTheCallFails) {
  Pool pool({.seats = 1}, 1);
  const CallResult result = call(pool, request(apart()));
  EXPECT_EQ(result.status, CallStatus::kFailed);
  EXPECT_EQ(result.error.code, ErrorCode::kUnavailable);
}

TEST(CallRunner, IsToldOfCancellations) {
  HoldingRunner runner;
  Pool pool({.seats = 1, .runner = &runner}, 1);
  CallRequest asked = request(apart());
  const CallId id = asked.id;
  auto future = start(pool.worker, std::move(asked));
  auto held = runner.take();
  EXPECT_TRUE(pool.worker.cancel(id));
  runner.wait_for_cancel(id);
  HoldingRunner::end(std::move(held), CallStatus::kCancelled);
  EXPECT_EQ(future.get().status, CallStatus::kCancelled);
  EXPECT_FALSE(pool.worker.cancel(id));
}

TEST(CallRunner, ChainedCallsGoThereLoadedOrNotAndTheirParentsGoOn) {
  HoldingRunner runner;
  OnlyApart functions;
  Pool pool({.seats = 1, .functions = &functions, .runner = &runner}, 2);
  for (const std::string_view name : {"apart", "later"}) {
    auto future = start(pool.worker, request(function(kCalls), name));
    auto held = runner.take();
    EXPECT_EQ(held.request.function->id.name, name);
    EXPECT_EQ(as_text(held.request.input), name);
    // Its parent holds no seat meanwhile.
    EXPECT_EQ(call(pool, request(function(kNothing))).status, CallStatus::kOk);
    HoldingRunner::end(std::move(held), CallStatus::kOk, "from elsewhere");
    EXPECT_EQ(as_text(future.get().output), "from elsewhere");
  }
}

TEST(CallRunner, TheEndOfAParentCancelsWhatItHasThere) {
  HoldingRunner runner;
  OnlyApart functions;
  Pool pool({.seats = 1, .functions = &functions, .runner = &runner}, 2);
  CallRequest asked = request(function(kCalls), "apart");
  asked.timeout = 50ms;
  auto future = start(pool.worker, std::move(asked));
  auto held = runner.take();
  EXPECT_EQ(future.get().status, CallStatus::kTimedOut);
  runner.wait_for_cancel(held.request.id);
  EXPECT_EQ(pool.worker.stats().elsewhere, 1u) << "it is still to end there";
  HoldingRunner::end(std::move(held), CallStatus::kCancelled);
  EXPECT_TRUE(pool.worker.stats().idle());
}

TEST(CallRunner, AParentEndsAtItsDeadlineAlsoWhereItsChildDoesSoFirst) {
  HoldingRunner runner;
  OnlyApart functions;
  Pool pool({.seats = 1, .functions = &functions, .runner = &runner}, 2);
  const auto calls = function(kCalls);
  for (int i = 0; i < 10; ++i) {
    CallRequest asked = request(calls, "apart");
    asked.timeout = 250ms;
    auto future = start(pool.worker, std::move(asked));
    auto held = runner.take();
    while (Clock::now() < held.deadline) {
    }
    HoldingRunner::end(std::move(held), CallStatus::kTimedOut);
    EXPECT_EQ(future.get().status, CallStatus::kTimedOut);
  }
}

}  // namespace
}  // namespace spore::worker

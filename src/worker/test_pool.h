// What tests of the worker share: threads that run its calls, functions from text, calls to their end.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <thread>

#include "support/runtime.h"
#include "worker/worker.h"

namespace spore::worker::testing {

// Threads that are attached to a worker and do what they are asked to: what the gateway's threads are to it.
class Pool {
 public:
  Pool(WorkerOptions options, unsigned threads) : worker(options, [this] { post([this] { worker.run_queued(); }); }) {
    spore::testing::arena();
    for (unsigned i = 0; i < threads; ++i) {
      threads_.emplace_back([this] {
        const Worker::Attachment attachment(worker);
        auto tasks = tasks_.lock();
        for (;;) {
          changed_.wait(tasks.lock(), [&] { return tasks->stopping || !tasks->waiting.empty(); });
          if (tasks->waiting.empty()) return;
          auto task = std::move(tasks->waiting.front());
          tasks->waiting.pop_front();
          tasks.lock().unlock();
          task();
          tasks.lock().lock();
        }
      });
    }
  }
  ~Pool() {
    worker.cancel_all();
    tasks_.lock()->stopping = true;
    changed_.notify_all();
    threads_.clear();
  }
  void post(std::move_only_function<void()> task) {
    tasks_.lock()->waiting.push_back(std::move(task));
    changed_.notify_one();
  }

 private:
  struct Tasks {
    std::deque<std::move_only_function<void()>> waiting;
    bool stopping = false;
  };
  Guarded<Tasks> tasks_;
  std::condition_variable changed_;

 public:
  Worker worker;  // it wakes until it is gone

 private:
  std::vector<std::jthread> threads_;
};

inline std::shared_ptr<const functions::LoadedFunction> function(std::string_view text,
                                                                 functions::FunctionConfig config = {},
                                                                 std::string tenant = "tenant") {
  auto ready = spore::testing::prepare(text);
  EXPECT_TRUE(ready.has_value()) << (ready ? "" : ready.error().message);
  functions::LoadedFunction out;
  out.id = {std::move(tenant), "function"};
  out.version.number = 1;
  out.cpu_quota = functions::make_cpu_quota(config);
  out.version.config = std::move(config);
  out.proto = ready->proto;
  return std::make_shared<functions::LoadedFunction>(std::move(out));
}

inline CallRequest request(std::shared_ptr<const functions::LoadedFunction> function, std::string_view input = {}) {
  CallRequest out;
  out.function = std::move(function);
  out.input.assign(input.begin(), input.end());
  return out;
}

inline std::future<CallResult> start(Worker& worker, CallRequest request) {
  std::promise<CallResult> promise;
  auto future = promise.get_future();
  worker.submit(std::move(request),
                [promise = std::move(promise)](CallResult result) mutable { promise.set_value(std::move(result)); });
  return future;
}

inline CallResult call(Pool& pool, CallRequest request) { return start(pool.worker, std::move(request)).get(); }

}  // namespace spore::worker::testing

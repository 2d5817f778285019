// bench_waiting [--calls N] [--slots N]: how many calls can wait inside their guests at once on one host?
//
// It submits --calls calls (100,000) to a worker with --slots slots (12,000). Each is told a number, sleeps until all
// of them have been started, and answers with the number. So most of them lose their slots, hold only how they differ
// from their image, and go on in other slots. The last line is
//   bench waiting: calls=N slots=N parked_kb=A ...
// Ends with 1 where an answer is wrong or missing.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <fstream>
#include <thread>

#include "base/check.h"
#include "support/runtime.h"
#include "worker/worker.h"

namespace spore {
namespace {

using Clock = std::chrono::steady_clock;

// Input: 8 bytes for how long to sleep, 8 bytes to answer with.
constexpr std::string_view kSleeper = R"((module
    (import "spore" "input_read" (func $read (param i32 i32 i32) (result i32)))
    (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 16)
    (func (export "spore_call")
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 16)))
      (i32.store (i32.const 48) (i32.const 1))
      (i64.store (i32.const 56) (i64.load (i32.const 0)))
      (if (call $poll (i32.const 32) (i32.const 128) (i32.const 1) (i32.const 192)) (then unreachable))
      (drop (call $write (i32.const 8) (i32.const 8))))))";

double resident_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) return std::stod(line.substr(6));
  return 0;
}

// A thread that is attached to the worker and runs what is waiting there.
class Threads {
 public:
  explicit Threads(worker::WorkerOptions options)
      : worker(std::move(options), [this] {
          ++*wakes_.lock();
          changed_.notify_one();
        }) {
    for (unsigned i = 0; i < 3; ++i) threads_.emplace_back([this](std::stop_token stop) { run(stop); });
  }
  ~Threads() {
    worker.cancel_all();
    for (auto& thread : threads_) thread.request_stop();
    changed_.notify_all();
  }

 private:
  void run(std::stop_token stop) {
    const worker::Worker::Attachment attachment(worker);
    const std::stop_callback wake(stop, [this] { changed_.notify_all(); });
    while (!stop.stop_requested()) {
      {
        auto wakes = wakes_.lock();
        changed_.wait(wakes.lock(), [&] { return *wakes > 0 || stop.stop_requested(); });
        if (*wakes > 0) --*wakes;
      }
      worker.run_queued();
    }
  }

  Guarded<uint64_t> wakes_{0};
  std::condition_variable changed_;

 public:
  worker::Worker worker;

 private:
  std::vector<std::jthread> threads_;
};

int bench(size_t calls, size_t slots) {
  testing::arena();
  const auto ready = testing::prepare(kSleeper);
  CHECK(ready.has_value(), ready ? "" : ready.error().message);
  functions::LoadedFunction loaded;
  loaded.id = {"bench", "sleeper"};
  loaded.version.number = 1;
  loaded.version.config.timeout_ms = functions::kTimeoutMsMax;
  loaded.proto = ready->proto;
  const auto function = std::make_shared<const functions::LoadedFunction>(loaded);

  struct Answers {
    size_t right = 0;
    size_t wrong = 0;
  };
  Guarded<Answers> answers;
  worker::WorkerOptions options{.seats = 2, .queue_max = calls, .queue_per_tenant_max = calls, .parked_max = calls};
  options.pool.slots_max = slots;
  Threads host(options);
  const double before_kib = resident_kib();
  const auto begin = Clock::now();
  // Time for all of them to begin: several times what they take.
  const uint64_t sleep_ns = 2'000'000'000 + calls * 200'000;
  for (uint64_t number = 0; number < calls; ++number) {
    worker::CallRequest request;
    request.function = function;
    const uint64_t input[2] = {sleep_ns, number * 0x9e3779b97f4a7c15};
    request.input.assign(reinterpret_cast<const uint8_t*>(input), reinterpret_cast<const uint8_t*>(input + 2));
    host.worker.submit(std::move(request), [&answers, expected = input[1]](worker::CallResult result) {
      const bool right = result.status == worker::CallStatus::kOk && result.output.size() == 8 &&
                         std::memcmp(result.output.data(), &expected, 8) == 0;
      auto locked = answers.lock();
      if (right) {
        ++locked->right;
      } else if (++locked->wrong <= 5) {
        std::fprintf(stderr, "a call ended as %s %s\n", std::string(to_string(result.status)).c_str(),
                     result.error.message.c_str());
      }
    });
  }
  const auto ended = [&] {
    auto locked = answers.lock();
    return locked->right + locked->wrong;
  };
  size_t most = 0;
  worker::WorkerStats then;
  double then_kib = 0;
  while (ended() < calls) {
    const auto stats = host.worker.stats();
    if (stats.parked > most) {
      most = stats.parked;
      then = stats;
      then_kib = resident_kib();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto counted = *answers.lock();
  const double each_kib = (then_kib - before_kib) / static_cast<double>(std::max<size_t>(most, 1));
  std::printf(
      "at most %zu calls waited at once, %zu of them without a slot; %zu right answers, %zu wrong, in %.1f s of\n"
      "which they slept %.1f s\n",
      most, most - std::min(most, then.pool.slots - then.pool.slots_spare), counted.right, counted.wrong, seconds,
      static_cast<double>(sleep_ns) / 1e9);
  std::printf("bench waiting: calls=%zu slots=%zu waiting=%zu kb_each=%.1f right=%zu wrong=%zu\n", calls,
              then.pool.slots, most, each_kib, counted.right, counted.wrong);
  return counted.wrong == 0 && counted.right == calls ? 0 : 1;
}

}  // namespace
}  // namespace spore

int main(int argc, char** argv) {
  CLI::App app("How many calls can wait inside their guests at once?");
  size_t calls = 100'000;
  size_t slots = 12'000;
  app.add_option("--calls", calls, "Calls")->check(CLI::Range(1, 1'000'000))->capture_default_str();
  app.add_option("--slots", slots, "Faaslets in memory at once")->check(CLI::Range(3, 20'000))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return spore::bench(calls, slots);
}

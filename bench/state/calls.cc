// A warm call that keeps state beside one that does not, through the worker.
#include <sched.h>

#include <barrier>
#include <thread>

#include "parts.h"
#include "worker/worker.h"

namespace spore::bench {
namespace {

std::shared_ptr<const functions::LoadedFunction> load(const std::string& name) {
  functions::LoadedFunction out;
  out.id = {"bench", name};
  out.version.number = 1;
  out.proto = prepare_guest(name).proto;
  return std::make_shared<functions::LoadedFunction>(std::move(out));
}

enum class Keys { kOneForEachThread, kOne };
constexpr int kWarmUp = 200;

// Calls per second of `threads` threads together; each latency of the first goes to `latencies`.
double calls_per_second(worker::Worker& worker, const std::shared_ptr<const functions::LoadedFunction>& function,
                        unsigned threads, Keys keys, int calls, Samples* latencies) {
  std::barrier start(static_cast<std::ptrdiff_t>(threads) + 1);
  std::vector<double> took_us(threads);
  std::vector<std::jthread> running;
  for (unsigned thread = 0; thread < threads; ++thread) {
    running.emplace_back([&, thread] {
      cpu_set_t cpu;
      CPU_ZERO(&cpu);
      CPU_SET(thread % std::thread::hardware_concurrency(), &cpu);
      ::sched_setaffinity(0, sizeof(cpu), &cpu);
      const worker::Worker::Attachment attachment(worker);
      const std::string key = "counter" + std::to_string(keys == Keys::kOne ? 0 : thread);
      const auto one = [&] {
        worker::CallRequest request;
        request.function = function;
        request.input = Bytes(key.begin(), key.end());
        bool done = false;
        worker.submit(std::move(request), [&](worker::CallResult result) {
          CHECK(result.status == worker::CallStatus::kOk && result.output.size() == 8, result.error.message,
                result.exit_code);
          done = true;
        });
        CHECK(done, "a call on an attached thread ends before submit() does");
      };
      for (int i = 0; i < kWarmUp; ++i) one();
      start.arrive_and_wait();
      const double all_begin_us = thread_us();
      for (int i = 0; i < calls; ++i) {
        const double begin_us = thread_us();
        one();
        if (latencies && thread == 0) latencies->add(thread_us() - begin_us);
      }
      took_us[thread] = thread_us() - all_begin_us;
      start.arrive_and_wait();
    });
  }
  start.arrive_and_wait();
  start.arrive_and_wait();
  double per_second = 0;
  for (const double us : took_us) per_second += calls / (us / 1e6);
  return per_second;
}

}  // namespace

void bench_calls(state::GlobalTier& global, int rounds, Figures& figures) {
  StateHost host(global);
  const auto counter = [&](const char* key) { return host.open(key, 1 << 20); };
  const std::shared_ptr<state::Replica> counters[2] = {counter("counter0"), counter("counter1")};
  worker::WorkerOptions options{.seats = 2};
  options.state = &host.services;
  worker::Worker worker(options, [] {});
  const auto stateless = load("stateless"), stateful = load("stateful");
  Samples plain_us, state_us, plain_1, plain_2, state_1, state_2, state_same;
  constexpr int kCalls = 20'000;
  for (int round = 0; round < rounds; ++round) {
    const auto measure_plain = [&] {
      plain_1.add(calls_per_second(worker, stateless, 1, Keys::kOne, kCalls, &plain_us));
      plain_2.add(calls_per_second(worker, stateless, 2, Keys::kOneForEachThread, kCalls, nullptr));
    };
    if (round % 2 == 0) measure_plain();
    state_1.add(calls_per_second(worker, stateful, 1, Keys::kOne, kCalls, &state_us));
    state_2.add(calls_per_second(worker, stateful, 2, Keys::kOneForEachThread, kCalls, nullptr));
    state_same.add(calls_per_second(worker, stateful, 2, Keys::kOne, kCalls, nullptr));
    if (round % 2 == 1) measure_plain();
  }
  // Every call of the stateful function counted, whoever ran beside it.
  uint64_t counted[2] = {};
  for (int i = 0; i < 2; ++i) {
    const iovec buffer{&counted[i], 8};
    CHECK(counters[i]->try_read(0, {&buffer, 1}) == 8);
  }
  const uint64_t expected = static_cast<uint64_t>(rounds) * 5 * (kCalls + kWarmUp);
  CHECK(counted[0] + counted[1] == expected, counted[0] + counted[1], expected);

  figures.warm_ratio = plain_1.median() / state_1.median();
  std::printf(
      "warm calls in process (dispatch, run, reset), medians of %d interleaved rounds; with state: state_map of a "
      "value of\n"
      "1 MiB, an atomic addition to 8 bytes of it\n",
      rounds);
  std::printf("  without state: p50 %.2f us, p99 %.2f us; calls/s: 1 thread %.0f, 2 threads %.0f (%.2fx)\n",
              plain_us.median(), plain_us.at(0.99), plain_1.median(), plain_2.median(),
              plain_2.median() / plain_1.median());
  std::printf(
      "  with state:    p50 %.2f us, p99 %.2f us; calls/s: 1 thread %.0f, 2 threads on two values %.0f (%.2fx), on\n"
      "                 the same one %.0f (%.2fx); %.2f of the time without, p50 %.2f; all %llu counted\n",
      state_us.median(), state_us.at(0.99), state_1.median(), state_2.median(), state_2.median() / state_1.median(),
      state_same.median(), state_same.median() / state_1.median(), figures.warm_ratio,
      state_us.median() / plain_us.median(), static_cast<unsigned long long>(expected));
}

}  // namespace spore::bench

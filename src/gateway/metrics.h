// What the gateway counts, and its text in the Prometheus exposition format. Counters only go up. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "calls/async_calls.h"
#include "functions/registry.h"
#include "gateway/server.h"
#include "isolation/memory_watch.h"
#include "worker/worker.h"

namespace spore::gateway {

// Null: there is none of it.
struct MemoryFigures {
  const MemoryBooks* books = nullptr;
  const isolation::MemoryWatch* watch = nullptr;
};

class Metrics {
 public:
  void count_response(unsigned status);
  void count_call(const worker::CallResult& result);
  void count_publish(bool published);

  std::string render(const ServerStats& server, const worker::WorkerStats& worker,
                     const functions::RegistryStats& registry, const calls::AsyncStats& calls,
                     const MemoryFigures& memory = {}) const;

 private:
  static constexpr std::array<uint64_t, 12> kBucketsUs = {50,     100,     250,     1'000,     5'000,      10'000,
                                                          50'000, 100'000, 500'000, 1'000'000, 10'000'000, 60'000'000};
  static constexpr size_t kOutcomes = static_cast<size_t>(worker::kCallStatusLast) + 1;
  using Counter = std::atomic<uint64_t>;

  std::array<Counter, 6> responses_{};  // by hundreds
  std::array<Counter, kOutcomes> calls_{};
  std::array<Counter, kBucketsUs.size() + 1> durations_{};
  Counter duration_us_sum_{0};
  Counter cpu_us_{0};
  Counter sent_bytes_{0};
  Counter received_bytes_{0};
  Counter published_{0}, publish_failed_{0};
};

}  // namespace spore::gateway

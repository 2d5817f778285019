// The parts of the benchmark of state, and what they share: a host's state put together as `spore serve` does it, in a
// temporary directory; samples; and the figures of the last line.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "host/host_state.h"
#include "host/state_access.h"
#include "support/runtime.h"

namespace spore::bench {

using Clock = std::chrono::steady_clock;

inline double us_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}
// Of this thread, in us: time by the clock, or with --cpu-time the time that it computed, which says more on a machine
// that others use at the same time.
double thread_us();
// CPU time in us of this process, or of another one.
double cpu_us(pid_t process = 0);
inline Clock::time_point soon() { return Clock::now() + std::chrono::seconds(60); }

struct Samples {
  std::vector<double> values;
  void add(double value) { values.push_back(value); }
  double at(double quantile) {
    CHECK(!values.empty());
    std::ranges::sort(values);
    return values[static_cast<size_t>(quantile * static_cast<double>(values.size() - 1))];
  }
  double median() { return at(0.5); }
};

[[noreturn]] inline void give_up(const std::string& why) {
  std::fprintf(stderr, "bench state: %s\n", why.c_str());
  std::exit(1);
}
template <class T>
T must(Result<T> result) {
  if (!result) give_up(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "spore-bench-XXXXXX").string();
    CHECK(::mkdtemp(name.data()) != nullptr, name);
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// What a host has for state.
struct StateHost {
  explicit StateHost(state::GlobalTier& global)
      : tracker(must(state::WindowTracker::start(2))), tier(global, tracker.get(), {}) {}
  // Of the tenant "bench".
  std::shared_ptr<state::Replica> open(const std::string& key, std::optional<uint64_t> size_bytes = {}) {
    return must(tier.open({"bench", key}, size_bytes, soon()));
  }

  std::unique_ptr<state::WindowTracker> tracker;
  state::LocalTier tier;
  state::BlockingPool pool;
  host::StateServices services{.tier = &tier, .pool = &pool};
};

// Compiled by the optimised tier for this machine; `name` without .wasm.
testing::Ready prepare_guest(const std::string& name);
// A function of native kernels.so.
void* native_kernel(const char* name);
// Bytes without a zero page.
Bytes random_content(size_t size_bytes, uint64_t seed);
void write_all(state::Replica& replica, uint64_t offset, ByteSpan bytes);

// A guest of kernels.wasm, whose exports are called one by one.
class Guest {
 public:
  Guest(const testing::Ready& ready, StateHost& state);
  // The export's result; the benchmark ends where it traps. `took_us`: the call alone.
  uint64_t call(const char* name, std::initializer_list<uint64_t> arguments, double* took_us = nullptr);
  // As between two calls of one function.
  void reset();

 private:
  std::vector<faaslet::HostFunction> links_;
  std::unique_ptr<host::HostState> host_state_;
  std::unique_ptr<faaslet::Faaslet> faaslet_;
};

struct Figures {
  double mapped_ratio = 0, warm_ratio = 0, pull_ratio = 0, push_bytes_ratio = 0, lock_us = 0;
};

// Each prints its table. `rounds`: of what takes a millisecond or less; longer things are done less often.
void bench_access(state::GlobalTier& global, int rounds, Figures& figures);
void bench_first_writes(state::GlobalTier& global, int rounds);
void bench_map(state::GlobalTier& global, int rounds);
void bench_calls(state::GlobalTier& global, int rounds, Figures& figures);
void bench_store(const std::filesystem::path& directory, int rounds, Figures& figures);
void bench_locks(const std::filesystem::path& directory, int rounds, Figures& figures);

}  // namespace spore::bench

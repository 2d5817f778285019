// bench_state [--rounds N] [--cpu-time]: what state costs. Access to mapped state beside a native array; warm calls
// that keep state beside those that do not; mapping; pull and push beside plain clients of the same Redis; locks.
// Contenders and floors take turns in one process. Starts a redis-server without persistence; RocksDB is in a temporary
// directory.
//
// The last line:
//   bench state: mapped_ratio=A warm_ratio=B pull_ratio=C push_bytes_ratio=D lock_us=E
// A: time of WebAssembly on mapped state / native on malloc'ed memory, geometric mean over the loops. B: of a warm call
// with state / without. C: throughput of the first pull from Redis / of plain GETs. D: bytes over the wire of a push /
// dirty bytes. E: a global lock and unlock on Redis, median.
#include <dlfcn.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <random>

#include "base/fd.h"
#include "host/imports.h"
#include "parts.h"
#include "state/rocksdb_tier.h"

namespace spore::bench {

namespace {

bool g_cpu_time = false;

double us_of(clockid_t clock) {
  timespec now{};
  CHECK(::clock_gettime(clock, &now) == 0, errno);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

}  // namespace

double thread_us() { return us_of(g_cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC); }

double cpu_us(pid_t process) {
  clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
  if (process != 0) CHECK(::clock_getcpuclockid(process, &clock) == 0, process);
  return us_of(clock);
}

testing::Ready prepare_guest(const std::string& name) {
  const Bytes wasm = must(read_file(std::string(BENCH_STATE_GUESTS "/") + name + ".wasm"));
  return must(
      testing::prepare(wasm, {.tier = wasm::Tier::kOptimised, .cpu_level = must(wasm::cpu_level_of_this_machine())}));
}

void* native_kernel(const char* name) {
  static void* const library = ::dlopen(BENCH_STATE_GUESTS "/kernels.so", RTLD_NOW | RTLD_LOCAL);
  CHECK(library, ::dlerror());
  void* const kernel = ::dlsym(library, name);
  CHECK(kernel, name);
  return kernel;
}

Bytes random_content(size_t size_bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes out(size_bytes);
  for (size_t at = 0; at + 8 <= size_bytes; at += 8) {
    const uint64_t word = random();
    std::memcpy(&out[at], &word, 8);
  }
  return out;
}

void write_all(state::Replica& replica, uint64_t offset, ByteSpan bytes) {
  const iovec buffer{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  CHECK(replica.try_write(offset, {&buffer, 1}) == static_cast<ssize_t>(bytes.size()));
}

Guest::Guest(const testing::Ready& ready, StateHost& state) : links_(must(host::link(ready.object->module()))) {
  host::CallSetup setup;
  setup.state_services = &state.services;
  setup.tenant = "bench";
  setup.call_key = "a call";
  host_state_ = std::make_unique<host::HostState>(must(host::HostState::make(std::move(setup))));
  faaslet_ = testing::restore(ready, links_, host_state_.get());
}

uint64_t Guest::call(const char* name, std::initializer_list<uint64_t> arguments, double* took_us) {
  std::vector<wasm::Cell> cells;
  for (const uint64_t argument : arguments) cells.push_back({argument, 0});
  const uint32_t function = testing::exported_function(faaslet_->module(), name);
  testing::seat().begin_call();
  const double begin_us = thread_us();
  const faaslet::Outcome outcome = faaslet_->start(testing::seat(), function, cells);
  if (took_us) *took_us = thread_us() - begin_us;
  testing::seat().end_call();
  CHECK(outcome.kind == faaslet::Outcome::Kind::kReturned, name, outcome.trap.message, as_text(host_state_->log));
  return faaslet_->result(0).low;
}

void Guest::reset() { CHECK(faaslet_->reset()); }

namespace {

int bench(int rounds) {
  testing::arena();
  const TemporaryDirectory directory;
  Figures figures;
  std::printf(g_cpu_time ? "access, mapping and calls: CPU time of the threads; the store and locks: by the clock\n"
                         : "all times by the clock\n");
  {
    const auto global = must(state::RocksDbTier::open(directory.path() / "global", {}));
    bench_access(*global, std::max(5, rounds / 5), figures);
    bench_first_writes(*global, std::max(5, rounds / 5));
    bench_map(*global, rounds);
    bench_calls(*global, std::max(4, rounds / 8), figures);
  }
  bench_store(directory.path(), std::max(3, rounds / 10), figures);
  bench_locks(directory.path(), rounds, figures);
  std::printf("bench state: mapped_ratio=%.3f warm_ratio=%.2f pull_ratio=%.2f push_bytes_ratio=%.3f lock_us=%.1f\n",
              figures.mapped_ratio, figures.warm_ratio, figures.pull_ratio, figures.push_bytes_ratio, figures.lock_us);
  return 0;
}

}  // namespace
}  // namespace spore::bench

int main(int argc, char** argv) {
  CLI::App app("What state costs: access, calls, mapping, pull and push, locks");
  int rounds = 100;
  app.add_option("--rounds", rounds, "Of what is short; longer things in proportion")
      ->check(CLI::Range(10, 100'000))
      ->capture_default_str();
  app.add_flag("--cpu-time", spore::bench::g_cpu_time,
               "Access, mapping and calls by the CPU time of the threads, for machines that are shared");
  CLI11_PARSE(app, argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  return spore::bench::bench(rounds);
}

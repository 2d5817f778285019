// What it costs to start a function, to call it again, and to undo what a call has done; beside each, in the same
// round, what the machine asks for the bare work: a mapping and the copy-on-write faults, or the copying of the pages.
#include <sched.h>
#include <sys/mman.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <barrier>
#include <cstdio>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "faaslet/page_scan.h"
#include "host/imports.h"
#include "support/runtime.h"
#include "worker/worker.h"

namespace spore {
namespace {

using faaslet::Faaslet;
using faaslet::ProtoFaaslet;
using faaslet::Slot;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kPage = 4096;

double us_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

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

template <class T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "bench start: %s\n", result.error().message.c_str());
  std::exit(1);
}

// A memory of `pages` WebAssembly pages without a zero page in it. spore_call first calls the host, then writes to a
// few pages; touch(count, step, grown) writes to `count` pages `step` bytes apart, after growing by `grown` pages, of
// which it writes to as many; nothing() only comes and goes.
std::string module_text(uint64_t pages) {
  return "(module (import \"env\" \"stamp\" (func $stamp)) (memory (export \"memory\") " + std::to_string(pages) + " " +
         std::to_string(pages + 64) + R"()
    (func (export "fill") (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536))))
    (func (export "first") (call $stamp))
    (func (export "nothing"))
    (func (export "touch") (param $count i32) (param $step i32) (param $grown i32) (local $at i32)
      (block $done (loop $again
        (br_if $done (i32.eqz (local.get $count)))
        (i32.store (local.get $at) (local.get $count))
        (local.set $at (i32.add (local.get $at) (local.get $step)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $again)))
      (if (local.get $grown) (then
        (local.set $at (i32.mul (memory.grow (local.get $grown)) (i32.const 65536)))
        (memory.fill (local.get $at) (i32.const 2) (i32.mul (local.get $grown) (i32.const 4096))))))))";
}

struct Image {
  uint64_t mib_times_16 = 0;  // WebAssembly pages
  std::shared_ptr<const ProtoFaaslet> proto;
};

Clock::time_point g_stamp;
faaslet::HostResult stamp(faaslet::HostCall&) {
  g_stamp = Clock::now();
  return faaslet::HostResult::kDone;
}
const std::vector<faaslet::HostFunction> kLinks{&stamp};

Image make_image(uint64_t pages) {
  const auto ready = must(testing::prepare(module_text(pages)));
  const auto faaslet = testing::restore(ready, kLinks);
  testing::call(*faaslet, "fill");
  return {pages, must(ProtoFaaslet::make(ready.object, must(faaslet->capture())))};
}

void run(Faaslet& faaslet, std::string_view name, std::initializer_list<uint64_t> arguments = {}) {
  std::vector<wasm::Cell> cells;
  for (const uint64_t argument : arguments) cells.push_back({argument, 0});
  const auto outcome = testing::call(faaslet, name, cells);
  CHECK(outcome.kind == faaslet::Outcome::Kind::kReturned, outcome.trap.message);
}

uint64_t copied_pages(const Faaslet& faaslet, const ProtoFaaslet& proto) {
  const auto begin = reinterpret_cast<uint64_t>(faaslet.memory() + proto.regions()[0].offset);
  uint64_t pages = 0;
  for (const auto& range : must(faaslet::list_copied_pages(begin, begin + proto.regions()[0].image_bytes)))
    pages += (range.end - range.begin) / kPage;
  return pages;
}

struct Figures {
  double restore_us = 0, restore_ratio = 0;
  double reset_us = 0, reset_ratio = 0, reset_grown_us = 0;
  double fresh_per_s = 0, reset_per_s = 0, warm_us = 0, scaling = 0;
};

std::string size_text(const Image& image) {
  return image.mib_times_16 < 16 ? "64 KiB" : std::to_string(image.mib_times_16 / 16) + " MiB";
}

// ---- restore --------------------------------------------------------------------------------------------------------

void bench_restore(const std::vector<Image>& images, int rounds, Figures& figures) {
  std::printf(
      "restore: from an empty slot to the guest's first instruction, us (median, p99); floor: one mapping and as many\n"
      "copy-on-write faults\n");
  for (const Image& image : images) {
    const ProtoFaaslet& proto = *image.proto;
    Samples restores, floors;
    uint64_t pages = 0;
    Slot slot = must(Slot::reserve());
    for (int round = 0; round < rounds; ++round) {
      auto begin = Clock::now();
      auto faaslet = must(Faaslet::restore(std::move(slot), image.proto, kLinks, nullptr));
      run(*faaslet, "first");
      restores.add(std::chrono::duration<double, std::micro>(g_stamp - begin).count());
      pages = copied_pages(*faaslet, proto);
      slot = faaslet->take_slot();
      faaslet.reset();
      CHECK(slot.clear().has_value());

      uint8_t* const memory = slot.memory();
      begin = Clock::now();
      CHECK(proto.map_into(memory).has_value());
      for (uint64_t i = 0; i < pages; ++i)
        static_cast<volatile uint8_t*>(memory)[-1 - static_cast<int64_t>(i * kPage)] = 1;
      floors.add(us_since(begin));
      CHECK(slot.clear().has_value());
    }
    const double ratio = restores.median() / floors.median();
    std::printf("  %7s image: %6.2f %7.2f   floor %6.2f (%llu pages)   ratio %.2f\n", size_text(image).c_str(),
                restores.median(), restores.at(0.99), floors.median(), static_cast<unsigned long long>(pages), ratio);
    figures.restore_us = std::max(figures.restore_us, restores.median());
    figures.restore_ratio = std::max(figures.restore_ratio, ratio);
  }
}

// The same with a call that writes to pages side by side, before the working set is known and after.
void bench_working_set(const Image& image, int rounds) {
  std::printf(
      "restore and a call that writes to n pages side by side, us: faults, and the working set copied at once\n");
  for (const uint64_t pages : {4, 16, 64, 256}) {
    Samples times[2];
    const auto state = image.proto->state();
    const std::shared_ptr<const ProtoFaaslet> protos[2] = {must(ProtoFaaslet::make(image.proto->object(), state)),
                                                           must(ProtoFaaslet::make(image.proto->object(), state))};
    Slot slot = must(Slot::reserve());
    for (int round = 0; round < rounds; ++round) {
      for (const int known : {0, 1}) {
        const auto begin = Clock::now();
        auto faaslet = must(Faaslet::restore(std::move(slot), protos[known], kLinks, nullptr));
        run(*faaslet, "touch", {pages, kPage, 0});
        times[known].add(us_since(begin));
        if (known) CHECK(faaslet->reset());  // shows the working set
        slot = faaslet->take_slot();
        faaslet.reset();
        CHECK(slot.clear().has_value());
      }
    }
    std::printf("  %4llu pages: %7.2f -> %7.2f   %.2f\n", static_cast<unsigned long long>(pages), times[0].median(),
                times[1].median(), times[1].median() / times[0].median());
  }
}

// ---- reset ----------------------------------------------------------------------------------------------------------

struct ResetCase {
  uint64_t dirty = 0;    // pages, with the one of the header and the stack
  uint64_t grown = 0;    // WebAssembly pages
  bool wanders = false;  // other pages in each call
};

// After one call reset(), after the next, which has done the same, memcpy() of the pages it has written to, in turns.
// 0 where the image is too small.
std::pair<double, double> time_reset(const Image& image, const ResetCase& what, int rounds) {
  const ProtoFaaslet& proto = *image.proto;
  const uint64_t pages = proto.memory_bytes() / kPage;
  const uint64_t touched = what.dirty ? what.dirty - 1 : 0;
  if (touched * (what.wanders ? 8 : 1) > pages) return {};
  auto faaslet = must(Faaslet::restore(must(Slot::reserve()), image.proto, kLinks, nullptr));
  const uint64_t step = touched ? pages / touched * kPage : 0;
  const uint8_t* const image_memory = proto.image() + (proto.regions()[0].image_bytes - proto.memory_bytes());
  Samples resets, copies;
  for (int round = -20; round < rounds; ++round) {
    const uint64_t shorter = what.wanders ? static_cast<uint64_t>(round + 20) % 8 * (step / 64 / kPage * kPage) : 0;
    const auto call = [&] {
      if (what.dirty > 0) run(*faaslet, "touch", {touched, step - shorter, what.grown});
    };
    call();
    auto begin = Clock::now();
    CHECK(faaslet->reset());
    const double reset_us = us_since(begin);
    call();
    begin = Clock::now();
    for (uint64_t i = 0; i < what.dirty; ++i) {
      // The last one is the page of header and stack, right below the memory.
      const int64_t offset = i == touched ? -static_cast<int64_t>(kPage) : static_cast<int64_t>(i * (step - shorter));
      std::memcpy(faaslet->memory() + offset, image_memory + offset, kPage);
    }
    const double copy_us = us_since(begin);
    CHECK(faaslet->reset());
    if (round < 0) continue;
    resets.add(reset_us);
    copies.add(copy_us);
  }
  return {resets.median(), copies.median()};
}

void bench_reset(const std::vector<Image>& images, int rounds, Figures& figures) {
  std::printf("reset, us (median); floor: memcpy of the dirty pages\n");
  std::printf("  %-28s", "dirty pages");
  for (const Image& image : images) std::printf("%24s", size_text(image).c_str());
  std::printf("\n");
  const ResetCase cases[] = {{0, 0}, {1, 0}, {4, 0}, {16, 0}, {256, 0}, {16, 0, true}, {4, 16}, {16, 16}};
  for (const ResetCase& what : cases) {
    std::string label = std::to_string(what.dirty);
    if (what.wanders) label += ", others each time";
    if (what.grown)
      label += ", grown by " + std::to_string(what.grown / 16) + " MiB, " + std::to_string(what.grown) + " more";
    std::printf("  %-28s", label.c_str());
    for (const Image& image : images) {
      const auto [reset_us, copy_us] = time_reset(image, what, rounds);
      if (reset_us == 0) {
        std::printf("%24s", "-");
        continue;
      }
      std::printf("%9.2f floor %5.2f", reset_us, copy_us);
      if (copy_us > 0.05)
        std::printf(" %3.1f", reset_us / copy_us);
      else
        std::printf("    ");
      const bool one_mib = image.mib_times_16 == 16;
      if (one_mib && what.dirty == 4 && !what.grown) {
        figures.reset_us = reset_us;
        figures.reset_ratio = reset_us / copy_us;
      }
      if (one_mib && what.dirty == 4 && what.grown) figures.reset_grown_us = reset_us;
    }
    std::printf("\n");
  }
}

// ---- calls ----------------------------------------------------------------------------------------------------------

// A call as a host runs it: input, a little work on three pages, output.
constexpr std::string_view kCall = R"((module
    (import "spore" "input_size" (func $size (result i32)))
    (import "spore" "input_read" (func $read (param i32 i32 i32) (result i32)))
    (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
    (memory (export "memory") PAGES) (data (i32.const 1000) "data")
    (func (export "spore_call") (local $n i32)
      (local.set $n (call $read (i32.const 0) (i32.const 8192) (call $size)))
      (i32.store (i32.const 32768) (i32.load (i32.const 1000)))
      (drop (call $write (i32.const 8192) (local.get $n))))))";

std::shared_ptr<const functions::LoadedFunction> make_function(uint64_t pages) {
  std::string text(kCall);
  text.replace(text.find("PAGES"), 5, std::to_string(pages));
  auto ready = must(testing::prepare(text));
  if (pages > 16) {  // no zero page, as a real image of that size
    auto state = must(faaslet::instantiate(ready.object->module()));
    state.storage.assign(pages * wasm::kPageBytes, 1);
    state.memories[0].runs = {{0, state.storage}};
    ready.proto = must(ProtoFaaslet::make(ready.object, state));
  }
  functions::LoadedFunction out;
  out.id = {"bench", "call"};
  out.version.number = 1;
  out.proto = ready.proto;
  return std::make_shared<functions::LoadedFunction>(std::move(out));
}

// Calls per second of `threads` threads together, each bringing calls of its own; each latency goes to `latencies`.
double calls_per_second(worker::Worker& worker, const std::shared_ptr<const functions::LoadedFunction>& function,
                        unsigned threads, int calls, Samples* latencies = nullptr) {
  std::barrier start(static_cast<std::ptrdiff_t>(threads) + 1);
  std::vector<std::jthread> running;
  for (unsigned thread = 0; thread < threads; ++thread) {
    running.emplace_back([&, thread] {
      cpu_set_t cpu;
      CPU_ZERO(&cpu);
      CPU_SET(thread % std::thread::hardware_concurrency(), &cpu);
      ::sched_setaffinity(0, sizeof(cpu), &cpu);
      const worker::Worker::Attachment attachment(worker);
      const auto one = [&] {
        worker::CallRequest request;
        request.function = function;
        request.input = {'h', 'e', 'l', 'l', 'o'};
        bool done = false;
        worker.submit(std::move(request), [&](worker::CallResult result) {
          CHECK(result.status == worker::CallStatus::kOk && result.output.size() == 5, result.error.message);
          done = true;
        });
        CHECK(done, "a call on an attached thread ends before submit() does");
      };
      for (int i = 0; i < 200; ++i) one();
      start.arrive_and_wait();
      for (int i = 0; i < calls; ++i) {
        const auto begin = Clock::now();
        one();
        if (latencies && thread == 0) latencies->add(us_since(begin));
      }
      start.arrive_and_wait();
    });
  }
  start.arrive_and_wait();
  const auto begin = Clock::now();
  start.arrive_and_wait();
  return calls * threads / (us_since(begin) / 1e6);
}

void bench_calls(int rounds, Figures& figures) {
  const worker::WorkerOptions warm{.seats = 2};
  worker::WorkerOptions fresh{.seats = 2};
  fresh.pool.idle_max = 0;
  worker::Worker warm_worker(warm, [] {});
  worker::Worker fresh_worker(fresh, [] {});
  // The same with what they take counted, as `spore serve` does.
  MemoryBooks books({});
  worker::WorkerOptions counted = warm;
  counted.memory = &books;
  worker::Worker counted_worker(counted, [] {});
  counted = fresh;
  counted.memory = &books;
  worker::Worker counted_fresh_worker(counted, [] {});
  const auto function = make_function(1);
  const auto small = make_function(16), large = make_function(4096);
  Samples warm_1, warm_2, fresh_1, fresh_2, latencies, of_small, of_large, counted_latencies, fresh_latencies,
      fresh_counted;
  const int calls = 20'000;
  for (int round = 0; round < rounds; ++round) {
    warm_1.add(calls_per_second(warm_worker, function, 1, calls, &latencies));
    warm_2.add(calls_per_second(warm_worker, function, 2, calls));
    calls_per_second(counted_worker, function, 1, calls, &counted_latencies);
    fresh_1.add(calls_per_second(fresh_worker, function, 1, calls / 4, &fresh_latencies));
    calls_per_second(counted_fresh_worker, function, 1, calls / 4, &fresh_counted);
    fresh_2.add(calls_per_second(fresh_worker, function, 2, calls / 4));
    of_small.add(calls_per_second(warm_worker, small, 1, calls / 4));
    of_large.add(calls_per_second(warm_worker, large, 1, calls / 4));
  }
  figures.warm_us = latencies.median();
  figures.reset_per_s = warm_1.median();
  figures.fresh_per_s = fresh_1.median();
  figures.scaling = warm_2.median() / warm_1.median();
  std::printf("calls in process (dispatch, run, reset), medians of %d rounds\n", rounds);
  std::printf("  warm: p50 %.2f us, p99 %.2f us\n", latencies.median(), latencies.at(0.99));
  std::printf("  reset calls/s: 1 thread %.0f, 2 threads %.0f (%.2fx)\n", warm_1.median(), warm_2.median(),
              figures.scaling);
  std::printf("  fresh calls/s: 1 thread %.0f, 2 threads %.0f (%.2fx)\n", fresh_1.median(), fresh_2.median(),
              fresh_2.median() / fresh_1.median());
  std::printf("  p50 with memory counted: warm %.3f us (%.3fx), fresh %.2f us (%.3fx)\n", counted_latencies.median(),
              counted_latencies.median() / latencies.median(), fresh_counted.median(),
              fresh_counted.median() / fresh_latencies.median());
  std::printf("  reset calls/s by image: 1 MiB %.0f, 256 MiB %.0f (%.2fx)\n", of_small.median(), of_large.median(),
              of_large.median() / of_small.median());
}

int bench(int rounds) {
  testing::arena();
  std::vector<Image> images;
  for (const uint64_t pages : {1, 16, 256, 4096}) images.push_back(make_image(pages));
  Figures figures;
  bench_restore(images, rounds, figures);
  bench_working_set(images[2], rounds / 4);
  bench_reset(images, rounds, figures);
  bench_calls(std::max(3, rounds / 200), figures);
  std::printf(
      "bench start: restore_us=%.2f restore_ratio=%.2f reset_us=%.2f reset_ratio=%.2f reset_grown_us=%.2f "
      "fresh_per_s=%.0f reset_per_s=%.0f warm_us=%.2f scaling_2t=%.2f\n",
      figures.restore_us, figures.restore_ratio, figures.reset_us, figures.reset_ratio, figures.reset_grown_us,
      figures.fresh_per_s, figures.reset_per_s, figures.warm_us, figures.scaling);
  return 0;
}

}  // namespace
}  // namespace spore

int main(int argc, char** argv) {
  CLI::App app("What it costs to start a function, to call it again and to reset it");
  int rounds = 2000;
  app.add_option("--rounds", rounds, "Of each measurement")->check(CLI::Range(10, 1'000'000))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return spore::bench(rounds);
}

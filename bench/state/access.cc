// Access to mapped state beside a native array, and what mapping and first writes cost.
#include <sys/mman.h>

#include <cmath>
#include <map>

#include "base/fd.h"
#include "base/mapping.h"
#include "parts.h"

namespace spore::bench {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kRandomAccesses = 1 << 20;
using Kernel = uint64_t (*)(void*, uint32_t, uint32_t);

struct KernelCase {
  const char* name;
  bool random;
};
// In this order for every contender, so that all arrays have the same content at all times.
constexpr KernelCase kKernels[] = {{"fill", false},        {"sum_integers", false}, {"sum_doubles", false},
                                   {"read_random", true},  {"scale", false},        {"sum_doubles", false},
                                   {"write_random", true}, {"sum_integers", false}};
constexpr const char* kKernelNames[] = {"fill", "scale", "sum_integers", "sum_doubles", "read_random", "write_random"};

enum Who { kMalloc, kFile, kLinear, kMapped, kWhoCount };
constexpr const char* kWho[kWhoCount] = {"native, malloc", "native, memory file", "wasm, own memory",
                                         "wasm, mapped state"};

std::string size_text(uint64_t bytes) {
  return bytes >= 1 << 20 ? std::to_string(bytes >> 20) + " MiB" : std::to_string(bytes >> 10) + " KiB";
}

uint64_t call_native(const char* name, void* array, uint32_t count, uint32_t passes, double* took_us) {
  const auto kernel = reinterpret_cast<Kernel>(native_kernel(name));
  const double begin_us = thread_us();
  const uint64_t result = kernel(array, count, passes);
  *took_us = thread_us() - begin_us;
  return result;
}

Mapping map_memory_file(uint64_t bytes) {
  const UniqueFd file(::memfd_create("bench", MFD_CLOEXEC));
  CHECK(file.valid() && ::ftruncate(file.get(), static_cast<off_t>(bytes)) == 0);
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  CHECK(at != MAP_FAILED);
  return Mapping(at, bytes);
}

}  // namespace

void bench_access(state::GlobalTier& global, int rounds, Figures& figures) {
  StateHost host(global);
  const testing::Ready ready = prepare_guest("kernels");
  Guest guest(ready, host);
  std::printf(
      "access: the same loops over an array of doubles, ns an element (median of %d interleaved rounds); every page "
      "was\n"
      "written before on all sides\n  %-22s",
      rounds, "");
  for (const char* who : kWho) std::printf(" %20s", who);
  std::printf("   mapped/malloc  mapped/own  file/malloc\n");
  double logs[kWhoCount] = {};
  int figures_count = 0;
  for (const uint64_t bytes : {uint64_t{16} << 20, uint64_t{256} << 10}) {
    const uint32_t count = static_cast<uint32_t>(bytes / sizeof(double));
    const std::string letter = bytes > 1 << 20 ? "l" : "s";
    const auto replica = host.open(letter, bytes);
    std::unique_ptr<void, decltype(&std::free)> array(std::aligned_alloc(kPage, bytes), &std::free);
    const Mapping file = map_memory_file(bytes);
    const uint64_t places[kWhoCount] = {0, 0, guest.call("linear", {}),
                                        guest.call("map", {static_cast<uint64_t>(letter[0])})};
    CHECK(places[kMapped] != 0);
    const auto run = [&](int who, const KernelCase& kernel, double* took_us) {
      const uint32_t passes = kernel.random ? 1 : static_cast<uint32_t>((32 << 20) / bytes);
      switch (who) {
        case kMalloc: return call_native(kernel.name, array.get(), count, passes, took_us);
        case kFile: return call_native(kernel.name, file.data(), count, passes, took_us);
        default: return guest.call(kernel.name, {places[who], count, passes}, took_us);
      }
    };
    std::map<std::string, Samples> samples[kWhoCount];
    for (int round = -2; round < rounds; ++round) {
      for (const KernelCase& kernel : kKernels) {
        uint64_t results[kWhoCount];
        for (int turn = 0; turn < kWhoCount; ++turn) {
          const int who = (turn + round + 2) % kWhoCount;
          double took_us = 0;
          results[who] = run(who, kernel, &took_us);
          const double accesses = kernel.random ? kRandomAccesses : static_cast<double>((32 << 20) / sizeof(double));
          if (round >= 0) samples[who][kernel.name].add(took_us * 1e3 / accesses);
        }
        for (int who = 1; who < kWhoCount; ++who)
          CHECK(results[who] == results[0], kernel.name, kWho[who], results[who], results[0]);
      }
    }
    for (const char* name : kKernelNames) {
      double medians[kWhoCount];
      std::printf("  %-14s %7s", name, size_text(bytes).c_str());
      for (int who = 0; who < kWhoCount; ++who) {
        medians[who] = samples[who][name].median();
        std::printf(" %20.3f", medians[who]);
        logs[who] += std::log(medians[who]);
      }
      std::printf("   %13.3f  %10.3f  %11.3f\n", medians[kMapped] / medians[kMalloc],
                  medians[kMapped] / medians[kLinear], medians[kFile] / medians[kMalloc]);
      ++figures_count;
    }
  }
  const auto mean = [&](int a, int b) { return std::exp((logs[a] - logs[b]) / figures_count); };
  figures.mapped_ratio = mean(kMapped, kMalloc);
  std::printf(
      "  geometric mean: mapped/malloc %.3f, mapped/own memory %.3f, own memory/malloc %.3f, file/malloc %.3f\n",
      figures.mapped_ratio, mean(kMapped, kLinear), mean(kLinear, kMalloc), mean(kFile, kMalloc));
}

void bench_first_writes(state::GlobalTier& global, int rounds) {
  constexpr uint64_t kPages = 1024;
  StateHost host(global);
  const testing::Ready ready = prepare_guest("kernels");
  Guest guest(ready, host);
  const auto replica = host.open("w", kPages * kPage);
  const uint64_t at = guest.call("map", {'w'});
  CHECK(at != 0);
  const auto write_native = reinterpret_cast<uint64_t (*)(void*, uint32_t)>(native_kernel("write_pages"));
  Samples new_pages, after_push, again, anonymous;
  for (int round = 0; round < rounds; ++round) {
    double took_us = 0;
    guest.call("write_pages", {at, kPages}, &took_us);
    if (round == 0)
      new_pages.add(took_us);
    else
      after_push.add(took_us);
    guest.call("write_pages", {at, kPages}, &took_us);
    again.add(took_us);
    must(replica->push({}, soon()));
    const auto begin_mapping = [&] {
      void* fresh = ::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      CHECK(fresh != MAP_FAILED);
      return Mapping(fresh, kPages * kPage);
    };
    const Mapping fresh = begin_mapping();
    const double begin_us = thread_us();
    write_native(fresh.data(), kPages);
    anonymous.add(thread_us() - begin_us);
  }
  std::printf(
      "first writes: ns a page: %.0f to a page that was pushed (its protection goes by a fault), %.1f to one written\n"
      "  since, %.0f to the value's pages the first time ever; a native program's first write to new memory: %.0f\n",
      after_push.median() * 1e3 / kPages, again.median() * 1e3 / kPages, new_pages.median() * 1e3 / kPages,
      anonymous.median() * 1e3 / kPages);
}

void bench_map(state::GlobalTier& global, int rounds) {
  StateHost host(global);
  const testing::Ready ready = prepare_guest("kernels");
  std::printf(
      "state_map of a value that is on this host, us (median, p99 of %d); a call that does nothing among them\n",
      rounds);
  for (const uint64_t mib : {1, 100}) {
    const std::string letter = mib == 1 ? "1" : "h";
    const auto replica = host.open(letter, mib << 20);
    write_all(*replica, 0, random_content(mib << 20, mib));
    must(replica->push({}, soon()));
    const uint64_t pages = (mib << 20) / kPage;
    Samples nothing, first, warm, touch, touch_again;
    for (int round = 0; round < rounds; ++round) {
      Guest guest(ready, host);
      double took_us = 0;
      guest.call("nothing", {});
      guest.call("nothing", {}, &took_us);
      nothing.add(took_us);
      const uint64_t at = guest.call("map", {static_cast<uint64_t>(letter[0])}, &took_us);
      CHECK(at != 0);
      first.add(took_us);
      if (round < 20) {
        guest.call("read_pages", {at, pages}, &took_us);
        touch.add(took_us);
      }
      guest.reset();
      CHECK(guest.call("map", {static_cast<uint64_t>(letter[0])}, &took_us) == at);
      warm.add(took_us);
      if (round < 20) {
        guest.call("read_pages", {at, pages}, &took_us);
        touch_again.add(took_us);
      }
    }
    std::printf(
        "  %3llu MiB: %7.2f %7.2f in a fresh Faaslet, %5.2f %5.2f in a warm one (a call: %.2f); the first read of "
        "each\n"
        "           page %.0f ns in a fresh one, %.1f ns in a warm one\n",
        static_cast<unsigned long long>(mib), first.median(), first.at(0.99), warm.median(), warm.at(0.99),
        nothing.median(), touch.median() * 1e3 / static_cast<double>(pages),
        touch_again.median() * 1e3 / static_cast<double>(pages));
  }
}

}  // namespace spore::bench

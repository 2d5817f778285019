// bench_compute [--rounds N] [--cpu-time] [KERNEL...]: how fast is compiled WebAssembly? Runs each kernel natively, in
// Spore and in V8, in rounds that interleave them all in rotated order, so that whatever slows the machine down for a
// while slows everybody down.
//
// Prints a table of medians, and a last line
//   bench compute: scalar=A simd=B v8=C
// A and B: geometric mean over the kernels of Spore's time / the time of plain clang-19 -O3, for scalar
// and for SIMD modules. C: of Spore's time / V8's on the same modules, both kinds.
// Before it what spectre_hardening costs, on the scalar modules.
// With --cpu-time these are of CPU time, which says more on a machine that others use at the same time.
// Ends with 1 where a checksum differs, whatever the times are.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "contenders.h"

namespace spore::bench {
namespace {

enum Who { kNative, kNativeV3, kSporeScalar, kSporeSimd, kSporeHardened, kV8Scalar, kV8Simd, kWhoCount };
constexpr const char* kNames[kWhoCount] = {"native", "native v3", "scalar", "simd", "hardened", "v8 scalar", "v8 simd"};

struct Arguments {
  size_t rounds = 11;
  bool cpu_time = false;
  std::vector<std::string> kernels;  // none: all of them
};

Result<Arguments> parse_arguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
      char* end = nullptr;
      const unsigned long rounds = std::strtoul(argv[++i], &end, 10);
      if (*end != '\0' || rounds < 1 || rounds > 1000) {
        return fail(ErrorCode::kInvalidArgument, std::string("--rounds takes 1 to 1000, not ") + argv[i]);
      }
      arguments.rounds = rounds;
    } else if (std::strcmp(argv[i], "--cpu-time") == 0) {
      arguments.cpu_time = true;
    } else if (argv[i][0] == '-') {
      return fail(ErrorCode::kInvalidArgument, "usage: bench_compute [--rounds N] [--cpu-time] [KERNEL...]");
    } else {
      arguments.kernels.push_back(argv[i]);
    }
  }
  return arguments;
}

Result<Kernels> find_kernels(const std::vector<std::string>& wanted) {
  Kernels kernels{.folder = BENCH_COMPUTE_KERNELS};
  const std::string suffix = ".scalar.wasm";
  for (const auto& entry : std::filesystem::directory_iterator(kernels.folder)) {
    const std::string file = entry.path().filename();
    if (!file.ends_with(suffix)) continue;
    const std::string name = file.substr(0, file.size() - suffix.size());
    if (wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end()) kernels.names.push_back(name);
  }
  std::sort(kernels.names.begin(), kernels.names.end());
  if (kernels.names.empty()) return fail(ErrorCode::kNotFound, "no such kernel in " + kernels.folder);
  return kernels;
}

Result<bool> measure(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Kernels kernels, find_kernels(arguments.kernels));
  const size_t count = kernels.names.size();

  ASSIGN_OR_RETURN(const auto arena, faaslet::CodeArena::reserve(as_bytes("bench_compute")));
  TRY(faaslet::install_signal_handlers());
  faaslet::Seat seat;
  std::unique_ptr<Contender> contenders[kWhoCount];
  ASSIGN_OR_RETURN(contenders[kNativeV3], make_native(kernels, ".v3.so"));
  ASSIGN_OR_RETURN(contenders[kNative], make_native(kernels, ".native.so"));
  ASSIGN_OR_RETURN(contenders[kSporeScalar], make_spore(*arena, seat, kernels, ".scalar.wasm"));
  ASSIGN_OR_RETURN(contenders[kSporeSimd], make_spore(*arena, seat, kernels, ".simd.wasm"));
  ASSIGN_OR_RETURN(contenders[kSporeHardened], make_spore(*arena, seat, kernels, ".scalar.wasm", /*hardened=*/true));
  ASSIGN_OR_RETURN(contenders[kV8Scalar], make_v8(kernels, ".scalar.wasm", BENCH_COMPUTE_V8));
  ASSIGN_OR_RETURN(contenders[kV8Simd], make_v8(kernels, ".simd.wasm", BENCH_COMPUTE_V8));

  // One run of each before the first round: pages are there, and the checksums are compared.
  bool equal = true;
  for (size_t kernel = 0; kernel < count; ++kernel) {
    uint64_t expected = 0;
    for (int who = 0; who < kWhoCount; ++who) {
      ASSIGN_OR_RETURN(const Sample sample, contenders[who]->run(kernel));
      if (who == 0) expected = sample.checksum;
      if (sample.checksum == expected) continue;
      equal = false;
      std::printf("%s: the checksum of %s is %016llx, that of %s is %016llx\n", kernels.names[kernel].c_str(),
                  kNames[who], static_cast<unsigned long long>(sample.checksum), kNames[0],
                  static_cast<unsigned long long>(expected));
    }
  }

  std::vector<std::vector<double>> times(count * kWhoCount);
  for (size_t round = 0; round < arguments.rounds; ++round) {
    for (size_t kernel = 0; kernel < count; ++kernel) {
      for (int turn = 0; turn < kWhoCount; ++turn) {
        const size_t who = (turn + round + kernel) % kWhoCount;
        ASSIGN_OR_RETURN(const Sample sample, contenders[who]->run(kernel));
        times[kernel * kWhoCount + who].push_back(arguments.cpu_time ? sample.cpu_ms : sample.wall_ms);
      }
    }
  }

  std::printf("%-15s", arguments.cpu_time ? "median CPU ms" : "median ms");
  for (const char* name : kNames) std::printf(" %24s", name);
  std::printf(" | scalar/native simd/native scalar/v3 simd/v3 scalar/v8 simd/v8 hardened/scalar\n");
  std::vector<double> scalar, simd, scalar_v3, simd_v3, scalar_v8, simd_v8, hardened;
  double confidence = 1;
  for (size_t kernel = 0; kernel < count; ++kernel) {
    Median median[kWhoCount];
    std::printf("%-15s", kernels.names[kernel].c_str());
    for (int who = 0; who < kWhoCount; ++who) {
      median[who] = median_of(times[kernel * kWhoCount + who]);
      confidence = std::min(confidence, median[who].confidence);
      std::printf(" %8.2f [%6.2f, %6.2f]", median[who].value, median[who].low, median[who].high);
    }
    scalar.push_back(median[kSporeScalar].value / median[kNative].value);
    simd.push_back(median[kSporeSimd].value / median[kNative].value);
    scalar_v3.push_back(median[kSporeScalar].value / median[kNativeV3].value);
    simd_v3.push_back(median[kSporeSimd].value / median[kNativeV3].value);
    hardened.push_back(median[kSporeHardened].value / median[kSporeScalar].value);
    scalar_v8.push_back(median[kSporeScalar].value / median[kV8Scalar].value);
    simd_v8.push_back(median[kSporeSimd].value / median[kV8Simd].value);
    std::printf(" | %13.2f %11.2f %9.2f %7.2f %9.2f %7.2f %15.2f\n", scalar.back(), simd.back(), scalar_v3.back(),
                simd_v3.back(), scalar_v8.back(), simd_v8.back(), hardened.back());
  }
  std::vector<double> both_v8 = scalar_v8;
  both_v8.insert(both_v8.end(), simd_v8.begin(), simd_v8.end());
  std::printf("\n%zu kernels, %zu interleaved rounds; medians with intervals of %.0f %% confidence\n", count,
              arguments.rounds, 100 * confidence);
  std::printf("geometric means against clang -O3: scalar %.3f, SIMD %.3f\n", geometric_mean(scalar),
              geometric_mean(simd));
  // Where clang may use 256-bit vectors, which WebAssembly's SIMD does not have.
  std::printf("against clang -O3 -march=x86-64-v3: scalar %.3f, SIMD %.3f\n", geometric_mean(scalar_v3),
              geometric_mean(simd_v3));
  std::printf("against V8 without its baseline compiler: scalar %.3f, SIMD %.3f\n", geometric_mean(scalar_v8),
              geometric_mean(simd_v8));
  std::printf("spectre_hardening against the same without: scalar %.3f, at most %.3f\n", geometric_mean(hardened),
              *std::max_element(hardened.begin(), hardened.end()));
  std::printf("checksums: %s\n", equal ? "equal everywhere" : "DIFFERENT, see above");
  std::printf("bench compute: scalar=%.3f simd=%.3f v8=%.3f\n", geometric_mean(scalar), geometric_mean(simd),
              geometric_mean(both_v8));
  return equal;
}

}  // namespace
}  // namespace spore::bench

int main(int argc, char** argv) {
  const auto arguments = spore::bench::parse_arguments(argc, argv);
  if (!arguments) {
    std::fprintf(stderr, "%s\n", arguments.error().message.c_str());
    return 2;
  }
  const auto equal = spore::bench::measure(*arguments);
  if (!equal) {
    std::fprintf(stderr, "bench_compute: %s\n", equal.error().message.c_str());
    return 1;
  }
  return *equal ? 0 : 1;
}

// Publishes, loads and removes functions many times and fails where anything is left behind: memory, mappings,
// descriptors, code in the arena, files in the store. Some functions are large enough for two tiers, so that background
// compilations are cancelled too.
//
//   soak_publish_remove [--cycles N]
//
// The last line is `soak publish_remove: cycles=.. rss_growth_kb=.. mappings_growth=.. descriptors_growth=..`.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <string>

#include "faaslet/seat.h"
#include "functions/registry.h"
#include "functions/test_world.h"

namespace {

using namespace spore;
namespace fs = std::filesystem;

constexpr uint64_t kLargeModuleBytes = 1000;
constexpr int64_t kRssGrowthKbMax = 16 << 10;  // what malloc may keep; a leak of 2 KiB a cycle is more
constexpr int64_t kMappingsGrowthMax = 16;

struct Usage {
  int64_t rss_kb = 0;
  int64_t mappings = 0;
  int64_t descriptors = 0;
};

Usage usage_now() {
  Usage out;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) out.rss_kb = std::stoll(line.substr(6));
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) ++out.mappings;
  out.descriptors = std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  return out;
}

// Every fourth module has a custom section that makes it large.
Bytes module_of(int cycle) {
  Bytes wasm = functions::module_that_returns(static_cast<uint8_t>(cycle % 64));
  if (cycle % 4 != 0) return wasm;
  // Id 0, a size of two bytes, the name "x", zeros.
  const Bytes header = {0, 0xd0, 0x0f, 1, 'x'};
  wasm.insert(wasm.end(), header.begin(), header.end());
  wasm.resize(wasm.size() + 0x7d0 - 2);
  return wasm;
}

Result<void> run_cycle(functions::Registry& registry, int cycle) {
  const functions::FunctionId id{"soak", "f" + std::to_string(cycle % 100)};
  const Bytes wasm = module_of(cycle);
  TRY(registry.publish({.id = id, .wasm = wasm, .config = functions::FunctionConfig{}}));
  TRY(registry.load(id));
  return registry.remove(id);
}

Result<void> soak(int cycles) {
  TRY(faaslet::install_signal_handlers());
  const functions::TemporaryDirectory directory;
  ASSIGN_OR_RETURN(const auto store, object_store::DirectoryStore::open(directory.path()));
  ASSIGN_OR_RETURN(const auto arena, faaslet::CodeArena::reserve(Bytes(32, 1)));
  const compiler::ChildCompiler compiler;
  functions::RegistryOptions options;
  options.host_key = Bytes(32, 2);
  options.fast_tier_above_bytes = kLargeModuleBytes;
  ASSIGN_OR_RETURN(const auto registry, functions::Registry::open(*store, compiler, *arena, {}, options));

  const int warm_up = std::max(1, cycles / 20);
  Usage before;
  for (int cycle = 0; cycle < cycles; ++cycle) {
    if (cycle == warm_up) before = usage_now();
    if (auto done = run_cycle(*registry, cycle); !done)
      return std::unexpected(std::move(done).error().within("cycle " + std::to_string(cycle)));
    if (cycle % std::max(1, cycles / 10) == 0) {
      const Usage now = usage_now();
      std::printf("cycle %d: %lld KiB resident, %lld mappings, %lld descriptors, %zu objects\n", cycle,
                  static_cast<long long>(now.rss_kb), static_cast<long long>(now.mappings),
                  static_cast<long long>(now.descriptors), arena->objects());
      std::fflush(stdout);
    }
  }
  registry->wait_for_background();
  const Usage after = usage_now();
  ASSIGN_OR_RETURN(const auto left, store->list(""));
  std::printf("soak publish_remove: cycles=%d rss_growth_kb=%lld mappings_growth=%lld descriptors_growth=%lld\n",
              cycles, static_cast<long long>(after.rss_kb - before.rss_kb),
              static_cast<long long>(after.mappings - before.mappings),
              static_cast<long long>(after.descriptors - before.descriptors));
  const auto refuse = [](const std::string& what) { return fail(ErrorCode::kInternal, what); };
  if (!left.empty()) return refuse("the store still holds " + left.front().name);
  if (arena->objects() != 0 || arena->used_bytes() != 0) return refuse("the arena still holds code");
  if (after.descriptors > before.descriptors + 2) return refuse("descriptors have leaked");  // of a compile's moment
  if (after.mappings > before.mappings + kMappingsGrowthMax) return refuse("mappings have leaked");
  if (after.rss_kb > before.rss_kb + kRssGrowthKbMax) return refuse("memory has leaked");
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Publish and remove functions, again and again"};
  int cycles = 10'000;
  app.add_option("--cycles", cycles, "How often")->check(CLI::Range(2, 100'000'000))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const auto done = soak(cycles);
  if (!done) std::fprintf(stderr, "soak publish_remove: %s\n", done.error().message.c_str());
  return done ? 0 : 1;
}

// spore compile FILE.wasm: compiles a module now, so that `spore run` starts at once later.
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "base/fd.h"
#include "bin/commands.h"
#include "bin/progress.h"
#include "functions/object_cache.h"

namespace spore::bin {
namespace {

constexpr uint64_t kModuleBytesMax = 1ull << 30;

struct Arguments {
  std::string file;
  std::string tier = "optimised";
  std::string cache;
  bool spectre_hardening = false;
};

Result<void> compile(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bytes wasm, read_file(arguments.file, kModuleBytesMax));
  std::filesystem::path directory = arguments.cache;
  if (directory.empty()) {
    ASSIGN_OR_RETURN(directory, functions::UserCache::default_directory());
  }
  ASSIGN_OR_RETURN(const auto cache, functions::UserCache::open(directory));
  ASSIGN_OR_RETURN(const auto cpu_level, wasm::cpu_level_of_this_machine());
  const compiler::Options options{.tier = arguments.tier == "fast" ? wasm::Tier::kFast : wasm::Tier::kOptimised,
                                  .cpu_level = cpu_level,
                                  .threads = std::max(1u, std::thread::hardware_concurrency()),
                                  .hardened = arguments.spectre_hardening};
  const auto begin = std::chrono::steady_clock::now();
  auto object = [&] {
    ProgressLine line("compiling " + arguments.file);
    return cache->objects().find_or_compile(wasm, options, [&](double share) { line.show(share); });
  }();
  if (!object) return std::unexpected(std::move(object).error().within(arguments.file));
  const auto took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%s: %s, %zu functions, %.1f KiB of wasm, %.1f KiB of object, %s in %.2f s\n", arguments.file.c_str(),
              arguments.tier.c_str(), object->object.functions.size(), static_cast<double>(wasm.size()) / (1 << 10),
              static_cast<double>(object->stored_bytes) / (1 << 10), object->compiled ? "compiled" : "cached", took);
  return {};
}

}  // namespace

void add_compile(CLI::App& app, int& exit_code) {
  auto* const command = app.add_subcommand("compile", "Compile a module into the cache that `spore run` uses");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("FILE", arguments->file, "The WebAssembly module")->required();
  command->add_option("--tier", arguments->tier, "fast or optimised")
      ->check(CLI::IsMember({"fast", "optimised"}))
      ->capture_default_str();
  command->add_flag("--spectre-hardening", arguments->spectre_hardening,
                    "As for functions that set spectre_hardening (docs/isolation.md)");
  command->add_option("--cache", arguments->cache, "Cache directory (default: $XDG_CACHE_HOME/spore or ~/.cache/spore)")
      ->envname("SPORE_CACHE");
  command->callback([arguments, &exit_code] {
    if (const auto done = compile(*arguments); !done) {
      std::fprintf(stderr, "spore compile: %s\n", done.error().message.c_str());
      exit_code = 1;
    }
  });
}

}  // namespace spore::bin

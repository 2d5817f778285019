// The catalogue of functions and the way from published wasm to code that runs.
//
//   publish: wasm -> ObjectCache (ChildCompiler) -> CodeArena -> initialisers -> ProtoFaaslet; module, image and record
//   ->
//            store
//   load:    what publish made; after a restart or an eviction the same again, from the store
//
// Durable: a function is there when publish returns, survives a restart, and is never half there: its record, one small
// object, is written last and whole. What no record refers to (modules, objects of a publish that did not end) is
// removed when the registry is opened.
//
// Two tiers: a module of at most `fast_tier_above_bytes` is compiled optimised before publish returns. A larger one is
// compiled by the fast tier first; one background thread then compiles it optimised, and loads from then on give the
// better code. A failed optimised compile is logged and leaves the fast tier.
// A function whose calls run in a process of its tenant's (HostHooks::runs_apart) has neither code nor an image here:
// that process asks for what it needs (parts()), and initialises it.
//
// All methods may be called from any thread. publish and the first load of a function block while they compile; load of
// a loaded function takes one shared lock.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "compiler/child.h"
#include "faaslet/code_arena.h"
#include "functions/function.h"
#include "object_store/object_store.h"

namespace spore::functions {

// What the registry asks of the host interface, which it knows nothing of; by default nothing. All may be called from
// several threads.
struct HostHooks {
  // Refuses a module that the host cannot run: unknown imports (all of them named), no entry point. kInvalidModule.
  std::function<Result<void>(const wasm::ModuleInfo&)> check = [](const auto&) { return Result<void>(); };
  // Refuses a configuration that requires what the host does not have. kUnavailable.
  std::function<Result<void>(const FunctionId& id, const FunctionConfig& config)> admit = [](const auto&, const auto&) {
    return Result<void>();
  };
  // Whether calls of such a function run in a process of its tenant's.
  std::function<bool(const FunctionId& id, const FunctionConfig& config)> runs_apart =
      [](const auto&, const FunctionConfig& config) { return config.isolation == Isolation::kProcess; };
  // The function has another current version, better code, or is gone. With locks of the registry held: it must not
  // block, nor ask the registry.
  std::function<void(const FunctionId& id)> changed = [](const auto&) {};
  // Makes ready what a function's network needs; only where its configuration has one. kInvalidArgument,
  // kPermissionDenied, kUnavailable: it cannot have that.
  std::function<Result<std::shared_ptr<const isolation::PreparedPolicy>>(const FunctionId& id,
                                                                         const isolation::NetworkPolicy& policy)>
      prepare_network = [](const FunctionId& id, const auto&) {
        return Result<std::shared_ptr<const isolation::PreparedPolicy>>(
            fail(ErrorCode::kUnavailable, id.text() + " wants a network, and this host has none"));
      };
  // From the image of the module as instantiated to the one that calls begin from. kInvalidModule, kDeadlineExceeded.
  std::function<Result<std::shared_ptr<const faaslet::ProtoFaaslet>>(
      std::shared_ptr<const faaslet::ProtoFaaslet> instantiated, const FunctionId& id, const FunctionConfig& config)>
      initialise = [](auto instantiated, const auto&, const auto&) { return instantiated; };
  // Counts the memory of a loaded function's image, for as long as what it gives lives. kResourceExhausted. Called
  // without locks, and may call drop_unused_images().
  std::function<Result<std::shared_ptr<const void>>(const FunctionId& id, uint64_t bytes)> count_image =
      [](const auto&, uint64_t) { return Result<std::shared_ptr<const void>>(nullptr); };
};

struct RegistryOptions {
  Bytes host_key;  // 32 bytes; seals compiled objects (functions/host_key.h)
  wasm::CpuLevel cpu_level = wasm::CpuLevel::kV2;
  unsigned compiler_threads = 1;
  uint64_t module_bytes_max = 256ull << 20;
  uint64_t object_bytes_max = 1ull << 30;
  uint64_t fast_tier_above_bytes = 256 << 10;
  size_t functions_max = 100'000;
  size_t versions_max = 20;            // of one function; older ones are forgotten, the current one never
  size_t loaded_max = 4'000;           // functions held ready; the least recently used go first
  unsigned compiles_at_once_max = 2;   // for publishes and loads; the background compile is one more
  unsigned compiles_waiting_max = 64;  // more are refused with kUnavailable
  size_t background_queue_max = 1'000;
};

struct PublishRequest {
  FunctionId id;
  ByteSpan wasm;
  std::optional<FunctionConfig> config;   // default: that of the current version, else FunctionConfig{}
  std::optional<Digest> expected_digest;  // of the current version; anything else is kAlreadyExists (If-Match)
  bool must_exist = false;                // kNotFound where it does not (If-Match: *)
  bool must_not_exist = false;            // kAlreadyExists where it does (If-None-Match: *)
};

// What another process needs to run a version.
struct VersionParts {
  VersionInfo version;
  Bytes object;  // compiled, as wasm::serialize() gives it
};

struct ListQuery {
  std::string tenant;  // "": all
  std::string prefix;  // of the name
  std::optional<FunctionId> after;
  size_t count_max = 1'000;
};

struct ImageInfo {
  FunctionId id;
  uint64_t version = 0;
  bool current = false;
  bool loaded = false;
  uint64_t stored_bytes = 0;  // 0: it is not in the store
};

struct RegistryStats {
  size_t functions = 0;
  size_t loaded = 0;
  size_t background_waiting = 0;  // modules that wait for their optimised code, with the one being compiled
  uint64_t compiled = 0;          // since the registry was opened
  uint64_t compile_failures = 0;
  uint64_t initialised = 0;   // images made by running initialisers
  uint64_t images_found = 0;  // images taken from the store
};

class Registry {
 public:
  // `store`, `compiler` and `arena` outlive the registry. Errors: the store cannot be read.
  static Result<std::unique_ptr<Registry>> open(object_store::ObjectStore& store,
                                                const compiler::ChildCompiler& compiler, faaslet::CodeArena& arena,
                                                HostHooks hooks, RegistryOptions options);
  // Ends a background compile that is running.
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // The same wasm and configuration as the current version's: that version, and nothing changes.
  // kInvalidModule, kResourceExhausted (too large, or the compiler ran into a limit), kInvalidArgument, kUnavailable.
  // `stop` gives up a compilation (kUnavailable).
  Result<VersionInfo> publish(const PublishRequest& request, const compiler::Progress& progress = {},
                              std::stop_token stop = {});
  // A new version with the current module and another configuration.
  Result<VersionInfo> configure(const FunctionId& id, const FunctionConfig& config,
                                std::optional<Digest> expected_digest = {});

  // That version (default: the current one), ready to run. kNotFound, or why it could not be loaded.
  Result<std::shared_ptr<const LoadedFunction>> load(const FunctionId& id, std::optional<uint64_t> number = {});
  // The same, or null where load() would have to read the store or compile. Never blocks; for threads that serve calls.
  std::shared_ptr<const LoadedFunction> find_loaded(const FunctionId& id, std::optional<uint64_t> number = {}) const;

  // That version (default: the current one), for a process that runs it apart. Reads the store, and compiles where it
  // must. kNotFound, or why it could not be had.
  Result<VersionParts> parts(const FunctionId& id, std::optional<uint64_t> number = {});

  std::vector<FunctionInfo> list(const ListQuery& query) const;
  std::optional<FunctionInfo> describe(const FunctionId& id) const;
  // Makes an older version current; default: the one before the current one. kNotFound names what is missing.
  Result<VersionInfo> rollback(const FunctionId& id, std::optional<uint64_t> number = {});
  // kNotFound where there is none. Calls that run keep what they have.
  Result<void> remove(const FunctionId& id);

  // The images in the store of the tenant's functions ("": all; a name: only that function's), by function and version.
  // Reads the store.
  Result<std::vector<ImageInfo>> images(std::string_view tenant, std::string_view name = "") const;

  // Loaded functions that no call has are forgotten, of that tenant or (null) of all, those used longest ago first,
  // until their images had so many bytes. How many they had.
  uint64_t drop_unused_images(const std::string* tenant, uint64_t bytes);
  RegistryStats stats() const;
  // Blocks until no module waits for its optimised code.
  void wait_for_background() const;

 private:
  struct State;
  explicit Registry(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace spore::functions

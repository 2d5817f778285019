// The modules behind the functions: their wasm and compiled objects in the store, their code in the arena, and how long
// each is kept. One module may serve many functions and versions; it is compiled, stored and mapped once.
//
// A module stays in the store while a version of some record refers to it (references) or somebody works with it
// (pins). With the last of both it goes, at once. Any thread.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stop_token>

#include "faaslet/code_arena.h"
#include "functions/object_cache.h"
#include "functions/registry.h"

namespace spore::functions {

// How many compilations run at once, and how many may wait for their turn.
class CompileGate {
 public:
  CompileGate(unsigned running_max, unsigned waiting_max) : running_max_(running_max), waiting_max_(waiting_max) {}

  class Pass {
   public:
    explicit Pass(CompileGate& gate) : gate_(&gate) {}
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    ~Pass() {
      if (gate_) gate_->leave();
    }

   private:
    CompileGate* gate_;
  };
  // Blocks for a turn. kUnavailable: too many wait already, or `stop` was requested.
  Result<Pass> enter(std::stop_token stop);

 private:
  void leave();

  std::mutex mutex_;
  std::condition_variable_any turn_;
  unsigned running_max_, waiting_max_;
  unsigned running_ = 0, waiting_ = 0;
};

// What is known of a module's compiled objects.
struct ObjectFacts {
  wasm::Tier tier = wasm::Tier::kFast;  // the best there is
  uint64_t stored_bytes = 0;            // 0: none
};

struct ReadyObject {
  std::shared_ptr<const faaslet::LoadedObject> object;
  ObjectFacts facts;
};

class Modules {
 public:
  // `store`, `compiler` and `arena` outlive it.
  Modules(object_store::ObjectStore& store, const compiler::ChildCompiler& compiler, faaslet::CodeArena& arena,
          const RegistryOptions& options);

  // Keeps a module from being removed while it lives.
  class Pin {
   public:
    Pin(Modules& modules, const Digest& digest) : modules_(&modules), digest_(digest) {}
    Pin(Pin&& other) noexcept : modules_(std::exchange(other.modules_, nullptr)), digest_(other.digest_) {}
    ~Pin() {
      if (modules_) modules_->unpin(digest_);
    }
    const Digest& digest() const { return digest_; }

   private:
    Modules* modules_;
    Digest digest_;
  };
  Pin pin(const Digest& digest);

  Result<void> store_wasm(const Pin& pin, ByteSpan wasm);
  Result<Bytes> load_wasm(const Pin& pin);

  // The module's code, mapped: the best tier that is there, else compiled by `wanted` from `wasm` (null: from the
  // store).
  Result<ReadyObject> ready(const Pin& pin, wasm::Tier wanted, const ByteSpan* wasm, const compiler::Progress& progress,
                            std::stop_token stop);
  // Its bytes, for another process to map; as ready() finds or compiles it.
  Result<Bytes> bytes(const Pin& pin, wasm::Tier wanted);
  // The optimised tier, compiled beside the gate if it is not there.
  Result<ReadyObject> optimise(const Pin& pin, std::stop_token stop);

  void add_reference(const Digest& digest);
  // True where nothing refers to the module any more.
  bool drop_reference(const Digest& digest);
  bool is_referenced(const Digest& digest) const;

  ObjectFacts facts(const Digest& digest) const;
  bool can_optimise(const Digest& digest) const;  // not optimised yet, and not failed before
  void note_optimise_failed(const Digest& digest);

  // After the references of all records are known: learns what objects there are, and removes what nobody refers to
  // (`remove_unreferenced` false: nothing is removed).
  Result<void> recover(bool remove_unreferenced);

  uint64_t compiled() const { return compiled_; }
  uint64_t compile_failures() const { return compile_failures_; }

 private:
  struct Module {
    uint64_t references = 0;
    uint64_t pins = 0;
    bool wasm_stored = false;  // by this process, whole
    bool optimise_failed = false;
    uint64_t object_bytes[2] = {0, 0};                     // by tier
    std::weak_ptr<const faaslet::LoadedObject> loaded[2];  // by tier
  };

  void unpin(const Digest& digest);
  void remove_if_unused(std::map<Digest, Module>::iterator it);
  compiler::Options options_for(wasm::Tier tier) const;
  std::optional<ReadyObject> mapped(const Digest& digest, wasm::Tier tier) const;
  // From the store, mapped; nothing where it is not there.
  Result<std::optional<ReadyObject>> find(const Digest& digest, wasm::Tier tier);
  Result<ReadyObject> compile(const Pin& pin, wasm::Tier tier, const ByteSpan* wasm, const compiler::Progress& progress,
                              std::stop_token stop);
  Result<ReadyObject> map(const Digest& digest, wasm::Tier tier, CachedObject cached);

  object_store::ObjectStore& store_;
  faaslet::CodeArena& arena_;
  const RegistryOptions& options_;
  ObjectCache cache_;
  CompileGate gate_;
  std::atomic<uint64_t> compiled_ = 0;
  std::atomic<uint64_t> compile_failures_ = 0;
  mutable std::mutex mutex_;
  std::map<Digest, Module> modules_;  // guarded by mutex_; held while blobs are removed
};

}  // namespace spore::functions

// The modules behind the functions: their wasm and compiled objects in the store, their code in the arena, and how long
// each is kept. One module may serve many functions and versions; it is compiled, stored and mapped once, twice where
// some of them want hardened code and others do not.
//
// A module stays in the store while a version of some record refers to it (references) or somebody works with it
// (pins). With the last of both it goes, at once; so does what is compiled of it. Any thread.
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
    Pin(Modules& modules, const CodeId& code) : modules_(&modules), code_(code) {}
    Pin(Pin&& other) noexcept : modules_(std::exchange(other.modules_, nullptr)), code_(other.code_) {}
    ~Pin() {
      if (modules_) modules_->unpin(code_);
    }
    const CodeId& code() const { return code_; }

   private:
    Modules* modules_;
    CodeId code_;
  };
  Pin pin(const CodeId& code);

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

  void add_reference(const CodeId& code);
  // True where nothing refers to the module any more.
  bool drop_reference(const CodeId& code);
  bool is_referenced(const CodeId& code) const;

  ObjectFacts facts(const CodeId& code) const;
  bool can_optimise(const CodeId& code) const;  // not optimised yet, and not failed before
  void note_optimise_failed(const CodeId& code);

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

  void unpin(const CodeId& code);
  void remove_if_unused(std::map<CodeId, Module>::iterator it);
  compiler::Options options_for(const CodeId& code, wasm::Tier tier) const;
  std::optional<ReadyObject> mapped(const CodeId& code, wasm::Tier tier) const;
  // From the store, mapped; nothing where it is not there.
  Result<std::optional<ReadyObject>> find(const CodeId& code, wasm::Tier tier);
  Result<ReadyObject> compile(const Pin& pin, wasm::Tier tier, const ByteSpan* wasm, const compiler::Progress& progress,
                              std::stop_token stop);
  Result<ReadyObject> map(const CodeId& code, wasm::Tier tier, CachedObject cached);

  object_store::ObjectStore& store_;
  faaslet::CodeArena& arena_;
  const RegistryOptions& options_;
  ObjectCache cache_;
  CompileGate gate_;
  std::atomic<uint64_t> compiled_ = 0;
  std::atomic<uint64_t> compile_failures_ = 0;
  mutable std::mutex mutex_;
  std::map<CodeId, Module> modules_;  // guarded by mutex_; held while blobs are removed
};

}  // namespace spore::functions

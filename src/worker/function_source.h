// Where the worker gets the functions that chained calls name. Whoever starts a call from outside brings its function.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "functions/registry.h"
#include "state/operation.h"

namespace spore::worker {

class FunctionSource {
 public:
  using Function = std::shared_ptr<const functions::LoadedFunction>;

  virtual ~FunctionSource() = default;

  // That version (default: the current one); null: not loaded. Never blocks.
  virtual Function find(const functions::FunctionId& id, std::optional<uint64_t> version) = 0;
  virtual bool exists(const functions::FunctionId& id, std::optional<uint64_t> version) = 0;
  // Calls back once, on another thread or here.
  virtual void load(const functions::FunctionId& id, std::optional<uint64_t> version,
                    std::function<void(Result<Function>)> loaded) = 0;
};

// This host's catalogue.
class RegistrySource final : public FunctionSource {
 public:
  // Loads on `threads` threads, for tenants in turns. `registry` outlives it.
  explicit RegistrySource(functions::Registry& registry, unsigned threads = 2)
      : registry_(registry), pool_({.threads = threads}) {}

  Function find(const functions::FunctionId& id, std::optional<uint64_t> version) override {
    return registry_.find_loaded(id, version);
  }
  bool exists(const functions::FunctionId& id, std::optional<uint64_t> version) override;
  void load(const functions::FunctionId& id, std::optional<uint64_t> version,
            std::function<void(Result<Function>)> loaded) override;

 private:
  functions::Registry& registry_;
  state::BlockingPool pool_;
};

}  // namespace spore::worker

#include "functions/modules.h"

#include <spdlog/spdlog.h>

#include <array>

#include "base/check.h"

namespace spore::functions {
namespace {

std::string wasm_name(const Digest& module) { return "modules/" + to_hex(module) + ".wasm"; }

size_t index_of(wasm::Tier tier) { return static_cast<size_t>(tier); }

}  // namespace

// ---- CompileGate ----------------------------------------------------------------------------------------------------

Result<CompileGate::Pass> CompileGate::enter(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  if (running_ >= running_max_) {
    if (waiting_ >= waiting_max_)
      return fail(ErrorCode::kUnavailable, "too many modules wait to be compiled (" + std::to_string(waiting_) + ")");
    ++waiting_;
    const bool turn = turn_.wait(lock, stop, [&] { return running_ < running_max_; });
    --waiting_;
    if (!turn) return fail(ErrorCode::kUnavailable, "the compilation was given up");
  }
  ++running_;
  return Pass(*this);
}

void CompileGate::leave() {
  {
    const std::lock_guard lock(mutex_);
    --running_;
  }
  turn_.notify_one();
}

// ---- Modules --------------------------------------------------------------------------------------------------------

Modules::Modules(object_store::ObjectStore& store, const compiler::ChildCompiler& compiler, faaslet::CodeArena& arena,
                 const RegistryOptions& options)
    : store_(store),
      arena_(arena),
      options_(options),
      cache_(store, compiler, options.host_key, options.object_bytes_max),
      gate_(options.compiles_at_once_max, options.compiles_waiting_max) {}

Modules::Pin Modules::pin(const CodeId& code) {
  const std::lock_guard lock(mutex_);
  ++modules_[code].pins;
  return Pin(*this, code);
}

void Modules::unpin(const CodeId& code) {
  const std::lock_guard lock(mutex_);
  const auto it = modules_.find(code);
  CHECK(it != modules_.end() && it->second.pins > 0);
  --it->second.pins;
  remove_if_unused(it);
}

void Modules::add_reference(const CodeId& code) {
  const std::lock_guard lock(mutex_);
  ++modules_[code].references;
}

bool Modules::drop_reference(const CodeId& code) {
  const std::lock_guard lock(mutex_);
  const auto it = modules_.find(code);
  CHECK(it != modules_.end() && it->second.references > 0);
  const bool last = --it->second.references == 0;
  remove_if_unused(it);
  return last;
}

bool Modules::is_referenced(const CodeId& code) const {
  const std::lock_guard lock(mutex_);
  const auto it = modules_.find(code);
  return it != modules_.end() && it->second.references > 0;
}

// The lock is held during the removal, so that nobody stores or finds what is about to go.
void Modules::remove_if_unused(std::map<CodeId, Module>::iterator it) {
  if (it->second.pins > 0 || it->second.references > 0) return;
  const CodeId code = it->first;
  std::vector<Result<void>> removals;
  if (modules_.contains({code.module, !code.hardened})) {
    for (const auto tier : {wasm::Tier::kFast, wasm::Tier::kOptimised})
      if (it->second.object_bytes[index_of(tier)] > 0)
        removals.push_back(store_.remove(ObjectCache::name_of(code.module, options_for(code, tier))));
  } else {
    removals.push_back(cache_.remove(code.module));
    removals.push_back(store_.remove(wasm_name(code.module)));
  }
  modules_.erase(it);
  for (const auto& removed : removals)
    if (!removed)  // the next start removes it
      spdlog::warn("module {} could not be removed from the store: {}", to_hex(code.module), removed.error().message);
}

Result<void> Modules::store_wasm(const Pin& pin, ByteSpan wasm) {
  {
    const std::lock_guard lock(mutex_);
    if (modules_[pin.code()].wasm_stored) return {};
  }
  TRY(store_.put(wasm_name(pin.code().module), wasm));
  const std::lock_guard lock(mutex_);
  modules_[pin.code()].wasm_stored = true;
  return {};
}

Result<Bytes> Modules::load_wasm(const Pin& pin) {
  auto bytes = store_.get(wasm_name(pin.code().module), options_.module_bytes_max);
  if (!bytes) return fail(ErrorCode::kInternal, "its module cannot be read from the store: " + bytes.error().message);
  if (sha256(*bytes) != pin.code().module)
    return fail(ErrorCode::kInternal, "its module in the store is damaged; publish it again");
  return bytes;
}

compiler::Options Modules::options_for(const CodeId& code, wasm::Tier tier) const {
  return {
      .tier = tier, .cpu_level = options_.cpu_level, .threads = options_.compiler_threads, .hardened = code.hardened};
}

std::optional<ReadyObject> Modules::mapped(const CodeId& code, wasm::Tier tier) const {
  const std::lock_guard lock(mutex_);
  const auto it = modules_.find(code);
  if (it == modules_.end()) return std::nullopt;
  auto object = it->second.loaded[index_of(tier)].lock();
  if (!object) return std::nullopt;
  return ReadyObject{std::move(object), {tier, it->second.object_bytes[index_of(tier)]}};
}

Result<ReadyObject> Modules::map(const CodeId& code, wasm::Tier tier, CachedObject cached) {
  ASSIGN_OR_RETURN(std::shared_ptr<const faaslet::LoadedObject> object, arena_.load(std::move(cached.object)));
  const std::lock_guard lock(mutex_);
  Module& module = modules_[code];
  module.object_bytes[index_of(tier)] = cached.stored_bytes;
  // Of two threads that mapped the same object at once, the second gives its own back.
  if (auto other = module.loaded[index_of(tier)].lock()) object = std::move(other);
  module.loaded[index_of(tier)] = object;
  return ReadyObject{std::move(object), {tier, cached.stored_bytes}};
}

Result<std::optional<ReadyObject>> Modules::find(const CodeId& code, wasm::Tier tier) {
  if (auto ready = mapped(code, tier)) return ready;
  ASSIGN_OR_RETURN(auto cached, cache_.find(code.module, options_for(code, tier)));
  if (!cached) {
    const std::lock_guard lock(mutex_);
    modules_[code].object_bytes[index_of(tier)] = 0;
    return std::nullopt;
  }
  ASSIGN_OR_RETURN(auto ready, map(code, tier, std::move(*cached)));
  return ready;
}

Result<ReadyObject> Modules::compile(const Pin& pin, wasm::Tier tier, const ByteSpan* wasm,
                                     const compiler::Progress& progress, std::stop_token stop) {
  Bytes stored;
  if (!wasm) {
    ASSIGN_OR_RETURN(stored, load_wasm(pin));
  }
  auto cached =
      cache_.compile(pin.code().module, wasm ? *wasm : ByteSpan(stored), options_for(pin.code(), tier), progress, stop);
  if (!cached) {
    if (!stop.stop_requested()) ++compile_failures_;
    return std::unexpected(std::move(cached).error());
  }
  ++compiled_;
  return map(pin.code(), tier, std::move(*cached));
}

Result<ReadyObject> Modules::ready(const Pin& pin, wasm::Tier wanted, const ByteSpan* wasm,
                                   const compiler::Progress& progress, std::stop_token stop) {
  const auto best = [&]() -> Result<std::optional<ReadyObject>> {
    ASSIGN_OR_RETURN(auto optimised, find(pin.code(), wasm::Tier::kOptimised));
    if (optimised || wanted == wasm::Tier::kOptimised) return optimised;
    return find(pin.code(), wasm::Tier::kFast);
  };
  ASSIGN_OR_RETURN(auto found, best());
  if (found) return std::move(*found);
  ASSIGN_OR_RETURN(const auto pass, gate_.enter(stop));
  // Somebody else may have compiled it while this one waited.
  ASSIGN_OR_RETURN(auto meanwhile, best());
  if (meanwhile) return std::move(*meanwhile);
  return compile(pin, wanted, wasm, progress, std::move(stop));
}

Result<Bytes> Modules::bytes(const Pin& pin, wasm::Tier wanted) {
  const auto find_bytes = [&](wasm::Tier tier) {
    return cache_.find_bytes(pin.code().module, options_for(pin.code(), tier));
  };
  const auto best = [&]() -> Result<std::optional<Bytes>> {
    ASSIGN_OR_RETURN(auto optimised, find_bytes(wasm::Tier::kOptimised));
    if (optimised || wanted == wasm::Tier::kOptimised) return optimised;
    return find_bytes(wasm::Tier::kFast);
  };
  ASSIGN_OR_RETURN(auto found, best());
  if (found) return std::move(*found);
  TRY(ready(pin, wanted, nullptr, {}, {}));
  ASSIGN_OR_RETURN(found, best());
  if (!found) return fail(ErrorCode::kInternal, "its compiled code cannot be read from the store");
  return std::move(*found);
}

Result<ReadyObject> Modules::optimise(const Pin& pin, std::stop_token stop) {
  ASSIGN_OR_RETURN(auto found, find(pin.code(), wasm::Tier::kOptimised));
  if (found) return std::move(*found);
  return compile(pin, wasm::Tier::kOptimised, nullptr, {}, std::move(stop));
}

ObjectFacts Modules::facts(const CodeId& code) const {
  const std::lock_guard lock(mutex_);
  const auto it = modules_.find(code);
  if (it == modules_.end()) return {};
  for (const auto tier : {wasm::Tier::kOptimised, wasm::Tier::kFast})
    if (const uint64_t bytes = it->second.object_bytes[index_of(tier)]; bytes > 0) return {tier, bytes};
  return {};
}

bool Modules::can_optimise(const CodeId& code) const {
  const std::lock_guard lock(mutex_);
  const auto it = modules_.find(code);
  return it != modules_.end() && !it->second.optimise_failed &&
         it->second.object_bytes[index_of(wasm::Tier::kOptimised)] == 0;
}

void Modules::note_optimise_failed(const CodeId& code) {
  const std::lock_guard lock(mutex_);
  if (const auto it = modules_.find(code); it != modules_.end()) it->second.optimise_failed = true;
}

Result<void> Modules::recover(bool remove_unreferenced) {
  const std::lock_guard lock(mutex_);
  std::set<std::string> wasm_names;
  std::map<std::string, uint64_t*> object_names;
  for (auto& [code, module] : modules_) {
    wasm_names.insert(wasm_name(code.module));
    for (const auto tier : {wasm::Tier::kFast, wasm::Tier::kOptimised})
      object_names[ObjectCache::name_of(code.module, options_for(code, tier))] = &module.object_bytes[index_of(tier)];
  }
  std::vector<std::string> unwanted;
  ASSIGN_OR_RETURN(const auto stored_modules, store_.list("modules/"));
  for (const auto& entry : stored_modules)
    if (!wasm_names.contains(entry.name)) unwanted.push_back(entry.name);
  ASSIGN_OR_RETURN(const auto stored_objects, store_.list("objects/"));
  for (const auto& entry : stored_objects) {
    if (const auto it = object_names.find(entry.name); it != object_names.end())
      *it->second = entry.size_bytes;
    else
      unwanted.push_back(entry.name);
  }
  if (!remove_unreferenced) return {};
  for (const auto& name : unwanted) {
    spdlog::info("{} is removed from the store, nothing refers to it", name);
    TRY(store_.remove(name));
  }
  return {};
}

}  // namespace spore::functions

#include "functions/registry.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <thread>
#include <unordered_map>

#include "base/check.h"
#include "functions/image_store.h"
#include "functions/modules.h"
#include "functions/record.h"

namespace spore::functions {
namespace {

// A load starts again when the function changed under it; more often than this in a row, and the caller may try later.
constexpr int kLoadAttemptsMax = 8;

struct IdHash {
  size_t operator()(const FunctionId& id) const {
    const std::hash<std::string_view> hash;
    return hash(id.tenant) * 31 + hash(id.name);
  }
};

using LoadedVersions = std::map<uint64_t, std::shared_ptr<const LoadedFunction>>;

// One function of the catalogue. `record` and `loaded` are guarded by the catalogue's lock.
struct Entry {
  Record record;
  LoadedVersions loaded;                // by number
  std::atomic<uint64_t> last_used = 0;  // the registry's epoch when it was last loaded
  std::mutex loading;                   // one thread loads, the others wait for it
};

std::string quoted(const FunctionId& id) { return "function " + id.text(); }

std::unexpected<Error> not_found(const FunctionId& id) { return fail(ErrorCode::kNotFound, "no " + quoted(id)); }

const VersionInfo* find_version(const FunctionInfo& info, uint64_t number) {
  const auto it = std::ranges::find(info.versions, number, &VersionInfo::number);
  return it == info.versions.end() ? nullptr : &*it;
}

// What a publish demands of the function as it is now (null: there is none).
Result<void> check_demands(const PublishRequest& request, const Record* record) {
  if (!record && (request.must_exist || request.expected_digest)) return not_found(request.id);
  if (record && request.must_not_exist) return fail(ErrorCode::kAlreadyExists, quoted(request.id) + " exists already");
  if (record && request.expected_digest && record->info.current_version().module_digest != *request.expected_digest)
    return fail(ErrorCode::kAlreadyExists, quoted(request.id) + " has changed: its current version is " +
                                               record->info.current_version().digest_text());
  return {};
}

}  // namespace

struct Registry::State {
  State(object_store::ObjectStore& store_in, const compiler::ChildCompiler& compiler, faaslet::CodeArena& arena,
        HostHooks hooks_in, RegistryOptions options_in)
      : store(store_in),
        hooks(std::move(hooks_in)),
        options(std::move(options_in)),
        modules(store_in, compiler, arena, options),
        images(store_in, options.host_key) {}

  using Change = std::function<Result<void>(Record& record)>;

  std::shared_ptr<Entry> find(const FunctionId& id) const;
  // The record as it is now; nothing where the function does not exist.
  std::optional<Record> record_of(const FunctionId& id) const;
  void add_facts(VersionInfo& version) const;

  // Keeps an image from being removed while it lives. Then it goes, unless a version has it.
  class ImagePin {
   public:
    ImagePin(State& state, const FunctionId& id, std::string name);
    ~ImagePin();
    ImagePin(const ImagePin&) = delete;
    ImagePin& operator=(const ImagePin&) = delete;
    void keep() { keep_ = true; }

   private:
    State& state_;
    const FunctionId id_;
    std::multiset<std::string>::iterator at_;
    bool keep_ = false;
  };
  // The image from the store, else a new one, stored. For a load it may not be stored: the load goes on then.
  enum class For : uint8_t { kPublish, kLoad };
  Result<std::shared_ptr<const isolation::PreparedPolicy>> network_of(const FunctionId& id,
                                                                      const FunctionConfig& config) const {
    if (!config.network) return nullptr;
    return hooks.prepare_network(id, *config.network);
  }
  Result<std::shared_ptr<const faaslet::ProtoFaaslet>> make_proto(const ReadyObject& ready, const FunctionId& id,
                                                                  const FunctionConfig& config, For purpose);
  // Removes the images that no version of the function has; null: the function is gone.
  void remove_unused_images(const FunctionId& id, const Record* record);
  // At the start: the same for every function that there is or was.
  Result<void> recover_images();
  // Changes the record of a function durably, then in the catalogue, together with what is loaded for its then current
  // version. The one place where records change.
  Result<VersionInfo> commit(const FunctionId& id, const Change& change,
                             std::shared_ptr<const faaslet::ProtoFaaslet> proto,
                             std::shared_ptr<const isolation::PreparedPolicy> network, const ObjectFacts& facts);
  Result<VersionInfo> republish(const FunctionId& id, const VersionInfo& version, const Change& change);
  void count_references(const Record* before, const Record* after);
  // With the catalogue's lock held: puts it in, and takes out what is beyond the limit.
  void add_loaded(Entry& entry, std::shared_ptr<const LoadedFunction> function);

  wasm::Tier first_tier(uint64_t wasm_bytes) const {
    return wasm_bytes > options.fast_tier_above_bytes ? wasm::Tier::kFast : wasm::Tier::kOptimised;
  }
  // With the catalogue's lock held, shared or not.
  static std::shared_ptr<const LoadedFunction> find_loaded(const Entry& entry, std::optional<uint64_t> number);
  Result<std::shared_ptr<const LoadedFunction>> make_loaded(const FunctionId& id, const VersionInfo& version);
  void optimise_later(const CodeId& code);
  void run_background(std::stop_token stop);
  void swap_in_optimised(const CodeId& code, const ReadyObject& ready);

  object_store::ObjectStore& store;
  const HostHooks hooks;
  const RegistryOptions options;
  Modules modules;
  const ImageStore images;
  std::atomic<uint64_t> initialised = 0;
  std::atomic<uint64_t> images_found = 0;
  std::mutex images_mutex;
  std::multiset<std::string> images_in_use;  // names that a publish or a load works with; they are not removed

  // The order of locks: commit, then catalogue, then those inside `modules`; background stands alone.
  std::mutex commit_mutex;  // held while a record is written
  mutable std::shared_mutex catalogue_mutex;
  std::unordered_map<FunctionId, std::shared_ptr<Entry>, IdHash> catalogue;
  size_t loaded = 0;  // versions, of all entries
  std::atomic<uint64_t> epoch = 1;

  mutable std::mutex background_mutex;
  mutable std::condition_variable_any background_changed;
  std::deque<CodeId> background_queue;
  std::optional<CodeId> background_running;
  std::stop_source background_compile;  // of the one that runs
  std::jthread background_thread;       // last: it uses all of the above
};

// ---- the catalogue --------------------------------------------------------------------------------------------------

std::shared_ptr<Entry> Registry::State::find(const FunctionId& id) const {
  const std::shared_lock lock(catalogue_mutex);
  const auto it = catalogue.find(id);
  return it == catalogue.end() ? nullptr : it->second;
}

std::optional<Record> Registry::State::record_of(const FunctionId& id) const {
  const std::shared_lock lock(catalogue_mutex);
  const auto it = catalogue.find(id);
  if (it == catalogue.end()) return std::nullopt;
  return it->second->record;
}

void Registry::State::add_facts(VersionInfo& version) const {
  const ObjectFacts facts = modules.facts(version.code());
  version.tier = facts.tier;
  version.object_bytes = facts.stored_bytes;
}

void Registry::State::count_references(const Record* before, const Record* after) {
  if (after)
    for (const auto& version : after->info.versions) modules.add_reference(version.code());
  if (!before) return;
  for (const auto& version : before->info.versions) {
    if (!modules.drop_reference(version.code())) continue;
    const std::lock_guard lock(background_mutex);
    if (background_running == version.code()) background_compile.request_stop();
  }
}

void Registry::State::add_loaded(Entry& entry, std::shared_ptr<const LoadedFunction> function) {
  const uint64_t number = function->version.number;
  if (!std::exchange(entry.loaded[number], std::move(function))) ++loaded;
  entry.last_used = ++epoch;
  if (loaded <= options.loaded_max) return;
  Entry* oldest = nullptr;
  for (const auto& [id, other] : catalogue)
    if (!other->loaded.empty() && other.get() != &entry && (!oldest || other->last_used < oldest->last_used))
      oldest = other.get();
  if (!oldest) return;
  loaded -= oldest->loaded.size();
  oldest->loaded.clear();
}

uint64_t Registry::drop_unused_images(const std::string* tenant, uint64_t bytes) {
  const auto is_unused = [](const std::shared_ptr<Entry>& entry) {
    return !entry->loaded.empty() &&
           std::ranges::all_of(entry->loaded, [](const auto& version) { return version.second.use_count() == 1; });
  };
  std::vector<std::shared_ptr<Entry>> unused;
  {
    const std::shared_lock lock(state_->catalogue_mutex);
    for (const auto& [id, entry] : state_->catalogue)
      if ((!tenant || id.tenant == *tenant) && is_unused(entry)) unused.push_back(entry);
  }
  std::ranges::sort(unused, {}, [](const auto& entry) { return entry->last_used.load(std::memory_order_relaxed); });
  std::vector<LoadedVersions> dropped;  // unmapped after the lock
  uint64_t freed = 0;
  const std::unique_lock lock(state_->catalogue_mutex);
  for (const auto& entry : unused) {
    if (freed >= bytes) break;
    if (!is_unused(entry)) continue;  // a call came meanwhile
    for (const auto& [number, function] : entry->loaded)
      if (function->proto) freed += function->proto->resident_bytes();
    state_->loaded -= entry->loaded.size();
    dropped.push_back(std::exchange(entry->loaded, {}));
  }
  return freed;
}

Result<VersionInfo> Registry::State::commit(const FunctionId& id, const Change& change,
                                            std::shared_ptr<const faaslet::ProtoFaaslet> proto,
                                            std::shared_ptr<const isolation::PreparedPolicy> network,
                                            const ObjectFacts& facts) {
  std::shared_ptr<const void> image_count;
  if (proto) {  // else the process that has it counts it
    ASSIGN_OR_RETURN(image_count, hooks.count_image(id, proto->resident_bytes()));
  }
  const std::lock_guard commit_lock(commit_mutex);
  const std::optional<Record> before = record_of(id);
  Record after = before.value_or(Record{.info = {.id = id}});
  TRY(change(after));
  if (!before) {
    const std::shared_lock lock(catalogue_mutex);
    if (catalogue.size() >= options.functions_max)
      return fail(ErrorCode::kResourceExhausted,
                  "this host has " + std::to_string(catalogue.size()) + " functions, as many as it takes");
  }
  auto& versions = after.info.versions;
  for (auto it = versions.begin(); versions.size() > options.versions_max && it != versions.end();)
    it = it->number == after.info.current ? it + 1 : versions.erase(it);
  TRY(store.put(record_name(id), as_bytes(record_to_json(after))));

  VersionInfo version = after.info.current_version();
  version.tier = facts.tier;
  version.object_bytes = facts.stored_bytes;
  auto ready = std::make_shared<const LoadedFunction>(LoadedFunction{
      id, version, std::move(proto), make_cpu_quota(version.config), std::move(network), std::move(image_count)});
  count_references(before ? &*before : nullptr, &after);
  remove_unused_images(id, &after);
  LoadedVersions replaced;  // unmapped after the lock
  const std::unique_lock lock(catalogue_mutex);
  auto& entry = catalogue[id];
  if (!entry) entry = std::make_shared<Entry>();
  entry->record = std::move(after);
  loaded -= entry->loaded.size();
  replaced = std::exchange(entry->loaded, {});
  add_loaded(*entry, std::move(ready));
  hooks.changed(id);
  return version;
}

// ---- publish --------------------------------------------------------------------------------------------------------

Registry::State::ImagePin::ImagePin(State& state, const FunctionId& id, std::string name) : state_(state), id_(id) {
  const std::lock_guard lock(state_.images_mutex);
  at_ = state_.images_in_use.insert(std::move(name));
}

Registry::State::ImagePin::~ImagePin() {
  {
    const std::lock_guard lock(state_.images_mutex);
    state_.images_in_use.erase(at_);
  }
  if (keep_) return;
  const auto record = state_.record_of(id_);
  state_.remove_unused_images(id_, record ? &*record : nullptr);
}

Result<std::shared_ptr<const faaslet::ProtoFaaslet>> Registry::State::make_proto(const ReadyObject& ready,
                                                                                 const FunctionId& id,
                                                                                 const FunctionConfig& config,
                                                                                 For purpose) {
  TRY(hooks.admit(id, config));
  if (hooks.runs_apart(id, config)) return nullptr;
  ASSIGN_OR_RETURN(auto found, images.find(id, config, ready.object));
  if (found) {
    ++images_found;
    return std::move(found->proto);
  }
  ASSIGN_OR_RETURN(auto instantiated,
                   faaslet::ProtoFaaslet::make_instantiated(ready.object, config.memory_pages_max()));
  ASSIGN_OR_RETURN(auto proto, hooks.initialise(std::move(instantiated), id, config));
  if (proto->initialised()) ++initialised;
  const auto stored = images.put(id, config, *proto);
  if (!stored) {
    if (purpose == For::kPublish) return std::unexpected(Error(stored.error()).within("its image cannot be stored"));
    spdlog::warn("{}: its image cannot be stored, so its initialisers will run again: {}", quoted(id),
                 stored.error().message);
  }
  return proto;
}

void Registry::State::remove_unused_images(const FunctionId& id, const Record* record) {
  std::set<std::string> wanted;
  if (record)
    for (const auto& version : record->info.versions)
      wanted.insert(ImageStore::name_of(id, version.module_digest, version.config));
  const auto stored = images.list(id);
  if (!stored) return spdlog::warn("{}: its images cannot be listed: {}", quoted(id), stored.error().message);
  const std::lock_guard lock(images_mutex);
  for (const auto& entry : *stored) {
    if (wanted.contains(entry.name) || images_in_use.contains(entry.name)) continue;
    if (const auto removed = images.remove(entry.name); !removed)  // the next start removes it
      spdlog::warn("{} cannot be removed from the store: {}", entry.name, removed.error().message);
  }
}

Result<void> Registry::State::recover_images() {
  std::set<std::string> wanted;
  for (const auto& [id, entry] : catalogue)
    for (const auto& version : entry->record.info.versions)
      wanted.insert(ImageStore::name_of(id, version.module_digest, version.config));
  ASSIGN_OR_RETURN(const auto stored, images.list());
  for (const auto& entry : stored) {
    if (wanted.contains(entry.name)) continue;
    spdlog::info("{} is removed from the store, nothing refers to it", entry.name);
    TRY(images.remove(entry.name));
  }
  return {};
}

Result<VersionInfo> Registry::publish(const PublishRequest& request, const compiler::Progress& progress,
                                      std::stop_token stop) {
  State& state = *state_;
  ASSIGN_OR_RETURN(const FunctionId id, FunctionId::make(request.id.tenant, request.id.name));
  if (request.wasm.size() > state.options.module_bytes_max)
    return fail(ErrorCode::kResourceExhausted, "the module is too large (" + std::to_string(request.wasm.size()) +
                                                   " bytes; at most " + std::to_string(state.options.module_bytes_max) +
                                                   ")");
  if (request.config) TRY(check_config(*request.config));
  const std::optional<Record> now = state.record_of(id);
  TRY(check_demands(request, now ? &*now : nullptr));
  const auto config_for = [&request](const Record* record) {
    if (request.config) return *request.config;
    return record ? record->info.current_version().config : FunctionConfig{};
  };
  FunctionConfig config = config_for(now ? &*now : nullptr);

  const Digest digest = sha256(request.wasm);
  const auto pin = state.modules.pin({digest, config.spectre_hardening});
  ASSIGN_OR_RETURN(const ReadyObject ready, state.modules.ready(pin, state.first_tier(request.wasm.size()),
                                                                &request.wasm, progress, std::move(stop)));
  TRY(state.hooks.check(ready.object->module()));
  State::ImagePin image_pin(state, id, ImageStore::name_of(id, digest, config));
  ASSIGN_OR_RETURN(auto network, state.network_of(id, config));
  ASSIGN_OR_RETURN(auto proto, state.make_proto(ready, id, config, State::For::kPublish));
  TRY(state.modules.store_wasm(pin, request.wasm));
  auto version = state.commit(
      id,
      [&](Record& record) -> Result<void> {
        const bool exists = !record.info.versions.empty();
        TRY(check_demands(request, exists ? &record : nullptr));
        // Without a configuration of its own, the publish keeps the one it saw; a change between then and now is rare
        // enough to be told.
        if (config_for(exists ? &record : nullptr) != config)
          return fail(ErrorCode::kAlreadyExists, quoted(id) + " was configured anew meanwhile; publish again");
        if (exists) {
          const VersionInfo& current = record.info.current_version();
          if (current.module_digest == digest && current.config == config) return {};
        }
        VersionInfo next{.number = record.next_number++, .module_digest = digest, .wasm_bytes = request.wasm.size()};
        next.published_at = std::chrono::system_clock::now();
        next.config = config;
        record.info.current = next.number;
        record.info.versions.push_back(std::move(next));
        return {};
      },
      std::move(proto), std::move(network), ready.facts);
  if (!version) return version;
  image_pin.keep();
  if (version->tier == wasm::Tier::kFast) state.optimise_later(version->code());
  return version;
}

// Makes a change whose current version will be (the module and configuration of) `version`, which is stored already.
Result<VersionInfo> Registry::State::republish(const FunctionId& id, const VersionInfo& version, const Change& change) {
  const auto pin = modules.pin(version.code());
  auto ready = modules.ready(pin, first_tier(version.wasm_bytes), nullptr, {}, {});
  if (!ready) return std::unexpected(std::move(ready).error().within(quoted(id)));
  ImagePin image_pin(*this, id, ImageStore::name_of(id, version.module_digest, version.config));
  ASSIGN_OR_RETURN(auto network, network_of(id, version.config));
  ASSIGN_OR_RETURN(auto proto, make_proto(*ready, id, version.config, For::kPublish));
  auto committed = commit(id, change, std::move(proto), std::move(network), ready->facts);
  if (!committed) return committed;
  image_pin.keep();
  if (committed->tier == wasm::Tier::kFast) optimise_later(version.code());
  return committed;
}

Result<VersionInfo> Registry::configure(const FunctionId& id, const FunctionConfig& config,
                                        std::optional<Digest> expected_digest) {
  TRY(check_config(config));
  const std::optional<Record> now = state_->record_of(id);
  if (!now) return not_found(id);
  VersionInfo wanted = now->info.current_version();
  wanted.config = config;
  return state_->republish(id, wanted, [&](Record& record) -> Result<void> {
    if (record.info.versions.empty()) return not_found(id);
    const VersionInfo& current = record.info.current_version();
    if (current.module_digest != expected_digest.value_or(wanted.module_digest) ||
        current.module_digest != wanted.module_digest)
      return fail(ErrorCode::kAlreadyExists,
                  quoted(id) + " has changed: its current version is " + current.digest_text());
    if (current.config == config) return {};
    VersionInfo next = wanted;
    next.number = record.next_number++;
    next.published_at = std::chrono::system_clock::now();
    record.info.current = next.number;
    record.info.versions.push_back(std::move(next));
    return {};
  });
}

Result<VersionInfo> Registry::rollback(const FunctionId& id, std::optional<uint64_t> number) {
  const std::optional<Record> now = state_->record_of(id);
  if (!now) return not_found(id);
  const VersionInfo* wanted = nullptr;
  if (number) {
    wanted = find_version(now->info, *number);
    if (!wanted) return fail(ErrorCode::kNotFound, quoted(id) + " has no version " + std::to_string(*number));
  } else {
    for (const auto& version : now->info.versions)
      if (version.number < now->info.current) wanted = &version;
    if (!wanted) return fail(ErrorCode::kNotFound, quoted(id) + " has no version before the current one");
  }
  return state_->republish(id, *wanted, [&](Record& record) -> Result<void> {
    if (!find_version(record.info, wanted->number))
      return fail(ErrorCode::kAlreadyExists, quoted(id) + " has changed meanwhile");
    record.info.current = wanted->number;
    return {};
  });
}

Result<void> Registry::remove(const FunctionId& id) {
  const std::lock_guard commit_lock(state_->commit_mutex);
  const auto entry = state_->find(id);
  if (!entry) return not_found(id);
  TRY(state_->store.remove(record_name(id)));
  LoadedVersions replaced;  // unmapped after the lock
  Record before;
  {
    const std::unique_lock lock(state_->catalogue_mutex);
    replaced = std::exchange(entry->loaded, {});
    state_->loaded -= replaced.size();
    before = std::exchange(entry->record, {});
    state_->catalogue.erase(id);
    state_->hooks.changed(id);
  }
  state_->count_references(&before, nullptr);
  state_->remove_unused_images(id, nullptr);
  return {};
}

// ---- load -----------------------------------------------------------------------------------------------------------

Result<std::shared_ptr<const LoadedFunction>> Registry::State::make_loaded(const FunctionId& id,
                                                                           const VersionInfo& version) {
  if (hooks.runs_apart(id, version.config)) {
    TRY(hooks.admit(id, version.config));
    ASSIGN_OR_RETURN(auto network_apart, network_of(id, version.config));
    LoadedFunction out{id, version, nullptr, nullptr, std::move(network_apart)};
    add_facts(out.version);
    return std::make_shared<const LoadedFunction>(std::move(out));
  }
  const auto pin = modules.pin(version.code());
  ASSIGN_OR_RETURN(const ReadyObject ready, modules.ready(pin, first_tier(version.wasm_bytes), nullptr, {}, {}));
  ImagePin image_pin(*this, id, ImageStore::name_of(id, version.module_digest, version.config));
  ASSIGN_OR_RETURN(auto network, network_of(id, version.config));
  ASSIGN_OR_RETURN(auto proto, make_proto(ready, id, version.config, For::kLoad));
  image_pin.keep();
  ASSIGN_OR_RETURN(auto image_count, hooks.count_image(id, proto->resident_bytes()));
  LoadedFunction out{
      id, version, std::move(proto), make_cpu_quota(version.config), std::move(network), std::move(image_count)};
  out.version.tier = ready.facts.tier;
  out.version.object_bytes = ready.facts.stored_bytes;
  return std::make_shared<const LoadedFunction>(std::move(out));
}

std::shared_ptr<const LoadedFunction> Registry::State::find_loaded(const Entry& entry, std::optional<uint64_t> number) {
  const auto it = entry.loaded.find(number.value_or(entry.record.info.current));
  return it == entry.loaded.end() ? nullptr : it->second;
}

std::shared_ptr<const LoadedFunction> Registry::find_loaded(const FunctionId& id,
                                                            std::optional<uint64_t> number) const {
  const std::shared_lock lock(state_->catalogue_mutex);
  const auto it = state_->catalogue.find(id);
  if (it == state_->catalogue.end()) return nullptr;
  Entry& entry = *it->second;
  const uint64_t epoch = state_->epoch.load(std::memory_order_relaxed);
  if (entry.last_used.load(std::memory_order_relaxed) != epoch) entry.last_used.store(epoch, std::memory_order_relaxed);
  return State::find_loaded(entry, number);
}

Result<std::shared_ptr<const LoadedFunction>> Registry::load(const FunctionId& id, std::optional<uint64_t> number) {
  if (auto found = find_loaded(id, number)) return found;
  State& state = *state_;
  for (int attempt = 0; attempt < kLoadAttemptsMax; ++attempt) {
    const auto entry = state.find(id);
    if (!entry) return not_found(id);
    const std::lock_guard loading(entry->loading);
    VersionInfo version;
    {
      const std::shared_lock lock(state.catalogue_mutex);
      const FunctionInfo& info = entry->record.info;
      if (info.versions.empty()) return not_found(id);  // removed meanwhile
      if (auto found = State::find_loaded(*entry, number)) return found;
      const VersionInfo* const wanted = find_version(info, number.value_or(info.current));
      if (!wanted) return fail(ErrorCode::kNotFound, quoted(id) + " has no version " + std::to_string(*number));
      version = *wanted;
    }
    auto made = state.make_loaded(id, version);
    {
      const std::unique_lock lock(state.catalogue_mutex);
      const FunctionInfo& info = entry->record.info;
      // Removed, trimmed or replaced meanwhile: what was made is not what the caller wants, and a failure is no news.
      if (!find_version(info, version.number) || (!number && info.current != version.number)) continue;
      if (made) {
        if (auto found = State::find_loaded(*entry, version.number)) return found;  // a publish came first
        state.add_loaded(*entry, *made);
      }
    }
    if (!made) return std::unexpected(std::move(made).error().within(quoted(id)));
    if ((*made)->version.tier == wasm::Tier::kFast) state.optimise_later(version.code());
    return made;
  }
  return fail(ErrorCode::kUnavailable, quoted(id) + " is being changed");
}

Result<VersionParts> Registry::parts(const FunctionId& id, std::optional<uint64_t> number) {
  State& state = *state_;
  const std::optional<Record> record = state.record_of(id);
  if (!record) return not_found(id);
  const VersionInfo* const found = find_version(record->info, number.value_or(record->info.current));
  if (!found) return fail(ErrorCode::kNotFound, quoted(id) + " has no version " + std::to_string(*number));
  TRY(state.hooks.admit(id, found->config));
  const auto pin = state.modules.pin(found->code());
  VersionParts out{.version = *found};
  auto object = state.modules.bytes(pin, state.first_tier(found->wasm_bytes));
  if (!object) return std::unexpected(std::move(object).error().within(quoted(id)));
  out.object = std::move(*object);
  state.add_facts(out.version);
  if (out.version.tier == wasm::Tier::kFast) state.optimise_later(found->code());
  return out;
}

// ---- the optimised tier, later --------------------------------------------------------------------------------------

void Registry::State::optimise_later(const CodeId& code) {
  if (!modules.can_optimise(code)) return;
  const std::lock_guard lock(background_mutex);
  if (background_running == code || std::ranges::find(background_queue, code) != background_queue.end()) return;
  if (background_queue.size() >= options.background_queue_max) {
    spdlog::warn("module {} stays in the fast tier until it is loaded again: too many wait to be optimised",
                 to_hex(code.module));
    return;
  }
  background_queue.push_back(code);
  background_changed.notify_all();
}

void Registry::State::run_background(std::stop_token stop) {
  for (;;) {
    CodeId code;
    std::stop_token compile_stop;
    {
      std::unique_lock lock(background_mutex);
      if (!background_changed.wait(lock, stop, [&] { return !background_queue.empty(); })) return;
      code = background_queue.front();
      background_queue.pop_front();
      background_running = code;
      background_compile = std::stop_source();
      compile_stop = background_compile.get_token();
    }
    {
      const std::stop_callback stop_with_us(stop, [this] {
        const std::lock_guard lock(background_mutex);
        background_compile.request_stop();
      });
      const auto pin = modules.pin(code);
      if (modules.is_referenced(code)) {
        auto ready = modules.optimise(pin, compile_stop);
        if (ready) {
          swap_in_optimised(code, *ready);
        } else if (!compile_stop.stop_requested()) {
          modules.note_optimise_failed(code);
          spdlog::error("module {} stays in the fast tier: {}", to_hex(code.module), ready.error().message);
        }
      }
    }
    const std::lock_guard lock(background_mutex);
    background_running.reset();
    background_changed.notify_all();
  }
}

void Registry::State::swap_in_optimised(const CodeId& code, const ReadyObject& ready) {
  std::vector<std::pair<std::shared_ptr<Entry>, std::shared_ptr<const LoadedFunction>>> old;
  {
    const std::shared_lock lock(catalogue_mutex);
    for (const auto& [id, entry] : catalogue)
      for (const auto& [number, function] : entry->loaded)
        if (function->version.code() == code && function->version.tier != ready.facts.tier)
          old.emplace_back(entry, function);
  }
  for (auto& [entry, before] : old) {
    // The image that calls begin from now, with the other code's addresses.
    Result<std::shared_ptr<const faaslet::ProtoFaaslet>> proto = nullptr;
    if (before->proto)
      proto = faaslet::ProtoFaaslet::make(ready.object, before->proto->state(), before->proto->memory_pages_max());
    if (!proto) {
      spdlog::error("{} stays in the fast tier: {}", quoted(before->id), proto.error().message);
      continue;
    }
    LoadedFunction better{before->id,      before->version,     std::move(*proto), before->cpu_quota,
                          before->network, before->image_count, before->history};
    better.version.tier = ready.facts.tier;
    better.version.object_bytes = ready.facts.stored_bytes;
    auto after = std::make_shared<const LoadedFunction>(std::move(better));
    const std::unique_lock lock(catalogue_mutex);
    const auto it = entry->loaded.find(before->version.number);
    if (it != entry->loaded.end() && it->second == before) it->second = std::move(after);
    hooks.changed(before->id);
  }
}

// ---- the rest -------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<Registry>> Registry::open(object_store::ObjectStore& store,
                                                 const compiler::ChildCompiler& compiler, faaslet::CodeArena& arena,
                                                 HostHooks hooks, RegistryOptions options) {
  CHECK(options.versions_max >= 1 && options.compiles_at_once_max >= 1 && options.loaded_max >= 1);
  auto state = std::make_unique<State>(store, compiler, arena, std::move(hooks), std::move(options));
  ASSIGN_OR_RETURN(const auto records, store.list("functions/"));
  bool all_read = true;
  for (const auto& entry : records) {
    auto bytes = store.get(entry.name, kRecordBytesMax);
    auto record = bytes ? record_from_json(entry.name, as_text(*bytes)) : std::unexpected(bytes.error());
    if (!record) {
      spdlog::error("a function is left out: {}", record.error().message);
      all_read = false;  // so that what it refers to stays
      continue;
    }
    state->count_references(nullptr, &*record);
    auto function = std::make_shared<Entry>();
    const FunctionId id = record->info.id;
    function->record = std::move(*record);
    state->catalogue.emplace(id, std::move(function));
  }
  TRY(state->modules.recover(all_read));
  if (all_read) TRY(state->recover_images());
  for (const auto& [id, entry] : state->catalogue) {
    const VersionInfo& version = entry->record.info.current_version();
    const ObjectFacts facts = state->modules.facts(version.code());
    if (facts.stored_bytes > 0 && facts.tier == wasm::Tier::kFast) state->optimise_later(version.code());
  }
  state->background_thread = std::jthread([raw = state.get()](std::stop_token stop) { raw->run_background(stop); });
  return std::unique_ptr<Registry>(new Registry(std::move(state)));
}

Registry::Registry(std::unique_ptr<State> state) : state_(std::move(state)) {}
Registry::~Registry() = default;

std::vector<FunctionInfo> Registry::list(const ListQuery& query) const {
  std::vector<FunctionInfo> out;
  {
    const std::shared_lock lock(state_->catalogue_mutex);
    std::vector<const Entry*> found;
    for (const auto& [id, entry] : state_->catalogue)
      if ((query.tenant.empty() || id.tenant == query.tenant) && id.name.starts_with(query.prefix) &&
          (!query.after || *query.after < id))
        found.push_back(entry.get());
    const auto by_id = [](const Entry* entry) -> const FunctionId& { return entry->record.info.id; };
    const size_t count = std::min(found.size(), query.count_max);
    std::ranges::partial_sort(found, found.begin() + static_cast<ptrdiff_t>(count), {}, by_id);
    for (size_t i = 0; i < count; ++i) out.push_back(found[i]->record.info);
  }
  for (auto& info : out)
    for (auto& version : info.versions) state_->add_facts(version);
  return out;
}

std::optional<FunctionInfo> Registry::describe(const FunctionId& id) const {
  auto record = state_->record_of(id);
  if (!record) return std::nullopt;
  for (auto& version : record->info.versions) state_->add_facts(version);
  return std::move(record->info);
}

Result<std::vector<ImageInfo>> Registry::images(std::string_view tenant, std::string_view name) const {
  std::vector<ImageInfo> out;
  std::vector<std::string> names;  // of each
  {
    const std::shared_lock lock(state_->catalogue_mutex);
    for (const auto& [id, entry] : state_->catalogue) {
      if ((!tenant.empty() && id.tenant != tenant) || (!name.empty() && id.name != name)) continue;
      const FunctionInfo& info = entry->record.info;
      for (const auto& version : info.versions) {
        out.push_back({id, version.number, version.number == info.current, entry->loaded.contains(version.number), 0});
        names.push_back(ImageStore::name_of(id, version.module_digest, version.config));
      }
    }
  }
  std::map<std::string, uint64_t, std::less<>> sizes;
  ASSIGN_OR_RETURN(const auto stored, state_->images.list());
  for (const auto& entry : stored) sizes.emplace(entry.name, entry.size_bytes);
  for (size_t i = 0; i < out.size(); ++i)
    if (const auto found = sizes.find(names[i]); found != sizes.end()) out[i].stored_bytes = found->second;
  std::ranges::sort(out, {}, [](const ImageInfo& info) { return std::pair(info.id, info.version); });
  return out;
}

RegistryStats Registry::stats() const {
  RegistryStats out{.compiled = state_->modules.compiled(),
                    .compile_failures = state_->modules.compile_failures(),
                    .initialised = state_->initialised,
                    .images_found = state_->images_found};
  {
    const std::shared_lock lock(state_->catalogue_mutex);
    out.functions = state_->catalogue.size();
    out.loaded = state_->loaded;
  }
  const std::lock_guard lock(state_->background_mutex);
  out.background_waiting = state_->background_queue.size() + (state_->background_running ? 1 : 0);
  return out;
}

void Registry::wait_for_background() const {
  std::unique_lock lock(state_->background_mutex);
  state_->background_changed.wait(lock,
                                  [&] { return state_->background_queue.empty() && !state_->background_running; });
}

}  // namespace spore::functions

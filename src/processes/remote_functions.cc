#include "processes/remote_functions.h"

#include <sys/mman.h>

#include "base/mapping.h"

namespace spore::processes {

using functions::FunctionId;

namespace {

constexpr auto kLoadPatience = std::chrono::minutes(15);  // as the host may have to compile it
constexpr auto kAskPatience = std::chrono::seconds(30);

Bytes named(const std::string& name, std::optional<uint64_t> version) {
  ByteWriter out;
  out.write_text(name);
  out.write(version.value_or(0));
  return out.take();
}

std::string key_of(const CallId& id) { return {id.bytes.begin(), id.bytes.end()}; }

}  // namespace

worker::FunctionSource::Function RemoteFunctions::find(const FunctionId& id, std::optional<uint64_t> version) {
  auto state = state_.lock();
  const auto function = state->functions.find(id.name);
  if (function == state->functions.end()) return nullptr;
  const auto& number = version ? version : function->second.current;
  if (!number) return nullptr;
  const auto found = function->second.versions.find(*number);
  return found == function->second.versions.end() ? nullptr : found->second;
}

worker::FunctionSource::Function RemoteFunctions::find_exactly(const std::string& name, uint64_t version,
                                                               const Digest& module_digest) const {
  auto state = state_.lock();
  const auto function = state->functions.find(name);
  if (function == state->functions.end()) return nullptr;
  const auto found = function->second.versions.find(version);
  if (found == function->second.versions.end() || found->second->version.module_digest != module_digest) return nullptr;
  return found->second;
}

bool RemoteFunctions::exists(const FunctionId& id, std::optional<uint64_t> version) {
  return host_.ask(RequestKind::kExists, named(id.name, version), Clock::now() + kAskPatience).has_value();
}

void RemoteFunctions::load(const FunctionId& id, std::optional<uint64_t> version,
                           std::function<void(Result<Function>)> loaded) {
  const auto operation = loaders_.start(id.name, [this, id, version, loaded]() -> Result<int64_t> {
    loaded(load_now(id.name, version));
    return 0;
  });
  // One that was refused has ended; one that ran to its end gives no error.
  if (operation->ended() && !operation->result()) loaded(std::unexpected(operation->result().error()));
}

void RemoteFunctions::load_for_call(const CallFrame& call, std::function<void(Result<Function>)> loaded) {
  state_.lock()->waiting.insert(key_of(call.id));
  load({tenant_, call.function}, call.version,
       [this, id = call.id, digest = call.module_digest, loaded = std::move(loaded)](Result<Function> function) {
         bool cancelled = false;
         {
           auto state = state_.lock();
           state->waiting.erase(key_of(id));
           cancelled = state->cancelled.erase(key_of(id)) > 0;
         }
         if (cancelled) return loaded(fail(ErrorCode::kUnavailable, "the call was cancelled"));
         if (function && (*function)->version.module_digest != digest)
           return loaded(fail(ErrorCode::kUnavailable, "the function was removed, and published anew, meanwhile"));
         loaded(std::move(function));
       });
}

void RemoteFunctions::cancel(const CallId& id) {
  auto state = state_.lock();
  if (state->waiting.contains(key_of(id))) state->cancelled.insert(key_of(id));
}

void RemoteFunctions::forget(const std::string& name) {
  auto state = state_.lock();
  Loaded& function = state->functions[name];
  ++function.generation;
  function.current.reset();
  function.versions.clear();
}

Result<worker::FunctionSource::Function> RemoteFunctions::load_now(const std::string& name,
                                                                   std::optional<uint64_t> version) {
  const std::lock_guard lock(loading_);
  if (auto found = find({tenant_, name}, version)) return found;  // somebody else has loaded it meanwhile
  const uint64_t generation = state_.lock()->functions[name].generation;
  ASSIGN_OR_RETURN(auto made, make(name, version));
  auto state = state_.lock();
  Loaded& function = state->functions[name];
  if (function.generation == generation) {  // else it is for this call alone
    function.versions[made->version.number] = made;
    if (!version) function.current = made->version.number;
  }
  return made;
}

Result<worker::FunctionSource::Function> RemoteFunctions::make(const std::string& name,
                                                               std::optional<uint64_t> version) {
  ASSIGN_OR_RETURN(const Answer answer,
                   host_.ask(RequestKind::kLoad, named(name, version), Clock::now() + kLoadPatience));
  const auto parts = read_function_parts(answer.bytes);
  if (!parts || answer.descriptors.size() != 1) return fail(ErrorCode::kInternal, "the host's answer cannot be read");
  functions::LoadedFunction out{.id = {tenant_, name}};
  out.version.number = parts->version;
  out.version.module_digest = parts->module_digest;
  ASSIGN_OR_RETURN(out.version.config, functions::config_from_json(parts->config));
  const Mapping object_file(
      ::mmap(nullptr, parts->object_bytes, PROT_READ, MAP_PRIVATE, answer.descriptors.front().get(), 0),
      parts->object_bytes);
  if (object_file.data() == MAP_FAILED) return fail_errno("map an object");
  ASSIGN_OR_RETURN(auto parsed, wasm::parse_object(ByteSpan(object_file.data(), object_file.size())));
  out.version.tier = parsed.tier;
  out.version.object_bytes = parts->object_bytes;
  ASSIGN_OR_RETURN(auto object, arena_.load(std::move(parsed)));
  const auto& config = out.version.config;
  ASSIGN_OR_RETURN(auto instantiated,
                   faaslet::ProtoFaaslet::make_instantiated(std::move(object), config.memory_pages_max()));
  ASSIGN_OR_RETURN(out.proto, initialise_(std::move(instantiated), out.id, config));
  out.cpu_quota = functions::make_cpu_quota(config);
  return std::make_shared<const functions::LoadedFunction>(std::move(out));
}

}  // namespace spore::processes

#include "functions/object_cache.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>

#include "functions/host_key.h"
#include "functions/seal.h"
#include "object_store/directory_store.h"

namespace spore::functions {
namespace {

constexpr std::string_view kKind = "spore compiled object";
constexpr uint64_t kUserCacheBytesMax = 8ull << 30;

std::string folder_of(const Digest& module_digest) { return "objects/" + to_hex(module_digest) + "/"; }

// The object, where the bytes are what this host once sealed under this name.
std::optional<wasm::Object> parse_sealed(ByteSpan host_key, std::string_view name, ByteSpan bytes, std::string& why) {
  const auto content = unseal(host_key, kKind, name, bytes);
  if (!content) {
    why = "its seal does not verify";
    return std::nullopt;
  }
  auto object = wasm::parse_object(*content);
  if (object) return std::move(*object);
  why = object.error().message;
  return std::nullopt;
}

bool is_as_asked(const wasm::Object& object, const Digest& module_digest, const compiler::Options& options) {
  return object.module_digest == module_digest && object.tier == options.tier &&
         object.cpu_level == options.cpu_level && object.cross_instance == options.cross_instance &&
         object.hardened == options.hardened;
}

}  // namespace

ObjectCache::ObjectCache(object_store::ObjectStore& store, const compiler::ChildCompiler& compiler, Bytes host_key,
                         uint64_t object_bytes_max)
    : store_(store), compiler_(compiler), host_key_(std::move(host_key)), object_bytes_max_(object_bytes_max) {}

std::string ObjectCache::name_of(const Digest& module_digest, const compiler::Options& options) {
  std::string out = folder_of(module_digest) + "c" + std::to_string(compiler::kCompilerVersion) + "-a" +
                    std::to_string(wasm::kAbiVersion) + "-v" + std::to_string(static_cast<int>(options.cpu_level)) +
                    (options.tier == wasm::Tier::kOptimised ? "-optimised" : "-fast");
  if (options.hardened) out += "-hardened";
  if (options.cross_instance) out += "-cross";
  if (options.proposals != compiler::kAllProposals) out += "-p" + std::to_string(options.proposals);
  return out;
}

Result<std::optional<ObjectCache::Found>> ObjectCache::read(const Digest& module_digest,
                                                            const compiler::Options& options) const {
  const std::string name = name_of(module_digest, options);
  auto bytes = store_.get(name, object_bytes_max_ + kSealBytes);
  if (!bytes) {
    if (bytes.error().code == ErrorCode::kNotFound || bytes.error().code == ErrorCode::kResourceExhausted)
      return std::nullopt;
    return std::unexpected(std::move(bytes).error());
  }
  std::string why;
  auto object = parse_sealed(host_key_, name, *bytes, why);
  if (object && !is_as_asked(*object, module_digest, options)) {
    why = "it is of another module";
    object.reset();
  }
  if (!object) {
    spdlog::warn("{} is not used, it will be compiled anew: {}", name, why);
    return std::nullopt;
  }
  return Found{.sealed = std::move(*bytes), .object = std::move(*object)};
}

Result<std::optional<CachedObject>> ObjectCache::find(const Digest& module_digest,
                                                      const compiler::Options& options) const {
  ASSIGN_OR_RETURN(auto found, read(module_digest, options));
  if (!found) return std::nullopt;
  return CachedObject{.object = std::move(found->object), .stored_bytes = found->sealed.size()};
}

Result<std::optional<Bytes>> ObjectCache::find_bytes(const Digest& module_digest,
                                                     const compiler::Options& options) const {
  ASSIGN_OR_RETURN(auto found, read(module_digest, options));
  if (!found) return std::nullopt;
  found->sealed.erase(found->sealed.begin(), found->sealed.begin() + kSealBytes);
  return std::move(found->sealed);
}

Result<CachedObject> ObjectCache::compile(const Digest& module_digest, ByteSpan wasm, const compiler::Options& options,
                                          const compiler::Progress& progress, std::stop_token stop) const {
  ASSIGN_OR_RETURN(const Bytes content, compiler_.compile(wasm, options, progress, std::move(stop)));
  if (content.size() > object_bytes_max_)
    return fail(ErrorCode::kResourceExhausted,
                "the compiled object is too large (limit " + std::to_string(object_bytes_max_) + " bytes)");
  auto object = wasm::parse_object(content);
  if (!object) return std::unexpected(std::move(object).error().within("the compiler's output"));
  if (!is_as_asked(*object, module_digest, options))
    return fail(ErrorCode::kInternal, "the compiler compiled something else than it was asked to");
  const std::string name = name_of(module_digest, options);
  const Bytes bytes = seal(host_key_, kKind, name, content);
  TRY(store_.put(name, bytes));
  return CachedObject{.object = std::move(*object), .stored_bytes = bytes.size(), .compiled = true};
}

Result<CachedObject> ObjectCache::find_or_compile(ByteSpan wasm, const compiler::Options& options,
                                                  const compiler::Progress& progress, std::stop_token stop) const {
  const Digest digest = sha256(wasm);
  ASSIGN_OR_RETURN(auto found, find(digest, options));
  if (found) return std::move(*found);
  return compile(digest, wasm, options, progress, std::move(stop));
}

Result<void> ObjectCache::remove(const Digest& module_digest) const {
  ASSIGN_OR_RETURN(const auto entries, store_.list(folder_of(module_digest)));
  for (const auto& entry : entries) TRY(store_.remove(entry.name));
  return {};
}

Result<std::filesystem::path> UserCache::default_directory() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache == '/')
    return std::filesystem::path(cache) / "spore";
  if (const char* home = std::getenv("HOME"); home && *home) return std::filesystem::path(home) / ".cache" / "spore";
  return fail(ErrorCode::kFailedPrecondition, "neither XDG_CACHE_HOME nor HOME is set");
}

Result<std::unique_ptr<UserCache>> UserCache::open(const std::filesystem::path& directory,
                                                   compiler::ChildLimits limits) {
  ASSIGN_OR_RETURN(std::unique_ptr<object_store::ObjectStore> store,
                   object_store::DirectoryStore::open(directory / "store"));
  ASSIGN_OR_RETURN(auto key, load_or_make_host_key(directory / "key"));
  // A cache that has grown too large starts again.
  ASSIGN_OR_RETURN(const auto entries, store->list("objects/"));
  uint64_t total_bytes = 0;
  for (const auto& entry : entries) total_bytes += entry.size_bytes;
  if (total_bytes > kUserCacheBytesMax)
    for (const auto& entry : entries) TRY(store->remove(entry.name));
  return std::unique_ptr<UserCache>(new UserCache(std::move(store), std::move(key), limits));
}

UserCache::UserCache(std::unique_ptr<object_store::ObjectStore> store, Bytes host_key, compiler::ChildLimits limits)
    : store_(std::move(store)),
      host_key_(std::move(host_key)),
      compiler_(limits),
      objects_(*store_, compiler_, host_key_) {}

}  // namespace spore::functions

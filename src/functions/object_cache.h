// Compiled objects, kept so that a module is compiled once: get, or compile in a child process and keep.
//
// An object lies in the store under objects/MODULE/KEY, where MODULE is the digest of the wasm and KEY names all that
// the code depends on: compiler version, ABI version, CPU level, tier, flags. It is sealed: HMAC-SHA256 under the
// host's key over both names and the content. What does not verify (another host's, cut short, a flipped bit, put there
// by somebody else) counts as not there. Any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>

#include "compiler/child.h"
#include "object_store/object_store.h"
#include "wasm/object.h"

namespace spore::functions {

struct CachedObject {
  wasm::Object object;
  uint64_t stored_bytes = 0;
  bool compiled = false;  // by this call; false: it was there
};

class ObjectCache {
 public:
  // `store` and `compiler` outlive it.
  ObjectCache(object_store::ObjectStore& store, const compiler::ChildCompiler& compiler, Bytes host_key,
              uint64_t object_bytes_max = 1ull << 30);

  // Nothing where it is not there or does not verify; an error where the store fails.
  Result<std::optional<CachedObject>> find(const Digest& module_digest, const compiler::Options& options) const;
  // The same, as it was compiled: the bytes of an object that was parsed once, and is as asked.
  Result<std::optional<Bytes>> find_bytes(const Digest& module_digest, const compiler::Options& options) const;
  // Always compiles, and replaces what is there.
  Result<CachedObject> compile(const Digest& module_digest, ByteSpan wasm, const compiler::Options& options,
                               const compiler::Progress& progress = {}, std::stop_token stop = {}) const;
  Result<CachedObject> find_or_compile(ByteSpan wasm, const compiler::Options& options,
                                       const compiler::Progress& progress = {}, std::stop_token stop = {}) const;
  // All objects of the module.
  Result<void> remove(const Digest& module_digest) const;

  // The name under which the object is stored.
  static std::string name_of(const Digest& module_digest, const compiler::Options& options);

 private:
  struct Found {
    Bytes sealed;
    wasm::Object object;
  };
  Result<std::optional<Found>> read(const Digest& module_digest, const compiler::Options& options) const;

  object_store::ObjectStore& store_;
  const compiler::ChildCompiler& compiler_;
  Bytes host_key_;
  uint64_t object_bytes_max_;
};

// The cache of the user who runs `spore run` and `spore compile`: a directory store with its own key. Many processes
// may use one directory at once.
class UserCache {
 public:
  // $XDG_CACHE_HOME/spore, else ~/.cache/spore. kFailedPrecondition where neither variable is set.
  static Result<std::filesystem::path> default_directory();
  static Result<std::unique_ptr<UserCache>> open(const std::filesystem::path& directory,
                                                 compiler::ChildLimits limits = {});

  const ObjectCache& objects() const { return objects_; }
  const Bytes& host_key() const { return host_key_; }

 private:
  UserCache(std::unique_ptr<object_store::ObjectStore> store, Bytes host_key, compiler::ChildLimits limits);

  std::unique_ptr<object_store::ObjectStore> store_;
  Bytes host_key_;
  compiler::ChildCompiler compiler_;
  ObjectCache objects_;
};

}  // namespace spore::functions

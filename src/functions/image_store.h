// The image files of functions in the store: what the initialisers of a version left behind, so that they run once,
// whatever host the version's calls run on later.
//
// An image lies under images/TENANT/NAME/KEY, where KEY names all that it depends on: the module, the configuration
// (which initialisers see), the format and the layout. It is sealed under the host's key and that name. What does not
// verify or does not fit the module counts as not there. Any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "functions/function.h"
#include "object_store/object_store.h"

namespace spore::functions {

struct StoredImage {
  std::shared_ptr<const faaslet::ProtoFaaslet> proto;
  uint64_t stored_bytes = 0;
};

class ImageStore {
 public:
  // `store` outlives it.
  ImageStore(object_store::ObjectStore& store, Bytes host_key) : store_(store), host_key_(std::move(host_key)) {}

  static std::string name_of(const FunctionId& id, const Digest& module_digest, const FunctionConfig& config);

  // Nothing where it is not there or does not verify; an error where the store fails, or memory is short.
  Result<std::optional<StoredImage>> find(const FunctionId& id, const FunctionConfig& config,
                                          std::shared_ptr<const faaslet::LoadedObject> object) const;
  // How many bytes it takes.
  Result<uint64_t> put(const FunctionId& id, const FunctionConfig& config, const faaslet::ProtoFaaslet& proto) const;

  // Of one function, and of all.
  Result<std::vector<object_store::ObjectEntry>> list(const FunctionId& id) const;
  Result<std::vector<object_store::ObjectEntry>> list() const;
  Result<void> remove(const std::string& name) const { return store_.remove(name); }

 private:
  object_store::ObjectStore& store_;
  Bytes host_key_;
};

}  // namespace spore::functions

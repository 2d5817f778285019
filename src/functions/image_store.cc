#include "functions/image_store.h"

#include <spdlog/spdlog.h>

#include "functions/seal.h"

namespace spore::functions {
namespace {

constexpr std::string_view kKind = "spore image";
constexpr std::string_view kFolder = "images/";

}  // namespace

std::string ImageStore::name_of(const FunctionId& id, const Digest& module_digest, const FunctionConfig& config) {
  const Digest of_config = sha256(as_bytes(config_to_json(config)));
  return std::string(kFolder) + id.text() + "/f" + std::to_string(faaslet::kImageFormatVersion) + "-a" +
         std::to_string(wasm::kAbiVersion) + "-" + to_hex(module_digest) + "-" + to_hex(ByteSpan(of_config).first(16));
}

Result<std::optional<StoredImage>> ImageStore::find(const FunctionId& id, const FunctionConfig& config,
                                                    std::shared_ptr<const faaslet::LoadedObject> object) const {
  const Digest digest = object->object().module_digest;
  const std::string name = name_of(id, digest, config);
  auto bytes = store_.get(name);
  if (!bytes) {
    if (bytes.error().code == ErrorCode::kNotFound) return std::nullopt;
    return std::unexpected(std::move(bytes).error());
  }
  const auto refuse = [&](const std::string& why) {
    spdlog::warn("{} is not used, it will be made anew: {}", name, why);
    return std::nullopt;
  };
  const auto content = unseal(host_key_, kKind, name, *bytes);
  if (!content) return refuse("its seal does not verify");
  const auto state = faaslet::parse_instance_state(*content, object->module(), digest, config.memory_pages_max());
  if (!state) return refuse(state.error().message);
  ASSIGN_OR_RETURN(auto proto, faaslet::ProtoFaaslet::make(std::move(object), *state, config.memory_pages_max()));
  return StoredImage{std::move(proto), bytes->size()};
}

Result<uint64_t> ImageStore::put(const FunctionId& id, const FunctionConfig& config,
                                 const faaslet::ProtoFaaslet& proto) const {
  const Digest& digest = proto.object()->object().module_digest;
  const std::string name = name_of(id, digest, config);
  const Bytes sealed = seal(host_key_, kKind, name, faaslet::serialize(proto.state(), digest));
  TRY(store_.put(name, sealed));
  return sealed.size();
}

Result<std::vector<object_store::ObjectEntry>> ImageStore::list(const FunctionId& id) const {
  return store_.list(std::string(kFolder) + id.text() + "/");
}

Result<std::vector<object_store::ObjectEntry>> ImageStore::list() const { return store_.list(kFolder); }

}  // namespace spore::functions

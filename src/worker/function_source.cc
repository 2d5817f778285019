#include "worker/function_source.h"

#include <algorithm>

namespace spore::worker {

bool RegistrySource::exists(const functions::FunctionId& id, std::optional<uint64_t> version) {
  const auto function = registry_.describe(id);
  if (!function) return false;
  return !version ||
         std::ranges::find(function->versions, *version, &functions::VersionInfo::number) != function->versions.end();
}

void RegistrySource::load(const functions::FunctionId& id, std::optional<uint64_t> version,
                          std::function<void(Result<Function>)> loaded) {
  const auto operation = pool_.start(id.tenant, [this, id, version, loaded]() -> Result<int64_t> {
    loaded(registry_.load(id, version));
    return 0;
  });
  // One that was refused has ended; one that ran to its end gives no error.
  if (operation->ended() && !operation->result()) loaded(std::unexpected(operation->result().error()));
}

}  // namespace spore::worker

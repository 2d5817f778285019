#include "state/rocksdb_tier.h"

#include <gtest/gtest.h>

#include "state/global_tier_conformance.h"

namespace spore::state {
namespace {

// A tier in a directory of its own, which goes with it.
std::shared_ptr<GlobalTier> tier_in_temporary_directory(RocksDbOptions options) {
  std::string name = (std::filesystem::temp_directory_path() / "spore-state-XXXXXX").string();
  if (!::mkdtemp(name.data())) {
    ADD_FAILURE() << "no temporary directory";
    return nullptr;
  }
  auto tier = RocksDbTier::open(name, std::move(options));
  if (!tier) {
    ADD_FAILURE() << tier.error().message;
    return nullptr;
  }
  return {tier->release(), [name](GlobalTier* old) {
            delete old;
            std::filesystem::remove_all(name);
          }};
}

TierKind kind(const std::string& name, RocksDbOptions options) {
  return {name, [options] { return tier_in_temporary_directory(options); }};
}

// The second writes every push of more than a page in parts, and its memory goes to files all the time.
INSTANTIATE_TEST_SUITE_P(RocksDb, GlobalTierConformance,
                         testing::Values(kind("RocksDb", {}), kind("RocksDbInParts", {.write_buffer_bytes = 256 << 10,
                                                                                      .push_batch_bytes = 4096})),
                         kind_name);

}  // namespace
}  // namespace spore::state

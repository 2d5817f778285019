// Which store holds a host's state, as the command line names it:
//
//   rocksdb         in the default directory        rocksdb:DIR     in that one
//
// Main thread only.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "state/global_tier.h"

namespace spore::bin {

constexpr const char* kStateStoreHelp = "rocksdb:DIR";

struct StateStoreName {
  enum class Kind : uint8_t { kRocksDb, kRedis };
  Kind kind = Kind::kRocksDb;
  std::string location;  // of kRocksDb: the directory, "": the default one; of kRedis: the whole URL
};

// kInvalidArgument: it is none of them; what it says holds no password.
Result<StateStoreName> parse_state_store(std::string_view text);
// A URL without user and password: "redis://u:secret@host/0" -> "redis://***@host/0".
std::string without_password(std::string_view url);

enum class IfMissing { kMake, kFail };

// `default_directory` empty: there is none, and the directory has to be named. Errors: those of
// parse_state_store(), kNotFound with kFail, and the store's own.
Result<std::unique_ptr<state::GlobalTier>> open_state_store(const std::string& text,
                                                            const std::filesystem::path& default_directory,
                                                            IfMissing if_missing);

}  // namespace spore::bin

#include "bin/state_store.h"

#include "state/redis_tier.h"
#include "state/rocksdb_tier.h"

namespace spore::bin {

std::string without_password(std::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string_view::npos) return std::string(url);
  const size_t begin = scheme + 3;
  // A password may hold anything that its writer forgot to escape; what is behind the last @ is the host.
  const size_t at = url.rfind('@');
  if (at == std::string_view::npos || at < begin) return std::string(url);
  return std::string(url.substr(0, begin)) + "***" + std::string(url.substr(at));
}

Result<StateStoreName> parse_state_store(std::string_view text) {
  using Kind = StateStoreName::Kind;
  constexpr std::string_view kRocksDb = "rocksdb";
  if (text == kRocksDb) return StateStoreName{.kind = Kind::kRocksDb};
  if (text.starts_with(kRocksDb) && text[kRocksDb.size()] == ':' && text.size() > kRocksDb.size() + 1)
    return StateStoreName{.kind = Kind::kRocksDb, .location = std::string(text.substr(kRocksDb.size() + 1))};
  for (const std::string_view scheme : {"redis://", "rediss://", "redis-cluster://", "rediss-cluster://"})
    if (text.starts_with(scheme) && text.size() > scheme.size())
      return StateStoreName{.kind = Kind::kRedis, .location = std::string(text)};
  return fail(ErrorCode::kInvalidArgument,
              "\"" + without_password(text) +
                  "\" names no store of state: it is rocksdb, rocksdb:DIR, redis://HOST:PORT, rediss://HOST:PORT or "
                  "redis-cluster://HOST:PORT,HOST:PORT");
}

Result<std::unique_ptr<state::GlobalTier>> open_state_store(const std::string& text,
                                                            const std::filesystem::path& default_directory,
                                                            IfMissing if_missing) {
  ASSIGN_OR_RETURN(const StateStoreName name, parse_state_store(text));
  switch (name.kind) {
    case StateStoreName::Kind::kRocksDb: {
      const auto directory = name.location.empty() ? default_directory : std::filesystem::path(name.location);
      if (directory.empty()) return fail(ErrorCode::kInvalidArgument, "rocksdb: name its directory, as rocksdb:DIR");
      std::error_code ignored;
      if (if_missing == IfMissing::kFail && !std::filesystem::exists(directory, ignored))
        return fail(ErrorCode::kNotFound, "there is no store at " + directory.string());
      return state::RocksDbTier::open(directory, {});
    }
    case StateStoreName::Kind::kRedis: return state::RedisTier::connect(name.location);
  }
  return fail(ErrorCode::kInternal, "an unknown kind of store");
}

}  // namespace spore::bin

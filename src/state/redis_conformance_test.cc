// What every global tier must do, on one Redis, over TLS, and on a cluster of three.
#include "state/global_tier_conformance.h"
#include "state/redis_test_server.h"
#include "state/redis_tier.h"

namespace spore::state {
namespace {

// One server for all tests of a kind, as each test has tenants of its own.
template <class Server>
std::shared_ptr<GlobalTier> tier_on(const std::shared_ptr<Server>& server, const RedisOptions& options = {}) {
  if (!server) return nullptr;
  auto tier = RedisTier::connect(server->url(), options);
  if (!tier) {
    ADD_FAILURE() << tier.error().message;
    return nullptr;
  }
  struct Both {
    std::shared_ptr<Server> server;
    std::unique_ptr<RedisTier> tier;
  };
  auto both = std::make_shared<Both>(server, std::move(*tier));
  return {both, both->tier.get()};
}

std::shared_ptr<GlobalTier> single() {
  static const std::shared_ptr<RedisTestServer> server = RedisTestServer::start();
  return tier_on(server);
}
// Pushes of more than 10 kB come in parts.
std::shared_ptr<GlobalTier> staged() {
  static const std::shared_ptr<RedisTestServer> server = RedisTestServer::start();
  return tier_on(server, {.push_bytes_at_once = 10'000});
}
std::shared_ptr<GlobalTier> tls() {
  static const std::shared_ptr<RedisTestServer> server = RedisTestServer::start({.tls = true});
  if (!server) return nullptr;
  RedisOptions options;
  options.client.tls.ca_file = server->directory() / "cert.pem";
  return tier_on(server, options);
}
std::shared_ptr<GlobalTier> cluster() {
  static const std::shared_ptr<RedisTestCluster> servers = RedisTestCluster::start();
  return tier_on(servers);
}

}  // namespace

INSTANTIATE_TEST_SUITE_P(Redis, GlobalTierConformance,
                         testing::Values(TierKind{"Redis", single}, TierKind{"RedisInParts", staged},
                                         TierKind{"RedisTls", tls}, TierKind{"RedisCluster", cluster}),
                         kind_name);

}  // namespace spore::state

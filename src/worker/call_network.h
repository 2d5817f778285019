// The network of a call of a function that has one: a namespace of its own, taken from the host's pool when it opens
// its first socket, given back at its end.
#pragma once

#include <memory>
#include <optional>

#include "host/network.h"
#include "isolation/network_pool.h"

namespace spore::worker {

// Where a resolver's address is asked: its port 53.
sockaddr_storage resolver_at(const isolation::IpAddress& resolver);

class CallNetwork final : public host::Network {
 public:
  // The pool outlives it.
  CallNetwork(isolation::NetworkPool& pool, std::shared_ptr<const isolation::PreparedPolicy> policy,
              std::optional<isolation::IpAddress> resolver)
      : pool_(pool), policy_(std::move(policy)), resolver_(std::move(resolver)) {}

  Result<UniqueFd> socket(int family, int type) override;
  std::vector<sockaddr_storage> resolvers() const override;

 private:
  isolation::NetworkPool& pool_;
  const std::shared_ptr<const isolation::PreparedPolicy> policy_;
  const std::optional<isolation::IpAddress> resolver_;
  std::optional<isolation::NetworkLease> lease_;
};

}  // namespace spore::worker

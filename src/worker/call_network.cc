#include "worker/call_network.h"

#include <netinet/in.h>

#include <cstring>

namespace spore::worker {

namespace {
constexpr uint16_t kDnsPort = 53;
}

Result<UniqueFd> CallNetwork::socket(int family, int type) {
  if (!lease_) {
    ASSIGN_OR_RETURN(auto lease, pool_.take(policy_));
    lease_.emplace(std::move(lease));
  }
  // The host interface has the limit of sockets, and knows which of them are closed.
  ASSIGN_OR_RETURN(auto socket, lease_->socket(family, type));
  return std::move(socket).release();
}

sockaddr_storage resolver_at(const isolation::IpAddress& resolver) {
  sockaddr_storage out{};
  if (resolver.v6) {
    sockaddr_in6 address{.sin6_family = AF_INET6, .sin6_port = htons(kDnsPort)};
    std::memcpy(&address.sin6_addr, resolver.bytes.data(), sizeof(address.sin6_addr));
    std::memcpy(&out, &address, sizeof(address));
  } else {
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(kDnsPort)};
    std::memcpy(&address.sin_addr, resolver.bytes.data(), sizeof(address.sin_addr));
    std::memcpy(&out, &address, sizeof(address));
  }
  return out;
}

std::vector<sockaddr_storage> CallNetwork::resolvers() const {
  if (!resolver_) return {};
  return {resolver_at(*resolver_)};
}

}  // namespace spore::worker

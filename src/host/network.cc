#include "host/network.h"

#include "host/resolver.h"

namespace spore::host {

namespace {

class ProcessNetwork final : public Network {
 public:
  explicit ProcessNetwork(std::vector<sockaddr_storage> resolvers) : resolvers_(std::move(resolvers)) {}

  Result<UniqueFd> socket(int family, int type) override {
    UniqueFd fd(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return fail_errno("make a socket");
    return fd;
  }
  std::vector<sockaddr_storage> resolvers() const override { return resolvers_; }

 private:
  const std::vector<sockaddr_storage> resolvers_;
};

}  // namespace

Result<std::shared_ptr<Network>> process_network() {
  ASSIGN_OR_RETURN(auto resolvers, resolvers_of_this_machine());
  return std::make_shared<ProcessNetwork>(std::move(resolvers));
}

}  // namespace spore::host

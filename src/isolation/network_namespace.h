// Network namespaces as descriptors, and what a single-threaded process does in them.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace spore::isolation {

// The calling thread's.
Result<UniqueFd> current_network_namespace();

// While it lives, the calling thread is in that namespace; then it is where it was. It must not fail to come back: that
// would be a socket in a wrong place, so it is checked.
class InNetworkNamespace {
 public:
  static Result<InNetworkNamespace> enter(int network_namespace);
  // A new one, with nothing in it but lo.
  static Result<InNetworkNamespace> make();
  InNetworkNamespace(InNetworkNamespace&&) = default;
  ~InNetworkNamespace();

 private:
  explicit InNetworkNamespace(UniqueFd before) : before_(std::move(before)) {}
  UniqueFd before_;
};

// Of the current namespace: "net/ipv4/ip_forward".
Result<void> set_sysctl(const std::string& name, const std::string& value);
Result<std::string> get_sysctl(const std::string& name);

}  // namespace spore::isolation

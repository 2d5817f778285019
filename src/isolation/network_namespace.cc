#include "isolation/network_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "base/check.h"

namespace spore::isolation {

Result<UniqueFd> current_network_namespace() {
  UniqueFd out(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!out.valid()) return fail_errno("open the network namespace");
  return out;
}

Result<InNetworkNamespace> InNetworkNamespace::enter(int network_namespace) {
  ASSIGN_OR_RETURN(UniqueFd before, current_network_namespace());
  if (::setns(network_namespace, CLONE_NEWNET) != 0) return fail_errno("enter a network namespace");
  return InNetworkNamespace(std::move(before));
}

Result<InNetworkNamespace> InNetworkNamespace::make() {
  ASSIGN_OR_RETURN(UniqueFd before, current_network_namespace());
  if (::unshare(CLONE_NEWNET) != 0) return fail_errno("make a network namespace");
  return InNetworkNamespace(std::move(before));
}

InNetworkNamespace::~InNetworkNamespace() {
  if (!before_.valid()) return;
  const int back = ::setns(before_.get(), CLONE_NEWNET);
  CHECK(back == 0, errno);
}

Result<void> set_sysctl(const std::string& name, const std::string& value) {
  UniqueFd file(::open(("/proc/sys/" + name).c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid()) return fail_errno("open /proc/sys/" + name);
  if (auto written = write_all(file.get(), as_bytes(value)); !written)
    return std::unexpected(std::move(written).error().within("set " + name + " to " + value));
  return {};
}

Result<std::string> get_sysctl(const std::string& name) {
  UniqueFd file(::open(("/proc/sys/" + name).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return fail_errno("open /proc/sys/" + name);
  ASSIGN_OR_RETURN(const Bytes bytes, read_all(file.get(), 4096));
  std::string out(as_text(bytes));
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

}  // namespace spore::isolation

// What `spore serve` sets up to keep tenants apart, and what it gives up, in the order in which that must happen:
// before the process has a thread, what takes privileges; then the privileges go; then what has threads.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "compiler/child.h"
#include "functions/registry.h"
#include "isolation/boundary.h"
#include "isolation/broker.h"
#include "isolation/cpu_groups.h"
#include "isolation/network_pool.h"

namespace spore::bin {

struct IsolationOptions {
  bool cpu_groups = true;
  bool network = true;
  bool lockdown = true;
  std::vector<std::string> reachable;  // private ranges (CIDR)
  std::string resolver;                // an address; "": none
  isolation::NetworkLimits network_limits;
  size_t networks_ready = 32;
  std::string where = "shared";            // "process": all tenants run apart
  std::vector<std::string> apart_tenants;  // these do
  size_t processes_max = 16;               // of tenants, at once
};

class HostIsolation {
 public:
  // While there is one thread. `guest_threads`: how many will run guests; `ports`: that it will listen on. An error is
  // one of the options; what this machine does not let it have is in boundaries().
  static Result<std::unique_ptr<HostIsolation>> begin(const IsolationOptions& options, unsigned guest_threads,
                                                      std::initializer_list<uint16_t> ports);

  // No call may be left, nor may others begin.
  ~HostIsolation();

  // For WindowTracker::start: what the kernel gave before the privileges went; invalid, with errno set, where it did
  // not.
  UniqueFd take_faults();
  void open_network();
  // On a thread that will run guests.
  void on_guest_thread() const;

  // One that somebody else enforces, and how.
  void add_boundary(std::string name, std::string how) { boundaries_.add_enforced(std::move(name), std::move(how)); }

  const isolation::Boundaries& boundaries() const { return boundaries_; }
  isolation::CpuGroups* cpu_groups() { return cpu_groups_ ? &*cpu_groups_ : nullptr; }
  isolation::NetworkPool* network() { return network_.get(); }
  const std::optional<isolation::IpAddress>& resolver() const { return limits_.resolver; }

  isolation::Broker* broker() { return broker_.get(); }
  // Null: there is no broker, and the host starts compilers itself.
  compiler::ChildStarter* compiler_starter() { return compiler_starter_.get(); }

  // For functions::HostHooks.
  bool runs_apart(const functions::FunctionId& id, const functions::FunctionConfig& config) const;
  Result<void> admit(const functions::FunctionId& id, const functions::FunctionConfig& config) const;
  Result<std::shared_ptr<const isolation::PreparedPolicy>> prepare_network(const functions::FunctionId& id,
                                                                           const isolation::NetworkPolicy& policy);

 private:
  HostIsolation(const IsolationOptions& options, isolation::NetworkLimits limits)
      : options_(options), limits_(std::move(limits)) {}
  Result<void> make_cpu_groups(unsigned threads);
  Result<void> start_broker();
  Result<void> lock_down(std::initializer_list<uint16_t> ports);
  Result<void> try_open_network();

  const IsolationOptions options_;
  const isolation::NetworkLimits limits_;
  isolation::Boundaries boundaries_;
  std::optional<isolation::CpuGroups> cpu_groups_;
  Result<void> broker_started_;
  std::unique_ptr<isolation::Broker> broker_;  // outlives what is made through it
  std::unique_ptr<compiler::ChildStarter> compiler_starter_;
  std::unique_ptr<isolation::NetworkPool> network_;
  UniqueFd faults_;
  int faults_error_ = 0;
  bool locked_down_ = false;
};

}  // namespace spore::bin

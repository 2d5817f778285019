#include "bin/host_isolation.h"

#include <linux/capability.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "host/file_systems.h"
#include "isolation/lockdown.h"
#include "state/window_tracker.h"

namespace spore::bin {

namespace {

constexpr auto kFileSystemPatience = std::chrono::seconds(5);

Result<isolation::NetworkLimits> limits_of(const IsolationOptions& options) {
  isolation::NetworkLimits limits = options.network_limits;
  for (const std::string& text : options.reachable) {
    auto range = isolation::IpRange::parse(text);
    if (!range) return std::unexpected(std::move(range).error().within("--network-reach"));
    limits.reachable.push_back(*range);
  }
  if (!options.resolver.empty()) {
    auto address = isolation::IpAddress::parse(options.resolver);
    if (!address) return std::unexpected(std::move(address).error().within("--network-resolver"));
    limits.resolver = *address;
  }
  if (const auto fit = isolation::check(limits); !fit)
    return fail(fit.error().code, "--network-...: " + fit.error().message);
  return limits;
}

std::unexpected<Error> off_by(const std::string& flag) {
  return fail(ErrorCode::kUnavailable, "it is off by " + flag + " false");
}

}  // namespace

Result<std::unique_ptr<HostIsolation>> HostIsolation::begin(const IsolationOptions& options, unsigned guest_threads,
                                                            std::initializer_list<uint16_t> ports) {
  ASSIGN_OR_RETURN(auto limits, limits_of(options));
  std::unique_ptr<HostIsolation> out(new HostIsolation(options, std::move(limits)));
  out->boundaries_.add("cpu", out->make_cpu_groups(guest_threads));
  out->broker_started_ = out->start_broker();
  out->faults_ = state::WindowTracker::open_faults();
  out->faults_error_ = errno;
  const auto locked_down = out->lock_down(ports);
  out->locked_down_ = locked_down.has_value();
  out->boundaries_.add("lockdown", locked_down);
  return out;
}

HostIsolation::~HostIsolation() { host::set_tmpfs_maker(host::make_tmpfs); }

Result<void> HostIsolation::make_cpu_groups(unsigned threads) {
  if (!options_.cpu_groups) return off_by("--cpu-groups");
  ASSIGN_OR_RETURN(auto groups, isolation::CpuGroups::make(threads));
  cpu_groups_.emplace(std::move(groups));
  return {};
}

// Beside networks it makes the file systems of calls. And it removes the cgroups, which this process may not do any
// more then, or is too dead to.
Result<void> HostIsolation::start_broker() {
  std::vector<isolation::BrokerOperation> operations;
  if (options_.network) operations = isolation::network_operations(limits_);
  if (cpu_groups_) {
    operations.push_back(
        {.name = "cpu_groups", .run = [remover = isolation::CpuGroupsRemover(cpu_groups_->directory())](ByteSpan) {
           return Result<isolation::BrokerReply>();
         }});
  }
  operations.push_back({.name = "tmpfs", .run = [](ByteSpan request) -> Result<isolation::BrokerReply> {
                          ASSIGN_OR_RETURN(const auto limits, host::parse_local_layer(request));
                          ASSIGN_OR_RETURN(auto root, host::make_tmpfs(limits));
                          isolation::BrokerReply reply;
                          reply.descriptors.push_back(std::move(root));
                          return reply;
                        }});
  ASSIGN_OR_RETURN(broker_, isolation::Broker::start(std::move(operations)));
  host::set_tmpfs_maker([&broker = *broker_](const host::LocalLayer& limits) -> Result<UniqueFd> {
    const auto deadline = isolation::Broker::Clock::now() + kFileSystemPatience;
    ASSIGN_OR_RETURN(auto reply, broker.call("tmpfs", host::serialize(limits), deadline));
    if (reply.descriptors.size() != 1) return fail(ErrorCode::kInternal, "the broker gave no file system");
    return std::move(reply.descriptors.front());
  });
  return {};
}

Result<void> HostIsolation::lock_down(std::initializer_list<uint16_t> ports) {
  if (!options_.lockdown) return off_by("--lockdown");
  TRY(broker_started_);  // without it nobody could make the files of calls
  std::vector<int> kept;
  const auto is_privileged = [](uint16_t port) { return port != 0 && port < 1024; };
  if (std::ranges::any_of(ports, is_privileged)) kept.push_back(CAP_NET_BIND_SERVICE);
  TRY(isolation::drop_privileges(kept));
  return isolation::forbid_system_calls();
}

UniqueFd HostIsolation::take_faults() {
  errno = faults_error_;
  return std::move(faults_);
}

void HostIsolation::open_network() { boundaries_.add("network", try_open_network()); }

Result<void> HostIsolation::try_open_network() {
  if (!options_.network) return off_by("--network");
  TRY(broker_started_);
  ASSIGN_OR_RETURN(network_,
                   isolation::NetworkPool::open(*broker_, {.limits = limits_, .ready = options_.networks_ready}));
  return {};
}

void HostIsolation::on_guest_thread() const {
  if (!locked_down_) return;
  if (const auto forbidden = isolation::allow_system_calls_of_a_seat(); !forbidden)
    spdlog::error("a thread that runs guests can make any system call: {}", forbidden.error().message);
}

Result<void> HostIsolation::admit(const functions::FunctionId& id, const functions::FunctionConfig& config) const {
  const auto met = boundaries_.check(config.require);
  if (!met) return fail(met.error().code, id.text() + " " + met.error().message);
  return {};
}

Result<std::shared_ptr<const isolation::PreparedPolicy>> HostIsolation::prepare_network(
    const functions::FunctionId& id, const isolation::NetworkPolicy& policy) {
  if (const auto met = boundaries_.check({"network"}); !met)
    return fail(met.error().code, id.text() + " " + met.error().message);
  auto prepared = network_->prepare(policy);
  if (!prepared) return std::unexpected(std::move(prepared).error().within(id.text() + ": its network"));
  return std::move(*prepared);
}

}  // namespace spore::bin

#include "bin/host_isolation.h"

#include <linux/capability.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "compiler/child_protocol.h"
#include "host/file_systems.h"
#include "isolation/apart.h"
#include "isolation/launch.h"
#include "isolation/lockdown.h"
#include "state/window_tracker.h"

namespace spore::bin {

namespace {

constexpr auto kFileSystemPatience = std::chrono::seconds(5);
constexpr auto kCompilerPatience = std::chrono::seconds(10);
constexpr size_t kCompilerDescriptors = 4;

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

// Compilers as children of the broker, which knows the one program that it may start so.
class BrokerStarter final : public compiler::ChildStarter {
 public:
  explicit BrokerStarter(isolation::Broker& broker) : broker_(broker) {}
  int64_t parent() const override { return broker_.pid(); }
  Result<Started> start(const std::filesystem::path&, const std::vector<std::string>& arguments,
                        std::span<const int> descriptors) override {
    ASSIGN_OR_RETURN(auto launched, isolation::launch(broker_, arguments, descriptors, patience()));
    return Started{.pid = launched.pid, .pid_descriptor = std::move(launched.pid_descriptor)};
  }
  Result<int> end(const Started& child) override {
    return isolation::end_of_launched(broker_, static_cast<pid_t>(child.pid), patience());
  }

 private:
  static isolation::Broker::Clock::time_point patience() { return isolation::Broker::Clock::now() + kCompilerPatience; }
  isolation::Broker& broker_;
};

std::unexpected<Error> off_by(const std::string& flag) {
  return fail(ErrorCode::kUnavailable, "it is off by " + flag + " false");
}

}  // namespace

Result<std::unique_ptr<HostIsolation>> HostIsolation::begin(const IsolationOptions& options, unsigned guest_threads,
                                                            std::initializer_list<uint16_t> ports) {
  ASSIGN_OR_RETURN(auto limits, limits_of(options));
  std::unique_ptr<HostIsolation> out(new HostIsolation(options, std::move(limits)));
  out->boundaries_.add("cpu", out->make_cpu_groups(guest_threads));
  auto apart = isolation::check_apart_rights();
  out->broker_started_ = out->start_broker();
  if (apart) apart = out->broker_started_;
  out->faults_ = state::WindowTracker::open_faults();
  out->faults_error_ = errno;
  const auto locked_down = out->lock_down(ports);
  out->locked_down_ = locked_down.has_value();
  out->boundaries_.add("lockdown", locked_down);
  out->boundaries_.add("process", apart);
  return out;
}

HostIsolation::~HostIsolation() { host::set_tmpfs_maker(host::make_tmpfs); }

Result<void> HostIsolation::make_cpu_groups(unsigned threads) {
  if (!options_.cpu_groups) return off_by("--cpu-groups");
  ASSIGN_OR_RETURN(auto groups, isolation::CpuGroups::make(threads));
  cpu_groups_.emplace(std::move(groups));
  return {};
}

// Beside networks it makes the file systems of calls and starts compilers. And it removes the cgroups, which this
// process may not do any more then, or is too dead to.
Result<void> HostIsolation::start_broker() {
  std::vector<isolation::BrokerOperation> operations;
  if (options_.network) operations = isolation::network_operations(limits_);
  if (cpu_groups_) {
    operations.push_back(
        {.name = "cpu_groups", .run = [remover = isolation::CpuGroupsRemover(cpu_groups_->directory())](ByteSpan) {
           return Result<isolation::BrokerReply>();
         }});
  }
  for (auto& operation :
       isolation::apart_operations({.arguments = {"spore", "tenant-process"}, .processes_max = options_.processes_max}))
    operations.push_back(std::move(operation));
  for (auto& operation :
       isolation::launch_operations({.path = compiler::default_compiler(),
                                     .descriptors = kCompilerDescriptors,
                                     .check = [](const std::vector<std::string>& arguments) -> Result<void> {
                                       std::vector<const char*> texts;
                                       for (const std::string& argument : arguments) texts.push_back(argument.c_str());
                                       TRY(compiler::parse_arguments(texts));
                                       return {};
                                     }}))
    operations.push_back(std::move(operation));
  operations.push_back({.name = "tmpfs", .run = [](ByteSpan request) -> Result<isolation::BrokerReply> {
                          ASSIGN_OR_RETURN(const auto limits, host::parse_local_layer(request));
                          ASSIGN_OR_RETURN(auto root, host::make_tmpfs(limits));
                          isolation::BrokerReply reply;
                          reply.descriptors.push_back(std::move(root));
                          return reply;
                        }});
  ASSIGN_OR_RETURN(broker_, isolation::Broker::start(std::move(operations)));
  compiler_starter_ = std::make_unique<BrokerStarter>(*broker_);
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

bool HostIsolation::runs_apart(const functions::FunctionId& id, const functions::FunctionConfig& config) const {
  return config.isolation == functions::Isolation::kProcess || options_.where == "process" ||
         std::ranges::find(options_.apart_tenants, id.tenant) != options_.apart_tenants.end();
}

Result<void> HostIsolation::admit(const functions::FunctionId& id, const functions::FunctionConfig& config) const {
  const auto met = boundaries_.check(config.require);
  if (!met) return fail(met.error().code, id.text() + " " + met.error().message);
  if (!runs_apart(id, config)) return {};
  const auto refuse = [&](const std::string& what) {
    return fail(ErrorCode::kUnavailable, id.text() + " is to run in a process of its tenant's own: " + what);
  };
  if (const auto possible = boundaries_.check({"process"}); !possible) return refuse("it " + possible.error().message);
  if (std::ranges::find(config.require, "cpu") != config.require.end())
    return refuse("there, no CPU weights are kept to");
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

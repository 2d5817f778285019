#include "isolation/network_hub.h"

#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/check.h"
#include "isolation/conntrack.h"
#include "isolation/network_namespace.h"
#include "isolation/network_rules.h"

namespace spore::isolation {
namespace {

// ---- numbers --------------------------------------------------------------------------------------------------------

constexpr uint32_t kLoopback = 1;     // the kernel's number of lo, in each namespace
constexpr uint32_t kEth0 = 2;         // in a Faaslet's namespace
constexpr uint32_t kUplink = 10;      // in the hub
constexpr uint32_t kFirstLink = 100;  // in the hub: Faaslets' links from here on
constexpr uint32_t kLinkNumbers = 1 << 30;
constexpr uint32_t kUplinksMax = 64;  // Spores on one host

// IPv4: Faaslets in 198.18.0.0/15 (RFC 2544: never on the Internet), uplinks in its last 256 addresses.
constexpr uint32_t kGatewayV4 = (198u << 24) | (18u << 16) | 1;
constexpr uint32_t kFirstV4 = (198u << 24) | (18u << 16) | (4u << 8);
constexpr uint32_t kUplinksV4 = (198u << 24) | (19u << 16) | (255u << 8);

// IPv6: fd53:706f:7265::/48.
IpAddress own_v6(uint16_t network, uint64_t low) {
  IpAddress out{.v6 = true, .bytes = {0xfd, 0x53, 0x70, 0x6f, 0x72, 0x65}};
  out.bytes[6] = static_cast<uint8_t>(network >> 8);
  out.bytes[7] = static_cast<uint8_t>(network);
  for (int i = 0; i < 8; ++i) out.bytes[15 - i] = static_cast<uint8_t>(low >> (8 * i));
  return out;
}
constexpr uint16_t kUplinkNetwork = 0xffff;
IpAddress gateway_v6() { return own_v6(0, 1); }
// Those of IPv6 are never used again.
IpAddress faaslet_v4(uint32_t address) { return IpAddress::from_v4(kFirstV4 + address); }
IpAddress faaslet_v6(uint64_t serial) { return own_v6(0, 0x10000 + serial); }

// ---- owners ---------------------------------------------------------------------------------------------------------

// Who made a link or a table: process ids mean something within their namespace alone.
struct Owner {
  uint64_t pid_namespace = 0;
  uint64_t pid = 0;
  uint64_t start_ticks = 0;

  std::string to_string() const {
    return "spore_" + std::to_string(pid_namespace) + "_" + std::to_string(pid) + "_" + std::to_string(start_ticks);
  }
  static std::optional<Owner> parse(std::string_view text) {
    Owner out;
    if (!text.starts_with("spore_")) return std::nullopt;
    const char* at = text.data() + 5;
    const char* const end = text.data() + text.size();
    for (uint64_t* part : {&out.pid_namespace, &out.pid, &out.start_ticks}) {
      if (at == end || *at != '_') return std::nullopt;
      const auto [next, error] = std::from_chars(at + 1, end, *part);
      if (error != std::errc()) return std::nullopt;
      at = next;
    }
    if (at != end) return std::nullopt;
    return out;
  }
};

// Field 22 of /proc/PID/stat; nothing where there is no such process.
std::optional<uint64_t> start_ticks_of(uint64_t pid) {
  const auto bytes = read_file("/proc/" + std::to_string(pid) + "/stat", 4096);
  if (!bytes) return std::nullopt;
  std::string_view text = as_text(*bytes);
  const size_t name_end = text.rfind(')');  // the name may have spaces in it
  if (name_end == text.npos) return std::nullopt;
  text.remove_prefix(name_end + 1);
  for (int field = 2; field < 22; ++field) {
    const size_t space = text.find(' ');
    if (space == text.npos) return std::nullopt;
    text.remove_prefix(space + 1);
  }
  uint64_t out = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), out).ec != std::errc()) return std::nullopt;
  return out;
}

Owner this_owner() {
  struct stat info{};
  ::stat("/proc/self/ns/pid", &info);
  const auto pid = static_cast<uint64_t>(::getpid());
  return {.pid_namespace = info.st_ino, .pid = pid, .start_ticks = start_ticks_of(pid).value_or(0)};
}

bool is_dead(const Owner& owner) {
  if (owner.pid_namespace != this_owner().pid_namespace) return false;  // cannot be known here
  return start_ticks_of(owner.pid) != owner.start_ticks;
}

// In the current namespace. Empty: it forwards.
std::string forwarding_problem(const std::string& sysctl) {
  const auto value = get_sysctl(sysctl);
  if (!value) return value.error().message;
  return *value == "1" ? "" : "the host does not forward (/proc/sys/" + sysctl + " is " + *value + ")";
}

}  // namespace

// ---- building -------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<NetworkHub>> NetworkHub::make(const NetworkLimits& limits) {
  TRY(check(limits));
  std::unique_ptr<NetworkHub> out(new NetworkHub(limits));
  TRY(out->build());
  return out;
}

Result<void> NetworkHub::build() {
  ASSIGN_OR_RETURN(host_namespace_, current_network_namespace());
  ASSIGN_OR_RETURN(host_netlink_, NetlinkSocket::open());
  ASSIGN_OR_RETURN(host_firewall_, Firewall::open());
  TRY(remove_leftovers());
  uplink_status_ = {.v4_problem = forwarding_problem("net/ipv4/ip_forward"),
                    .v6_problem = forwarding_problem("net/ipv6/conf/all/forwarding")};
  // From here on this process lives in the hub.
  if (::unshare(CLONE_NEWNET) != 0) return fail_errno("make a network namespace");
  ASSIGN_OR_RETURN(hub_namespace_, current_network_namespace());
  ASSIGN_OR_RETURN(netlink_, NetlinkSocket::open());
  ASSIGN_OR_RETURN(firewall_, Firewall::open());
  TRY(set_sysctl("net/ipv4/ip_forward", "1"));
  has_v6_ = set_sysctl("net/ipv6/conf/all/forwarding", "1").has_value();
  if (has_v6_) TRY(set_sysctl("net/ipv6/conf/default/addr_gen_mode", "1"));  // no link-local addresses: nobody is asked
  // Refusals are for the Faaslets, whose links have rates of their own; without them a guest waits in vain.
  TRY(set_sysctl("net/ipv4/icmp_ratelimit", "0"));
  if (has_v6_) TRY(set_sysctl("net/ipv6/icmp/ratelimit", "0"));
  TRY(firewall_->run(hub_rules(limits_)));
  // Of connections that have ended, so that many short ones do not reach their limit.
  TRY(set_sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "10"));
  NetlinkBatch batch;
  batch.set_up(kLoopback);
  batch.add_address(kLoopback, IpAddress::from_v4(kGatewayV4), 32);
  if (has_v6_) batch.add_address(kLoopback, gateway_v6(), 128);
  TRY(netlink_.send(batch));
  slots_.resize(limits_.namespaces_max);
  addresses_used_.resize(limits_.addresses);
  return build_uplink();
}

Result<void> NetworkHub::build_uplink() {
  const std::string owner = this_owner().to_string();
  // Its name says which number is free.
  uint32_t number = 0;
  for (;; ++number) {
    if (number == kUplinksMax)
      return fail(ErrorCode::kResourceExhausted,
                  std::to_string(kUplinksMax) + " Spores use this host's network already");
    uplink_name_ = "spore" + std::to_string(number);
    NetlinkBatch link;
    link.add_veth({.name = "up", .index = kUplink, .group = kUplinkGroup}, {.name = uplink_name_},
                  host_namespace_.get());
    const auto made = netlink_.send(link);
    if (made) break;
    if (made.error().code != ErrorCode::kAlreadyExists) return made;
  }
  const IpAddress host_v4 = IpAddress::from_v4(kUplinksV4 + 4 * number + 1);
  const IpAddress hub_v4 = IpAddress::from_v4(kUplinksV4 + 4 * number + 2);
  const IpAddress host_v6 = own_v6(kUplinkNetwork, 4 * number + 1);
  const IpAddress hub_v6 = own_v6(kUplinkNetwork, 4 * number + 2);
  ASSIGN_OR_RETURN(const auto links, host_netlink_.links());
  const auto end = std::ranges::find(links, uplink_name_, &LinkInfo::name);
  if (end == links.end()) return fail(ErrorCode::kInternal, "the uplink " + uplink_name_ + " is not there");
  uplink_index_ = end->index;
  // The rules stand before the link is up.
  {
    ASSIGN_OR_RETURN(const auto in_host, InNetworkNamespace::enter(host_namespace_.get()));
    TRY(host_firewall_->run(host_rules({.table = owner,
                                        .uplink = uplink_name_,
                                        .hub_v4 = hub_v4,
                                        .hub_v6 = hub_v6,
                                        .forwards_v4 = uplink_status_.v4_problem.empty(),
                                        .forwards_v6 = uplink_status_.v6_problem.empty()},
                                       limits_)));
  }

  NetlinkBatch host;
  host.set_alias(uplink_index_, owner);
  host.set_up(uplink_index_);
  host.add_address(uplink_index_, host_v4, 30);
  if (has_v6_) host.add_address(uplink_index_, host_v6, 126);
  TRY(host_netlink_.send(host));
  NetlinkBatch hub;
  hub.set_up(kUplink);
  hub.add_address(kUplink, hub_v4, 30);
  if (has_v6_) hub.add_address(kUplink, hub_v6, 126);
  hub.add_default_route(kUplink, host_v4);
  if (has_v6_) hub.add_default_route(kUplink, host_v6);
  TRY(netlink_.send(hub));
  NetlinkBatch last;
  last.begin_to_send(uplink_index_);
  return host_netlink_.send(last);
}

Result<void> NetworkHub::remove_leftovers() {
  ASSIGN_OR_RETURN(const auto links, host_netlink_.links());
  for (const LinkInfo& link : links) {
    const auto owner = Owner::parse(link.alias);
    if (!owner || !is_dead(*owner)) continue;
    NetlinkBatch batch;
    batch.remove_link(link.index);
    (void)host_netlink_.send(batch);  // it may go by itself meanwhile
  }
  ASSIGN_OR_RETURN(const std::string tables, host_firewall_->list("list tables"));
  for (size_t at = 0; at < tables.size();) {
    const size_t end = std::min(tables.find('\n', at), tables.size());
    const std::string line = tables.substr(at, end - at);
    at = end + 1;
    constexpr std::string_view kStart = "table inet ";
    if (!line.starts_with(kStart)) continue;
    const std::string name = line.substr(kStart.size());
    const auto owner = Owner::parse(name);
    if (owner && is_dead(*owner)) (void)host_firewall_->run("delete table inet " + owner->to_string());
  }
  return {};
}

NetworkHub::~NetworkHub() {
  // Namespaces and the table go with their descriptors; the link is removed now, so that it is gone when we are.
  if (uplink_index_ != 0) {
    NetlinkBatch batch;
    batch.remove_link(uplink_index_);
    (void)host_netlink_.send(batch);
  }
  if (host_namespace_.valid()) (void)!::setns(host_namespace_.get(), CLONE_NEWNET);
}

// ---- namespaces -----------------------------------------------------------------------------------------------------

Result<uint32_t> NetworkHub::free_slot() {
  const auto look = [&]() -> std::optional<uint32_t> {
    for (uint32_t i = 0; i < slots_.size(); ++i) {
      const uint32_t slot = (next_slot_ + i) % static_cast<uint32_t>(slots_.size());
      if (slots_[slot].state != SlotState::kFree) continue;
      next_slot_ = slot + 1;
      return slot;
    }
    return std::nullopt;
  };
  if (const auto slot = look()) return *slot;
  // A namespace has gone when its link has.
  ASSIGN_OR_RETURN(const auto links, netlink_.links());
  std::set<uint32_t> there;
  for (const LinkInfo& link : links) there.insert(link.index);
  size_t leaving = 0;
  for (Slot& slot : slots_) {
    if (slot.state != SlotState::kLeaving) continue;
    if (there.contains(slot.link))
      ++leaving;
    else {
      addresses_used_[slot.address] = false;
      slot = Slot{};
    }
  }
  if (const auto slot = look()) return *slot;
  return fail(ErrorCode::kResourceExhausted, "all " + std::to_string(slots_.size()) +
                                                 " network namespaces are in use, " + std::to_string(leaving) +
                                                 " of them being removed");
}

// Addresses are taken in turn. Before one is used again, the hub forgets the connections of all who had one before,
// which a peer outside can keep alive: they would pass without a look at the new one's policy.
Result<uint32_t> NetworkHub::free_address() {
  for (;;) {
    if (next_address_ == addresses_used_.size()) {
      TRY(forget_connections([&](const IpAddress& source) {
        uint32_t number = 0;
        for (int i = 0; i < 4; ++i) number = number << 8 | source.bytes[i];
        number -= kFirstV4;
        return number < addresses_used_.size() && !addresses_used_[number];
      }));
      next_address_ = 0;
    }
    const uint32_t address = next_address_++;
    if (!addresses_used_[address]) return address;
  }
}

Result<MadeNamespace> NetworkHub::make_namespace() {
  ASSIGN_OR_RETURN(const uint32_t number, free_slot());
  Slot made{.state = SlotState::kReady, .serial = ++last_serial_};
  ASSIGN_OR_RETURN(made.address, free_address());
  made.link = kFirstLink + static_cast<uint32_t>(made.serial % kLinkNumbers);
  {
    ASSIGN_OR_RETURN(const auto inside, InNetworkNamespace::make());
    ASSIGN_OR_RETURN(made.network_namespace, current_network_namespace());
    ASSIGN_OR_RETURN(made.netlink, NetlinkSocket::open());
    TRY(set_sysctl("net/ipv4/ip_unprivileged_port_start", "0"));
    if (has_v6_) TRY(set_sysctl("net/ipv6/conf/default/addr_gen_mode", "1"));
  }
  const NetworkPolicy defaults;
  const IpAddress v4 = faaslet_v4(made.address);
  const IpAddress v6 = faaslet_v6(made.serial);
  const IpAddress gateway_v4 = IpAddress::from_v4(kGatewayV4);
  // Shaping comes before the link is up: changing the queue of a link that is up waits for all processors.
  NetlinkBatch outside;
  outside.add_veth(
      {.name = "sp" + std::to_string(made.serial % kLinkNumbers), .index = made.link, .group = kNoPolicyGroup},
      {.name = "eth0", .index = kEth0}, made.network_namespace.get());
  outside.set_rate(made.link, defaults.ingress_bits_per_second);
  outside.set_up(made.link);
  outside.add_route(made.link, IpRange::of(v4));
  outside.add_neighbour(made.link, v4);
  if (has_v6_) {
    outside.add_route(made.link, IpRange::of(v6));
    outside.add_neighbour(made.link, v6);
  }
  TRY(netlink_.send(outside));
  NetlinkBatch inside;
  inside.set_rate(kEth0, defaults.egress_bits_per_second);
  inside.set_up(kLoopback);
  inside.set_up(kEth0);
  inside.add_address(kEth0, v4, 32);
  inside.add_default_route(kEth0, gateway_v4);
  inside.add_neighbour(kEth0, gateway_v4);  // and so a guest makes no entries in the tables that all namespaces share
  inside.refuse_multicast(false);
  if (has_v6_) {
    inside.refuse_multicast(true);
    inside.add_address(kEth0, v6, 128);
    inside.add_default_route(kEth0, gateway_v6());
    inside.add_neighbour(kEth0, gateway_v6());
  }
  TRY(made.netlink.send(inside));
  NetlinkBatch last;
  last.begin_to_send(made.link);
  TRY(netlink_.send(last));
  addresses_used_[made.address] = true;
  slots_[number] = std::move(made);
  MadeNamespace out{.id = {.slot = number, .serial = slots_[number].serial}, .v4 = v4};
  if (has_v6_) out.v6 = v6;
  return out;
}

Result<NetworkHub::Slot*> NetworkHub::find(NamespaceId id) {
  if (id.slot >= slots_.size() || id.serial == 0 || slots_[id.slot].serial != id.serial ||
      slots_[id.slot].state == SlotState::kFree || slots_[id.slot].state == SlotState::kLeaving)
    return fail(ErrorCode::kNotFound, "there is no such network namespace");
  return &slots_[id.slot];
}

Result<void> NetworkHub::attach(NamespaceId id, uint32_t policy) {
  ASSIGN_OR_RETURN(Slot* const slot, find(id));
  if (slot->state != SlotState::kReady)
    return fail(ErrorCode::kFailedPrecondition, "the network namespace has a policy already");
  const auto found = policies_.find(policy);
  if (found == policies_.end())
    return fail(ErrorCode::kNotFound, "there is no network policy " + std::to_string(policy));
  const NetworkPolicy defaults;
  const NetworkPolicy& wanted = found->second.policy;
  if (wanted.egress_bits_per_second != defaults.egress_bits_per_second) {
    NetlinkBatch inside;
    inside.set_rate(kEth0, wanted.egress_bits_per_second);
    TRY(slot->netlink.send(inside));
  }
  NetlinkBatch outside;
  if (wanted.ingress_bits_per_second != defaults.ingress_bits_per_second)
    outside.set_rate(slot->link, wanted.ingress_bits_per_second);
  outside.set_group(slot->link, policy);
  TRY(netlink_.send(outside));
  slot->state = SlotState::kAttached;
  slot->policy = policy;
  ++found->second.attached;
  return {};
}

Result<UniqueFd> NetworkHub::make_socket(NamespaceId id, int family, int type) {
  if ((family != AF_INET && family != AF_INET6) || (type != SOCK_STREAM && type != SOCK_DGRAM))
    return fail(ErrorCode::kInvalidArgument, "sockets are of IPv4 or IPv6, TCP or UDP");
  ASSIGN_OR_RETURN(const Slot* const slot, find(id));
  if (slot->state != SlotState::kAttached)
    return fail(ErrorCode::kFailedPrecondition, "the network namespace has no policy yet");
  ASSIGN_OR_RETURN(const auto inside, InNetworkNamespace::enter(slot->network_namespace.get()));
  UniqueFd out(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!out.valid()) return fail_errno("make a socket");
  return out;
}

Result<void> NetworkHub::release(NamespaceId id) {
  ASSIGN_OR_RETURN(Slot* const slot, find(id));
  if (slot->state == SlotState::kAttached) --policies_.at(slot->policy).attached;
  NetlinkBatch batch;
  batch.set_group(slot->link, kNoPolicyGroup);
  const auto cut = netlink_.send(batch);
  slot->state = SlotState::kLeaving;
  slot->netlink = {};
  slot->network_namespace.reset();
  return cut;
}

// ---- policies -------------------------------------------------------------------------------------------------------

Result<uint32_t> NetworkHub::add_policy(NetworkPolicy policy) {
  TRY(check(policy, limits_));
  if (policies_.size() >= limits_.policies_max)
    return fail(ErrorCode::kResourceExhausted,
                "all " + std::to_string(limits_.policies_max) + " network policies are in use");
  uint32_t number = last_policy_;
  do number = number >= INT32_MAX ? kFirstPolicyGroup : std::max(number + 1, kFirstPolicyGroup);
  while (policies_.contains(number));
  TRY(firewall_->run(rules_to_add(number, policy, limits_)));
  last_policy_ = number;
  policies_.emplace(number, Policy{.policy = std::move(policy)});
  return number;
}

Result<void> NetworkHub::change_policy(uint32_t number, NetworkPolicy policy) {
  const auto found = policies_.find(number);
  if (found == policies_.end())
    return fail(ErrorCode::kNotFound, "there is no network policy " + std::to_string(number));
  policy.egress_bits_per_second = found->second.policy.egress_bits_per_second;
  policy.ingress_bits_per_second = found->second.policy.ingress_bits_per_second;
  TRY(check(policy, limits_));
  TRY(firewall_->run(rules_to_change(number, policy, limits_)));
  found->second.policy = std::move(policy);
  return {};
}

Result<void> NetworkHub::remove_policy(uint32_t number) {
  const auto found = policies_.find(number);
  if (found == policies_.end())
    return fail(ErrorCode::kNotFound, "there is no network policy " + std::to_string(number));
  if (found->second.attached != 0)
    return fail(ErrorCode::kFailedPrecondition,
                std::to_string(found->second.attached) + " namespaces have that policy");
  TRY(firewall_->run(rules_to_remove(number)));
  policies_.erase(found);
  return {};
}

// ---- operations -----------------------------------------------------------------------------------------------------

namespace {

void write_address(ByteWriter& out, const IpAddress& address) {
  out.write<uint8_t>(address.v6);
  for (const uint8_t byte : address.bytes) out.write(byte);
}

NamespaceId read_id(ByteReader& in) {
  NamespaceId out;
  out.slot = in.read<uint32_t>();
  out.serial = in.read<uint64_t>();
  return out;
}

Result<void> complete(const ByteReader& in) {
  if (in.ok() && in.at_end()) return {};
  return fail(ErrorCode::kInvalidArgument, "a malformed request");
}

BrokerReply reply(ByteWriter& out) { return {.bytes = out.take()}; }

Result<BrokerReply> open(const NetworkHub& hub) {
  ByteWriter out;
  out.write_text(hub.uplink_status().v4_problem);
  out.write_text(hub.uplink_status().v6_problem);
  return reply(out);
}

Result<BrokerReply> make_namespace(NetworkHub& hub, ByteReader& in) {
  TRY(complete(in));
  ASSIGN_OR_RETURN(const MadeNamespace made, hub.make_namespace());
  ByteWriter out;
  out.write(made.id.slot);
  out.write(made.id.serial);
  write_address(out, made.v4);
  out.write<uint8_t>(made.v6.has_value());
  write_address(out, made.v6.value_or(IpAddress{}));
  return reply(out);
}

Result<BrokerReply> attach(NetworkHub& hub, ByteReader& in) {
  const NamespaceId id = read_id(in);
  const auto policy = in.read<uint32_t>();
  TRY(complete(in));
  TRY(hub.attach(id, policy));
  return BrokerReply{};
}

Result<BrokerReply> make_socket(NetworkHub& hub, ByteReader& in) {
  const NamespaceId id = read_id(in);
  const auto family = in.read<int32_t>();
  const auto type = in.read<int32_t>();
  TRY(complete(in));
  ASSIGN_OR_RETURN(UniqueFd made, hub.make_socket(id, family, type));
  BrokerReply out;
  out.descriptors.push_back(std::move(made));
  return out;
}

Result<BrokerReply> release(NetworkHub& hub, ByteReader& in) {
  const NamespaceId id = read_id(in);
  TRY(complete(in));
  TRY(hub.release(id));
  return BrokerReply{};
}

Result<BrokerReply> add_policy(NetworkHub& hub, ByteReader& in) {
  ASSIGN_OR_RETURN(NetworkPolicy policy, parse_policy(in.rest()));
  ASSIGN_OR_RETURN(const uint32_t number, hub.add_policy(std::move(policy)));
  ByteWriter out;
  out.write(number);
  return reply(out);
}

Result<BrokerReply> change_policy(NetworkHub& hub, ByteReader& in) {
  const auto number = in.read<uint32_t>();
  if (!in.ok()) return fail(ErrorCode::kInvalidArgument, "a malformed request");
  ASSIGN_OR_RETURN(NetworkPolicy policy, parse_policy(in.rest()));
  TRY(hub.change_policy(number, std::move(policy)));
  return BrokerReply{};
}

Result<BrokerReply> remove_policy(NetworkHub& hub, ByteReader& in) {
  const auto number = in.read<uint32_t>();
  TRY(complete(in));
  TRY(hub.remove_policy(number));
  return BrokerReply{};
}

}  // namespace

std::vector<BrokerOperation> network_operations(NetworkLimits limits) {
  auto hub = std::make_shared<std::unique_ptr<NetworkHub>>();
  std::vector<BrokerOperation> out;
  out.push_back({"network.open", [hub, limits](ByteSpan request) -> Result<BrokerReply> {
                   TRY(complete(ByteReader(request)));
                   if (!*hub) {
                     ASSIGN_OR_RETURN(*hub, NetworkHub::make(limits));
                   }
                   return open(**hub);
                 }});
  const auto add = [&](const char* name, Result<BrokerReply> (*run)(NetworkHub&, ByteReader&)) {
    out.push_back({name, [hub, run](ByteSpan request) -> Result<BrokerReply> {
                     if (!*hub) return fail(ErrorCode::kFailedPrecondition, "the network has not been opened");
                     ByteReader in(request);
                     return run(**hub, in);
                   }});
  };
  add("network.make", make_namespace);
  add("network.attach", attach);
  add("network.socket", make_socket);
  add("network.release", release);
  add("network.add_policy", add_policy);
  add("network.change_policy", change_policy);
  add("network.remove_policy", remove_policy);
  return out;
}

}  // namespace spore::isolation

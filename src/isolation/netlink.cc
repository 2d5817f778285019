#include "isolation/netlink.h"

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/check.h"

namespace spore::isolation {
namespace {

constexpr size_t kAlignment = 4;
constexpr size_t kReceiveBytes = 64 << 10;  // more than the kernel puts into one message of a dump

int family_of(const IpAddress& address) { return address.v6 ? AF_INET6 : AF_INET; }

// A message of at least an ifinfomsg.
LinkInfo read_link(ByteSpan message) {
  ifinfomsg header;
  std::memcpy(&header, message.data(), sizeof(header));
  LinkInfo out{.index = static_cast<uint32_t>(header.ifi_index)};
  for (ByteSpan rest = message.subspan(sizeof(header)); rest.size() >= sizeof(rtattr);) {
    rtattr attribute;
    std::memcpy(&attribute, rest.data(), sizeof(attribute));
    if (attribute.rta_len < sizeof(attribute) || attribute.rta_len > rest.size()) break;
    const ByteSpan value = rest.subspan(sizeof(attribute), attribute.rta_len - sizeof(attribute));
    const std::string_view text = as_text(value);
    if (attribute.rta_type == IFLA_IFNAME) out.name = text.substr(0, text.find('\0'));
    if (attribute.rta_type == IFLA_IFALIAS) out.alias = text.substr(0, text.find('\0'));
    if (attribute.rta_type == IFLA_GROUP && value.size() == sizeof(out.group))
      std::memcpy(&out.group, value.data(), sizeof(out.group));
    rest = rest.subspan(std::min<size_t>(rest.size(), RTA_ALIGN(attribute.rta_len)));
  }
  return out;
}

}  // namespace

// ---- messages -------------------------------------------------------------------------------------------------------

void NetlinkBatch::append(const void* bytes, size_t size) {
  const auto* begin = static_cast<const uint8_t*>(bytes);
  bytes_.insert(bytes_.end(), begin, begin + size);
  bytes_.resize((bytes_.size() + kAlignment - 1) / kAlignment * kAlignment);
  if (count_ > 0) {
    const auto length = static_cast<uint32_t>(bytes_.size() - message_);
    std::memcpy(bytes_.data() + message_, &length, sizeof(length));
  }
}

template <class Header>
void NetlinkBatch::begin(uint16_t type, uint16_t flags, const Header& header) {
  message_ = bytes_.size();
  ++count_;
  const nlmsghdr start{.nlmsg_type = type, .nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags)};
  append(&start, sizeof(start));
  append(&header, sizeof(header));
}

void NetlinkBatch::put(uint16_t type, const void* bytes, size_t size) {
  const rtattr attribute{.rta_len = static_cast<uint16_t>(sizeof(rtattr) + size), .rta_type = type};
  append(&attribute, sizeof(attribute));
  append(bytes, size);
}

void NetlinkBatch::put_text(uint16_t type, std::string_view text) {
  const std::string terminated(text);
  put(type, terminated.c_str(), terminated.size() + 1);
}

size_t NetlinkBatch::open_nest(uint16_t type) {
  const size_t at = bytes_.size();
  const rtattr attribute{.rta_len = sizeof(rtattr), .rta_type = type};
  append(&attribute, sizeof(attribute));
  return at;
}

void NetlinkBatch::close_nest(size_t at) {
  const auto length = static_cast<uint16_t>(bytes_.size() - at);
  std::memcpy(bytes_.data() + at, &length, sizeof(length));
}

// ---- links ----------------------------------------------------------------------------------------------------------

void NetlinkBatch::put_link(const LinkEnd& end) {
  CHECK(end.name.size() < IFNAMSIZ, end.name);
  put_text(IFLA_IFNAME, end.name);
  put(IFLA_ADDRESS, kLinkAddress);
  put(IFLA_GROUP, end.group);
  put<uint32_t>(IFLA_NUM_TX_QUEUES, 1);
  put<uint32_t>(IFLA_NUM_RX_QUEUES, 1);
}

void NetlinkBatch::add_veth(const LinkEnd& end, const LinkEnd& peer, int peer_namespace) {
  ifinfomsg header{.ifi_index = static_cast<int>(end.index), .ifi_flags = IFF_NOARP, .ifi_change = IFF_NOARP};
  begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, header);
  put_link(end);
  const size_t info = open_nest(IFLA_LINKINFO);
  put_text(IFLA_INFO_KIND, "veth");
  const size_t data = open_nest(IFLA_INFO_DATA);
  const size_t other = open_nest(VETH_INFO_PEER);
  header.ifi_index = static_cast<int>(peer.index);
  append(&header, sizeof(header));
  put_link(peer);
  put<uint32_t>(IFLA_NET_NS_FD, static_cast<uint32_t>(peer_namespace));
  close_nest(other);
  close_nest(data);
  close_nest(info);
}

void NetlinkBatch::set_up(uint32_t index) {
  begin(RTM_NEWLINK, 0, ifinfomsg{.ifi_index = static_cast<int>(index), .ifi_flags = IFF_UP, .ifi_change = IFF_UP});
}

void NetlinkBatch::begin_to_send(uint32_t index) {
  // Whoever asks for one link is told a state that is in force: rtnl_getlink() calls linkwatch_sync_dev().
  begin(RTM_GETLINK, 0, ifinfomsg{.ifi_index = static_cast<int>(index)});
}

void NetlinkBatch::set_alias(uint32_t index, std::string_view alias) {
  begin(RTM_NEWLINK, 0, ifinfomsg{.ifi_index = static_cast<int>(index)});
  put(IFLA_IFALIAS, alias.data(), alias.size());
}

void NetlinkBatch::set_group(uint32_t index, uint32_t group) {
  begin(RTM_NEWLINK, 0, ifinfomsg{.ifi_index = static_cast<int>(index)});
  put(IFLA_GROUP, group);
}

void NetlinkBatch::remove_link(uint32_t index) {
  begin(RTM_DELLINK, 0, ifinfomsg{.ifi_index = static_cast<int>(index)});
}

// ---- addresses and routes -------------------------------------------------------------------------------------------

void NetlinkBatch::add_address(uint32_t index, const IpAddress& address, uint8_t prefix_bits) {
  begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL,
        ifaddrmsg{.ifa_family = static_cast<uint8_t>(family_of(address)),
                  .ifa_prefixlen = prefix_bits,
                  .ifa_flags = IFA_F_NODAD,
                  .ifa_scope = RT_SCOPE_UNIVERSE,
                  .ifa_index = index});
  put_address(IFA_LOCAL, address);
  put_address(IFA_ADDRESS, address);
  if (!address.v6) return;
  // For IPv6 a worker of the kernel's adds this route, later; what comes in before is for nobody.
  begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
        rtmsg{.rtm_family = AF_INET6,
              .rtm_dst_len = 128,
              .rtm_table = RT_TABLE_LOCAL,
              .rtm_protocol = RTPROT_STATIC,
              .rtm_scope = RT_SCOPE_HOST,
              .rtm_type = RTN_LOCAL});
  put_address(RTA_DST, address);
  put(RTA_OIF, index);
}

void NetlinkBatch::add_route(uint32_t index, const IpRange& destination) {
  begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
        rtmsg{.rtm_family = static_cast<uint8_t>(family_of(destination.address)),
              .rtm_dst_len = destination.prefix_bits,
              .rtm_table = RT_TABLE_MAIN,
              .rtm_protocol = RTPROT_STATIC,
              .rtm_scope = RT_SCOPE_LINK,
              .rtm_type = RTN_UNICAST});
  put_address(RTA_DST, destination.address);
  put(RTA_OIF, index);
}

void NetlinkBatch::add_default_route(uint32_t index, const IpAddress& gateway) {
  begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
        rtmsg{.rtm_family = static_cast<uint8_t>(family_of(gateway)),
              .rtm_table = RT_TABLE_MAIN,
              .rtm_protocol = RTPROT_STATIC,
              .rtm_scope = RT_SCOPE_UNIVERSE,
              .rtm_type = RTN_UNICAST,
              .rtm_flags = RTNH_F_ONLINK});
  put_address(RTA_GATEWAY, gateway);
  put(RTA_OIF, index);
}

void NetlinkBatch::refuse_multicast(bool v6) {
  // The kernel has a route for IPv6 multicast in its table of local addresses, which is looked at first, for each link;
  // ours goes before it.
  begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
        rtmsg{.rtm_family = static_cast<uint8_t>(v6 ? AF_INET6 : AF_INET),
              .rtm_dst_len = static_cast<uint8_t>(v6 ? 8 : 4),
              .rtm_table = static_cast<uint8_t>(v6 ? RT_TABLE_LOCAL : RT_TABLE_MAIN),
              .rtm_protocol = RTPROT_STATIC,
              .rtm_scope = RT_SCOPE_UNIVERSE,
              .rtm_type = RTN_UNREACHABLE});
  put_address(RTA_DST, *IpAddress::parse(v6 ? "ff00::" : "224.0.0.0"));
  put<uint32_t>(RTA_PRIORITY, 1);
}

void NetlinkBatch::add_neighbour(uint32_t index, const IpAddress& address) {
  begin(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
        ndmsg{.ndm_family = static_cast<uint8_t>(family_of(address)),
              .ndm_ifindex = static_cast<int>(index),
              .ndm_state = NUD_PERMANENT});
  put_address(NDA_DST, address);
  put(NDA_LLADDR, kLinkAddress);
}

// ---- shaping --------------------------------------------------------------------------------------------------------

void NetlinkBatch::set_rate(uint32_t index, uint64_t bits_per_second) {
  const uint64_t bytes_per_second = std::max<uint64_t>(bits_per_second / 8, 1);
  // Ten milliseconds may go at once, and a large frame always; a tenth of a second waits, the rest is dropped.
  const auto burst_bytes = static_cast<uint32_t>(std::clamp<uint64_t>(bytes_per_second / 100, 4'096, 16 << 20));
  const auto waiting_bytes = static_cast<uint32_t>(std::clamp<uint64_t>(bytes_per_second / 10, 128 << 10, 64 << 20));
  begin(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE,
        tcmsg{.tcm_family = AF_UNSPEC,
              .tcm_ifindex = static_cast<int>(index),
              .tcm_handle = 1u << 16,
              .tcm_parent = TC_H_ROOT});
  put_text(TCA_KIND, "tbf");
  const size_t options = open_nest(TCA_OPTIONS);
  const tc_tbf_qopt parameters{
      .rate = {.linklayer = TC_LINKLAYER_ETHERNET,
               .rate = static_cast<uint32_t>(std::min<uint64_t>(bytes_per_second, UINT32_MAX))},
      .limit = waiting_bytes};
  put(TCA_TBF_PARMS, parameters);
  put(TCA_TBF_RATE64, bytes_per_second);
  put(TCA_TBF_BURST, burst_bytes);
  close_nest(options);
}

// ---- the socket -----------------------------------------------------------------------------------------------------

Result<NetlinkSocket> NetlinkSocket::open() {
  NetlinkSocket out;
  out.socket_.reset(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  if (!out.socket_.valid()) return fail_errno("open a netlink socket");
  const int yes = 1;  // errors without a copy of what was asked
  ::setsockopt(out.socket_.get(), SOL_NETLINK, NETLINK_CAP_ACK, &yes, sizeof(yes));
  return out;
}

Result<void> NetlinkSocket::send(const NetlinkBatch& batch) {
  if (batch.count_ == 0) return {};
  Bytes bytes = batch.bytes_;
  const uint32_t first = sequence_ + 1;
  for (size_t at = 0; at < bytes.size();) {
    nlmsghdr header;
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    header.nlmsg_seq = ++sequence_;
    if (at == batch.message_) header.nlmsg_flags |= NLM_F_ACK;  // the others speak only of errors
    std::memcpy(bytes.data() + at, &header, sizeof(header));
    at += header.nlmsg_len;
  }
  if (::send(socket_.get(), bytes.data(), bytes.size(), 0) < 0) return fail_errno("netlink send");
  // The kernel has carried out all of it by now, and what it says is there.
  Result<void> result;
  std::array<uint8_t, 16 << 10> buffer;  // for what begin_to_send() makes it say
  for (bool done = false; !done;) {
    const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("netlink answer");
    for (size_t at = 0; at + sizeof(nlmsghdr) <= static_cast<size_t>(n);) {
      nlmsghdr header;
      std::memcpy(&header, buffer.data() + at, sizeof(header));
      if (header.nlmsg_len < sizeof(header)) break;
      if (header.nlmsg_type == NLMSG_ERROR && at + sizeof(header) + sizeof(int) <= static_cast<size_t>(n)) {
        int error = 0;
        std::memcpy(&error, buffer.data() + at + sizeof(header), sizeof(error));
        if (error != 0 && result)
          result = fail_errno(
              "network change " + std::to_string(header.nlmsg_seq - first + 1) + " of " + std::to_string(batch.count_),
              -error);
        done |= header.nlmsg_seq == sequence_;
      }
      at += NLMSG_ALIGN(header.nlmsg_len);
    }
  }
  return result;
}

Result<std::vector<LinkInfo>> NetlinkSocket::links() {
  struct {
    nlmsghdr header;
    rtgenmsg generic;
    uint8_t padding[3];
  } request{.header = {.nlmsg_len = sizeof(request),
                       .nlmsg_type = RTM_GETLINK,
                       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                       .nlmsg_seq = ++sequence_},
            .generic = {.rtgen_family = AF_UNSPEC}};
  if (::send(socket_.get(), &request, sizeof(request), 0) < 0) return fail_errno("netlink send");
  std::vector<LinkInfo> out;
  Bytes buffer(kReceiveBytes);
  for (;;) {
    const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("netlink answer");
    ByteSpan rest = ByteSpan(buffer).first(static_cast<size_t>(n));
    while (rest.size() >= sizeof(nlmsghdr)) {
      nlmsghdr header;
      std::memcpy(&header, rest.data(), sizeof(header));
      if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > rest.size())
        return fail(ErrorCode::kInternal, "a malformed list of links");
      if (header.nlmsg_type == NLMSG_DONE) return out;
      if (header.nlmsg_type == NLMSG_ERROR) return fail(ErrorCode::kInternal, "links cannot be listed");
      if (header.nlmsg_len >= sizeof(header) + sizeof(ifinfomsg))
        out.push_back(read_link(rest.subspan(sizeof(header), header.nlmsg_len - sizeof(header))));
      rest = rest.subspan(std::min<size_t>(rest.size(), NLMSG_ALIGN(header.nlmsg_len)));
    }
  }
}

}  // namespace spore::isolation

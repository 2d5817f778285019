#include "isolation/conntrack.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"

namespace spore::isolation {
namespace {

constexpr size_t kReceiveBytes = 64 << 10;  // more than the kernel puts into one message of a dump

struct Header {
  nlmsghdr netlink{};
  nfgenmsg netfilter{};
};

Header header(uint16_t type, uint16_t flags, size_t attributes_bytes) {
  Header out;
  out.netlink.nlmsg_len = static_cast<uint32_t>(sizeof(out) + attributes_bytes);
  out.netlink.nlmsg_type = static_cast<uint16_t>((NFNL_SUBSYS_CTNETLINK << 8) | type);
  out.netlink.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  out.netfilter.nfgen_family = AF_INET;
  out.netfilter.version = NFNETLINK_V0;
  return out;
}

// The attribute of that type, its header included.
std::optional<ByteSpan> find(ByteSpan attributes, uint16_t type) {
  while (attributes.size() >= sizeof(nlattr)) {
    nlattr attribute;
    std::memcpy(&attribute, attributes.data(), sizeof(attribute));
    if (attribute.nla_len < sizeof(attribute) || attribute.nla_len > attributes.size()) return std::nullopt;
    if ((attribute.nla_type & NLA_TYPE_MASK) == type) return attributes.first(attribute.nla_len);
    attributes = attributes.subspan(std::min<size_t>(NLA_ALIGN(attribute.nla_len), attributes.size()));
  }
  return std::nullopt;
}

ByteSpan inside(ByteSpan attribute) { return attribute.subspan(sizeof(nlattr)); }

std::optional<IpAddress> source_of(ByteSpan tuple) {
  const auto addresses = find(inside(tuple), CTA_TUPLE_IP);
  if (!addresses) return std::nullopt;
  const auto source = find(inside(*addresses), CTA_IP_V4_SRC);
  if (!source || inside(*source).size() != 4) return std::nullopt;
  IpAddress out;
  std::ranges::copy(inside(*source), out.bytes.begin());
  return out;
}

Result<UniqueFd> open_socket() {
  UniqueFd out(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!out.valid()) return fail_errno("open a netlink socket for netfilter");
  return out;
}

// The first packet's addresses and ports, of each connection to be forgotten.
Result<std::vector<Bytes>> list(const std::function<bool(const IpAddress&)>& forgotten) {
  ASSIGN_OR_RETURN(const UniqueFd socket, open_socket());
  const Header request = header(IPCTNL_MSG_CT_GET, NLM_F_DUMP, 0);
  if (::send(socket.get(), &request, sizeof(request), 0) < 0) return fail_errno("list connections");
  std::vector<Bytes> out;
  Bytes buffer(kReceiveBytes);
  for (;;) {
    const ssize_t n = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("list connections");
    ByteSpan rest = ByteSpan(buffer).first(static_cast<size_t>(n));
    while (rest.size() >= sizeof(nlmsghdr)) {
      nlmsghdr message;
      std::memcpy(&message, rest.data(), sizeof(message));
      if (message.nlmsg_len < sizeof(message) || message.nlmsg_len > rest.size())
        return fail(ErrorCode::kInternal, "a malformed list of connections");
      if (message.nlmsg_type == NLMSG_DONE) return out;
      if (message.nlmsg_type == NLMSG_ERROR) return fail(ErrorCode::kInternal, "connections cannot be listed");
      if (message.nlmsg_len >= sizeof(Header)) {
        const auto tuple = find(rest.subspan(sizeof(Header), message.nlmsg_len - sizeof(Header)), CTA_TUPLE_ORIG);
        const auto source = tuple ? source_of(*tuple) : std::nullopt;
        if (source && forgotten(*source)) out.emplace_back(tuple->begin(), tuple->end());
      }
      rest = rest.subspan(std::min<size_t>(NLMSG_ALIGN(message.nlmsg_len), rest.size()));
    }
  }
}

}  // namespace

Result<size_t> forget_connections(const std::function<bool(const IpAddress&)>& forgotten) {
  ASSIGN_OR_RETURN(const auto tuples, list(forgotten));
  ASSIGN_OR_RETURN(const UniqueFd socket, open_socket());
  for (const Bytes& tuple : tuples) {
    const Header start = header(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, tuple.size());
    Bytes request(sizeof(start));
    std::memcpy(request.data(), &start, sizeof(start));
    request.insert(request.end(), tuple.begin(), tuple.end());
    if (::send(socket.get(), request.data(), request.size(), 0) < 0) return fail_errno("forget a connection");
    struct {
      nlmsghdr header;
      nlmsgerr error;
    } answer{};
    if (::recv(socket.get(), &answer, sizeof(answer), MSG_TRUNC) < 0) return fail_errno("forget a connection");
    const int error = answer.header.nlmsg_type == NLMSG_ERROR ? -answer.error.error : 0;
    if (error != 0 && error != ENOENT) return fail_errno("forget a connection", error);  // ENOENT: it has just ended
  }
  return tuples.size();
}

}  // namespace spore::isolation

#include "host/resolver.h"

#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/fd.h"

namespace spore::host {

namespace {

using faaslet::Clock;
using wasi::Errno;

constexpr size_t kEventsPerAdvance = 2 * kResolversMax;  // one socket for UDP and one for TCP each

template <class T>
sockaddr_storage storage_of(const T& address) {
  static_assert(sizeof(T) <= sizeof(sockaddr_storage));
  sockaddr_storage out{};
  std::memcpy(&out, &address, sizeof(address));
  return out;
}

sockaddr_storage storage_of(const in_addr& address) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_addr = address;
  return storage_of(out);
}

sockaddr_storage storage_of(const in6_addr& address) {
  sockaddr_in6 out{};
  out.sin6_family = AF_INET6;
  out.sin6_addr = address;
  return storage_of(out);
}

Result<void> start_library() {
  static const int kStarted = ::ares_library_init(ARES_LIB_INIT_ALL);
  if (kStarted == ARES_SUCCESS) return {};
  return fail(ErrorCode::kInternal, std::string("start the resolver: ") + ::ares_strerror(kStarted));
}

Errno errno_of_ares(int status) {
  switch (status) {
    case ARES_ENODATA:
    case ARES_ENOTFOUND: return Errno::kNoEnt;
    case ARES_ESERVFAIL:
    case ARES_EREFUSED:
    case ARES_ENOTIMP: return Errno::kAgain;
    case ARES_ETIMEOUT: return Errno::kTimedOut;
    case ARES_EBADRESP:
    case ARES_EFORMERR: return Errno::kBadMsg;
    case ARES_ECONNREFUSED: return Errno::kHostUnreach;
    case ARES_EBADNAME:
    case ARES_EBADFAMILY: return Errno::kInval;
    case ARES_ENOMEM: return Errno::kNoMem;
    default: return Errno::kIo;
  }
}

// The code of an answer: server failure, not implemented, refused.
bool is_failure(unsigned code) { return code == 2 || code == 4 || code == 5; }

bool is_name(const std::string& name) {
  const auto may_stand = [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '_' ||
           c == '.';
  };
  return !name.empty() && name.size() <= kHostNameBytesMax && std::ranges::all_of(name, may_stand);
}

bool is_localhost(std::string name) {
  if (name.ends_with('.')) name.pop_back();
  std::ranges::transform(name, name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return name == "localhost" || name.ends_with(".localhost");
}

// What is known without asking.
std::optional<Lookup::Addresses> known_addresses(const std::string& name, int family) {
  Lookup::Addresses out;
  in_addr four{};
  in6_addr six{};
  const bool local = is_localhost(name);
  const bool is_four = ::inet_pton(AF_INET, name.c_str(), &four) == 1;
  const bool is_six = ::inet_pton(AF_INET6, name.c_str(), &six) == 1;
  if (!local && !is_four && !is_six) return std::nullopt;
  if (local) {
    four.s_addr = htonl(INADDR_LOOPBACK);
    six = IN6ADDR_LOOPBACK_INIT;
  }
  if ((local || is_four) && family != AF_INET6) out.push_back(storage_of(four));
  if ((local || is_six) && family != AF_INET) out.push_back(storage_of(six));
  return out;
}

class KnownLookup final : public Lookup {
 public:
  explicit KnownLookup(Addresses addresses) {
    if (addresses.empty())
      result_ = std::unexpected(Errno::kNoEnt);  // a number of the other family
    else
      result_ = std::move(addresses);
  }
  bool ended() const override { return true; }
  const std::expected<Addresses, Errno>& result() const override { return result_; }
  int fd() const override { return -1; }
  Clock::time_point wakes_at() const override { return Clock::now(); }
  void advance() override {}

 private:
  std::expected<Addresses, Errno> result_;
};

class DnsLookup final : public Lookup {
 public:
  explicit DnsLookup(std::shared_ptr<Network> network) : network_(std::move(network)) {}
  ~DnsLookup() override {
    if (channel_) ::ares_destroy(channel_);  // ends what is under way, and closes its sockets
  }
  DnsLookup(const DnsLookup&) = delete;
  DnsLookup& operator=(const DnsLookup&) = delete;

  Result<void> begin(const std::string& name, int family) {
    TRY(start_library());
    const auto servers = network_->resolvers();
    if (servers.empty()) return fail(ErrorCode::kUnavailable, "this network has no resolvers");
    waits_.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!waits_.valid()) return fail_errno("make an epoll set");

    // With all of these given, c-ares reads no file.
    ares_options options{};
    char lookups[] = "b";
    options.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES;
    options.timeout = static_cast<int>(kTryTime.count());
    options.tries = kTriesMax;
    options.ndots = 1;
    options.lookups = lookups;
    options.sock_state_cb = &DnsLookup::watch_socket;
    options.sock_state_cb_data = this;
    const int status = ::ares_init_options(&channel_, &options,
                                           ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS |
                                               ARES_OPT_LOOKUPS | ARES_OPT_SERVERS | ARES_OPT_DOMAINS |
                                               ARES_OPT_SORTLIST | ARES_OPT_NOROTATE | ARES_OPT_SOCK_STATE_CB);
    if (status != ARES_SUCCESS)
      return fail(ErrorCode::kInternal, std::string("prepare a look-up: ") + ::ares_strerror(status));
    static constexpr ares_socket_functions kFunctions = {&DnsLookup::open_socket, &DnsLookup::close_socket,
                                                         &DnsLookup::connect_socket, &DnsLookup::receive,
                                                         &DnsLookup::send};
    ::ares_set_socket_functions(channel_, &kFunctions, this);
    TRY(set_servers(servers));

    ares_addrinfo_hints hints{};
    hints.ai_family = family;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = ARES_AI_NOSORT;  // to sort them it would ask the routes of this process
    reads_left_ = kReadsPerAdvance;
    ::ares_getaddrinfo(channel_, name.c_str(), nullptr, &hints, &DnsLookup::answered, this);
    return {};
  }

  bool ended() const override { return ended_; }
  const std::expected<Addresses, Errno>& result() const override { return result_; }
  int fd() const override { return waits_.get(); }

  Clock::time_point wakes_at() const override {
    timeval left{};
    const auto now = Clock::now();
    if (!::ares_timeout(channel_, nullptr, &left)) return now + kTryTime;
    return now + std::chrono::seconds(left.tv_sec) + std::chrono::microseconds(left.tv_usec);
  }

  void advance() override {
    reads_left_ = kReadsPerAdvance;
    std::array<epoll_event, kEventsPerAdvance> events;
    const int count = ::epoll_wait(waits_.get(), events.data(), static_cast<int>(events.size()), 0);
    for (int i = 0; i < count && !ended_; ++i) {
      const uint32_t ready = events[static_cast<size_t>(i)].events;
      const int fd = events[static_cast<size_t>(i)].data.fd;
      const bool broken = ready & (EPOLLERR | EPOLLHUP);
      // One event may have closed the socket of the next: c-ares passes over those that it does not have.
      ::ares_process_fd(channel_, ready & EPOLLIN || broken ? fd : ARES_SOCKET_BAD,
                        ready & EPOLLOUT || broken ? fd : ARES_SOCKET_BAD);
    }
    if (!ended_) ::ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // what is late
  }

 private:
  static DnsLookup& of(void* self) { return *static_cast<DnsLookup*>(self); }

  Result<void> set_servers(std::vector<sockaddr_storage> servers) {
    servers.resize(std::min(servers.size(), kResolversMax));
    std::array<ares_addr_port_node, kResolversMax> nodes{};
    for (size_t i = 0; i < servers.size(); ++i) {
      ares_addr_port_node& node = nodes[i];
      node.next = i + 1 < servers.size() ? &nodes[i + 1] : nullptr;
      node.family = servers[i].ss_family;
      if (node.family == AF_INET) {
        sockaddr_in address;
        std::memcpy(&address, &servers[i], sizeof(address));
        std::memcpy(&node.addr.addr4, &address.sin_addr, sizeof(address.sin_addr));
        node.udp_port = node.tcp_port = ntohs(address.sin_port);
      } else if (node.family == AF_INET6) {
        sockaddr_in6 address;
        std::memcpy(&address, &servers[i], sizeof(address));
        std::memcpy(&node.addr.addr6, &address.sin6_addr, sizeof(address.sin6_addr));
        node.udp_port = node.tcp_port = ntohs(address.sin6_port);
      } else {
        return fail(ErrorCode::kInternal, "a resolver of this network is neither of IPv4 nor of IPv6");
      }
    }
    const int status = ::ares_set_servers_ports(channel_, nodes.data());
    if (status == ARES_SUCCESS) return {};
    return fail(ErrorCode::kInternal, std::string("set the resolvers: ") + ::ares_strerror(status));
  }

  static void answered(void* self, int status, int, ares_addrinfo* found) {
    DnsLookup& lookup = of(self);
    lookup.ended_ = true;
    if (status != ARES_SUCCESS) {
      // When the last resolver has failed, c-ares says that none could be reached.
      const bool failed = status == ARES_ECONNREFUSED && lookup.has_failed_;
      lookup.result_ = std::unexpected(failed ? Errno::kAgain : errno_of_ares(status));
      return;
    }
    Addresses addresses;
    for (const ares_addrinfo_node* node = found->nodes; node && addresses.size() < kResolvedMax; node = node->ai_next) {
      sockaddr_storage address{};
      std::memcpy(&address, node->ai_addr, std::min<size_t>(node->ai_addrlen, sizeof(address)));
      if (address.ss_family == AF_INET || address.ss_family == AF_INET6) addresses.push_back(address);
    }
    ::ares_freeaddrinfo(found);
    if (addresses.empty())
      lookup.result_ = std::unexpected(Errno::kNoEnt);
    else
      lookup.result_ = std::move(addresses);
  }

  static void watch_socket(void* self, ares_socket_t fd, int readable, int writable) {
    const int set = of(self).waits_.get();
    epoll_event event{};
    event.events = (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u);
    event.data.fd = fd;
    if (event.events == 0)
      ::epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr);
    else if (::epoll_ctl(set, EPOLL_CTL_MOD, fd, &event) != 0)
      ::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
  }

  static ares_socket_t open_socket(int family, int type, int, void* self) {
    auto made = of(self).network_->socket(family, type);
    if (made) return made->release();
    errno = EACCES;
    return ARES_SOCKET_BAD;
  }
  static int close_socket(ares_socket_t fd, void*) { return ::close(fd); }
  static int connect_socket(ares_socket_t fd, const sockaddr* to, ares_socklen_t size, void*) {
    return ::connect(fd, to, size);
  }
  static ares_ssize_t receive(ares_socket_t fd, void* to, size_t size, int flags, sockaddr* from,
                              ares_socklen_t* from_size, void* self) {
    if (of(self).reads_left_ == 0) {
      errno = EAGAIN;
      return -1;
    }
    --of(self).reads_left_;
    const ssize_t got = ::recvfrom(fd, to, size, flags, from, from_size);
    constexpr ssize_t kCodeEnd = 4;
    if (got >= kCodeEnd) of(self).has_failed_ |= is_failure(static_cast<const uint8_t*>(to)[kCodeEnd - 1] & 0x0f);
    return got;
  }
  static ares_ssize_t send(ares_socket_t fd, const iovec* parts, int count, void*) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts);
    message.msg_iovlen = static_cast<size_t>(count);
    return ::sendmsg(fd, &message, MSG_NOSIGNAL);
  }

  const std::shared_ptr<Network> network_;
  UniqueFd waits_;
  ares_channel channel_ = nullptr;
  int reads_left_ = 0;
  bool has_failed_ = false;  // a resolver has said that it cannot or will not
  bool ended_ = false;
  std::expected<Addresses, Errno> result_ = std::unexpected(Errno::kAgain);
};

}  // namespace

Result<std::vector<sockaddr_storage>> resolvers_of_this_machine() {
  TRY(start_library());
  ares_channel channel = nullptr;
  ares_addr_port_node* first = nullptr;
  int status = ::ares_init(&channel);
  if (status == ARES_SUCCESS) status = ::ares_get_servers_ports(channel, &first);
  std::vector<sockaddr_storage> out;
  constexpr uint16_t kDnsPort = 53;
  for (const auto* node = first; node && out.size() < kResolversMax; node = node->next) {
    const uint16_t port = node->udp_port > 0 ? static_cast<uint16_t>(node->udp_port) : kDnsPort;
    if (node->family == AF_INET) {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = htons(port);
      std::memcpy(&address.sin_addr, &node->addr.addr4, sizeof(address.sin_addr));
      out.push_back(storage_of(address));
    } else if (node->family == AF_INET6) {
      sockaddr_in6 address{};
      address.sin6_family = AF_INET6;
      address.sin6_port = htons(port);
      std::memcpy(&address.sin6_addr, &node->addr.addr6, sizeof(address.sin6_addr));
      out.push_back(storage_of(address));
    }
  }
  if (first) ::ares_free_data(first);
  if (channel) ::ares_destroy(channel);
  if (status != ARES_SUCCESS)
    return fail(ErrorCode::kInternal, std::string("read the resolvers of this machine: ") + ::ares_strerror(status));
  return out;
}

Result<std::shared_ptr<Lookup>> Lookup::start(std::shared_ptr<Network> network, const std::string& name, int family) {
  if (auto known = known_addresses(name, family)) return std::make_shared<KnownLookup>(std::move(*known));
  if (!is_name(name)) return fail(ErrorCode::kInvalidArgument, "not a host name");
  auto lookup = std::make_shared<DnsLookup>(std::move(network));
  TRY(lookup->begin(name, family));
  return lookup;
}

}  // namespace spore::host

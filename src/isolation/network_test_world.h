// A host of the test's own, and a network around it with servers, all in namespaces that go with the test:
//
//   "the host": a namespace in which the test's thread is (and Spore's uplink and table with it)
//      wan0 10.9.0.1  192.31.196.1  fd99::1  2620:4f:8000::1
//   around it, behind wan0:
//      10.9.0.10 10.9.0.11 169.254.169.254 192.31.196.10 fd99::10 fd99::11 2620:4f:8000::10
//
// The addresses of 192.31.196.0/24 and 2620:4f:8000::/48 stand for the Internet: they count as public. No packet leaves
// these namespaces.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/fd.h"
#include "isolation/netlink.h"
#include "isolation/network_namespace.h"
#include "isolation/network_pool.h"

namespace spore::isolation {

// Why these tests cannot run here; empty: they can.
inline std::string network_tests_problem() {
  if (::geteuid() != 0) return "needs root: network namespaces";
  if (auto made = InNetworkNamespace::make(); !made) return "needs CAP_SYS_ADMIN: " + made.error().message;
  return "";
}

template <class T>
T must(Result<T> result) {
  if (!result) CHECK(false, result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

inline IpAddress ip(std::string_view text) { return must(IpAddress::parse(text)); }
inline IpRange range(std::string_view text) { return must(IpRange::parse(text)); }

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  SocketAddress(const IpAddress& address, uint16_t port) {
    if (address.v6) {
      auto* out = reinterpret_cast<sockaddr_in6*>(&storage);
      out->sin6_family = AF_INET6;
      out->sin6_port = htons(port);
      std::memcpy(&out->sin6_addr, address.bytes.data(), 16);
      size = sizeof(*out);
    } else {
      auto* out = reinterpret_cast<sockaddr_in*>(&storage);
      out->sin_family = AF_INET;
      out->sin_port = htons(port);
      std::memcpy(&out->sin_addr, address.bytes.data(), 4);
      size = sizeof(*out);
    }
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// Of the current network namespace; no link-local ones.
inline std::vector<IpAddress> addresses_here() {
  std::vector<IpAddress> out;
  ifaddrs* first = nullptr;
  CHECK(::getifaddrs(&first) == 0, errno);
  for (const ifaddrs* at = first; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr) continue;
    IpAddress address;
    if (at->ifa_addr->sa_family == AF_INET)
      address = IpAddress::from_v4(reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr);
    else if (at->ifa_addr->sa_family == AF_INET6)
      address = IpAddress::from_v6(reinterpret_cast<const sockaddr_in6*>(at->ifa_addr)->sin6_addr);
    else
      continue;
    if (!address.v6 || address.bytes[0] != 0xfe) out.push_back(address);
  }
  ::freeifaddrs(first);
  return out;
}

// Servers on one thread: TCP on 8080 and 8081 says hello and closes, on 9000 swallows, on 9001 sends without end; UDP
// on 8080 and 8081 echoes. On every address of the namespaces that it is told to serve.
class Servers {
 public:
  Servers() : stop_(::eventfd(0, EFD_CLOEXEC)) {}
  ~Servers() {
    const uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof(one));
    if (thread_.joinable()) thread_.join();
  }
  // Before start().
  void serve_in(int network_namespace) {
    const auto inside = must(InNetworkNamespace::enter(network_namespace));
    for (const char* any : {"0.0.0.0", "::"}) {
      for (const uint16_t port : {53, 8080, 8081}) add(SOCK_STREAM, ip(any), port, Kind::kHello);
      add(SOCK_STREAM, ip(any), 9000, Kind::kSink);
      add(SOCK_STREAM, ip(any), 9001, Kind::kSource);
    }
    // Each address answers for itself.
    for (const IpAddress& address : addresses_here())
      for (const uint16_t port : {53, 8080, 8081}) add(SOCK_DGRAM, address, port, Kind::kEcho);
  }
  // TCP and UDP sockets of a lease: as 8080 does.
  void serve(LeasedSocket& listener, LeasedSocket& datagrams) {
    entries_.push_back({UniqueFd(::fcntl(listener.get(), F_DUPFD_CLOEXEC, 0)), Kind::kHello});
    entries_.push_back({UniqueFd(::fcntl(datagrams.get(), F_DUPFD_CLOEXEC, 0)), Kind::kEcho});
  }
  void start() {
    thread_ = std::thread([this] { loop(); });
  }
  uint64_t swallowed_bytes() const { return swallowed_; }
  uint64_t datagrams() const { return datagrams_; }  // that came to any of them

 private:
  enum class Kind : uint8_t { kHello, kEcho, kSink, kSource, kSinkConnection, kSourceConnection };
  struct Entry {
    UniqueFd fd;
    Kind kind;
  };

  void add(int type, const IpAddress& address, uint16_t port, Kind kind) {
    UniqueFd fd(::socket(address.v6 ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    CHECK(fd.valid(), errno);
    const int yes = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (address.v6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
    const SocketAddress at(address, port);
    CHECK(::bind(fd.get(), at.get(), at.size) == 0, errno, address.to_string(), port);
    if (type == SOCK_STREAM) CHECK(::listen(fd.get(), 64) == 0, errno);
    entries_.push_back({std::move(fd), kind});
  }
  // False: the connection has ended.
  bool handle(Entry& entry, std::vector<Entry>& accepted) {
    std::vector<char> buffer(64 << 10);
    switch (entry.kind) {
      case Kind::kHello:
      case Kind::kSink:
      case Kind::kSource: {
        UniqueFd fd(::accept4(entry.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd.valid()) return true;
        if (entry.kind == Kind::kHello)
          (void)!::write(fd.get(), "hello", 5);
        else
          accepted.push_back(
              {std::move(fd), entry.kind == Kind::kSink ? Kind::kSinkConnection : Kind::kSourceConnection});
        return true;
      }
      case Kind::kEcho: {
        sockaddr_storage from{};
        socklen_t size = sizeof(from);
        const ssize_t n =
            ::recvfrom(entry.fd.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
        if (n >= 0) ++datagrams_;
        if (n >= 0) ::sendto(entry.fd.get(), buffer.data(), n, 0, reinterpret_cast<sockaddr*>(&from), size);
        return true;
      }
      case Kind::kSinkConnection: {
        const ssize_t n = ::read(entry.fd.get(), buffer.data(), buffer.size());
        if (n > 0) swallowed_ += static_cast<uint64_t>(n);
        return n > 0 || (n < 0 && errno == EAGAIN);
      }
      case Kind::kSourceConnection: return ::write(entry.fd.get(), buffer.data(), buffer.size()) > 0 || errno == EAGAIN;
    }
    return false;
  }
  void loop() {
    ::signal(SIGPIPE, SIG_IGN);
    for (;;) {
      std::vector<pollfd> polled{{stop_.get(), POLLIN, 0}};
      for (const Entry& entry : entries_)
        polled.push_back(
            {entry.fd.get(), static_cast<short>(entry.kind == Kind::kSourceConnection ? POLLOUT : POLLIN), 0});
      ::poll(polled.data(), polled.size(), -1);
      if (polled[0].revents != 0) return;
      std::vector<Entry> next;
      for (size_t i = 0; i < entries_.size(); ++i)
        if (polled[i + 1].revents == 0 || handle(entries_[i], accepted_)) next.push_back(std::move(entries_[i]));
      for (Entry& entry : accepted_) next.push_back(std::move(entry));
      accepted_.clear();
      entries_ = std::move(next);
    }
  }

  UniqueFd stop_;
  std::vector<Entry> entries_;
  std::vector<Entry> accepted_;
  std::atomic<uint64_t> swallowed_ = 0;
  std::atomic<uint64_t> datagrams_ = 0;
  std::thread thread_;
};

class NetworkTestWorld {
 public:
  NetworkTestWorld() {
    before_ = must(current_network_namespace());
    CHECK(::unshare(CLONE_NEWNET) == 0, errno);
    host_ = must(current_network_namespace());
    {
      const auto inside = must(InNetworkNamespace::make());
      around_ = must(current_network_namespace());
    }
    must(set_sysctl("net/ipv4/ip_forward", "1"));
    must(set_sysctl("net/ipv6/conf/all/forwarding", "1"));
    auto host = must(NetlinkSocket::open());
    NetlinkBatch batch;
    batch.add_veth({.name = "wan0", .index = 50}, {.name = "eth0", .index = 2}, around_.get());
    batch.set_up(1);
    batch.set_up(50);
    batch.add_address(50, ip("10.9.0.1"), 24);
    batch.add_address(50, ip("192.31.196.1"), 24);
    batch.add_address(50, ip("fd99::1"), 64);
    batch.add_address(50, ip("2620:4f:8000::1"), 64);
    batch.add_route(50, range("169.254.169.254"));
    must(host.send(batch));
    const auto inside = must(InNetworkNamespace::enter(around_.get()));
    auto around = must(NetlinkSocket::open());
    NetlinkBatch there;
    there.set_up(1);
    there.set_up(2);
    for (const char* address : {"10.9.0.10", "10.9.0.11", "192.31.196.10"}) there.add_address(2, ip(address), 24);
    there.add_address(2, ip("169.254.169.254"), 32);
    for (const char* address : {"fd99::10", "fd99::11", "2620:4f:8000::10"}) there.add_address(2, ip(address), 64);
    there.add_default_route(2, ip("10.9.0.1"));
    must(around.send(there));
    NetlinkBatch last;
    last.begin_to_send(50);
    must(host.send(last));
  }
  ~NetworkTestWorld() { CHECK(::setns(before_.get(), CLONE_NEWNET) == 0, errno); }

  int host() const { return host_.get(); }
  int around() const { return around_.get(); }

  // What functions may be allowed to reach in these tests.
  static NetworkLimits limits() {
    return {.reachable = {range("10.9.0.8/31"), range("10.9.0.10/32"), range("10.9.0.12/30"), range("fd99::10/128")}};
  }

 private:
  UniqueFd before_;
  UniqueFd host_;
  UniqueFd around_;
};

// How an attempt to talk to somebody ends.
enum class Attempt : uint8_t {
  kReached,  // answered
  kRefused,  // the network said no, at once
  kNothing,  // no answer within the time
};
inline const char* to_string(Attempt attempt) {
  return attempt == Attempt::kReached ? "reached" : attempt == Attempt::kRefused ? "refused" : "nothing";
}

// On a non-blocking socket of any namespace: connects, for UDP sends, and waits for an answer.
inline Attempt attempt(int socket, Protocol protocol, const IpAddress& address, uint16_t port,
                       std::chrono::milliseconds patience = std::chrono::seconds(5)) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  const auto wait = [&](short events) {
    pollfd ready{socket, events, 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    return ::poll(&ready, 1, static_cast<int>(std::max<int64_t>(left.count(), 0))) > 0;
  };
  const SocketAddress to(address, port);
  if (::connect(socket, to.get(), to.size) != 0) {
    if (errno != EINPROGRESS) return Attempt::kRefused;
    if (!wait(POLLOUT)) return Attempt::kNothing;
  }
  if (protocol == Protocol::kUdp && ::send(socket, "hello", 5, 0) != 5) return Attempt::kRefused;
  if (!wait(POLLIN)) return Attempt::kNothing;
  char answer[16];
  return ::recv(socket, answer, sizeof(answer), 0) == 5 ? Attempt::kReached : Attempt::kRefused;
}

inline Attempt attempt(NetworkLease& lease, Protocol protocol, const IpAddress& address, uint16_t port) {
  const auto socket =
      must(lease.socket(address.v6 ? AF_INET6 : AF_INET, protocol == Protocol::kTcp ? SOCK_STREAM : SOCK_DGRAM));
  return attempt(socket.get(), protocol, address, port);
}

// Connects to the servers' 9000 (egress) or 9001 (ingress) and moves bytes for that long, the first half second left
// out. In megabits of payload a second.
inline double measure_mbit_per_second(NetworkLease& lease, Servers& servers, const IpAddress& to, bool egress,
                                      std::chrono::milliseconds duration) {
  const auto socket = must(lease.socket(to.v6 ? AF_INET6 : AF_INET, SOCK_STREAM));
  const SocketAddress address(to, egress ? 9000 : 9001);
  ::connect(socket.get(), address.get(), address.size);
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  auto counted_from = begin + std::chrono::milliseconds(500);
  const auto end = counted_from + duration;
  std::vector<char> buffer(64 << 10);
  uint64_t received = 0, at_start = 0;
  bool counting = false;
  const auto total = [&] { return egress ? servers.swallowed_bytes() : received; };
  while (Clock::now() < end) {
    if (!counting && Clock::now() >= counted_from) {
      counting = true;
      counted_from = Clock::now();
      at_start = total();
    }
    pollfd ready{socket.get(), static_cast<short>(egress ? POLLOUT : POLLIN), 0};
    if (::poll(&ready, 1, 10) <= 0) continue;
    if (egress) {
      (void)!::send(socket.get(), buffer.data(), buffer.size(), MSG_NOSIGNAL);
    } else if (const ssize_t n = ::recv(socket.get(), buffer.data(), buffer.size(), 0); n > 0) {
      received += static_cast<uint64_t>(n);
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - counted_from).count();
  return static_cast<double>(total() - at_start) * 8 / 1e6 / seconds;
}

}  // namespace spore::isolation

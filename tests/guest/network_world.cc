#include "network_world.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/bytes.h"
#include "base/check.h"

namespace spore::host {

std::shared_ptr<TestNetwork> TestNetwork::make() {
  auto network = std::make_shared<TestNetwork>();
  std::thread([&] {
    if (::unshare(CLONE_NEWNET) != 0) return;
    const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    if (::ioctl(any.get(), SIOCSIFFLAGS, &request) != 0) return;
    network->namespace_.reset(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  }).join();
  return network;
}

Result<UniqueFd> TestNetwork::make_socket(int family, int type) {
  Result<UniqueFd> out;
  std::thread([&] {
    if (namespace_.valid() && ::setns(namespace_.get(), CLONE_NEWNET) != 0) {
      out = fail_errno("enter the namespace");
      return;
    }
    UniqueFd fd(::socket(family, type | SOCK_CLOEXEC, 0));
    out = fd.valid() ? Result<UniqueFd>(std::move(fd)) : fail_errno("make a socket");
  }).join();
  return out;
}

Result<UniqueFd> TestNetwork::socket(int family, int type) {
  if (refuses) return std::unexpected(*refuses);
  return make_socket(family, type | SOCK_NONBLOCK);
}

UniqueFd TestNetwork::test_socket(int family, int type) {
  auto made = make_socket(family, type);
  CHECK(made, made.error().message);
  const timeval limit{30, 0};
  ::setsockopt(made->get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  ::setsockopt(made->get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  return std::move(*made);
}

bool TestNetwork::has_inet6() {
  const auto made = make_socket(AF_INET6, SOCK_STREAM);
  const auto address = loopback(AF_INET6);
  return made && ::bind(made->get(), reinterpret_cast<const sockaddr*>(&address), size_of(address)) == 0;
}

sockaddr_storage loopback(int family, uint16_t port) {
  sockaddr_storage out{};
  if (family == AF_INET) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::memcpy(&out, &address, sizeof(address));
  } else {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    address.sin6_addr = IN6ADDR_LOOPBACK_INIT;
    std::memcpy(&out, &address, sizeof(address));
  }
  return out;
}

socklen_t size_of(const sockaddr_storage& address) {
  return address.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

uint16_t port_of(int fd) {
  sockaddr_storage own{};
  socklen_t size = sizeof(own);
  CHECK(::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0, errno);
  uint16_t port = 0;  // at the same place in both families
  std::memcpy(&port, reinterpret_cast<const char*>(&own) + offsetof(sockaddr_in, sin_port), sizeof(port));
  return ntohs(port);
}

UniqueFd bound_socket(TestNetwork& network, int family, int type, uint16_t port, int backlog) {
  UniqueFd fd = network.test_socket(family, type);
  const auto address = loopback(family, port);
  CHECK(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size_of(address)) == 0, errno);
  if (type == SOCK_STREAM) CHECK(::listen(fd.get(), backlog) == 0, errno);
  return fd;
}

TcpServer::TcpServer(TestNetwork& network, int family, std::function<void(int)> serve, uint16_t port)
    : listener_(bound_socket(network, family, SOCK_STREAM, port)), port_(port_of(listener_.get())) {
  const timeval no_limit{};
  ::setsockopt(listener_.get(), SOL_SOCKET, SO_RCVTIMEO, &no_limit, sizeof(no_limit));
  thread_ = std::thread([fd = listener_.get(), serve = std::move(serve)] {
    while (true) {
      const UniqueFd connection(::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC));
      if (!connection.valid()) return;
      const timeval limit{30, 0};
      ::setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
      serve(connection.get());
    }
  });
}

TcpServer::~TcpServer() {
  ::shutdown(listener_.get(), SHUT_RDWR);  // ends accept()
  thread_.join();
}

UdpServer::UdpServer(TestNetwork& network, int family, std::function<void(ByteSpan, const Send&)> answer)
    : socket_(bound_socket(network, family, SOCK_DGRAM)),
      stop_(::eventfd(0, EFD_CLOEXEC)),
      port_(port_of(socket_.get())) {
  thread_ = std::thread([fd = socket_.get(), stop = stop_.get(), answer = std::move(answer)] {
    while (true) {
      pollfd waits[2] = {{fd, POLLIN, 0}, {stop, POLLIN, 0}};
      if (::poll(waits, 2, -1) < 0 || waits[1].revents) return;
      uint8_t bytes[4096];
      sockaddr_storage from{};
      socklen_t from_size = sizeof(from);
      const ssize_t got = ::recvfrom(fd, bytes, sizeof(bytes), 0, reinterpret_cast<sockaddr*>(&from), &from_size);
      if (got < 0) continue;
      answer({bytes, static_cast<size_t>(got)}, [&](ByteSpan reply) {
        ::sendto(fd, reply.data(), reply.size(), 0, reinterpret_cast<const sockaddr*>(&from), from_size);
      });
    }
  });
}

UdpServer::~UdpServer() {
  const uint64_t one = 1;
  CHECK(::write(stop_.get(), &one, sizeof(one)) == sizeof(one), errno);
  thread_.join();
}

namespace {

void send_text(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    text.remove_prefix(static_cast<size_t>(sent));
  }
}

}  // namespace

void serve_http(int fd) {
  std::string request;
  char bytes[1024];
  while (request.find("\r\n\r\n") == std::string::npos) {
    const ssize_t got = ::recv(fd, bytes, sizeof(bytes), 0);
    if (got <= 0) return;
    request.append(bytes, static_cast<size_t>(got));
  }
  constexpr std::string_view kBody = "hello from the test\n";
  if (!request.starts_with("GET /hello HTTP/1.")) {
    send_text(fd, "HTTP/1.0 404 Not Found\r\n\r\n");
    return;
  }
  send_text(fd, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(kBody.size()) +
                    "\r\n\r\n");
  send_text(fd, kBody);
}

void serve_echo(int fd) {
  char bytes[4096];
  for (ssize_t got; (got = ::recv(fd, bytes, sizeof(bytes), 0)) > 0;) send_text(fd, {bytes, static_cast<size_t>(got)});
}

// ---- DNS ----

namespace {

constexpr uint16_t kA = 1, kCname = 5, kAaaa = 28;
constexpr size_t kHeaderBytes = 12;
constexpr uint8_t kNoSuchName = 3, kServerFailure = 2, kRefused = 5;

struct Question {
  std::string name;  // with dots, in small letters
  uint16_t type = 0;
  ByteSpan bytes;  // as it stood there
};

uint16_t word(ByteSpan bytes, size_t at) { return static_cast<uint16_t>(bytes[at] << 8 | bytes[at + 1]); }

std::optional<Question> question_of(ByteSpan query) {
  Question out;
  size_t at = kHeaderBytes;
  while (at < query.size() && query[at] != 0) {
    const size_t length = query[at];
    if (at + 1 + length > query.size()) return std::nullopt;
    out.name += (out.name.empty() ? "" : ".") + std::string(as_text(query.subspan(at + 1, length)));
    at += 1 + length;
  }
  if (at + 5 > query.size()) return std::nullopt;
  std::ranges::transform(out.name, out.name.begin(), ::tolower);
  out.type = word(query, at + 1);
  out.bytes = query.subspan(kHeaderBytes, at + 5 - kHeaderBytes);
  return out;
}

void put_word(Bytes& to, size_t value) {
  to.push_back(static_cast<uint8_t>(value >> 8));
  to.push_back(static_cast<uint8_t>(value));
}

// An answer without records yet; `count` of them follow.
Bytes reply_to(ByteSpan query, const Question& question, size_t count, uint8_t code = 0, bool cut_off = false) {
  Bytes out(query.begin(), query.begin() + 2);
  out.push_back(static_cast<uint8_t>(0x81 | (cut_off ? 0x02 : 0)));
  out.push_back(static_cast<uint8_t>(0x80 | code));
  put_word(out, 1);
  put_word(out, count);
  put_word(out, 0);
  put_word(out, 0);
  out.insert(out.end(), question.bytes.begin(), question.bytes.end());
  return out;
}

// A record of the name that was asked for; `size` is what it says of its own.
void add_record(Bytes& to, uint16_t type, ByteSpan data, std::optional<size_t> size = {}) {
  put_word(to, 0xc000 | kHeaderBytes);
  put_word(to, type);
  put_word(to, 1);
  put_word(to, 0);
  put_word(to, 60);
  put_word(to, size.value_or(data.size()));
  to.insert(to.end(), data.begin(), data.end());
}

void add_address(Bytes& to, uint16_t type, uint8_t last) {
  if (type == kA)
    add_record(to, kA, Bytes{192, 0, 2, last});
  else
    add_record(to, kAaaa, Bytes{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last});
}

using SendDatagram = UdpServer::Send;

// good.test       192.0.2.1, fd00::1                   four.test      192.0.2.4 alone
// many.test       cut off on UDP; 100 of each on TCP   nobody.test    no such name
// failing.test    the server fails                     refused.test   it refuses
// silent.test     no answer                            forged.test    wrong numbers and questions before the answer
// cut.test        a record that ends too early         long.test      one that is longer than the answer
// loop.test       a name that points to itself         self.test      an alias of itself
// short.test      less than a header                   flood.test     wrong numbers without end (20,000)
void answer(ByteSpan query, bool is_stream, const SendDatagram& send) {
  if (query.size() < kHeaderBytes) return;
  const auto question = question_of(query);
  if (!question || (question->type != kA && question->type != kAaaa)) return;
  const std::string& name = question->name;
  const auto say = [&](uint8_t code) { send(reply_to(query, *question, 0, code)); };
  const auto good = [&](uint8_t last) {
    Bytes reply = reply_to(query, *question, 1);
    add_address(reply, question->type, last);
    return reply;
  };
  if (name == "good.test") return send(good(1));
  if (name == "four.test") return question->type == kA ? send(good(4)) : say(0);
  if (name == "nobody.test") return say(kNoSuchName);
  if (name == "failing.test") return say(kServerFailure);
  if (name == "refused.test") return say(kRefused);
  if (name == "short.test") return send(query.first(5));
  if (name == "many.test") {
    if (!is_stream) return send(reply_to(query, *question, 0, 0, true));
    Bytes reply = reply_to(query, *question, 100);
    for (uint8_t i = 0; i < 100; ++i) add_address(reply, question->type, i);
    return send(reply);
  }
  if (name == "forged.test") {
    Bytes reply = good(66);
    reply[0] ^= 0x55;
    send(reply);
    reply = good(66);
    reply[kHeaderBytes + 1] ^= 0x01;  // another name
    send(reply);
    return send(good(1));
  }
  if (name == "flood.test") {
    Bytes reply = good(66);
    reply[1] ^= 0x55;
    for (int i = 0; i < 20'000; ++i) send(reply);
    return;
  }
  Bytes reply = reply_to(query, *question, 1);
  if (name == "cut.test") {
    add_address(reply, question->type, 1);
    reply.resize(reply.size() - 2);
    return send(reply);
  }
  if (name == "long.test") {
    add_record(reply, question->type, Bytes{1, 2, 3, 4}, 4000);
    return send(reply);
  }
  if (name == "loop.test") {
    const size_t at = reply.size();
    add_address(reply, question->type, 1);
    reply[at] = static_cast<uint8_t>(0xc0 | at >> 8);
    reply[at + 1] = static_cast<uint8_t>(at);
    return send(reply);
  }
  if (name == "self.test") {
    add_record(reply, kCname, Bytes{0xc0, kHeaderBytes});
    return send(reply);
  }
  if (name != "silent.test") say(kNoSuchName);
}

void serve_dns(int fd) {
  while (true) {
    uint8_t length[2];
    if (::recv(fd, length, 2, MSG_WAITALL) != 2) return;
    Bytes query(word(length, 0));
    if (::recv(fd, query.data(), query.size(), MSG_WAITALL) != static_cast<ssize_t>(query.size())) return;
    answer(query, true, [&](ByteSpan reply) {
      Bytes framed;
      put_word(framed, reply.size());
      framed.insert(framed.end(), reply.begin(), reply.end());
      send_text(fd, as_text(framed));
    });
  }
}

}  // namespace

DnsServer::DnsServer(TestNetwork& network)
    : datagrams_(network, AF_INET, [](ByteSpan query, const SendDatagram& send) { answer(query, false, send); }),
      streams_(network, AF_INET, serve_dns, datagrams_.port()) {
  network.asked = {loopback(AF_INET, datagrams_.port())};
}

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

}  // namespace spore::host

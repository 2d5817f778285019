// A network for tests, with servers in it: a namespace of its own where this process may make one (root), else the
// loopback interface. All of it goes with the objects.
#pragma once

#include <sys/socket.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "host/network.h"

namespace spore::host {

class TestNetwork final : public Network {
 public:
  static std::shared_ptr<TestNetwork> make();

  Result<UniqueFd> socket(int family, int type) override;
  std::vector<sockaddr_storage> resolvers() const override { return asked; }

  // A blocking one for the test's own ends; each wait on it ends after 30 seconds.
  UniqueFd test_socket(int family, int type);
  bool is_namespace() const { return namespace_.valid(); }
  bool has_inet6();

  std::vector<sockaddr_storage> asked;  // the resolvers
  std::optional<Error> refuses;         // every socket of the guest

 private:
  Result<UniqueFd> make_socket(int family, int type);

  UniqueFd namespace_;
};

// 127.0.0.1 or ::1.
sockaddr_storage loopback(int family, uint16_t port = 0);
socklen_t size_of(const sockaddr_storage& address);
uint16_t port_of(int fd);

// Bound to the loopback address; of a stream, listening.
UniqueFd bound_socket(TestNetwork& network, int family, int type, uint16_t port = 0, int backlog = 16);

// Takes connections one after another and hands each to `serve`, on a thread of its own.
class TcpServer {
 public:
  TcpServer(TestNetwork& network, int family, std::function<void(int)> serve, uint16_t port = 0);
  ~TcpServer();
  uint16_t port() const { return port_; }

 private:
  UniqueFd listener_;
  uint16_t port_;
  std::thread thread_;
};

// Hands each datagram to `answer`, which sends by `send` as many as it likes.
class UdpServer {
 public:
  using Send = std::function<void(ByteSpan)>;
  UdpServer(TestNetwork& network, int family, std::function<void(ByteSpan, const Send&)> answer);
  ~UdpServer();
  uint16_t port() const { return port_; }

 private:
  UniqueFd socket_;
  UniqueFd stop_;
  uint16_t port_;
  std::thread thread_;
};

// GET /hello is "hello from the test\n"; everything else 404.
void serve_http(int fd);
// Sends back what comes.
void serve_echo(int fd);

// Answers by the question's name; network_world.cc has the list. The network's resolvers become this one.
class DnsServer {
 public:
  explicit DnsServer(TestNetwork& network);

 private:
  UdpServer datagrams_;
  TcpServer streams_;
};

size_t open_descriptors();  // of this process

}  // namespace spore::host

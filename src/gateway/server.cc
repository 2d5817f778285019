#include "gateway/server.h"

#include <sys/socket.h>

#include <boost/asio/post.hpp>
#include <chrono>
#include <vector>

#include "gateway/connection.h"

namespace spore::gateway {
namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr auto kSweepInterval = std::chrono::milliseconds(250);
constexpr auto kAcceptPause = std::chrono::milliseconds(100);
}  // namespace

Server::Server(ServerOptions options, Application& application)
    : options_(std::move(options)), application_(application), memory_(options_.memory_bytes_max), sweep_timer_(io_) {}

Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::listen(ServerOptions options, Application& application) {
  std::unique_ptr<Server> server(new Server(std::move(options), application));
  const ServerOptions& given = server->options_;
  const bool two = !given.web_address.empty();
  TRY(server->open(given.address, given.port, two ? Listener::kApi : Listener::kAll));
  if (two) TRY(server->open(given.web_address, given.web_port, Listener::kWeb));
  for (const auto& acceptor : server->acceptors_) server->accept(*acceptor);
  server->sweep();
  return server;
}

Result<void> Server::open(const std::string& address_text, uint16_t port, Listener listener) {
  const std::string where = address_text + ":" + std::to_string(port);
  error_code error;
  const auto address = asio::ip::make_address(address_text, error);
  if (error) return fail(ErrorCode::kInvalidArgument, "listen on " + where + ": not an IP address");
  const tcp::endpoint endpoint(address, port);
  auto acceptor = std::make_unique<Acceptor>(io_, listener);
  auto& socket = acceptor->socket;
  socket.open(endpoint.protocol(), error);
  if (!error) socket.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) socket.bind(endpoint, error);
  if (!error) socket.listen(4096, error);
  if (error) return fail(ErrorCode::kUnavailable, "listen on " + where + ": " + error.message());
  acceptor->port = socket.local_endpoint(error).port();
  acceptors_.push_back(std::move(acceptor));
  return {};
}

std::optional<uint16_t> Server::web_port() const {
  for (const auto& acceptor : acceptors_)
    if (acceptor->listener == Listener::kWeb) return acceptor->port;
  return std::nullopt;
}

void Server::run() { io_.run(); }
void Server::stop() { io_.stop(); }
void Server::post(std::function<void()> task) { asio::post(io_, std::move(task)); }

void Server::accept(Acceptor& acceptor) {
  acceptor.socket.async_accept([this, &acceptor](const error_code& error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (error) {
      // No descriptors, no memory: those that are open go on, and close in time.
      acceptor.pause.expires_after(kAcceptPause);
      acceptor.pause.async_wait([this, &acceptor](const error_code& cancelled) {
        if (!cancelled) accept(acceptor);
      });
      return;
    }
    if (connections_.lock()->size() >= options_.connections_max) {
      refused_.fetch_add(1, std::memory_order_relaxed);
      const Response full = application_.error(503, "the host has as many connections open as it takes");
      std::string text;
      write_head(full, 11, KeepAlive::kNo, text);
      text.append(as_text(full.body));
      ::send(socket.native_handle(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
      accepted_.fetch_add(1, std::memory_order_relaxed);
      auto connection = std::make_shared<Connection>(std::move(socket), *this, acceptor.listener);
      add(connection);
      connection->start();
    }
    accept(acceptor);
  });
}

void Server::sweep() {
  sweep_timer_.expires_after(kSweepInterval);
  sweep_timer_.async_wait([this](const error_code& cancelled) {
    if (cancelled) return;
    std::vector<std::shared_ptr<Connection>> open;
    {
      auto connections = connections_.lock();
      open.reserve(connections->size());
      for (const auto& [pointer, weak] : *connections) {
        if (auto connection = weak.lock()) open.push_back(std::move(connection));
      }
    }
    const int64_t now = std::chrono::steady_clock::now().time_since_epoch().count();
    for (const auto& connection : open) {
      connection->sweep_at(now);
      if (draining()) connection->close_if_idle();
    }
    sweep();
  });
}

void Server::drain() { draining_.store(true, std::memory_order_relaxed); }

void Server::add(const std::shared_ptr<Connection>& connection) {
  connections_.lock()->emplace(connection.get(), connection);
}

void Server::remove(Connection* connection) { connections_.lock()->erase(connection); }

ServerStats Server::stats() const {
  return {.accepted = accepted_.load(std::memory_order_relaxed),
          .refused = refused_.load(std::memory_order_relaxed),
          .requests = requests_.load(std::memory_order_relaxed),
          .open = connections_.lock()->size(),
          .memory_bytes = memory_.used_bytes()};
}

}  // namespace spore::gateway

// The HTTP/1.1 server under the gateway: it accepts connections, parses requests, and writes responses. What requests
// mean is the Application's affair.
//
//   Server 1 --- n Connection --admit(header)--> Application --> body limit, or a refusal
//                             --handle(request, Responder)-->   ... --respond(Response)--> Connection writes it
//
// Threads: any number of threads call run(); each handles whatever connection has something to do, and the Application
// may spend a long time in handle() as long as one thread is left. A connection has one request at a time (the next one
// waits in its buffer), so it needs no lock but for closing.
//
// Every resource has a bound: connections, header bytes, body bytes (each, and of all together), time to send a header,
// time without progress while sending a body or taking a response, idle time.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/guarded.h"
#include "base/result.h"
#include "gateway/http.h"

namespace spore::gateway {

struct ServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;  // 0: any free one
  // A second listener, for web handlers alone, which the first then does not serve; "": none.
  std::string web_address;
  uint16_t web_port = 0;
  size_t connections_max = 8192;
  uint64_t memory_bytes_max = 1ull << 30;  // of request bodies and unsent responses together
  unsigned header_timeout_ms = 10'000;     // from a connection's or request's first byte to the end of its header
  unsigned idle_timeout_ms = 60'000;       // between requests
  unsigned progress_timeout_ms = 30'000;   // without a byte of a body, or without a byte of a response taken
  unsigned body_timeout_ms = 600'000;      // for a whole body
  unsigned linger_ms = 10'000;             // for a client to read the refusal of a body that it still sends
};

struct ServerStats {
  uint64_t accepted = 0;
  uint64_t refused = 0;  // for want of room
  uint64_t requests = 0;
  size_t open = 0;
  uint64_t memory_bytes = 0;
};

class Connection;

// A stream of server-sent events in the place of a response. Any thread; copies refer to the same stream.
class EventStream {
 public:
  explicit EventStream(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}
  // Says nothing to the client, but finds out whether it is there.
  bool ping();
  // False once the client is gone or reads too slowly (then the stream has ended).
  bool send(std::string_view event, std::string_view data);
  void finish();

 private:
  std::shared_ptr<Connection> connection_;
};

// The one answer to one request. Any thread may respond, also after handle() has returned. Dropped without an answer,
// it answers 500.
class Responder {
 public:
  explicit Responder(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}
  Responder(Responder&&) noexcept = default;
  Responder& operator=(Responder&&) = delete;
  ~Responder();

  void respond(Response response);
  EventStream stream();

  // In the place of respond(): `response` with the beginning of its body, and a descriptor that takes the rest of it,
  // `content_length` bytes in all where that is given; it blocks where the client does not keep up, and writing fails
  // once the client has gone away. Open until end_body(). -1, and `response` as it was: there are no means for it, and
  // an answer is still to come.
  int begin_body(Response& response, std::optional<uint64_t> content_length);
  // Nothing is written any more. `complete` false: the client is told by a broken connection.
  void end_body(bool complete);
  // Has `gone` called, once, where the client goes away while a body is being streamed, or before it has its answer.
  // The latter is found out within a second, not in the first 50 ms, and not of a client that has sent a next request
  // already. Set it before either body is streamed.
  void when_gone(std::function<void()> gone);

 private:
  std::shared_ptr<Connection> connection_;
};

// How large a body may be, and from which size on it is not held but streamed: Request::body_stream.
struct BodyRule {
  BodyRule(uint64_t bytes_max, uint64_t held_max = UINT64_MAX) : bytes_max(bytes_max), held_max(held_max) {}
  uint64_t bytes_max;
  uint64_t held_max;
};

class Application {
 public:
  virtual ~Application() = default;

  // Of a request whose header has arrived: how large its body may be, or the answer at once (the body is not read).
  // Must not block.
  virtual std::variant<BodyRule, Response> admit(Request& request) = 0;
  // `request` is valid until this returns; its body, or the stream of it, may be moved from.
  virtual void handle(Request& request, Responder responder) = 0;
  // For what never becomes a request: malformed, too large, too slow, refused.
  virtual Response error(unsigned status, std::string_view detail) = 0;
};

class Server {
 public:
  // `application` outlives the server. Errors: the address cannot be bound.
  static Result<std::unique_ptr<Server>> listen(ServerOptions options, Application& application);
  ~Server();

  // Handles events until stop(). Call it on several threads.
  void run();
  void stop();
  // Runs `task` on one of the threads in run(), soon; never in the caller.
  void post(std::function<void()> task);
  boost::asio::io_context& io() { return io_; }

  // Responses close their connections from now on, and idle ones are closed.
  void drain();
  bool draining() const { return draining_.load(std::memory_order_relaxed); }

  uint16_t port() const { return acceptors_.front()->port; }
  // Of the listener for web handlers alone; nothing where there is none.
  std::optional<uint16_t> web_port() const;
  ServerStats stats() const;
  // What bodies and responses share. Outlives every request.
  MemoryBudget& memory() { return memory_; }

 private:
  friend class Connection;
  Server(ServerOptions options, Application& application);

  // A listening socket.
  struct Acceptor {
    Acceptor(boost::asio::io_context& io, Listener kind) : socket(io), pause(io), listener(kind) {}
    boost::asio::ip::tcp::acceptor socket;
    boost::asio::steady_timer pause;
    const Listener listener;
    uint16_t port = 0;
  };

  Result<void> open(const std::string& address, uint16_t port, Listener listener);
  void accept(Acceptor& acceptor);
  void sweep();
  void add(const std::shared_ptr<Connection>& connection);
  void remove(Connection* connection);

  const ServerOptions options_;
  Application& application_;
  MemoryBudget memory_;
  std::atomic<bool> draining_{false};
  std::atomic<uint64_t> accepted_{0}, refused_{0}, requests_{0};
  Guarded<std::unordered_map<Connection*, std::weak_ptr<Connection>>> connections_;
  boost::asio::io_context io_;  // its pending handlers hold connections, which use all that is above
  std::vector<std::unique_ptr<Acceptor>> acceptors_;  // the first is that of port()
  boost::asio::steady_timer sweep_timer_;
};

}  // namespace spore::gateway

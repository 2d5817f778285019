#include "gateway/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <thread>

#include "base/fd.h"

namespace spore::gateway {
namespace {

// Answers /echo with the body, /hold when release() is called, /late from another thread, /drop never, /events with a
// stream, /big with as many bytes as the query says, /wait when answer_waiting() is called; refuses /refuse with 403.
class Fake final : public Application {
 public:
  ~Fake() override {
    for (auto& thread : threads_) thread.join();
  }
  std::variant<BodyRule, Response> admit(Request& request) override {
    if (request.path() == "/refuse") return text_response(403, "text/plain", "no\n");
    return body_bytes_max;
  }
  void handle(Request& request, Responder responder) override {
    if (request.path() == "/hold") {
      std::unique_lock lock(mutex_);
      ++holding_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return released_; });
    } else if (request.path() == "/late") {
      threads_.emplace_back([held = std::make_shared<Responder>(std::move(responder))] {
        held->respond(text_response(200, "text/plain", "late\n"));
      });
      return;
    } else if (request.path() == "/drop") {
      return;
    } else if (request.path() == "/events") {
      EventStream stream = responder.stream();
      stream.send("one", "1");
      stream.send("two", "2");
      return stream.finish();
    } else if (request.path() == "/wait") {
      responder.when_gone([this, who = std::string(request.query())] {
        const std::lock_guard lock(mutex_);
        gone_.push_back(who);
        changed_.notify_all();
      });
      const std::lock_guard lock(mutex_);
      waiting_.push_back(std::move(responder));
      ++holding_;
      changed_.notify_all();
      return;
    } else if (request.path() == "/big") {
      Response response;
      response.body.resize(std::stoul(std::string(request.query())));
      return responder.respond(std::move(response));
    }
    Response response;
    response.body = std::move(request.body);
    responder.respond(std::move(response));
  }
  Response error(unsigned status, std::string_view detail) override {
    return text_response(status, "text/plain", detail);
  }

  void wait_until_holding(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return holding_ >= count; });
  }
  void release() {
    answer_waiting();
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }
  void answer_waiting() {
    std::deque<Responder> waiting;
    {
      const std::lock_guard lock(mutex_);
      waiting.swap(waiting_);
    }
    for (Responder& responder : waiting) responder.respond(text_response(200, "text/plain", "at last\n"));
  }
  // Who went away, in that order, once so many have.
  std::vector<std::string> wait_until_gone(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return gone_.size() >= count; });
    return gone_;
  }

  uint64_t body_bytes_max = 1000;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int holding_ = 0;
  bool released_ = false;
  std::deque<Responder> waiting_;
  std::vector<std::string> gone_;
  std::vector<std::thread> threads_;
};

class Client {
 public:
  explicit Client(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  void send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t count = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (count <= 0) return;  // the server has closed; what it said is still to be read
      text.remove_prefix(static_cast<size_t>(count));
    }
  }
  // Status and body of the next response; status 0 where the connection ended first.
  std::pair<int, std::string> receive() {
    size_t head_end;
    while ((head_end = received_.find("\r\n\r\n")) == std::string::npos) {
      if (!read_some()) return {0, received_};
    }
    head_ = received_.substr(0, head_end + 4);
    received_.erase(0, head_end + 4);
    const size_t at = head_.find("Content-Length: ");
    const size_t length = at == std::string::npos ? 0 : std::stoul(head_.substr(at + 16));
    while (received_.size() < length) {
      if (!read_some()) return {0, received_};
    }
    std::string body = received_.substr(0, length);
    received_.erase(0, length);
    return {std::stoi(head_.substr(9, 3)), body};
  }
  std::string receive_to_end() {
    while (read_some()) {
    }
    return received_;
  }
  bool ended() { return received_.empty() && !read_some(); }
  void stop_sending() { ::shutdown(fd_.get(), SHUT_WR); }
  const std::string& head() const { return head_; }

 private:
  bool read_some() {
    char buffer[65536];
    const ssize_t count = ::recv(fd_.get(), buffer, sizeof(buffer), 0);
    if (count <= 0) return false;
    received_.append(buffer, static_cast<size_t>(count));
    return true;
  }
  UniqueFd fd_;
  std::string received_;
  std::string head_;
};

class HttpServer : public ::testing::Test {
 protected:
  void start(ServerOptions options = {}, int threads = 2) {
    auto listening = Server::listen(options, app_);
    ASSERT_TRUE(listening.has_value()) << listening.error().message;
    server_ = std::move(*listening);
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { server_->run(); });
  }
  void TearDown() override {
    app_.release();
    if (server_) server_->stop();
    threads_.clear();
  }
  Client connect() { return Client(server_->port()); }
  std::pair<int, std::string> ask(std::string_view text) {
    Client client = connect();
    client.send(text);
    return client.receive();
  }

  Fake app_;
  std::unique_ptr<Server> server_;
  std::vector<std::jthread> threads_;
};

using Answer = std::pair<int, std::string>;

TEST_F(HttpServer, AnswersRequestsOfOneConnectionInOrder) {
  start();
  Client client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none");
  EXPECT_EQ(client.receive(), Answer(200, "one"));
  client.send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\ntwoPOST /late HTTP/1.1\r\nHost: x\r\n"
      "Content-Length: 0\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nthree");
  EXPECT_EQ(client.receive(), Answer(200, "two"));
  EXPECT_EQ(client.receive(), Answer(200, "late\n"));
  EXPECT_EQ(client.receive(), Answer(200, "three"));
}

TEST_F(HttpServer, TakesBodiesInChunksAndByteByByte) {
  start();
  Client client = connect();
  const std::string_view text =
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n1a;ext=1\r\ndefghijklmnopqrstuvwxyz012\r\n0\r\nHost: evil\r\n\r\n";
  for (const char c : text) client.send(std::string_view(&c, 1));
  EXPECT_EQ(client.receive(), Answer(200, "abcdefghijklmnopqrstuvwxyz012"));
  client.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.receive(), Answer(200, ""));
}

TEST_F(HttpServer, TakesAndGivesLargeBodies) {
  app_.body_bytes_max = 32 << 20;
  start();
  Client client = connect();
  std::string body(20 << 20, 'x');
  for (size_t i = 0; i < body.size(); i += 997) body[i] = static_cast<char>('a' + i % 23);
  std::thread sender([&] {
    client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  });
  const Answer answer = client.receive();
  sender.join();
  EXPECT_EQ(answer.first, 200);
  EXPECT_TRUE(answer.second == body);
}

TEST_F(HttpServer, RefusesALargeBodyByItsLengthAlone) {
  start();
  Client client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n");
  EXPECT_EQ(client.receive().first, 413);
}

TEST_F(HttpServer, RefusesALargeBodyWhileItStreamsIn) {
  start();
  Client client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + std::string(1001, 'x'));
  EXPECT_EQ(client.receive().first, 413);
}

TEST_F(HttpServer, ContinuesOnlyWhereTheBodyWillBeTaken) {
  start();
  Client client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.receive().first, 100);
  client.send("hi");
  EXPECT_EQ(client.receive(), Answer(200, "hi"));
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n");
  EXPECT_EQ(client.receive().first, 413);
}

TEST_F(HttpServer, ARefusedRequestWithASmallBodyKeepsItsConnection) {
  start();
  Client client = connect();
  client.send("POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
  EXPECT_EQ(client.receive(), Answer(403, "no\n"));
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
  EXPECT_EQ(client.receive(), Answer(200, "hi"));
}

TEST_F(HttpServer, NamesWhatIsMalformed) {
  start();
  EXPECT_EQ(ask("nonsense\r\n\r\n").first, 400);
  EXPECT_EQ(ask("GET / HTTP/1.1\r\n\r\n").first, 400);
  EXPECT_EQ(ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").first, 400);
  EXPECT_EQ(ask("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n").first, 400);
  EXPECT_EQ(ask("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n").first, 400);
  EXPECT_EQ(ask("GET / HTTP/3.0\r\nHost: a\r\n\r\n").first, 505);
  EXPECT_EQ(ask("GET /" + std::string(9000, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n").first, 414);
  EXPECT_EQ(ask("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(40'000, 'x') + "\r\n\r\n").first, 431);
  std::string many = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 200; ++i) many += "X: y\r\n";
  EXPECT_EQ(ask(many + "\r\n").first, 431);
}

TEST_F(HttpServer, TakesAHeaderThatComesInManyPieces) {
  start();
  Client client = connect();
  std::string text =
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX: " + std::string(20'000, 'y') + "\r\n\r\nhi";
  for (size_t i = 0; i < text.size(); i += 1000) client.send(std::string_view(text).substr(i, 1000));
  EXPECT_EQ(client.receive(), Answer(200, "hi"));
}

TEST_F(HttpServer, ClosesWhereTheClientAsksForIt) {
  start();
  Client client = connect();
  client.send("GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.receive().first, 200);
  EXPECT_NE(client.head().find("Connection: close"), std::string::npos);
  EXPECT_TRUE(client.ended());
  Client old = connect();
  old.send("GET /echo HTTP/1.0\r\n\r\n");
  EXPECT_EQ(old.receive().first, 200);
  EXPECT_TRUE(old.ended());
}

TEST_F(HttpServer, ADroppedRequestIsAnswered) {
  start();
  EXPECT_EQ(ask("GET /drop HTTP/1.1\r\nHost: x\r\n\r\n").first, 500);
}

TEST_F(HttpServer, HeadHasNoBody) {
  start();
  Client client = connect();
  client.send("HEAD /big?10 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string all = client.receive_to_end();
  EXPECT_NE(all.find("Content-Length: 10\r\n"), std::string::npos);
  EXPECT_TRUE(all.ends_with("\r\n\r\n"));
}

TEST_F(HttpServer, ARequestThatTakesLongLeavesTheOthersAlone) {
  start({}, 2);
  Client slow = connect();
  slow.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  app_.wait_until_holding(1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(ask("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").first, 200);
  app_.release();
  EXPECT_EQ(slow.receive().first, 200);
}

TEST_F(HttpServer, SilentConnectionsAreClosed) {
  start({.header_timeout_ms = 50});
  std::vector<Client> clients;
  for (int i = 0; i < 200; ++i) clients.push_back(connect());
  for (Client& client : clients) EXPECT_TRUE(client.ended());
}

TEST_F(HttpServer, AnUnfinishedHeaderTimesOut) {
  start({.header_timeout_ms = 50});
  EXPECT_EQ(ask("GET / HTTP/1.1\r\nHo").first, 408);
}

TEST_F(HttpServer, AnUnfinishedBodyTimesOut) {
  start({.progress_timeout_ms = 50});
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").first, 408);
}

TEST_F(HttpServer, IdleConnectionsAreClosed) {
  start({.idle_timeout_ms = 50});
  Client client = connect();
  client.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.receive().first, 200);
  EXPECT_TRUE(client.ended());
}

TEST_F(HttpServer, AReaderThatNeverReadsIsCutOff) {
  start({.progress_timeout_ms = 50});
  Client client = connect();
  client.send("GET /big?50000000 HTTP/1.1\r\nHost: x\r\n\r\n");
  // The server gives up while most of it is unsent, and forgets the connection and its memory.
  while (server_->stats().requests == 0 || server_->stats().open != 0) std::this_thread::yield();
  while (server_->stats().memory_bytes != 0) std::this_thread::yield();  // ctest's limit ends this where it stays
  EXPECT_LT(client.receive_to_end().size(), 50'000'000u);
}

TEST_F(HttpServer, BodiesOfAllRequestsHaveABudget) {
  app_.body_bytes_max = 1 << 20;
  start({.memory_bytes_max = 1000});
  Client client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + std::string(5000, 'x'));
  EXPECT_EQ(client.receive().first, 503);
  EXPECT_EQ(ask("GET /big?5000 HTTP/1.1\r\nHost: x\r\n\r\n").first, 503);
  EXPECT_EQ(ask("GET /big?900 HTTP/1.1\r\nHost: x\r\n\r\n").first, 200);
  while (server_->stats().memory_bytes != 0) std::this_thread::yield();  // given back a moment after the last byte
}

TEST_F(HttpServer, MoreConnectionsThanAllowedAreTurnedAway) {
  start({.connections_max = 2});
  Client first = connect(), second = connect();
  first.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(first.receive().first, 200);
  second.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(second.receive().first, 200);
  Client third = connect();
  EXPECT_EQ(third.receive().first, 503);
  EXPECT_TRUE(third.ended());
}

TEST_F(HttpServer, StreamsEvents) {
  start();
  Client client = connect();
  client.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string all = client.receive_to_end();
  EXPECT_NE(all.find("Content-Type: text/event-stream\r\n"), std::string::npos);
  EXPECT_NE(all.find("14\r\nevent: one\ndata: 1\n\n\r\n14\r\nevent: two\ndata: 2\n\n\r\n0\r\n\r\n"), std::string::npos);
}

TEST_F(HttpServer, TellsOfClientsThatDoNotWaitForTheirAnswers) {
  start();
  const auto request = [](const char* who) { return "GET /wait?" + std::string(who) + " HTTP/1.1\r\nHost: x\r\n\r\n"; };
  Client waits = connect(), asks_ahead = connect(), asks_later = connect();
  waits.send(request("waits"));
  asks_ahead.send(request("asks_ahead") + "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  asks_ahead.stop_sending();
  asks_later.send(request("asks_later"));
  app_.wait_until_holding(3);
  asks_later.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  asks_later.stop_sending();
  {
    Client goes = connect();
    goes.send(request("goes"));
    app_.wait_until_holding(4);
  }
  // Whoever asked before has been looked at by then.
  EXPECT_EQ(app_.wait_until_gone(1), std::vector<std::string>{"goes"});
  Client stops = connect();
  stops.send(request("stops"));
  stops.stop_sending();
  EXPECT_EQ(app_.wait_until_gone(2).back(), "stops");
  app_.answer_waiting();
  EXPECT_EQ(waits.receive(), Answer(200, "at last\n"));
  for (Client* client : {&asks_ahead, &asks_later}) {
    EXPECT_EQ(client->receive(), Answer(200, "at last\n"));
    EXPECT_EQ(client->receive(), Answer(200, ""));
  }
}

TEST_F(HttpServer, DrainingClosesConnectionsBehindTheirResponses) {
  start();
  Client busy = connect(), idle = connect();
  idle.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(idle.receive().first, 200);
  busy.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  app_.wait_until_holding(1);
  server_->drain();
  app_.release();
  EXPECT_EQ(busy.receive().first, 200);
  EXPECT_NE(busy.head().find("Connection: close"), std::string::npos);
  EXPECT_TRUE(busy.ended());
  EXPECT_TRUE(idle.ended());
}

TEST(HttpMessage, ParametersAreDecoded) {
  Request request;
  request.target = "/x?a=1&b=%41b&c&d=%4";
  EXPECT_EQ(request.path(), "/x");
  EXPECT_EQ(request.parameter("a"), "1");
  EXPECT_EQ(request.parameter("b"), "Ab");
  EXPECT_EQ(request.parameter("c"), "");
  EXPECT_FALSE(request.parameter("d"));
  EXPECT_FALSE(request.parameter("e"));
}

}  // namespace
}  // namespace spore::gateway

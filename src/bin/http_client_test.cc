#include "bin/http_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <thread>

#include "base/fd.h"

namespace spore::bin {
namespace {

// Takes one connection, reads a request's header and, on demand, its body, and answers with fixed bytes.
class OneAnswer {
 public:
  OneAnswer(std::string answer, size_t body_bytes = 0) : answer_(std::move(answer)), body_bytes_(body_bytes) {
    std::signal(SIGPIPE, SIG_IGN);
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    EXPECT_EQ(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    server_ = {.host = "127.0.0.1", .port = std::to_string(ntohs(address.sin_port)), .token = "secret"};
    thread_ = std::jthread([this] { run(); });
  }
  const ServerAddress& server() const { return server_; }
  // After the answer: what the client sent.
  const std::string& request() {
    thread_.join();
    return request_;
  }

 private:
  void run() {
    const UniqueFd connection(::accept(listener_.get(), nullptr, nullptr));
    std::array<char, 4096> buffer;
    size_t header = std::string::npos;
    while (header == std::string::npos || request_.size() < header + 4 + body_bytes_) {
      const ssize_t n = ::read(connection.get(), buffer.data(), buffer.size());
      if (n <= 0) return;
      request_.append(buffer.data(), static_cast<size_t>(n));
      header = request_.find("\r\n\r\n");
    }
    EXPECT_TRUE(write_all(connection.get(), as_bytes(answer_)));
    ::shutdown(connection.get(), SHUT_WR);
    while (::read(connection.get(), buffer.data(), buffer.size()) > 0) {
    }
  }

  const std::string answer_;
  const size_t body_bytes_;
  UniqueFd listener_;
  ServerAddress server_;
  std::string request_;
  std::jthread thread_;
};

TEST(ServerAddress, TakesHostsAndPorts) {
  const auto parts = [](std::string_view url) {
    const auto server = ServerAddress::parse(url);
    return server ? server->host + "|" + server->port + "|" + server->authority() : "refused";
  };
  EXPECT_EQ(parts("http://localhost:7077"), "localhost|7077|localhost:7077");
  EXPECT_EQ(parts("http://localhost/"), "localhost|80|localhost:80");
  EXPECT_EQ(parts("http://[::1]:7077"), "::1|7077|[::1]:7077");
  for (const char* bad :
       {"", "localhost:7077", "https://localhost", "http://", "http://:80", "http://a:", "http://a:x",
        "http://a:123456", "http://a/path", "http://u@a", "http://a\r\nX: y", "http://[::1", "http://[::1]x"})
    EXPECT_EQ(parts(bad), "refused") << bad;
}

TEST(SendRequest, SendsItAndReadsTheAnswer) {
  OneAnswer host("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSpore-Call-Id: 7\r\n\r\nhello", 3);
  const auto response = send_request(
      host.server(), {.method = "PUT", .target = "/v1/x?a=b", .fields = {{"If-Match", "*"}}, .body = as_bytes("abc")});
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(response->status, 200u);
  EXPECT_EQ(response->body, "hello");
  EXPECT_EQ(response->field("spore-call-id"), "7");
  EXPECT_EQ(response->field("missing"), "");
  const std::string& request = host.request();
  EXPECT_TRUE(request.starts_with("PUT /v1/x?a=b HTTP/1.1\r\n")) << request;
  EXPECT_TRUE(request.ends_with("\r\n\r\nabc")) << request;
  for (const char* field : {"\r\nContent-Length: 3\r\n", "\r\nIf-Match: *\r\n", "\r\nAuthorization: Bearer secret\r\n"})
    EXPECT_NE(request.find(field), std::string::npos) << field << request;
}

TEST(SendRequest, HandsOnABodyInPieces) {
  OneAnswer host("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
  std::string body;
  const auto response = send_request(host.server(), {.target = "/"}, [&](std::string_view bytes) -> Result<void> {
    body += bytes;
    return {};
  });
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(body, "abcdefg");
  EXPECT_EQ(response->body, "");
}

TEST(SendRequest, KeepsTheBodyOfAnErrorApart) {
  OneAnswer host("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}");
  bool called = false;
  const auto response = send_request(host.server(), {.target = "/"}, [&](std::string_view) -> Result<void> {
    called = true;
    return {};
  });
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 404u);
  EXPECT_EQ(response->body, "{}");
  EXPECT_FALSE(called);
}

TEST(SendRequest, ReadsARefusalThatComesBeforeTheBodyIsSent) {
  OneAnswer host("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
  const Bytes large(8 << 20);
  const auto response = send_request(host.server(), {.method = "POST", .target = "/", .body = large});
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(response->status, 413u);
}

TEST(SendRequest, TellsThatTheAnswerIsCutShortOrNone) {
  for (const char* answer : {"", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "garbage\r\n\r\n"}) {
    OneAnswer host(answer);
    const auto response = send_request(host.server(), {.target = "/"});
    ASSERT_FALSE(response) << answer;
    EXPECT_EQ(response.error().code, ErrorCode::kUnavailable);
  }
}

TEST(EventParser, PutsEventsTogetherFromPieces) {
  std::string seen;
  EventParser parser([&](const std::string& event, const std::string& data) { seen += event + "=" + data + ";"; });
  for (const char c :
       std::string(": a comment\nevent: progress\ndata: 1\n\ndata:a\r\ndata: b\r\n\r\n\nevent: x\n\ndata: late"))
    ASSERT_TRUE(parser.feed({&c, 1}));
  EXPECT_EQ(seen, "progress=1;message=a\nb;");
}

TEST(EventParser, BoundsAnEvent) {
  EventParser parser([](const std::string&, const std::string&) {});
  Result<void> fed;
  for (int i = 0; i < 20 && fed; ++i) fed = parser.feed("data: " + std::string(100'000, 'x') + "\n");
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().code, ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace spore::bin

// A light client: one call each period on one connection, whatever the earlier ones took, so that a host that stalls
// shows in every call that was due meanwhile. Runs with real-time priority where it may: the host is measured, not how
// soon the kernel lets this program run.
//
//   bench-isolation-light PORT PATH SECONDS PERIOD_US --> "CALLS FAILED P50_US P99_US MAX_US"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

// Reads one answer; whether it is a 200. Exits where the connection ends.
bool read_answer(int connection, std::string& buffer) {
  buffer.clear();
  size_t body_begin = std::string::npos;
  size_t body_bytes = 0;
  while (body_begin == std::string::npos || buffer.size() < body_begin + body_bytes) {
    char bytes[4096];
    const ssize_t count = ::recv(connection, bytes, sizeof(bytes), 0);
    if (count <= 0) die("receive an answer");
    buffer.append(bytes, static_cast<size_t>(count));
    if (body_begin != std::string::npos) continue;
    const size_t end = buffer.find("\r\n\r\n");
    if (end == std::string::npos) continue;
    body_begin = end + 4;
    std::string head = buffer.substr(0, end);
    std::ranges::transform(head, head.begin(), [](unsigned char c) { return std::tolower(c); });
    constexpr std::string_view kLength = "content-length: ";
    if (const size_t at = head.find(kLength); at != std::string::npos)
      std::from_chars(head.data() + at + kLength.size(), head.data() + head.size(), body_bytes);
  }
  return buffer.starts_with("HTTP/1.1 200");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: bench-isolation-light PORT PATH SECONDS PERIOD_US\n");
    return 2;
  }
  const sched_param priority{.sched_priority = 10};
  if (::sched_setscheduler(0, SCHED_FIFO, &priority) != 0) std::perror("real-time priority");
  const int connection = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::atoi(argv[1])));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) die("connect");
  const int one = 1;
  ::setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  const std::string request =
      std::string("POST ") + argv[2] + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
  const auto period = std::chrono::microseconds(std::atoi(argv[4]));
  const auto end = Clock::now() + std::chrono::seconds(std::atoi(argv[3]));
  std::vector<double> latencies;
  size_t failed = 0;
  std::string buffer;
  // A host that falls behind is not asked for ever.
  const auto latest = end + std::chrono::seconds(std::atoi(argv[3]));
  for (auto due = Clock::now(); due < end && Clock::now() < latest; due += period) {
    std::this_thread::sleep_until(due);
    if (::send(connection, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
      die("send a request");
    if (!read_answer(connection, buffer)) ++failed;
    latencies.push_back(std::chrono::duration<double, std::micro>(Clock::now() - due).count());
  }
  ::close(connection);
  std::ranges::sort(latencies);
  const auto at = [&](double quantile) {
    return latencies[static_cast<size_t>(quantile * static_cast<double>(latencies.size() - 1))];
  };
  std::printf("%zu %zu %.1f %.1f %.1f\n", latencies.size(), failed, at(0.5), at(0.99), at(1));
  return 0;
}

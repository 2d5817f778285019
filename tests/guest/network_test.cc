// Sockets of a guest, against servers of the test (network_world.h). guests/sockets.c has the guest's side, with most
// of the expectations.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <string>

#include "guest_runner.h"
#include "host/resolver.h"
#include "host/wasi_abi.h"
#include "network_world.h"

namespace spore::host {
namespace {

using Kind = CallResult::Kind;
using std::chrono::milliseconds;

CallSetup setup_in(std::shared_ptr<Network> network) {
  CallSetup setup;
  setup.network = std::move(network);
  setup.preopens.push_back({.guest_path = "/", .access = Access::kReadWrite, .source = Preopen::Source::kLocalLayer});
  return setup;
}

GuestRun run_in(const std::shared_ptr<Network>& network, std::vector<std::string> arguments,
                const std::string& guest = "sockets") {
  return run_guest(guest, std::move(arguments), setup_in(network));
}

// It has ended well; its output.
std::string expect_well(const GuestRun& run) {
  EXPECT_TRUE(run.result.kind == Kind::kExited && run.result.exit_code == 0) << run.summary();
  return std::string(as_text(run.state.output));
}

std::string text_of(uint16_t port) { return std::to_string(port); }

constexpr const char* kHello = "hello from the test\n";

struct Family {
  int family;
  const char* host;
};

class Sockets : public ::testing::TestWithParam<Family> {
 protected:
  void SetUp() override {
    if (GetParam().family == AF_INET6 && !network->has_inet6()) GTEST_SKIP() << "this kernel has no IPv6";
  }
  int family() const { return GetParam().family; }
  std::string host() const { return GetParam().host; }

  std::shared_ptr<TestNetwork> network = TestNetwork::make();
};
INSTANTIATE_TEST_SUITE_P(Over, Sockets, ::testing::Values(Family{AF_INET, "127.0.0.1"}, Family{AF_INET6, "::1"}),
                         [](const auto& info) { return info.param.family == AF_INET ? "Inet4" : "Inet6"; });

TEST_P(Sockets, HttpIsFetched) {
  const TcpServer server(*network, family(), serve_http);
  EXPECT_EQ(expect_well(run_in(network, {"http", host(), text_of(server.port())})), kHello);
}

TEST_P(Sockets, DatagramsGoAndCome) {
  const UdpServer server(*network, family(), [](ByteSpan bytes, const auto& send) { send(bytes); });
  expect_well(run_in(network, {"udp", host(), text_of(server.port())}));
}

TEST_P(Sockets, NonblockingConnectAcceptReceive) { expect_well(run_in(network, {"nonblocking", host()})); }

TEST_P(Sockets, StreamsKeepEveryByte) { expect_well(run_in(network, {"streams", host()})); }

// Each side waits for the other many times.
TEST_P(Sockets, SendAndWaitForAllMoveTheWhole) {
  const TcpServer server(*network, family(), [](int fd) {
    const int bytes = 16 << 10;
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    const auto all = read_all(fd);
    ASSERT_TRUE(all);
    for (ByteSpan rest(*all); !rest.empty();) {
      const ssize_t sent = ::send(fd, rest.data(), std::min<size_t>(rest.size(), 50'000), MSG_NOSIGNAL);
      if (sent <= 0) return;
      rest = rest.subspan(static_cast<size_t>(sent));
    }
  });
  expect_well(run_in(network, {"whole", host(), text_of(server.port())}));
}

TEST_P(Sockets, ResetOfThePeerIsAnError) {
  const TcpServer server(*network, family(), [](int fd) {
    char text[4];
    if (::send(fd, "go", 2, MSG_NOSIGNAL) != 2 || ::recv(fd, text, 4, MSG_WAITALL) != 4) return;
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));  // closing it resets the connection
  });
  expect_well(run_in(network, {"reset", host(), text_of(server.port())}));
}

TEST_P(Sockets, GuestServes) {
  // A port that was free a moment ago; in a namespace nobody else takes it.
  const uint16_t port = port_of(bound_socket(*network, family(), SOCK_STREAM).get());
  std::string answer;
  const GuestRun run = run_guest("sockets", {"serve", host(), text_of(port)}, setup_in(network), {}, [&](auto) {
    const auto address = loopback(family(), port);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    UniqueFd fd;
    do {  // until it listens
      fd = network->test_socket(family(), SOCK_STREAM);
    } while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size_of(address)) != 0 &&
             std::chrono::steady_clock::now() < until);
    EXPECT_EQ(::send(fd.get(), "there and back", 14, MSG_NOSIGNAL), 14);
    ::shutdown(fd.get(), SHUT_WR);
    char bytes[64];
    for (ssize_t got; (got = ::recv(fd.get(), bytes, sizeof(bytes), 0)) > 0;)
      answer.append(bytes, static_cast<size_t>(got));
  });
  expect_well(run);
  EXPECT_EQ(answer, "there and back");
}

// Listens, and has one connection that nobody accepts, so that the kernel drops all others.
struct FullListener {
  explicit FullListener(TestNetwork& network)
      : listener(bound_socket(network, AF_INET, SOCK_STREAM, 0, /*backlog=*/0)),
        port(host::port_of(listener.get())),
        first(network.test_socket(AF_INET, SOCK_STREAM)) {
    const auto address = loopback(AF_INET, port);
    EXPECT_EQ(::connect(first.get(), reinterpret_cast<const sockaddr*>(&address), size_of(address)), 0);
  }
  UniqueFd listener;
  uint16_t port;
  UniqueFd first;
};

class SocketCalls : public ::testing::Test {
 protected:
  std::shared_ptr<TestNetwork> network = TestNetwork::make();
};

// The kernel tries again after a second.
TEST_F(SocketCalls, ConnectWaitsUntilItIsTaken) {
  FullListener full(*network);
  std::vector<UniqueFd> accepted;
  const GuestRun run =
      run_guest("sockets", {"connect", "127.0.0.1", text_of(full.port)}, setup_in(network), {}, [&](auto) {
        for (int i = 0; i < 2; ++i)
          accepted.emplace_back(::accept4(full.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      });
  expect_well(run);
  EXPECT_TRUE(accepted.back().valid());
}

TEST_F(SocketCalls, WaitsEndWithTheSocketsTime) {
  FullListener full(*network);
  expect_well(run_in(network, {"timeouts", "127.0.0.1", text_of(full.port)}));
}

TEST_F(SocketCalls, WaitsEndWithTheCall) {
  FullListener full(*network);
  const DnsServer dns(*network);
  for (const char* what : {"connect", "accept", "wasi_accept", "recv", "waitall", "recvfrom", "wasi_recv", "read",
                           "send", "write", "poll", "resolve"}) {
    const auto began = faaslet::Clock::now();
    const std::vector<std::string> arguments = {"block", "127.0.0.1", text_of(full.port), what};
    GuestRun run = run_guest("sockets", arguments, setup_in(network), {.deadline = began + milliseconds(100)});
    EXPECT_EQ(run.result.kind, Kind::kInterrupted) << what << ": " << run.summary();
    EXPECT_GE(faaslet::Clock::now() - began, milliseconds(100)) << what;
    EXPECT_LT(faaslet::Clock::now() - began, std::chrono::seconds(20)) << what;
  }
  const GuestRun run = run_guest("sockets", {"block", "127.0.0.1", "0", "recv"}, setup_in(network), {},
                                 [](auto interrupt) { interrupt(); });
  EXPECT_EQ(run.result.kind, Kind::kInterrupted) << run.summary();
}

TEST_F(SocketCalls, OptionsAreThoseThatAreOffered) { expect_well(run_in(network, {"options"})); }

TEST_F(SocketCalls, WhatCannotBeIsRefused) {
  const DnsServer dns(*network);
  expect_well(run_in(network, {"refusals"}));
}

TEST_F(SocketCalls, DescriptorsOfOtherThingsAreNoSockets) { expect_well(run_in(network, {"mixed"})); }

TEST_F(SocketCalls, NumbersAndRightsCanChange) { expect_well(run_in(network, {"renumbered"})); }

TEST_F(SocketCalls, AreBoundedInNumber) { expect_well(run_in(network, {"limit"})); }

TEST_F(SocketCalls, AddressesOfTheLibrary) { expect_well(run_in(network, {"addresses"})); }

TEST_F(SocketCalls, NeedANetwork) {
  GuestRun run = run_in(nullptr, {"without"});
  expect_well(run);
}

TEST_F(SocketCalls, RefusalOfTheNetworkIsTold) {
  const std::pair<ErrorCode, wasi::Errno> kCases[] = {
      {ErrorCode::kPermissionDenied, wasi::Errno::kAcces},
      {ErrorCode::kResourceExhausted, wasi::Errno::kNoBufs},
      {ErrorCode::kUnavailable, wasi::Errno::kNetDown},
      {ErrorCode::kInvalidArgument, wasi::Errno::kAfNoSupport},
      {ErrorCode::kInternal, wasi::Errno::kIo},
  };
  for (const auto& [code, error] : kCases) {
    network->refuses = Error{code, "the reason"};
    const GuestRun run = run_in(network, {"open"});
    EXPECT_EQ(expect_well(run), std::to_string(-static_cast<int>(error)));
    EXPECT_EQ(as_text(run.state.log), "open a socket: the reason\n");
  }
}

TEST_F(SocketCalls, BadPointersOfWasiAreFaults) { expect_well(run_in(network, {}, "socket_pointers")); }

TEST_F(SocketCalls, BadPointersOfSporeTrap) {
  constexpr int kCalls = 15;
  for (int which = 0; which < kCalls; ++which) {
    for (int how = 0; how < 4; ++how) {
      const GuestRun run = run_in(network, {std::to_string(which), std::to_string(how)}, "socket_pointers");
      EXPECT_EQ(run.result.kind, Kind::kTrapped) << which << ' ' << how << ": " << run.summary();
      EXPECT_EQ(run.result.trap.kind, wasm::TrapKind::kMemoryOutOfBounds) << which << ' ' << how;
      EXPECT_NE(run.result.trap.message.find("a pointer is outside memory"), std::string::npos) << run.summary();
    }
  }
}

TEST_F(SocketCalls, NothingStaysOpenBehindACall) {
  run_in(network, {"nothing"});  // what the first guest of a process opens stays open
  FullListener full(*network);
  const UniqueFd told = bound_socket(*network, AF_INET, SOCK_STREAM);
  const UniqueFd resolver = bound_socket(*network, AF_INET, SOCK_DGRAM);
  network->asked = {loopback(AF_INET, port_of(resolver.get()))};
  const size_t before = open_descriptors();
  const std::vector<std::string> arguments = {"leave", "127.0.0.1", text_of(full.port), text_of(port_of(told.get()))};
  UniqueFd peer;
  char byte = 0;
  GuestRun run = run_guest("sockets", arguments, setup_in(network), {}, [&](auto interrupt) {
    peer.reset(::accept4(told.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_EQ(::recv(peer.get(), &byte, 1, 0), 1);
    EXPECT_EQ(::recv(resolver.get(), &byte, 1, 0), 1);  // the question of its look-up
    interrupt();
  });
  EXPECT_EQ(run.result.kind, Kind::kInterrupted) << run.summary();
  // Five sockets, and of the look-up a socket and what it waits by.
  EXPECT_GE(open_descriptors(), before + 1 + 7);
  EXPECT_GT(network.use_count(), 1);
  run.state.close_all();
  EXPECT_EQ(open_descriptors(), before + 1);
  EXPECT_EQ(network.use_count(), 1);
  EXPECT_EQ(::recv(peer.get(), &byte, 1, 0), 0);  // closed
}

TEST_F(SocketCalls, AreOfTheCallsNetwork) {
  if (!network->is_namespace()) GTEST_SKIP() << "needs root: makes a network namespace";
  auto own = TestNetwork::make();
  const TcpServer here(*own, AF_INET, serve_http);
  // The same address, in another network.
  const GuestRun run = run_in(network, {"http", "127.0.0.1", text_of(here.port())});
  EXPECT_NE(run.result.exit_code, 0);
  EXPECT_EQ(expect_well(run_in(own, {"http", "127.0.0.1", text_of(here.port())})), kHello);
}

// ---- names ----

class Names : public ::testing::Test {
 protected:
  std::string resolve(const std::string& name, const char* family = "0", const char* timeout_ms = "9000") {
    return expect_well(run_in(network, {"resolve", name, family, timeout_ms}));
  }
  static std::string error(wasi::Errno error) { return "error " + std::to_string(static_cast<int>(error)); }

  std::shared_ptr<TestNetwork> network = TestNetwork::make();
  DnsServer dns{*network};
};

constexpr const char* kInet4 = "1";
constexpr const char* kInet6 = "2";

TEST_F(Names, AreFoundInBothFamilies) {
  EXPECT_EQ(resolve("good.test", kInet4), "192.0.2.1");
  EXPECT_EQ(resolve("good.test", kInet6), "fd00::1");
  const std::string both = resolve("GOOD.test.");
  EXPECT_TRUE(both == "192.0.2.1 fd00::1" || both == "fd00::1 192.0.2.1") << both;
  EXPECT_EQ(resolve("four.test"), "192.0.2.4");
}

TEST_F(Names, NumbersAndLocalhostAreAskedOfNobody) {
  network->asked.clear();
  EXPECT_EQ(resolve("192.0.2.9"), "192.0.2.9");
  EXPECT_EQ(resolve("fd00::9"), "fd00::9");
  EXPECT_EQ(resolve("192.0.2.9", kInet6), error(wasi::Errno::kNoEnt));
  EXPECT_EQ(resolve("localhost"), "127.0.0.1 ::1");
  EXPECT_EQ(resolve("a.localhost.", kInet6), "::1");
}

TEST_F(Names, ThatAreNotThereAreToldApartFromFailures) {
  EXPECT_EQ(resolve("nobody.test"), error(wasi::Errno::kNoEnt));
  EXPECT_EQ(resolve("four.test", kInet6), error(wasi::Errno::kNoEnt));
  EXPECT_EQ(resolve("failing.test", kInet4), error(wasi::Errno::kAgain));
  EXPECT_EQ(resolve("refused.test", kInet4), error(wasi::Errno::kAgain));
}

TEST_F(Names, ManyAddressesAreCutAndCutAnswersAskedForAgain) {
  const std::string found = resolve("many.test", kInet4);
  EXPECT_EQ(std::count(found.begin(), found.end(), ' '), 63) << found;
  EXPECT_TRUE(found.starts_with("192.0.2.0 192.0.2.1 192.0.2.2 ")) << found;
  EXPECT_TRUE(found.ends_with(" 192.0.2.63")) << found;
}

TEST_F(Names, MalformedAnswersAreErrors) {
  for (const char* name : {"cut.test", "long.test", "loop.test"})
    EXPECT_EQ(resolve(name, kInet4), error(wasi::Errno::kBadMsg)) << name;
  EXPECT_EQ(resolve("self.test", kInet4), error(wasi::Errno::kNoEnt));
  EXPECT_EQ(resolve("short.test", kInet4, "300"), error(wasi::Errno::kTimedOut));
}

TEST_F(Names, AnswersToOtherQuestionsAreNotBelieved) {
  EXPECT_EQ(resolve("forged.test", kInet4), "192.0.2.1");
  EXPECT_EQ(resolve("flood.test", kInet4, "300"), error(wasi::Errno::kTimedOut));
}

TEST_F(Names, ResolverThatFloodsDoesNotHoldTheSeat) {
  const UniqueFd server = bound_socket(*network, AF_INET, SOCK_DGRAM);
  network->asked = {loopback(AF_INET, port_of(server.get()))};
  auto lookup = Lookup::start(network, "good.test", AF_INET);
  ASSERT_TRUE(lookup) << lookup.error().message;
  uint8_t query[512];
  sockaddr_storage from{};
  socklen_t from_size = sizeof(from);
  const ssize_t size =
      ::recvfrom(server.get(), query, sizeof(query), 0, reinterpret_cast<sockaddr*>(&from), &from_size);
  ASSERT_GT(size, 12);
  query[1] ^= 0x55;  // the number of another question
  query[2] |= 0x80;  // an answer
  for (int i = 0; i < 2 * kReadsPerAdvance; ++i)
    ::sendto(server.get(), query, static_cast<size_t>(size), 0, reinterpret_cast<const sockaddr*>(&from), from_size);
  const auto readable = [&] {
    pollfd wait{(*lookup)->fd(), POLLIN, 0};
    return ::poll(&wait, 1, 0) == 1;
  };
  EXPECT_TRUE(readable());
  (*lookup)->advance();
  EXPECT_TRUE(readable());  // the other half is still there
  for (int i = 0; i < 3 && readable(); ++i) (*lookup)->advance();
  EXPECT_FALSE(readable());
  EXPECT_FALSE((*lookup)->ended());
}

TEST_F(Names, SilentResolversEndWithTheTime) {
  const auto began = faaslet::Clock::now();
  EXPECT_EQ(resolve("silent.test", "0", "200"), error(wasi::Errno::kTimedOut));
  EXPECT_GE(faaslet::Clock::now() - began, milliseconds(200));
  EXPECT_LT(faaslet::Clock::now() - began, std::chrono::seconds(20));
}

// The second one answers, once the first has had its time.
TEST_F(Names, AnotherResolverIsAsked) {
  const UniqueFd silent = bound_socket(*network, AF_INET, SOCK_DGRAM);
  network->asked.insert(network->asked.begin(), loopback(AF_INET, port_of(silent.get())));
  EXPECT_EQ(resolve("good.test", kInet4), "192.0.2.1");
}

TEST_F(Names, WithoutResolversAreNotSupported) {
  network->asked.clear();
  GuestRun run = run_in(network, {"resolve", "good.test", "0"});
  EXPECT_EQ(expect_well(run), error(wasi::Errno::kNotSup));
  EXPECT_EQ(as_text(run.state.log), "sock_resolve: this network has no resolvers\n");
}

TEST_F(Names, OfUnreachableResolversAreToldSo) {
  network->asked = {loopback(AF_INET, 1)};  // nobody is there
  EXPECT_EQ(resolve("good.test", kInet4), error(wasi::Errno::kHostUnreach));
  network->refuses = Error{ErrorCode::kPermissionDenied, "no"};
  EXPECT_EQ(resolve("good.test", kInet4), error(wasi::Errno::kHostUnreach));
}

TEST_F(Names, FetchByName) {
  const TcpServer server(*network, AF_INET, serve_http);
  EXPECT_EQ(expect_well(run_in(network, {"http", "localhost", text_of(server.port())})), kHello);
}

// The bindings of the SDKs, each in all it does. A language whose tools are not here is skipped.
class NetworkBindings : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(In, NetworkBindings, ::testing::Values("rust", "go"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(NetworkBindings, ReachServersAndServe) {
  const std::string guest = std::string("network_") + GetParam();
  if (!std::filesystem::exists(std::filesystem::path(GUEST_MODULES) / (guest + ".wasm")))
    GTEST_SKIP() << "no tools for " << GetParam() << " when this was configured";
  const auto network = TestNetwork::make();
  const DnsServer dns(*network);
  const TcpServer http(*network, AF_INET, serve_http);
  const UdpServer echo(*network, AF_INET, [](ByteSpan bytes, const auto& send) { send(bytes); });
  FullListener full(*network);
  const GuestRun run =
      run_in(network, {"127.0.0.1", text_of(http.port()), text_of(echo.port()), text_of(full.port)}, guest);
  EXPECT_EQ(expect_well(run), kHello);
}

// `spore run --network host`.
TEST(ProcessNetwork, ReachesWhatTheProcessReaches) {
  const auto network = process_network();
  ASSERT_TRUE(network) << network.error().message;
  EXPECT_LE((*network)->resolvers().size(), kResolversMax);
  TestNetwork loopback_of_this_process;
  const TcpServer server(loopback_of_this_process, AF_INET, serve_http);
  EXPECT_EQ(expect_well(run_in(*network, {"http", "127.0.0.1", text_of(server.port())})), kHello);
}

}  // namespace
}  // namespace spore::host

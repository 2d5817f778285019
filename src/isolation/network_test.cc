// The network as a Faaslet sees it, tried for real between namespaces that each test makes. Needs root.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <deque>

#include "isolation/broker.h"
#include "isolation/network_test_world.h"

namespace spore::isolation {
namespace {

using namespace std::chrono_literals;

Broker::Clock::time_point in(std::chrono::milliseconds time) { return Broker::Clock::now() + time; }

class NetworkTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto problem = network_tests_problem(); !problem.empty()) GTEST_SKIP() << problem;
    world_ = std::make_unique<NetworkTestWorld>();
  }
  void TearDown() override {
    leases_.clear();
    servers_.reset();
    pool_.reset();
    broker_.reset();
    world_.reset();
  }
  void open(NetworkLimits limits = NetworkTestWorld::limits(), size_t ready = 2) {
    broker_ = must(Broker::start(network_operations(limits)));
    pool_ = must(NetworkPool::open(*broker_, {.limits = limits, .ready = ready}));
  }
  void start_servers() {
    servers_.emplace();
    servers_->serve_in(world_->host());
    servers_->serve_in(world_->around());
    servers_->start();
  }
  NetworkLease& take(NetworkPolicy policy = {}) {
    leases_.push_back(must(pool_->take(must(pool_->prepare(std::move(policy))))));
    return leases_.back();
  }

  Guarded<std::vector<IpAddress>> name_addresses_;  // of the one name that tests have
  std::atomic<int> names_asked_ = 0;
  std::unique_ptr<NetworkTestWorld> world_;
  std::unique_ptr<Broker> broker_;
  std::unique_ptr<NetworkPool> pool_;
  std::optional<Servers> servers_;
  std::deque<NetworkLease> leases_;
};

struct Row {
  const char* to;
  uint16_t port;
  Attempt expected;
  const char* what;
};

void try_table(NetworkLease& lease, const std::vector<Row>& rows) {
  for (const Row& row : rows)
    for (const Protocol protocol : {Protocol::kTcp, Protocol::kUdp}) {
      const Attempt is = attempt(lease, protocol, ip(row.to), row.port);
      EXPECT_EQ(is, row.expected) << row.what << ": " << row.to << " port " << row.port
                                  << (protocol == Protocol::kTcp ? " TCP " : " UDP ") << to_string(is) << ", not "
                                  << to_string(row.expected);
    }
}

std::vector<Destination> both(const char* to, uint16_t first, uint16_t last) {
  return {{.addresses = range(to), .protocol = Protocol::kTcp, .port_first = first, .port_last = last},
          {.addresses = range(to), .protocol = Protocol::kUdp, .port_first = first, .port_last = last}};
}

NetworkPolicy allowing(std::initializer_list<const char*> destinations, uint16_t first = 8080, uint16_t last = 8080) {
  NetworkPolicy out;
  for (const char* to : destinations)
    for (auto& destination : both(to, first, last)) out.allow.push_back(destination);
  return out;
}

constexpr Attempt kReached = Attempt::kReached;
constexpr Attempt kRefused = Attempt::kRefused;

TEST_F(NetworkTest, WithAnAllowListReachesWhatIsOnItAndNothingElse) {
  open();
  start_servers();
  try_table(take(allowing({"10.9.0.10", "fd99::10"})),
            {
                {"10.9.0.10", 8080, kReached, "an allowed peer"},
                {"fd99::10", 8080, kReached, "an allowed peer"},
                {"10.9.0.10", 8081, kRefused, "a port that is not allowed"},
                {"fd99::10", 8081, kRefused, "a port that is not allowed"},
                {"10.9.0.11", 8080, kRefused, "a private address"},
                {"fd99::11", 8080, kRefused, "a private address"},
                {"10.9.0.1", 8080, kRefused, "the host"},
                {"fd99::1", 8080, kRefused, "the host"},
                {"192.31.196.1", 8080, kRefused, "the host's public address"},
                {"198.19.255.1", 8080, kRefused, "the host's end of the uplink"},
                {"198.18.0.1", 8080, kRefused, "the hub"},
                {"fd53:706f:7265::1", 8080, kRefused, "the hub"},
                {"169.254.169.254", 8080, kRefused, "the metadata address"},
                {"192.31.196.10", 8080, kRefused, "the Internet"},
                {"2620:4f:8000::10", 8080, kRefused, "the Internet"},
            });
}

TEST_F(NetworkTest, WithTheInternetReachesPublicAddressesAlone) {
  open();
  start_servers();
  try_table(take({.internet = true}), {
                                          {"192.31.196.10", 8080, kReached, "the Internet"},
                                          {"192.31.196.10", 8081, kReached, "any port of it"},
                                          {"2620:4f:8000::10", 8080, kReached, "the Internet"},
                                          {"192.31.196.1", 8080, kRefused, "the host's public address"},
                                          {"2620:4f:8000::1", 8080, kRefused, "the host's public address"},
                                          {"10.9.0.10", 8080, kRefused, "a private address"},
                                          {"fd99::10", 8080, kRefused, "a private address"},
                                          {"10.9.0.1", 8080, kRefused, "the host"},
                                          {"169.254.169.254", 8080, kRefused, "the metadata address"},
                                          {"224.0.0.1", 8080, kRefused, "multicast"},
                                          {"ff0e::1", 8080, kRefused, "multicast"},
                                      });
}

TEST_F(NetworkTest, TheHostIsReachedWhereItsOperatorAndThePolicySaySo) {
  NetworkLimits limits = NetworkTestWorld::limits();
  limits.reachable.push_back(range("10.9.0.1"));
  open(limits);
  start_servers();
  try_table(take(allowing({"10.9.0.1"})),
            {{"10.9.0.1", 8080, kReached, "the host"}, {"10.9.0.1", 8081, kRefused, "another port of it"}});
  try_table(take(), {{"10.9.0.1", 8080, kRefused, "the host"}});
}

TEST_F(NetworkTest, TheResolverIsReachedAtItsPortByAll) {
  NetworkLimits limits = NetworkTestWorld::limits();
  limits.resolver = ip("10.9.0.11");
  open(limits);
  start_servers();
  NetworkLease& lease = take();
  EXPECT_EQ(lease.resolver(), ip("10.9.0.11"));
  try_table(lease, {{"10.9.0.11", 53, kReached, "the resolver"}});
  try_table(lease, {{"10.9.0.11", 8080, kRefused, "another port of the resolver"}});
}

// A TCP listener and a UDP socket on port 8080 inside the lease's namespace, which would answer.
void listen_inside(NetworkLease& lease, Servers& servers, int family) {
  auto listener = must(lease.socket(family, SOCK_STREAM));
  auto datagrams = must(lease.socket(family, SOCK_DGRAM));
  const int yes = 1;
  if (family == AF_INET6)
    for (const auto* socket : {&listener, &datagrams})
      ::setsockopt(socket->get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
  const SocketAddress any(ip(family == AF_INET ? "0.0.0.0" : "::"), 8080);
  ASSERT_EQ(::bind(listener.get(), any.get(), any.size), 0) << errno;
  ASSERT_EQ(::listen(listener.get(), 8), 0) << errno;
  ASSERT_EQ(::bind(datagrams.get(), any.get(), any.size), 0) << errno;
  servers.serve(listener, datagrams);
}

TEST_F(NetworkTest, NobodyReachesAFaaslet) {
  open();
  NetworkPolicy open_to_all = allowing({"10.9.0.10", "fd99::10"}, 1, 65'535);
  open_to_all.internet = true;
  NetworkLease& listening = take(open_to_all);
  NetworkLease& other = take(open_to_all);
  servers_.emplace();
  listen_inside(listening, *servers_, AF_INET);
  listen_inside(listening, *servers_, AF_INET6);
  servers_->start();
  const std::string v4 = listening.v4().to_string();
  const std::string v6 = listening.v6()->to_string();
  // It does answer: to itself.
  try_table(listening, {{v4.c_str(), 8080, kReached, "itself"}, {v6.c_str(), 8080, kReached, "itself"}});
  try_table(other, {{v4.c_str(), 8080, kRefused, "another Faaslet"}, {v6.c_str(), 8080, kRefused, "another Faaslet"}});

  // From the host and from around it, with routes that lead there.
  auto host = must(NetlinkSocket::open());
  const auto links = must(host.links());
  const auto uplink = std::ranges::find(links, "spore0", &LinkInfo::name);
  ASSERT_NE(uplink, links.end());
  NetlinkBatch routes;
  routes.add_route(uplink->index, IpRange::of(listening.v4()));
  routes.add_route(uplink->index, IpRange::of(*listening.v6()));
  ASSERT_TRUE(host.send(routes).has_value());
  const uint64_t datagrams = servers_->datagrams();
  for (const int from : {world_->host(), world_->around()}) {
    const auto inside = must(InNetworkNamespace::enter(from));
    if (from == world_->around()) {
      auto netlink = must(NetlinkSocket::open());
      NetlinkBatch v6_route;
      v6_route.add_default_route(2, ip("fd99::1"));
      ASSERT_TRUE(netlink.send(v6_route).has_value());
    }
    for (const int type : {SOCK_STREAM, SOCK_DGRAM})
      for (const auto& to : {listening.v4(), *listening.v6()}) {
        UniqueFd socket(::socket(to.v6 ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        EXPECT_NE(attempt(socket.get(), type == SOCK_STREAM ? Protocol::kTcp : Protocol::kUdp, to, 8080, 300ms),
                  kReached)
            << (from == world_->host() ? "from the host to " : "from around the host to ") << to.to_string();
      }
  }
  EXPECT_EQ(servers_->datagrams(), datagrams) << "datagrams came in, if no answers went out";
}

TEST_F(NetworkTest, AForgedSourceAddressGoesNowhere) {
  open();
  start_servers();
  NetworkLease& other = take(allowing({"10.9.0.10", "fd99::10"}));
  NetworkLease& lease = take(allowing({"10.9.0.10", "fd99::10"}));
  // Its answer would not come back, so what counts is whether it arrives. Any process may bind a socket to an address
  // that its namespace does not have; over IPv6 the kernel then also sends from it.
  const auto arrives = [&](const IpAddress& source) {
    const IpAddress to = ip(source.v6 ? "fd99::10" : "10.9.0.10");
    const auto socket = must(lease.socket(source.v6 ? AF_INET6 : AF_INET, SOCK_DGRAM));
    const int yes = 1;
    if (source.v6)
      EXPECT_EQ(::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_FREEBIND, &yes, sizeof(yes)), 0);
    else
      EXPECT_EQ(::setsockopt(socket.get(), IPPROTO_IP, IP_FREEBIND, &yes, sizeof(yes)), 0);
    const SocketAddress from(source, 0);
    EXPECT_EQ(::bind(socket.get(), from.get(), from.size), 0);
    const uint64_t before = servers_->datagrams();
    (void)attempt(socket.get(), Protocol::kUdp, to, 8080, 10ms);
    EXPECT_EQ(attempt(other, Protocol::kUdp, to, 8080), kReached);  // sent later, arrives later
    return servers_->datagrams() - before == 2;
  };
  EXPECT_TRUE(arrives(lease.v4()));
  EXPECT_TRUE(arrives(*lease.v6()));
  for (const IpAddress& forged :
       {other.v4(), ip("10.9.0.1"), ip("192.31.196.10"), *other.v6(), ip("fd99::1"), ip("2620:4f:8000::10")})
    EXPECT_FALSE(arrives(forged)) << forged.to_string();
}

TEST_F(NetworkTest, GivesSocketsOfTcpAndUdpAlone) {
  open();
  NetworkLease& lease = take();
  for (const auto [family, type] : {std::pair<int, int>{AF_INET, SOCK_RAW},
                                    {AF_UNIX, SOCK_STREAM},
                                    {AF_PACKET, SOCK_DGRAM},
                                    {AF_NETLINK, SOCK_DGRAM},
                                    {AF_INET, SOCK_SEQPACKET},
                                    {-1, -1},
                                    {AF_INET, SOCK_STREAM | 0x100}}) {
    const auto socket = lease.socket(family, type);
    ASSERT_FALSE(socket.has_value()) << family << " " << type;
    EXPECT_EQ(socket.error().code, ErrorCode::kInvalidArgument);
  }
  const auto socket = must(lease.socket(AF_INET6, SOCK_DGRAM));
  EXPECT_TRUE(::fcntl(socket.get(), F_GETFL) & O_NONBLOCK);
  EXPECT_TRUE(::fcntl(socket.get(), F_GETFD) & FD_CLOEXEC);
}

TEST_F(NetworkTest, CountsSockets) {
  open();
  NetworkLease& lease = take({.sockets_max = 3});
  std::vector<LeasedSocket> open_sockets;
  for (int i = 0; i < 3; ++i) open_sockets.push_back(must(lease.socket(AF_INET, SOCK_STREAM)));
  const auto fourth = lease.socket(AF_INET, SOCK_STREAM);
  ASSERT_FALSE(fourth.has_value());
  EXPECT_EQ(fourth.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(fourth.error().message, "all 3 sockets of this call are open");
  EXPECT_FALSE(lease.adopt(UniqueFd(::dup(0))).has_value());
  open_sockets.pop_back();
  EXPECT_TRUE(lease.adopt(UniqueFd(::dup(0))).has_value());
  EXPECT_TRUE(lease.socket(AF_INET, SOCK_STREAM).has_value());
}

TEST_F(NetworkTest, EqualPoliciesShareTheirRules) {
  NetworkLimits limits = NetworkTestWorld::limits();
  limits.policies_max = 3;
  open(limits);
  const auto first = must(pool_->prepare(allowing({"10.9.0.10"})));
  EXPECT_EQ(must(pool_->prepare(allowing({"10.9.0.10"}))), first);
  NetworkPolicy few_sockets = allowing({"10.9.0.10"});
  few_sockets.sockets_max = 1;
  const auto second = must(pool_->prepare(few_sockets));
  EXPECT_NE(second, first);
  {
    const auto third = must(pool_->prepare({.internet = true}));
    const auto fourth = pool_->prepare({});
    ASSERT_FALSE(fourth.has_value());
    EXPECT_EQ(fourth.error().message, "all 3 network policies are in use");
  }
  EXPECT_TRUE(pool_->prepare({}).has_value());  // the third one's rules have gone with it
}

TEST_F(NetworkTest, PoliciesBeyondTheHostsLimitsAreRefused) {
  open();
  const auto refused = pool_->prepare(allowing({"10.9.0.11"}));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(refused.error().message,
            "10.9.0.11/32 tcp 8080-8080: private addresses that this host does not let functions reach");
  EXPECT_FALSE(pool_->prepare(allowing({"169.254.169.254"})).has_value());
}

TEST_F(NetworkTest, NamesAreAllowedByTheAddressesTheyHaveNow) {
  const NetworkLimits limits = NetworkTestWorld::limits();
  broker_ = must(Broker::start(network_operations(limits)));
  pool_ =
      must(NetworkPool::open(*broker_, {.limits = limits,
                                        .ready = 2,
                                        .resolve = [this](const std::string& name) -> Result<std::vector<IpAddress>> {
                                          ++names_asked_;
                                          if (name != "peer.test") return fail(ErrorCode::kNotFound, "no such name");
                                          return *name_addresses_.lock();
                                        },
                                        .resolve_every = 5ms}));
  start_servers();
  const auto asked_again = [this] {
    const int before = names_asked_;
    while (names_asked_ < before + 6) ::poll(nullptr, 0, 1);  // two rounds of two names, and the one that was going on
  };
  NetworkPolicy policy = allowing({"fd99::10"});
  for (const Protocol protocol : {Protocol::kTcp, Protocol::kUdp})
    policy.allow_names.push_back({.name = "peer.test", .protocol = protocol, .port_first = 8080, .port_last = 8080});
  NetworkLease& lease = take(policy);
  try_table(lease, {{"10.9.0.10", 8080, kRefused, "before"}, {"fd99::10", 8080, kReached, "the policy's own"}});
  // An address that the host does not allow is left out, whatever the name's server says.
  *name_addresses_.lock() = {ip("10.9.0.11"), ip("10.9.0.10"), ip("169.254.169.254"), ip("127.0.0.1")};
  asked_again();
  try_table(lease, {{"10.9.0.10", 8080, kReached, "a name's address"},
                    {"10.9.0.10", 8081, kRefused, "another port of it"},
                    {"10.9.0.11", 8080, kRefused, "a name's private address"},
                    {"169.254.169.254", 8080, kRefused, "a name's metadata address"},
                    {"fd99::10", 8080, kReached, "the policy's own"}});
  name_addresses_.lock()->clear();
  asked_again();
  asked_again();
  try_table(lease, {{"10.9.0.10", 8080, kRefused, "after"}, {"fd99::10", 8080, kReached, "the policy's own"}});
}

TEST_F(NetworkTest, AReleasedNamespaceIsCutOffAlsoForOpenSockets) {
  open();
  start_servers();
  auto policy = must(pool_->prepare(allowing({"10.9.0.10"}, 8080, 9001)));
  auto lease = std::make_optional(must(pool_->take(policy)));
  const auto stream = must(lease->socket(AF_INET, SOCK_STREAM));
  const auto datagrams = must(lease->socket(AF_INET, SOCK_DGRAM));
  EXPECT_EQ(attempt(datagrams.get(), Protocol::kUdp, ip("10.9.0.10"), 8080), kReached);
  const SocketAddress source(ip("10.9.0.10"), 9001);
  ::connect(stream.get(), source.get(), source.size);
  pollfd ready{stream.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, 2'000), 1);
  lease.reset();
  (void)must(pool_->prepare({}));  // the broker has done what was asked before
  EXPECT_NE(attempt(datagrams.get(), Protocol::kUdp, ip("10.9.0.10"), 8080, 200ms), kReached);
  std::vector<char> buffer(1 << 20);
  while (::recv(stream.get(), buffer.data(), buffer.size(), 0) > 0) {
  }
  EXPECT_EQ(::poll(&ready, 1, 300), 0);  // what was on its way has come; there is no more
}

TEST_F(NetworkTest, ConnectionsOfAnAddressAreForgottenBeforeItIsUsedAgain) {
  NetworkLimits limits = NetworkTestWorld::limits();
  limits.namespaces_max = 3;
  limits.addresses = 4;
  open(limits, 0);
  start_servers();
  const SocketAddress from(ip("0.0.0.0"), 4'000);
  auto allowed = must(pool_->prepare(allowing({"10.9.0.10"})));
  auto nothing = must(pool_->prepare({}));
  IpAddress first;
  {
    NetworkLease lease = must(pool_->take(allowed));
    first = lease.v4();
    const auto socket = must(lease.socket(AF_INET, SOCK_DGRAM));
    ASSERT_EQ(::bind(socket.get(), from.get(), from.size), 0);
    ASSERT_EQ(attempt(socket.get(), Protocol::kUdp, ip("10.9.0.10"), 8080), kReached);
  }
  for (int round = 0; round < 20; ++round) {
    auto lease = pool_->take(nothing);
    if (!lease) {  // the last ones are being removed
      ::poll(nullptr, 0, 50);
      continue;
    }
    if (lease->v4() != first) continue;
    const auto socket = must(lease->socket(AF_INET, SOCK_DGRAM));
    ASSERT_EQ(::bind(socket.get(), from.get(), from.size), 0);
    EXPECT_NE(attempt(socket.get(), Protocol::kUdp, ip("10.9.0.10"), 8080), kReached);
    return;
  }
  FAIL() << "the address was not used again";
}

TEST_F(NetworkTest, NamespacesHaveALimitAndComeBack) {
  NetworkLimits limits = NetworkTestWorld::limits();
  limits.namespaces_max = 4;
  open(limits, 0);
  auto policy = must(pool_->prepare({}));
  for (int i = 0; i < 4; ++i) leases_.push_back(must(pool_->take(policy)));
  const auto fifth = pool_->take(policy);
  ASSERT_FALSE(fifth.has_value());
  EXPECT_EQ(fifth.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(fifth.error().message, "all 4 network namespaces are in use, 0 of them being removed");
  leases_.clear();
  const auto until = Broker::Clock::now() + 10s;
  while (Broker::Clock::now() < until) {
    if (pool_->take(policy)) return;
    ::poll(nullptr, 0, 20);
  }
  FAIL() << "no namespace came back";
}

TEST_F(NetworkTest, FiveHundredAtOnce) {
  open(NetworkTestWorld::limits(), 16);
  start_servers();
  auto policy = must(pool_->prepare(allowing({"10.9.0.10", "fd99::10"})));
  for (int i = 0; i < 500; ++i) leases_.push_back(must(pool_->take(policy)));
  for (size_t i = 0; i < leases_.size(); i += 25) {
    EXPECT_EQ(attempt(leases_[i], Protocol::kTcp, ip("10.9.0.10"), 8080), kReached) << i;
    EXPECT_EQ(attempt(leases_[i], Protocol::kUdp, ip("fd99::10"), 8080), kReached) << i;
  }
}

// A link that is up is not yet one that sends.
TEST_F(NetworkTest, TheFirstDatagramOfANewNamespaceIsAnswered) {
  open(NetworkTestWorld::limits(), 0);
  start_servers();
  auto policy = must(pool_->prepare(allowing({"10.9.0.10", "fd99::10"})));
  for (int i = 0; i < 20; ++i) {
    leases_.push_back(must(pool_->take(policy)));
    EXPECT_EQ(attempt(leases_.back(), Protocol::kUdp, ip(i % 2 == 0 ? "10.9.0.10" : "fd99::10"), 8080), kReached) << i;
  }
}

TEST_F(NetworkTest, ConnectionsOfOneFaasletAreLimited) {
  NetworkLimits limits = NetworkTestWorld::limits();
  limits.connections_max = 20;
  open(limits);
  start_servers();
  NetworkLease& greedy = take(allowing({"10.9.0.10"}));
  NetworkLease& other = take(allowing({"10.9.0.10"}));
  int reached = 0;
  for (int i = 0; i < 40; ++i) reached += attempt(greedy, Protocol::kUdp, ip("10.9.0.10"), 8080) == kReached;
  EXPECT_EQ(reached, 20);
  EXPECT_EQ(attempt(other, Protocol::kUdp, ip("10.9.0.10"), 8080), kReached);
}

// With a wide margin, as machines are busy; bench/isolation prints what it is.
TEST_F(NetworkTest, RatesHoldBothWays) {
  open();
  start_servers();
  NetworkPolicy policy = allowing({"10.9.0.10"}, 9000, 9001);
  policy.egress_bits_per_second = 10'000'000;
  policy.ingress_bits_per_second = 5'000'000;
  NetworkLease& lease = take(policy);
  const double egress = measure_mbit_per_second(lease, *servers_, ip("10.9.0.10"), true, 1'500ms);
  EXPECT_GT(egress, 6.0);
  EXPECT_LT(egress, 11.0);
  const double ingress = measure_mbit_per_second(lease, *servers_, ip("10.9.0.10"), false, 1'500ms);
  EXPECT_GT(ingress, 3.0);
  EXPECT_LT(ingress, 5.5);
}

// ---- what the broker refuses, whoever asks --------------------------------------------------------------------------

TEST_F(NetworkTest, TheBrokerRefusesWhatIsMalformedOrOutOfTurn) {
  open(NetworkTestWorld::limits(), 0);
  const auto ask = [&](const char* operation, const Bytes& request) {
    return broker_->call(operation, request, in(5s));
  };
  for (const char* operation : {"network.attach", "network.socket", "network.release", "network.add_policy",
                                "network.change_policy", "network.remove_policy"})
    for (const size_t size : {0, 1, 7, 11, 13, 100, 60'000}) {
      EXPECT_FALSE(ask(operation, Bytes(size)).has_value()) << operation << " " << size;
      EXPECT_FALSE(ask(operation, Bytes(size, 0xff)).has_value()) << operation << " " << size;
    }
  EXPECT_FALSE(ask("network.make", Bytes(1)).has_value());

  const auto made = ask("network.make", {});
  ASSERT_TRUE(made.has_value()) << made.error().message;
  const Bytes id(made->bytes.begin(), made->bytes.begin() + 12);
  const auto with = [&](std::initializer_list<uint32_t> more) {
    ByteWriter writer;
    for (const uint8_t byte : id) writer.write(byte);
    for (const uint32_t word : more) writer.write(word);
    return writer.take();
  };
  const auto early = ask("network.socket", with({AF_INET, SOCK_STREAM}));
  ASSERT_FALSE(early.has_value());
  EXPECT_EQ(early.error().message, "the network namespace has no policy yet");
  for (const uint32_t policy : {0u, 1u, 2u, 0xffffffffu})  // 1 is the uplink's group
    EXPECT_FALSE(ask("network.attach", with({policy})).has_value()) << policy;
  const auto policy = ask("network.add_policy", serialize({}));
  ASSERT_TRUE(policy.has_value());
  const auto number = ByteReader(policy->bytes).read<uint32_t>();
  ASSERT_TRUE(ask("network.attach", with({number})).has_value());
  EXPECT_FALSE(ask("network.attach", with({number})).has_value());        // once
  EXPECT_FALSE(ask("network.remove_policy", policy->bytes).has_value());  // in use
  ASSERT_TRUE(ask("network.release", with({})).has_value());
  EXPECT_FALSE(ask("network.release", with({})).has_value());
  EXPECT_FALSE(ask("network.socket", with({AF_INET, SOCK_STREAM})).has_value());
  EXPECT_TRUE(ask("network.remove_policy", policy->bytes).has_value());
}

TEST_F(NetworkTest, ItsDeathIsAClearErrorAndCutsAllOff) {
  open();
  start_servers();
  NetworkLease& lease = take(allowing({"10.9.0.10"}));
  const auto socket = must(lease.socket(AF_INET, SOCK_DGRAM));
  EXPECT_EQ(attempt(socket.get(), Protocol::kUdp, ip("10.9.0.10"), 8080), kReached);
  ::kill(broker_->pid(), SIGKILL);
  const auto policy = pool_->prepare({});
  ASSERT_FALSE(policy.has_value());
  EXPECT_EQ(policy.error().code, ErrorCode::kUnavailable);
  EXPECT_FALSE(lease.socket(AF_INET, SOCK_STREAM).has_value());
  const auto until = Broker::Clock::now() + 10s;
  while (Broker::Clock::now() < until)
    if (attempt(socket.get(), Protocol::kUdp, ip("10.9.0.10"), 8080, 100ms) != kReached) return;
  FAIL() << "its sockets still reach others";
}

// ---- what is left behind --------------------------------------------------------------------------------------------

size_t links_of_spore() {
  auto netlink = must(NetlinkSocket::open());
  const auto links = must(netlink.links());
  return std::ranges::count_if(links, [](const LinkInfo& link) { return link.name.starts_with("spore"); });
}

std::string tables() { return must(must(Firewall::open()).list("list tables")); }

bool nothing_left_soon() {
  const auto until = Broker::Clock::now() + 10s;
  while (Broker::Clock::now() < until) {
    if (links_of_spore() == 0 && !tables().contains("spore")) return true;
    ::poll(nullptr, 0, 20);
  }
  return false;
}

TEST_F(NetworkTest, AnOrderlyEndLeavesNothing) {
  open();
  take({.internet = true});
  EXPECT_EQ(links_of_spore(), 1u);
  leases_.clear();
  pool_.reset();
  broker_.reset();
  EXPECT_EQ(links_of_spore(), 0u);
  EXPECT_FALSE(tables().contains("spore")) << tables();
}

TEST_F(NetworkTest, AKillOfBothProcessesLeavesNothing) {
  int report[2];
  ASSERT_EQ(::pipe2(report, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    open();
    auto policy = must(pool_->prepare({.internet = true}));
    std::vector<NetworkLease> leases;
    std::vector<LeasedSocket> sockets;
    for (int i = 0; i < 20; ++i) {
      leases.push_back(must(pool_->take(policy)));
      sockets.push_back(must(leases.back().socket(AF_INET, SOCK_STREAM)));
    }
    const pid_t pid = broker_->pid();
    (void)!::write(report[1], &pid, sizeof(pid));
    for (;;) ::pause();
  }
  pid_t broker = 0;
  ASSERT_EQ(::read(report[0], &broker, sizeof(broker)), static_cast<ssize_t>(sizeof(broker)));
  EXPECT_EQ(links_of_spore(), 1u);
  ::kill(broker, SIGKILL);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(nothing_left_soon()) << tables();
  for (const int fd : report) ::close(fd);
}

TEST_F(NetworkTest, WhatADeadOwnerLeftIsRemovedAndALivingOnesIsNot) {
  // Neither can come to be by itself: the kernel removes what a killed owner had.
  const std::string pid_namespace = std::to_string([] {
    struct stat info{};
    ::stat("/proc/self/ns/pid", &info);
    return info.st_ino;
  }());
  const std::string dead =
      "spore_" + pid_namespace + "_" + std::to_string(::getpid()) + "_1";  // another process's pid once
  const std::string elsewhere = "spore_1_" + std::to_string(::getpid()) + "_1";
  auto netlink = must(NetlinkSocket::open());
  NetlinkBatch batch;
  batch.add_veth({.name = "spore999", .index = 60}, {.name = "x", .index = 3}, world_->around());
  batch.add_veth({.name = "spore998", .index = 61}, {.name = "y", .index = 4}, world_->around());
  batch.set_alias(60, dead);
  batch.set_alias(61, elsewhere);
  ASSERT_TRUE(netlink.send(batch).has_value());
  ASSERT_TRUE(must(Firewall::open()).run("add table inet " + dead + "\nadd table inet " + elsewhere).has_value());
  open();
  const auto links = must(netlink.links());
  EXPECT_EQ(std::ranges::count(links, "spore999", &LinkInfo::name), 0);
  EXPECT_EQ(std::ranges::count(links, "spore998", &LinkInfo::name), 1);
  EXPECT_FALSE(tables().contains(dead));
  EXPECT_TRUE(tables().contains(elsewhere));
}

TEST_F(NetworkTest, TwoSporesOnOneHostDoNotMeet) {
  auto other_broker = must(Broker::start(network_operations(NetworkTestWorld::limits())));
  open();
  auto other_pool = must(NetworkPool::open(*other_broker, {.limits = NetworkTestWorld::limits(), .ready = 1}));
  start_servers();
  const NetworkPolicy policy = allowing({"10.9.0.10"});
  NetworkLease& lease = take(policy);
  NetworkLease other = must(other_pool->take(must(other_pool->prepare(policy))));
  try_table(lease, {{"10.9.0.10", 8080, kReached, "an allowed peer"}});
  try_table(other, {{"10.9.0.10", 8080, kReached, "an allowed peer"}});
}

TEST_F(NetworkTest, WithoutForwardingItSaysSo) {
  ASSERT_TRUE(set_sysctl("net/ipv4/ip_forward", "0").has_value());
  open();
  EXPECT_EQ(pool_->stats().v4_problem, "the host does not forward (/proc/sys/net/ipv4/ip_forward is 0)");
  EXPECT_EQ(pool_->stats().v6_problem, "");
  start_servers();
  // And refuses at once, rather than letting guests wait.
  try_table(take({.internet = true}), {{"192.31.196.10", 8080, kRefused, "the Internet over IPv4"},
                                       {"2620:4f:8000::10", 8080, kReached, "the Internet over IPv6"}});
}

TEST(Network, WithoutTheRightToIsAnErrorThatSaysWhy) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give it up";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::setuid(65'534) != 0) ::_exit(2);
    auto broker = Broker::start(network_operations({}));
    const auto pool = NetworkPool::open(**broker, {});
    const bool said = !pool && pool.error().message.starts_with("Network is not available: ") &&
                      pool.error().message.contains("not permitted");
    if (!said) std::fprintf(stderr, "%s\n", pool ? "it is" : pool.error().message.c_str());
    ::_exit(said ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace spore::isolation

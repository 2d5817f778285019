// Redis that is away, slow, full, read-only or not ours: errors that say so, within the deadline, and work that goes on
// with the same RedisTier once Redis is back.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "base/fd.h"
#include "state/global_tier_conformance.h"
#include "state/redis_test_server.h"
#include "state/redis_tier.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;

Deadline in(milliseconds time) { return Clock::now() + time; }
Deadline soon() { return in(std::chrono::seconds(60)); }
const ValueId kId{.tenant = "t", .key = "k"};

std::unique_ptr<RedisTier> connect(const std::string& url, RedisOptions options = {}) {
  auto tier = RedisTier::connect(url, std::move(options));
  EXPECT_TRUE(tier) << tier.error().message;
  return tier ? std::move(*tier) : nullptr;
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Stands before a Redis. Once told to, it cuts: a connection, half way through a request or after the answer came and
// before it is passed on, whenever it has passed on what it drew beforehand.
class CuttingProxy {
 public:
  explicit CuttingProxy(int redis_port, uint64_t seed) : redis_port_(redis_port), random_(seed) {
    listener_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 64), 0);
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~CuttingProxy() {
    stop_ = true;
    thread_.join();
  }
  int port() const { return port_; }
  void cut(bool on) { cutting_ = on; }
  uint64_t cut_before_answer() const { return cut_before_answer_; }
  uint64_t cut_in_request() const { return cut_in_request_; }

 private:
  struct Link {
    UniqueFd client, redis;
    uint64_t events_left = 0;
    bool to_redis = false;
  };

  // False: the link is at its end.
  bool pass(Link& link, bool to_redis) {
    uint8_t bytes[4096];
    const int from = to_redis ? link.client.get() : link.redis.get();
    const int to = to_redis ? link.redis.get() : link.client.get();
    const ssize_t count = ::read(from, bytes, sizeof bytes);
    if (count <= 0) return false;
    // A request is one event, and its answer another, in however many pieces they come.
    const bool begins = link.to_redis != to_redis;
    link.to_redis = to_redis;
    const bool now = cutting_ && begins && link.events_left-- == 0;
    if (now && to_redis) {
      ++cut_in_request_;
      (void)::send(to, bytes, static_cast<size_t>(count) / 2, MSG_NOSIGNAL);
      return false;
    }
    if (now) {
      ++cut_before_answer_;
      return false;
    }
    return ::send(to, bytes, static_cast<size_t>(count), MSG_NOSIGNAL) == count;
  }

  void run() {
    std::vector<Link> links;
    while (!stop_) {
      std::vector<pollfd> polled{{listener_.get(), POLLIN, 0}};
      for (const Link& link : links) {
        polled.push_back({link.client.get(), POLLIN, 0});
        polled.push_back({link.redis.get(), POLLIN, 0});
      }
      ::poll(polled.data(), polled.size(), 20);
      for (size_t i = links.size(); i-- > 0;) {
        bool good = true;
        if (polled[1 + 2 * i].revents) good = pass(links[i], true);
        if (good && polled[2 + 2 * i].revents) good = pass(links[i], false);
        if (!good) links.erase(links.begin() + static_cast<ptrdiff_t>(i));
      }
      if (polled[0].revents) {
        Link link;
        link.client = UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        link.redis = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const sockaddr_in address = loopback(redis_port_);
        if (::connect(link.redis.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) continue;
        // 0: the request; 1: its answer. Three of four before the answer.
        link.events_left = random_() % 4 == 0 ? 0 : 1 + 2 * (random_() % 4);
        links.push_back(std::move(link));
      }
    }
  }

  const int redis_port_;
  std::mt19937_64 random_;
  UniqueFd listener_;
  int port_ = 0;
  std::atomic<bool> stop_ = false, cutting_ = false;
  std::atomic<uint64_t> cut_before_answer_ = 0, cut_in_request_ = 0;
  std::thread thread_;
};

Bytes one_at(size_t index) {
  Bytes out(64, 0);
  out[index * 8] = 1;
  return out;
}

class RedisFailure : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = RedisTestServer::start();
    if (!server_) GTEST_SKIP() << "there is no redis-server";
  }
  std::unique_ptr<RedisTestServer> server_;
};

}  // namespace

TEST_F(RedisFailure, ConnectionsCutAThousandTimesLoseAndDoubleNothing) {
  CuttingProxy proxy(server_->port(), 1);
  auto tier = connect("redis://127.0.0.1:" + std::to_string(proxy.port()));
  ASSERT_TRUE(tier);
  ASSERT_TRUE(tier->push(kId, {.size_bytes = 64}, soon()));
  proxy.cut(true);
  std::atomic<uint64_t> named = 0;
  std::atomic<int64_t> doubtful = 0, certain = 0;
  std::vector<std::jthread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const Bytes one = one_at(t);
      for (uint64_t i = 0; proxy.cut_before_answer() < 1000; ++i) {
        Push add{.patches = {{.offset = 0, .bytes = one}}, .merge = MergeOp::kSum, .element = Element::kI64};
        if (t < 3) {
          add.once = std::to_string(t) + "/" + std::to_string(i);
          const auto pushed = tier->push(kId, add, soon());
          ASSERT_TRUE(pushed) << pushed.error().message;
          ++named;
        } else if (const auto pushed = tier->push(kId, add, soon())) {
          ++certain;
        } else {
          // Without a name it is not tried again, and says that it may have happened.
          ASSERT_EQ(code_of(pushed), to_string(ErrorCode::kDeadlineExceeded)) << pushed.error().message;
          ++doubtful;
        }
      }
    });
  threads.clear();
  proxy.cut(false);
  auto pin = tier->pin(kId, soon());
  ASSERT_TRUE(pin);
  int64_t sums[8];
  ASSERT_TRUE((*pin)->read(0, {reinterpret_cast<uint8_t*>(sums), 64}, soon()));
  EXPECT_EQ(static_cast<uint64_t>(sums[0] + sums[1] + sums[2]), named);
  EXPECT_GE(sums[3], certain);
  EXPECT_LE(sums[3], certain + doubtful);
  EXPECT_GT(doubtful, 0);
  EXPECT_GE(proxy.cut_before_answer(), 1000u);
  EXPECT_GT(proxy.cut_in_request(), 100u);
}

TEST_F(RedisFailure, CutsHurtNothingElseEither) {
  CuttingProxy proxy(server_->port(), 2);
  auto tier = connect("redis://127.0.0.1:" + std::to_string(proxy.port()));
  ASSERT_TRUE(tier);
  proxy.cut(true);
  const Bytes bytes = noise(2 * kChunkBytes, 3);
  for (int i = 0; i < 20; ++i) {
    const ValueId id{.tenant = "t", .key = std::to_string(i)};
    ASSERT_TRUE(tier->push(id, {.patches = {{.offset = 0, .bytes = bytes}}, .size_bytes = bytes.size(), .once = "make"},
                           soon()));
    auto pin = tier->pin(id, soon());
    ASSERT_TRUE(pin);
    Bytes to(5000);
    ASSERT_TRUE((*pin)->read(kChunkBytes - 2500, to, soon()));
    ASSERT_TRUE(std::equal(to.begin(), to.end(), bytes.begin() + kChunkBytes - 2500));
    auto grant = tier->try_lock(id, LockMode::kWrite, "me", milliseconds(60'000), soon());
    ASSERT_TRUE(grant && *grant);
    EXPECT_FALSE(*tier->try_lock(id, LockMode::kWrite, "other", milliseconds(60'000), soon()));
    ASSERT_TRUE(tier->unlock(id, "me", soon()));
    if (i % 2 == 0) ASSERT_TRUE(tier->remove(id, std::nullopt, soon()));
  }
  auto page = tier->list("t", "", "", 100, soon());
  ASSERT_TRUE(page);
  EXPECT_EQ(page->entries.size(), 10u);
  EXPECT_EQ(tier->usage("t", soon())->bytes, 10 * bytes.size());
  EXPECT_GT(proxy.cut_before_answer(), 50u);
}

TEST_F(RedisFailure, ARedisThatStopsIsAnErrorAtTheDeadlineAndWorksAgainAfterwards) {
  auto tier = connect(server_->url());
  ASSERT_TRUE(tier);
  ASSERT_TRUE(tier->push(kId, {.append = as_bytes("0")}, soon()));
  server_->signal(SIGSTOP);
  const auto begin = Clock::now();
  EXPECT_FAILS(tier->describe(kId, in(milliseconds(200))), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier->push(kId, {.append = as_bytes("1")}, in(milliseconds(200))), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier->push(kId, {.append = as_bytes("2"), .once = "n"}, in(milliseconds(200))),
               ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier->list("t", "", "", 10, in(milliseconds(200))), ErrorCode::kDeadlineExceeded);
  EXPECT_LT(Clock::now() - begin, milliseconds(3000));
  std::jthread later([&] { server_->signal(SIGCONT); });
  ASSERT_TRUE(tier->push(kId, {.append = as_bytes("2"), .once = "n"}, soon()));
  later.join();
  auto pin = tier->pin(kId, soon());
  ASSERT_TRUE(pin);
  // What was sent before may have been carried out, the named one once.
  Bytes to((*pin)->manifest().size_bytes);
  ASSERT_TRUE((*pin)->read(0, to, soon()));
  EXPECT_EQ(std::count(to.begin(), to.end(), '2'), 1);
}

TEST_F(RedisFailure, ARedisThatIsKilledIsUnavailableAndWorksAgainAfterwards) {
  auto tier = connect(server_->url());
  ASSERT_TRUE(tier);
  ASSERT_TRUE(tier->push(kId, {.append = as_bytes("0")}, soon()));
  server_->kill();
  auto there = tier->describe(kId, in(milliseconds(200)));
  EXPECT_FAILS(there, ErrorCode::kUnavailable);
  EXPECT_NE(there.error().message.find("Connection refused"), std::string::npos) << there.error().message;
  EXPECT_FAILS(tier->push(kId, {.append = as_bytes("0")}, in(milliseconds(200))), ErrorCode::kUnavailable);
  // Asked while it is away: answered once it is back. Its scripts are unknown to it then, and its values gone.
  std::jthread asking([&] { EXPECT_FAILS(tier->describe(kId, soon()), ErrorCode::kNotFound); });
  ASSERT_TRUE(server_->start_again());
  asking.join();
  EXPECT_TRUE(tier->push(kId, {.append = as_bytes("1")}, soon()));
}

TEST_F(RedisFailure, ANewConnectionIsRefusedInWords) {
  const std::string url = server_->url();
  server_->kill();
  auto tier = RedisTier::connect(url);
  EXPECT_EQ(code_of(tier), to_string(ErrorCode::kUnavailable));
  EXPECT_NE(tier.error().message.find("Connection refused"), std::string::npos) << tier.error().message;
  EXPECT_FAILS(RedisTier::connect("redis://no-such-host.invalid"), ErrorCode::kUnavailable);
  EXPECT_FAILS(RedisTier::connect("redis://h:x"), ErrorCode::kInvalidArgument);
}

TEST_F(RedisFailure, AReplicaIsReadOnlyUntilItIsPromoted) {
  auto main_server = RedisTestServer::start({.arguments = {"--repl-diskless-sync-delay", "0"}});
  ASSERT_TRUE(main_server);
  auto tier = connect(server_->url());
  ASSERT_TRUE(tier);
  ASSERT_TRUE(tier->push(kId, {.append = as_bytes("0")}, soon()));
  server_->ask({"REPLICAOF", "127.0.0.1", std::to_string(main_server->port())});
  const Deadline linked_by = soon();
  while (server_->ask({"INFO", "replication"}).find("master_link_status:up") == std::string::npos)
    ASSERT_LT(Clock::now(), linked_by);
  auto pushed = tier->push(kId, {.append = as_bytes("0")}, soon());
  EXPECT_FAILS(pushed, ErrorCode::kUnavailable);
  EXPECT_NE(pushed.error().message.find("READONLY"), std::string::npos) << pushed.error().message;
  EXPECT_FAILS(tier->describe(kId, soon()), ErrorCode::kNotFound);  // it has what its master has
  server_->ask({"REPLICAOF", "NO", "ONE"});
  EXPECT_TRUE(tier->push(kId, {.append = as_bytes("0")}, soon()));
}

TEST_F(RedisFailure, AFullRedisRefusesPushesAndLosesNothing) {
  auto tier = connect(server_->url());
  ASSERT_TRUE(tier);
  const Bytes bytes = noise(20 * kChunkBytes, 1);
  ASSERT_TRUE(tier->push(kId, {.patches = {{.offset = 0, .bytes = bytes}}, .size_bytes = bytes.size()}, soon()));
  server_->ask({"CONFIG", "SET", "maxmemory", "1mb"});
  auto pushed = tier->push(kId, {.append = as_bytes("0")}, soon());
  EXPECT_FAILS(pushed, ErrorCode::kResourceExhausted);
  EXPECT_NE(pushed.error().message.find("maxmemory"), std::string::npos) << pushed.error().message;
  const Bytes large = noise(10 << 20, 2);
  EXPECT_FAILS(tier->push({"t", "new"}, {.append = ByteSpan(large)}, soon()), ErrorCode::kResourceExhausted);
  EXPECT_EQ(tier->describe(kId, soon())->size_bytes, bytes.size());
  // Room can be made, and used again.
  EXPECT_TRUE(tier->remove(kId, std::nullopt, soon()));
  server_->ask({"CONFIG", "SET", "maxmemory", "100mb"});
  EXPECT_TRUE(tier->push({"t", "new"}, {.append = ByteSpan(large)}, soon()));
}

TEST_F(RedisFailure, ADiskThatFailsIsUnavailable) {
  auto tier = connect(server_->url());
  ASSERT_TRUE(tier);
  // A snapshot that cannot be written.
  server_->ask({"CONFIG", "SET", "save", "3600 1"});
  std::filesystem::create_directory(server_->directory() / "dump.rdb");
  ASSERT_TRUE(tier->push(kId, {.append = as_bytes("0")}, soon()));
  server_->ask({"BGSAVE"});
  const Deadline failed_by = soon();
  while (server_->ask({"INFO", "persistence"}).find("rdb_last_bgsave_status:err") == std::string::npos)
    ASSERT_LT(Clock::now(), failed_by);
  auto pushed = tier->push(kId, {.append = as_bytes("0")}, soon());
  EXPECT_FAILS(pushed, ErrorCode::kUnavailable);
  EXPECT_NE(pushed.error().message.find("MISCONF"), std::string::npos) << pushed.error().message;
  std::filesystem::remove(server_->directory() / "dump.rdb");
  server_->ask({"SAVE"});
  EXPECT_TRUE(tier->push(kId, {.append = as_bytes("0")}, soon()));
}

TEST(RedisAccess, PasswordsAreNeededAndNotTold) {
  auto server = RedisTestServer::start({.arguments = {"--requirepass", "s3cret/pw"}});
  if (!server) GTEST_SKIP() << "there is no redis-server";
  const std::string host = "127.0.0.1:" + std::to_string(server->port());
  const auto refused = [&](const std::string& login, const char* words) {
    auto tier = RedisTier::connect("redis://" + login + host);
    ASSERT_EQ(code_of(tier), to_string(ErrorCode::kPermissionDenied)) << login;
    EXPECT_NE(tier.error().message.find(words), std::string::npos) << tier.error().message;
    EXPECT_NE(tier.error().message.find(host), std::string::npos) << tier.error().message;
    EXPECT_EQ(tier.error().message.find("wr0ng"), std::string::npos) << tier.error().message;
  };
  refused("", "NOAUTH");
  refused(":wr0ng@", "WRONGPASS");
  refused("nobody:wr0ng@", "WRONGPASS");
  auto tier = connect("redis://:s3cret%2Fpw@" + host);
  ASSERT_TRUE(tier);
  EXPECT_EQ(tier->name(), "redis://" + host);
  EXPECT_TRUE(tier->push(kId, {.append = as_bytes("0")}, soon()));
  // A user who may not do what is needed.
  auto made = run_program({"redis-cli", "-p", std::to_string(server->port()), "--no-auth-warning", "-a", "s3cret/pw",
                           "ACL", "SETUSER", "reader", "on", ">wr0ng", "~*", "+@read", "+info", "+@connection"});
  ASSERT_EQ(made.output, "OK\n");
  auto reader = connect("redis://reader:wr0ng@" + host);
  ASSERT_TRUE(reader);
  EXPECT_TRUE(reader->describe(kId, soon()));
  auto pushed = reader->push(kId, {.append = as_bytes("0")}, soon());
  EXPECT_FAILS(pushed, ErrorCode::kPermissionDenied);
  EXPECT_NE(pushed.error().message.find("NOPERM"), std::string::npos) << pushed.error().message;
  // A password where none is set: said, rather than ignored.
  auto open = RedisTestServer::start();
  EXPECT_FAILS(RedisTier::connect("redis://u:wr0ng@127.0.0.1:" + std::to_string(open->port())),
               ErrorCode::kPermissionDenied);
}

TEST(RedisAccess, TlsVerifiesTheServer) {
  auto server = RedisTestServer::start({.tls = true});
  auto other = RedisTestServer::start({.tls = true, .server_name = "elsewhere.test"});
  if (!server || !other) GTEST_SKIP() << "there is no redis-server";
  const auto with = [](const std::filesystem::path& ca, const std::string& name = "") {
    RedisOptions options;
    options.client.tls = {.ca_file = ca.string(), .certificate_file = "", .key_file = "", .server_name = name};
    return options;
  };
  const auto ca = server->directory() / "cert.pem", other_ca = other->directory() / "cert.pem";
  auto tier = connect(server->url(), with(ca));
  ASSERT_TRUE(tier);
  const Bytes bytes = noise(20 << 20, 1);
  ASSERT_TRUE(tier->push(kId, {.append = ByteSpan(bytes)}, soon()));
  auto pin = tier->pin(kId, soon());
  ASSERT_TRUE(pin);
  Bytes to(bytes.size());
  ASSERT_TRUE((*pin)->read(0, to, soon()));
  EXPECT_TRUE(to == bytes);
  const auto refused = [](const std::string& url, const RedisOptions& options, const char* words) {
    auto result = RedisTier::connect(url, options);
    ASSERT_FALSE(result) << words;
    EXPECT_NE(result.error().message.find(words), std::string::npos) << result.error().message;
  };
  refused(server->url(), with(other_ca), "certificate");  // signed by somebody else
  refused(server->url(), with(""), "certificate");        // the system does not know it
  refused(other->url(), with(other_ca), "mismatch");      // another name
  refused("rediss://127.0.0.1:" + std::to_string(server->port()), with(ca), "mismatch");
  EXPECT_TRUE(connect(other->url(), with(other_ca, "elsewhere.test")));
  refused(server->url(), with("/no/such/file"), "/no/such/file");
  // Plain to a TLS port, TLS to a plain one.
  RedisOptions brief = with(ca);
  brief.connect_within = milliseconds(500);
  EXPECT_FALSE(RedisTier::connect("redis://127.0.0.1:" + std::to_string(server->port()), brief));
  auto plain = RedisTestServer::start();
  EXPECT_FAILS(RedisTier::connect("rediss://localhost:" + std::to_string(plain->port()), brief),
               ErrorCode::kUnavailable);
}

TEST(RedisAccess, SaysWhatIsKeptAndRefusesEviction) {
  const auto durability = [](std::vector<std::string> arguments) -> std::string {
    auto server = RedisTestServer::start({.arguments = std::move(arguments)});
    if (!server) return "no redis";
    auto tier = connect(server->url());
    return tier ? tier->durability() : "";
  };
  if (!RedisTestServer::start()) GTEST_SKIP() << "there is no redis-server";
  EXPECT_NE(durability({}).find("nothing is kept"), std::string::npos);
  EXPECT_NE(durability({"--save", "60 1"}).find("last snapshot"), std::string::npos);
  EXPECT_NE(durability({"--appendonly", "yes"}).find("everysec"), std::string::npos);
  EXPECT_NE(durability({"--appendonly", "yes", "--appendfsync", "always"}).find("before it is acknowledged"),
            std::string::npos);
  auto server = RedisTestServer::start({.arguments = {"--maxmemory-policy", "allkeys-lru"}});
  auto tier = RedisTier::connect(server->url());
  EXPECT_EQ(code_of(tier), to_string(ErrorCode::kFailedPrecondition));
  EXPECT_NE(tier.error().message.find("allkeys-lru"), std::string::npos) << tier.error().message;
  EXPECT_TRUE(connect(server->url(), {.allow_eviction = true}));
}

TEST(RedisAccess, WhatIsNoRedisIsRefused) {
  // A listener that answers like a web server, or not at all.
  for (const bool answers : {true, false}) {
    UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listener.get(), 8), 0);
    ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
    std::jthread web([&] {
      if (!answers) return;
      const UniqueFd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      char bytes[100];
      if (::read(peer.get(), bytes, sizeof bytes) > 0)
        (void)write_all(peer.get(), as_bytes("HTTP/1.1 400 Bad\r\n\r\n"));
    });
    const auto begin = Clock::now();
    EXPECT_FAILS(RedisTier::connect("redis://127.0.0.1:" + std::to_string(ntohs(address.sin_port)),
                                    {.connect_within = milliseconds(500)}),
                 answers ? ErrorCode::kUnavailable : ErrorCode::kDeadlineExceeded);
    EXPECT_LT(Clock::now() - begin, milliseconds(3000));
  }
}

}  // namespace spore::state

// Many clients of many hosts over one store, at random: whatever happens, what the locks promise holds.
#include <poll.h>

#include <map>
#include <random>
#include <thread>

#include "state/locks_test_world.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Link = CuttableTier::Link;

// A counter under a lock, in a simulated world. Each writer that gets the lock must find what the last push wrote; each
// reader must see one value for as long as it reads. Hosts are stopped, cut off and lose answers; calls die.
class History {
 public:
  explicit History(uint64_t seed) : random_(seed) {
    for (int h = 0; h < kHosts; ++h) hosts_.push_back(std::make_unique<Host>(*this));
    for (int c = 0; c < kClients; ++c) clients_.push_back({.host = hosts_[c % kHosts].get()});
  }

  void run(int rounds) {
    for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
      time_.passed += one_in(200) ? milliseconds(pick(12'000)) : milliseconds(pick(8));
      for (auto& host : hosts_) disturb(*host);
      for (auto& host : hosts_)
        if (time_.boot() >= host->stopped_until) host->locks.step();
      check_exclusion();
      Client& client = clients_[pick(kClients)];
      if (time_.boot() >= client.host->stopped_until) act(client);
    }
  }

  // All calls end, nothing is disturbed any more: nothing may be left.
  void end() {
    for (auto& host : hosts_) {
      host->tier.link = Link::kGood;
      for (Client& client : clients_)
        if (client.host == host.get()) host->locks.release_all(client.owner, false);
    }
    for (int i = 0; i < 400; ++i) {
      time_.passed += milliseconds(50);
      for (auto& host : hosts_) host->locks.step();
    }
    for (auto& host : hosts_) {
      EXPECT_EQ(host->locks.stats().held, 0u);
      EXPECT_EQ(host->locks.stats().waiting, 0u);
      EXPECT_EQ(host->locks.stats().all, 0u);
    }
    for (int key = 0; key < kKeys; ++key) {
      const auto last =
          hosts_[0]->locks.lock(id(key), LockMode::kWrite, LockScope::kGlobal, {"last"}, time_.steady() + seconds(1));
      hosts_[0]->locks.step();
      EXPECT_TRUE(last->ended());
    }
  }

  // What happened, so that a test of nothing is seen.
  int writes = 0, reads = 0, refused = 0, deaths = 0, poisoned = 0, lost = 0, expired = 0;

 private:
  static constexpr int kHosts = 3, kClients = 12, kKeys = 2;
  struct Host {
    CuttableTier tier;
    LockService locks;
    BootClock::time_point stopped_until;
    explicit Host(History& world) : tier(world.store_), locks(tier, world.options()) {}
  };
  struct Client {
    Host* host;
    std::string owner;  // empty: no call
    int key = 0;
    LockMode mode = LockMode::kRead;
    std::shared_ptr<Operation> waiting;
    bool held = false;
    uint64_t found = 0;  // the counter when it got the lock
  };

  uint64_t pick(uint64_t below) { return random_() % below; }
  bool one_in(uint64_t n) { return pick(n) == 0; }
  ValueId id(int key) const { return {.tenant = "t", .key = std::to_string(key)}; }
  Deadline soon() const { return time_.steady() + seconds(1); }
  LockOptions options() {
    LockOptions options;
    options.asking_threads = 0;
    options.boot_now = [this] { return time_.boot(); };
    options.steady_now = [this] { return time_.steady(); };
    return options;
  }

  void disturb(Host& host) {
    if (one_in(100)) host.tier.link = Link(pick(3));
    if (one_in(20)) host.tier.link = Link::kGood;
    if (one_in(400)) host.stopped_until = time_.boot() + milliseconds(pick(15'000));
  }

  bool has(const Client& client) const { return client.held && !client.host->locks.lost(id(client.key), client.owner); }
  void check_exclusion() {
    for (int key = 0; key < kKeys; ++key) {
      int readers = 0, writers = 0;
      for (Client& client : clients_) {
        if (client.waiting && client.key == key && client.waiting->ended()) begin(client);
        if (client.key == key && has(client)) ++(client.mode == LockMode::kRead ? readers : writers);
      }
      ASSERT_TRUE(writers == 0 || (writers == 1 && readers == 0)) << writers << " writers, " << readers << " readers";
    }
  }

  // The wait is over.
  void begin(Client& client) {
    const auto result = client.waiting->result();
    client.waiting.reset();
    if (!result) {
      ASSERT_EQ(result.error().code, ErrorCode::kDeadlineExceeded) << result.error().message;
      ++expired;
      client.owner.clear();
      return;
    }
    client.held = true;
    client.found = read_counter(store_, id(client.key), soon());
    if (!has(client)) return;
    poisoned += *result == 1;
    if (must_be_poisoned_[client.key]) EXPECT_EQ(*result, 1) << "the writer before died";
    if (client.mode == LockMode::kWrite) {
      const uint64_t token = client.host->locks.token(id(client.key), client.owner);
      EXPECT_GT(token, last_token_[client.key]);
      last_token_[client.key] = token;
    }
  }

  void act(Client& client) {
    if (client.waiting) {
      if (!one_in(50)) return;
      client.host->locks.release_all(client.owner, true);
      client = {.host = client.host};
    } else if (!client.held) {
      client.owner = "call " + std::to_string(++calls_);
      client.key = static_cast<int>(pick(kKeys));
      client.mode = one_in(2) ? LockMode::kRead : LockMode::kWrite;
      client.waiting = client.host->locks.lock(id(client.key), client.mode, LockScope::kGlobal, {client.owner},
                                               time_.steady() + milliseconds(pick(20'000)));
    } else if (one_in(4)) {
      end(client);
    }
  }

  void end(Client& client) {
    const bool has_it = has(client);
    lost += !has_it;
    const uint64_t now = read_counter(store_, id(client.key), soon());
    if (client.mode == LockMode::kRead) {
      if (has_it) EXPECT_EQ(now, client.found) << "written while it was read";
      ++reads;
    } else {
      const uint64_t token = client.host->locks.token(id(client.key), client.owner);
      ASSERT_NE(token, 0u);
      const auto pushed = push_counter(store_, id(client.key), client.found + 1, token, soon());
      if (has_it) EXPECT_TRUE(pushed) << pushed.error().message;
      if (pushed) EXPECT_EQ(now, client.found) << "a push is lost";
      ++(pushed ? writes : refused);
    }
    if (one_in(4)) {
      client.host->locks.release_all(client.owner, true);
      ++deaths;
      if (has_it && client.mode == LockMode::kWrite) must_be_poisoned_[client.key] = true;
    } else {
      const auto unlocked = client.host->locks.unlock(id(client.key), LockScope::kGlobal, client.owner);
      EXPECT_EQ(unlocked.has_value(), has_it);
      if (has_it && client.mode == LockMode::kWrite) must_be_poisoned_[client.key] = false;
    }
    client = {.host = client.host};
  }

  std::mt19937_64 random_;
  TestTime time_;
  ReferenceTier store_{[this] { return time_.steady(); }};
  std::vector<std::unique_ptr<Host>> hosts_;
  std::vector<Client> clients_;
  int calls_ = 0;
  std::map<int, uint64_t> last_token_;
  std::map<int, bool> must_be_poisoned_;
};

bool wait_for(Operation& operation) {
  pollfd poll{.fd = operation.fd(), .events = POLLIN, .revents = 0};
  return ::poll(&poll, 1, 60'000) == 1;
}

}  // namespace

TEST(LocksHistory, WhateverHappensNoWriteIsLostAndNobodyReadsHalfOfOne) {
  int writes = 0, refused = 0, poisoned = 0, lost = 0, expired = 0;
  for (uint64_t seed = 1; seed <= 60 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    History history(seed);
    history.run(5'000);
    history.end();
    writes += history.writes;
    refused += history.refused;
    poisoned += history.poisoned;
    lost += history.lost;
    expired += history.expired;
  }
  std::printf("%d writes, %d refused, %d poisoned, %d lost, %d expired\n", writes, refused, poisoned, lost, expired);
  for (int happened : {writes, refused, poisoned, lost, expired}) EXPECT_GE(happened, 20);
}

TEST(LocksHistory, ThreadsOfTwoHostsCountTogether) {
  ReferenceTier store;
  LockService hosts[2] = {LockService(store, {}), LockService(store, {})};
  const ValueId id{.tenant = "t", .key = "k"};
  constexpr int kThreads = 3, kRounds = 30;
  int local[2] = {};  // under the local locks alone
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < 2 * kThreads; ++thread)
    threads.emplace_back([&, thread] {
      LockService& locks = hosts[thread % 2];
      const std::string owner = "call " + std::to_string(thread);
      const Deadline deadline = Clock::now() + seconds(60);
      for (int round = 0; round < kRounds; ++round) {
        const auto global = locks.lock(id, LockMode::kWrite, LockScope::kGlobal, {owner}, deadline);
        ASSERT_TRUE(wait_for(*global));
        ASSERT_EQ(global->result(), 0) << global->result().error().message;
        const uint64_t count = read_counter(store, id, deadline);
        ASSERT_TRUE(push_counter(store, id, count + 1, locks.token(id, owner), deadline));
        ASSERT_TRUE(locks.unlock(id, LockScope::kGlobal, owner));
        const auto at_home = locks.lock(id, LockMode::kWrite, LockScope::kLocal, {owner}, deadline);
        ASSERT_TRUE(wait_for(*at_home));
        ASSERT_EQ(at_home->result(), 0);
        ++local[thread % 2];
        if (round % 2) {
          ASSERT_TRUE(locks.unlock(id, LockScope::kLocal, owner));
        } else {
          locks.release_all(owner, false);
        }
      }
    });
  threads.clear();
  EXPECT_EQ(read_counter(store, id, Clock::now() + seconds(60)), 2u * kThreads * kRounds);
  for (int count : local) EXPECT_EQ(count, kThreads * kRounds);
}

TEST(LocksHistory, ThreadsEndWaitsAtTheirDeadlineAndRenewLeases) {
  ReferenceTier store;
  CuttableTier tier(store);
  LockService locks(tier, {.lease = milliseconds(1'500)});
  const ValueId id{.tenant = "t", .key = "k"};
  const auto lock_and_wait = [&](const std::string& owner, milliseconds timeout) {
    const auto operation = locks.lock(id, LockMode::kWrite, LockScope::kGlobal, {owner}, Clock::now() + timeout);
    EXPECT_TRUE(wait_for(*operation));
    return outcome(operation);
  };
  EXPECT_EQ(lock_and_wait("1", seconds(60)), "0");
  EXPECT_EQ(lock_and_wait("2", milliseconds(900)), "deadline exceeded");
  EXPECT_GE(tier.renewals, 1);
  EXPECT_FALSE(locks.lost(id, "1"));
  tier.link = Link::kCut;
  EXPECT_EQ(lock_and_wait("3", milliseconds(1'600)), "deadline exceeded");
  EXPECT_TRUE(locks.lost(id, "1"));
  tier.link = Link::kGood;
  EXPECT_EQ(lock_and_wait("4", seconds(60)), "1");
}

}  // namespace spore::state

// Pull and push of a value of 100 MiB beside plain clients, and how much of a large value moves.
#include <random>
#include <set>

#include "parts.h"
#include "redis.h"
#include "state/redis_tier.h"
#include "state/rocksdb_tier.h"

namespace spore::bench {
namespace {

constexpr uint64_t kPage = state::kPageBytes;
constexpr uint64_t kBytes = 100 << 20;
constexpr unsigned kConnections = 1;
const state::ValueId kId{"bench", "large"};

void create(state::GlobalTier& tier, ByteSpan content) {
  state::Push push;
  push.size_bytes = content.size();
  push.patches = {{0, content}};
  must(tier.push(kId, push, soon()));
}

bool holds(state::Replica& replica, ByteSpan content) {
  Bytes bytes(content.size());
  const iovec buffer{bytes.data(), bytes.size()};
  return replica.size_bytes() == content.size() &&
         replica.try_read(0, {&buffer, 1}) == static_cast<ssize_t>(bytes.size()) && std::ranges::equal(bytes, content);
}

// Time by the clock, and CPU time of this process and of the server.
struct Cost {
  double wall_us = 0;
  double cpu_us = 0;
};
struct Costs {
  Samples wall_us, cpu_us;
  void add(const Cost& cost) {
    wall_us.add(cost.wall_us);
    cpu_us.add(cost.cpu_us);
  }
  double wall_ms() { return wall_us.median() / 1e3; }
  double cpu_ms() { return cpu_us.median() / 1e3; }
  double mib_per_s() { return kBytes / 1048576.0 / (wall_ms() / 1e3); }
};
template <class Work>
Cost measure(const RedisServer& server, Work work) {
  const double cpu_begin_us = cpu_us() + cpu_us(server.pid());
  const auto begin = Clock::now();
  work();
  return {us_since(begin), cpu_us() + cpu_us(server.pid()) - cpu_begin_us};
}

// As a host that has nothing of the value: opened, and every chunk fetched.
Cost pull(const RedisServer& server, state::GlobalTier& tier, ByteSpan content) {
  state::LocalTier local(tier, nullptr, {});
  std::shared_ptr<state::Replica> replica;
  const Cost cost = measure(server, [&] {
    replica = must(local.open(kId, {}, soon()));
    must(replica->fetch({}, soon()));
  });
  CHECK(replica->fetched_bytes() == content.size());
  CHECK(holds(*replica, content), "what was pulled is not what was pushed");
  return cost;
}

std::vector<uint64_t> random_pages(uint64_t count, std::mt19937_64& random) {
  std::set<uint64_t> pages;
  while (pages.size() < count) pages.insert(random() % (kBytes / kPage));
  std::vector<uint64_t> offsets;
  for (const uint64_t page : pages) offsets.push_back(page * kPage);
  return offsets;
}

// A host that has the value, and changes it here and there.
class Pusher {
 public:
  Pusher(state::GlobalTier& tier, Bytes& content)
      : local_(tier, nullptr, {}), content_(content), replica_(must(local_.open(kId, {}, soon()))) {
    must(replica_->fetch({}, soon()));
  }
  Cost push(const RedisServer& server, const std::vector<uint64_t>& offsets, uint64_t seed) {
    for (const uint64_t offset : offsets) {
      const Bytes page = random_content(kPage, seed + offset);
      write_all(*replica_, offset, page);
      std::ranges::copy(page, content_.begin() + static_cast<ptrdiff_t>(offset));
    }
    return measure(server, [&] { must(replica_->push({}, soon())); });
  }

 private:
  state::LocalTier local_;
  Bytes& content_;
  std::shared_ptr<state::Replica> replica_;
};

void bench_three_places(state::RedisTier& redis) {
  constexpr uint64_t kSize = 3ull << 30;
  const state::ValueId id{"bench", "3"};
  const Bytes chunk = random_content(state::kChunkBytes, 5);
  state::Push push;
  push.size_bytes = kSize;
  const uint64_t places[] = {0, kSize / 2, kSize - state::kChunkBytes};
  for (const uint64_t place : places) push.patches.push_back({place, chunk});
  must(redis.push(id, push, soon()));
  StateHost host(redis);
  const auto replica = host.open("3");
  Guest guest(prepare_guest("kernels"), host);
  const uint64_t at = guest.call("map", {'3'});
  CHECK(at != 0);
  const auto before = redis.traffic();
  const auto begin = Clock::now();
  const uint64_t sum = guest.call("three_places", {at, places[0], places[1] + 7, places[2] + 9});
  const double took_us = us_since(begin);
  const auto after = redis.traffic();
  CHECK(sum == uint64_t{chunk[0]} + chunk[7] + chunk[9], sum);
  CHECK(replica->fetched_bytes() == 3 * state::kChunkBytes, replica->fetched_bytes());
  std::printf(
      "a guest reads at 3 places of a mapped value of 3 GiB: %llu bytes fetched (3 chunks), %llu over the wire, %.0f "
      "us\n",
      static_cast<unsigned long long>(replica->fetched_bytes()),
      static_cast<unsigned long long>(after.received_bytes + after.sent_bytes - before.received_bytes -
                                      before.sent_bytes),
      took_us);
}

}  // namespace

void bench_store(const std::filesystem::path& directory, int rounds, Figures& figures) {
  const RedisServer server;
  const auto redis = must(state::RedisTier::connect(server.url()));
  const auto rocksdb = must(state::RocksDbTier::open(directory / "store", {}));
  Bytes in_redis = random_content(kBytes, 1), in_rocksdb = in_redis;
  PlainRedis plain(server.port(), kConnections);
  plain.store(in_redis, state::kChunkBytes);
  create(*redis, in_redis);
  create(*rocksdb, in_rocksdb);

  Costs pulls, plain_pulls, rocksdb_pulls, pushes, plain_pushes, rocksdb_pushes;
  Samples moved;
  {
    Pusher redis_pusher(*redis, in_redis), rocksdb_pusher(*rocksdb, in_rocksdb);
    std::mt19937_64 random(1);
    const uint64_t pages = kBytes / kPage / 100;
    for (int round = -1; round < rounds; ++round) {
      const auto offsets = random_pages(pages, random);
      const auto seed = static_cast<uint64_t>(round + 2) << 40;
      const auto measure_plain = [&] {
        const Cost fetch = measure(server, [&] { plain.fetch(); });
        const Cost overwrite = measure(server, [&] { plain.overwrite(offsets, kPage); });
        if (round < 0) return;
        plain_pulls.add(fetch);
        plain_pushes.add(overwrite);
      };
      if (round % 2 == 0) measure_plain();
      const Cost pull_cost = pull(server, *redis, in_redis);
      const auto before = redis->traffic();
      const Cost push_cost = redis_pusher.push(server, offsets, seed);
      const auto after = redis->traffic();
      if (round % 2 != 0) measure_plain();
      const Cost rocksdb_pull = pull(server, *rocksdb, in_rocksdb);
      const Cost rocksdb_push = rocksdb_pusher.push(server, offsets, seed);
      if (round < 0) continue;
      pulls.add(pull_cost);
      pushes.add(push_cost);
      rocksdb_pulls.add(rocksdb_pull);
      rocksdb_pushes.add(rocksdb_push);
      moved.add(
          static_cast<double>(after.sent_bytes + after.received_bytes - before.sent_bytes - before.received_bytes) /
          static_cast<double>(pages * kPage));
    }
  }
  figures.pull_ratio = plain_pulls.wall_ms() / pulls.wall_ms();
  figures.push_bytes_ratio = moved.median();
  std::printf(
      "a value of 100 MiB, medians of %d interleaved rounds, CPU time of client and server together in brackets; "
      "plain:\n"
      "hiredis, the same bytes in strings of 256 KiB, as many connections as a pull uses (%u), a pipeline on each\n",
      rounds, kConnections);
  std::printf(
      "  first pull (open, fetch all): Redis %.1f ms [%.1f], %.0f MiB/s; plain GETs %.1f ms [%.1f], %.0f MiB/s: %.0f "
      "%% of\n"
      "    their throughput; RocksDB %.1f ms [%.1f], %.0f MiB/s\n",
      pulls.wall_ms(), pulls.cpu_ms(), pulls.mib_per_s(), plain_pulls.wall_ms(), plain_pulls.cpu_ms(),
      plain_pulls.mib_per_s(), figures.pull_ratio * 100, rocksdb_pulls.wall_ms(), rocksdb_pulls.cpu_ms(),
      rocksdb_pulls.mib_per_s());
  std::printf(
      "  push, 1 %% of the pages dirty at random: Redis %.2f ms [%.2f]; plain SETRANGEs of these pages %.2f ms "
      "[%.2f];\n"
      "    RocksDB, synced, %.2f ms [%.2f]; over the wire to and from Redis %.3f x the dirty bytes\n",
      pushes.wall_ms(), pushes.cpu_ms(), plain_pushes.wall_ms(), plain_pushes.cpu_ms(), rocksdb_pushes.wall_ms(),
      rocksdb_pushes.cpu_ms(), moved.median());
  bench_three_places(*redis);
}

}  // namespace spore::bench

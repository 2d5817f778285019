// The global tier in Redis: against the reference, its pins, what moves over the wire, how fast.
#include "state/redis_tier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>

#include "state/global_tier_conformance.h"
#include "state/redis_test_server.h"
#include "state/reference_tier.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;

Deadline soon() { return Clock::now() + std::chrono::seconds(60); }

class RedisTierTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = RedisTestServer::start();
    if (!server_) GTEST_SKIP() << "there is no redis-server";
  }
  std::unique_ptr<RedisTier> connect(RedisOptions options = {}) {
    auto tier = RedisTier::connect(server_->url(), std::move(options));
    EXPECT_TRUE(tier) << tier.error().message;
    return tier ? std::move(*tier) : nullptr;
  }
  long keys() { return std::atol(server_->ask({"DBSIZE"}).c_str()); }

  std::unique_ptr<RedisTestServer> server_;
};

const ValueId kId{.tenant = "t", .key = "k"};

Push put(ByteSpan bytes) {
  return {.patches = {{.offset = 0, .bytes = bytes}}, .size_bytes = bytes.size(), .replace = true};
}

Bytes read_all(Snapshot& snapshot) {
  Bytes out(snapshot.manifest().size_bytes, 0xee);
  auto result = snapshot.read(0, out, soon());
  EXPECT_TRUE(result) << result.error().message;
  return out;
}

// The same random pushes to a tier and to the reference; pins of both, held for a while, must read the same for good.
void compare_with_reference(GlobalTier& tier, uint64_t seed, int rounds) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  ReferenceTier reference;
  struct Pair {
    std::shared_ptr<Snapshot> is, should;
  };
  std::vector<Pair> pins;
  constexpr uint64_t kSizeMax = 3 * kChunkBytes + 5000;
  const Bytes source = noise(2 * kSizeMax, seed);
  uint64_t size = 0;
  bool exists = false;
  const auto part = [&](uint64_t count) { return ByteSpan(source).subspan(random() % (source.size() - count), count); };
  for (int round = 0; round < rounds; ++round) {
    Push push;
    Bytes merged;
    const uint64_t kind = random() % 12;
    if (exists && kind == 0 && random() % 3 == 0) {
      ASSERT_EQ(tier.remove(kId, std::nullopt, soon()).has_value(),
                reference.remove(kId, std::nullopt, soon()).has_value());
      exists = false;
      continue;
    }
    if (kind == 1) {
      push.append = part(random() % 30'000);
      if (size + push.append->size() > kSizeMax) continue;
    } else {
      if (!exists || kind < 5) {
        push.size_bytes = random() % 4 == 0 ? random() % kSizeMax / kPageBytes * kPageBytes : random() % kSizeMax;
        if (random() % 8 == 0) push.size_bytes = random() % 4 * kChunkBytes;
      }
      push.replace = kind == 2;
      const uint64_t after = push.size_bytes.value_or(size);
      const bool merge = kind >= 10;
      push.merge = merge ? static_cast<MergeOp>(1 + random() % 3) : MergeOp::kOverwrite;
      push.element = static_cast<Element>(random() % 2);
      const uint64_t unit = merge ? 8 : 1;
      for (uint64_t at = random() % (after + 1) / unit * unit; at < after;) {
        const uint64_t longest = random() % 5 == 0 ? 400'000 : random() % 2 == 0 ? 6000 : 100;
        const uint64_t count = std::min(after - at, random() % longest + 1) / unit * unit;
        if (count > 0) push.patches.push_back({.offset = at, .bytes = part(count)});
        at += count + (random() % 3 == 0 ? 0 : random() % 200'000 / unit * unit) + (count == 0 ? unit : 0);
      }
    }
    auto is = tier.push(kId, push, soon());
    auto should = reference.push(kId, push, soon());
    ASSERT_EQ(is.has_value(), should.has_value()) << (is ? "" : is.error().message);
    if (!is) continue;
    exists = true;
    size = should->after.size_bytes;
    ASSERT_EQ(is->after.size_bytes, size);
    ASSERT_EQ(is->after.version.number, should->after.version.number);
    ASSERT_EQ(is->before.number, should->before.number);
    if (random() % 3 == 0) {
      auto pin = tier.pin(kId, soon());
      ASSERT_TRUE(pin) << pin.error().message;
      pins.push_back({*pin, *reference.pin(kId, soon())});
      if (pins.size() > 4) pins.erase(pins.begin() + static_cast<ptrdiff_t>(random() % 5));
    }
    if (pins.empty()) continue;
    const Pair& pair = pins[random() % pins.size()];
    ASSERT_EQ(pair.is->manifest().size_bytes, pair.should->manifest().size_bytes);
    ASSERT_TRUE(read_all(*pair.is) == read_all(*pair.should)) << "round " << round;
    std::vector<uint32_t> chunks(chunks_of(pair.is->manifest().size_bytes));
    for (uint32_t i = 0; i < chunks.size(); ++i) chunks[i] = i;
    const uint64_t since = 1 + random() % pair.is->manifest().version.number;
    const auto changed = pair.is->changed_pages(chunks, since, soon());
    ASSERT_TRUE(changed) << changed.error().message;
    ASSERT_EQ(*changed, *pair.should->changed_pages(chunks, since, soon())) << "round " << round << " since " << since;
  }
}

}  // namespace

TEST_F(RedisTierTest, DoesWhatTheReferenceDoes) {
  auto tier = connect();
  ASSERT_TRUE(tier);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    compare_with_reference(*tier, seed, 80);
    (void)tier->remove(kId, std::nullopt, soon());
    if (HasFatalFailure()) return;
  }
}

TEST_F(RedisTierTest, DoesWhatTheReferenceDoesInParts) {
  auto tier = connect({.push_bytes_at_once = 3000});
  ASSERT_TRUE(tier);
  for (uint64_t seed = 11; seed <= 13; ++seed) {
    compare_with_reference(*tier, seed, 80);
    (void)tier->remove(kId, std::nullopt, soon());
    if (HasFatalFailure()) return;
  }
}

TEST_F(RedisTierTest, NothingIsKeptWhenPinsAreGone) {
  {
    auto tier = connect();
    const Bytes bytes = noise(4 * kChunkBytes, 1);
    ASSERT_TRUE(tier->push(kId, put(bytes), soon()));
    const long before = keys();
    auto pin = tier->pin(kId, soon());
    ASSERT_TRUE(pin);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(tier->push(kId, put(noise(4 * kChunkBytes, 2)), soon()));
    EXPECT_EQ(keys(), before + 6);  // four chunks, the list of them, the pin
    EXPECT_TRUE(read_all(**pin) == bytes);
    pin->reset();
    while (keys() != before) ASSERT_LT(Clock::now(), soon());
    ASSERT_TRUE(tier->push(kId, put(bytes), soon()));
    EXPECT_EQ(keys(), before);
    // In parts: what was brought is gone.
    ASSERT_TRUE(tier->remove(kId, std::nullopt, soon()));
    EXPECT_EQ(keys(), 0);
  }
  auto tier = connect({.push_bytes_at_once = 1000});
  const Bytes bytes = noise(4 * kChunkBytes + 10, 1);
  ASSERT_TRUE(tier->push(kId, put(bytes), soon()));
  const long before = keys();
  ASSERT_TRUE(tier->push(kId, {.patches = {{.offset = 77, .bytes = ByteSpan(bytes).first(300'000)}}}, soon()));
  EXPECT_FALSE(tier->push(kId, {.patches = {{.offset = 0, .bytes = bytes}}, .expected = Version{1, 1}}, soon()));
  EXPECT_EQ(keys(), before);
  std::string chunk = server_->ask({"--scan", "--pattern", "*:c:1"});
  ASSERT_TRUE(chunk.ends_with(":c:1\n")) << chunk;
  chunk.pop_back();
  EXPECT_EQ(server_->ask({"PTTL", chunk}), "-1\n");
}

TEST_F(RedisTierTest, APinThatIsNotRenewedIsLostWhenItsValueChanges) {
  auto tier = connect({.pin_lease = milliseconds(500)});  // far longer than a busy machine keeps a thread waiting
  const Bytes bytes = noise(2 * kChunkBytes, 1);
  ASSERT_TRUE(tier->push(kId, put(bytes), soon()));
  auto pin = tier->pin(kId, soon());
  auto kept = tier->pin(kId, soon());
  ASSERT_TRUE(pin && kept);
  // Renewed over many leases.
  const auto end = Clock::now() + milliseconds(1500);
  while (Clock::now() < end) {
    ASSERT_TRUE(tier->push(kId, {.patches = {{.offset = 0, .bytes = as_bytes("x")}}}, soon()));
    ASSERT_TRUE(read_all(**pin) == bytes);
  }
  // Somebody makes Redis forget it; nothing else tells.
  server_->ask({"DEL", "spore:{e3b98a4da31a127d4bde6e43033f66ba:k}:p"});
  Bytes to(10);
  std::string error;
  while (error.empty()) {
    ASSERT_LT(Clock::now(), soon());
    ASSERT_TRUE(tier->push(kId, {.patches = {{.offset = 0, .bytes = as_bytes("y")}}}, soon()));
    if (auto read = (*pin)->read(0, to, soon()); !read) error = to_string(read.error().code);
  }
  EXPECT_EQ(error, to_string(ErrorCode::kFailedPrecondition));
  const uint32_t chunk = 0;
  EXPECT_FAILS((*pin)->changed_pages(std::span(&chunk, 1), 0, soon()), ErrorCode::kFailedPrecondition);
}

TEST_F(RedisTierTest, APushMovesLittleMoreThanItsBytes) {
  auto tier = connect();
  constexpr uint64_t kSize = 100 << 20;
  ASSERT_TRUE(tier->push(kId, {.size_bytes = kSize}, soon()));
  const Bytes page = noise(kPageBytes, 1);
  ASSERT_TRUE(tier->push(kId, {.patches = {{.offset = 0, .bytes = page}}}, soon()));  // the script is known from now on
  std::mt19937_64 random(7);
  std::vector<uint64_t> pages(kSize / kPageBytes);
  for (uint64_t i = 0; i < pages.size(); ++i) pages[i] = i;
  std::shuffle(pages.begin(), pages.end(), random);
  pages.resize(pages.size() / 100);
  std::ranges::sort(pages);
  Push push;
  for (const uint64_t at : pages) push.patches.push_back({.offset = at * kPageBytes, .bytes = page});
  const auto before = tier->traffic();
  ASSERT_TRUE(tier->push(kId, push, soon()));
  const auto after = tier->traffic();
  const double dirty = static_cast<double>(pages.size() * kPageBytes);
  const double ratio =
      static_cast<double>(after.sent_bytes - before.sent_bytes + after.received_bytes - before.received_bytes) / dirty;
  std::printf("redis push of 1 %% of the pages of 100 MiB: %.3f bytes moved for each dirty byte\n", ratio);
  EXPECT_GT(ratio, 1.0);
  EXPECT_LT(ratio, 1.05);
}

TEST_F(RedisTierTest, TouchingThreeChunksMovesThreeChunks) {
  auto tier = connect();
  ASSERT_TRUE(tier->push(kId, {.size_bytes = 3ull << 30}, soon()));
  const Bytes bytes = noise(kChunkBytes, 1);
  for (const uint64_t chunk : {0, 5000, 12287})
    ASSERT_TRUE(tier->push(kId, {.patches = {{.offset = chunk * kChunkBytes, .bytes = bytes}}}, soon()));
  auto pin = tier->pin(kId, soon());
  ASSERT_TRUE(pin);
  const auto before = tier->traffic();
  Bytes to(kChunkBytes);
  for (const uint64_t chunk : {0, 5000, 12287}) {
    ASSERT_TRUE((*pin)->read(chunk * kChunkBytes, to, soon()));
    EXPECT_TRUE(to == bytes);
  }
  EXPECT_LT(tier->traffic().received_bytes - before.received_bytes, 3 * kChunkBytes + 1000);
  EXPECT_LT(tier->traffic().sent_bytes - before.sent_bytes, 2000u);
}

TEST_F(RedisTierTest, PrintsItsThroughputBesideRawRedis) {
  auto tier = connect();
  constexpr uint64_t kSize = 100 << 20;
  const Bytes bytes = noise(kSize, 1);
  Bytes to(kSize);
  auto client = RedisClient::connect(*RedisUrl::parse(server_->url()), {}, soon());
  ASSERT_TRUE(client);
  const auto seconds = [](auto&& what) {
    const auto begin = Clock::now();
    what();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  const auto raw = [&](const char* command) {
    std::vector<RedisCall> calls;
    for (uint64_t at = 0; at < kSize; at += kChunkBytes) {
      calls.push_back(RedisCall::of_command(command, "raw" + std::to_string(at)));
      if (command[0] == 'S') {
        calls.back().request.add_borrowed(ByteSpan(bytes).subspan(at, kChunkBytes));
      } else {
        calls.back().has_sink = true;
        calls.back().sink = std::span(to).subspan(at, kChunkBytes);
      }
    }
    auto ran = (*client)->run(calls, RedisClient::Again::kAlways, soon());
    EXPECT_TRUE(ran);
  };
  double set = 1e9, get = 1e9, push = 1e9, read = 1e9, small_push = 1e9;
  Push dirty;
  std::mt19937_64 random(3);
  for (uint64_t at = random() % 200; at < kSize / kPageBytes; at += 1 + random() % 200)
    dirty.patches.push_back({.offset = at * kPageBytes, .bytes = ByteSpan(bytes).first(kPageBytes)});
  for (int i = 0; i < 3; ++i) {
    set = std::min(set, seconds([&] { raw("SET"); }));
    get = std::min(get, seconds([&] { raw("GET"); }));
    EXPECT_TRUE(to == bytes);
    push = std::min(push, seconds([&] { EXPECT_TRUE(tier->push(kId, put(bytes), soon())); }));
    auto pin = tier->pin(kId, soon());
    ASSERT_TRUE(pin);
    std::ranges::fill(to, 0);
    read = std::min(read, seconds([&] { EXPECT_TRUE((*pin)->read(0, to, soon())); }));
    EXPECT_TRUE(to == bytes);
    pin->reset();
    small_push = std::min(small_push, seconds([&] { EXPECT_TRUE(tier->push(kId, dirty, soon())); }));
  }
  const double mib = kSize / 1048576.0;
  std::printf(
      "redis, 100 MiB: raw SET %.0f MiB/s, push %.0f MiB/s (%.2f); raw GET %.0f MiB/s, read %.0f MiB/s (%.2f); "
      "push of 1 %% of the pages %.1f ms\n",
      mib / set, mib / push, set / push, mib / get, mib / read, get / read, small_push * 1e3);
}

}  // namespace spore::state

#include "state/replica.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <random>
#include <thread>

#include "base/guarded.h"
#include "base/mapping.h"
#include "state/local_tier.h"
#include "state/reference_tier.h"

namespace spore::state {

namespace {

const ValueId kId{"tenant", "key"};

Deadline soon() { return Clock::now() + std::chrono::seconds(30); }

// A window as a guest has one.
class Mapped {
 public:
  Mapped(std::shared_ptr<Replica> replica, bool writable) : replica_(std::move(replica)) {
    const uint64_t size = (replica_->size_bytes() + 4095) & ~uint64_t{4095};
    void* at = ::mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, replica_->fd(), 0);
    EXPECT_NE(at, MAP_FAILED);
    mapping_ = Mapping(at, size);
    EXPECT_TRUE(replica_->add_window(mapping_.data(), size, writable));
  }
  ~Mapped() { replica_->remove_window(mapping_.data()); }
  volatile uint8_t& operator[](uint64_t offset) const { return mapping_.data()[offset]; }
  uint8_t* data() const { return mapping_.data(); }

 private:
  std::shared_ptr<Replica> replica_;
  Mapping mapping_;
};

// Another tier, for those that differ from it in one thing.
class ForwardingTier : public GlobalTier {
 public:
  explicit ForwardingTier(GlobalTier& tier) : tier_(tier) {}
  Result<Pushed> push(const ValueId& id, const Push& push, Deadline deadline) override {
    return tier_.push(id, push, deadline);
  }
  Result<std::shared_ptr<Snapshot>> pin(const ValueId& id, Deadline deadline) override {
    return tier_.pin(id, deadline);
  }
  Result<Manifest> describe(const ValueId& id, Deadline deadline) override { return tier_.describe(id, deadline); }
  Result<void> remove(const ValueId& id, std::optional<Version> expected, Deadline deadline) override {
    return tier_.remove(id, expected, deadline);
  }
  Result<KeyPage> list(const std::string& tenant, const std::string& prefix, const std::string& from, size_t limit,
                       Deadline deadline) override {
    return tier_.list(tenant, prefix, from, limit, deadline);
  }
  Result<Usage> usage(const std::string& tenant, Deadline deadline) override { return tier_.usage(tenant, deadline); }
  Result<std::optional<LockGrant>> try_lock(const ValueId& id, LockMode mode, const std::string& owner,
                                            std::chrono::milliseconds lease, Deadline deadline) override {
    return tier_.try_lock(id, mode, owner, lease, deadline);
  }
  Result<void> renew_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                          Deadline deadline) override {
    return tier_.renew_lock(id, owner, lease, deadline);
  }
  Result<void> unlock(const ValueId& id, const std::string& owner, Deadline deadline) override {
    return tier_.unlock(id, owner, deadline);
  }
  std::string name() const override { return "as " + tier_.name(); }

 private:
  GlobalTier& tier_;
};

// A tier that tells what is read of its snapshots, and holds reads up and fails them where it is told to.
class WatchedTier final : public ForwardingTier {
 public:
  struct Read {
    uint64_t offset, size_bytes;
    bool operator==(const Read&) const = default;
  };
  using ForwardingTier::ForwardingTier;
  Result<std::shared_ptr<Snapshot>> pin(const ValueId& id, Deadline deadline) override {
    ASSIGN_OR_RETURN(auto snapshot, ForwardingTier::pin(id, deadline));
    return std::make_shared<Watched>(*this, std::move(snapshot));
  }
  std::vector<Read> reads() const { return state_.lock()->reads; }
  void fail_next(int reads) { state_.lock()->to_fail = reads; }
  void hold() { state_.lock()->held = true; }
  void await_read() {
    auto state = state_.lock();
    changed_.wait(state.lock(), [&] { return state->waiting > 0; });
  }
  void let_go() {
    state_.lock()->held = false;
    changed_.notify_all();
  }

 private:
  class Watched final : public Snapshot {
   public:
    Watched(WatchedTier& tier, std::shared_ptr<Snapshot> snapshot)
        : Snapshot(snapshot->manifest()), tier_(tier), snapshot_(std::move(snapshot)) {}
    Result<void> read(uint64_t offset, std::span<uint8_t> to, Deadline deadline) override {
      {
        auto state = tier_.state_.lock();
        state->reads.push_back({offset, to.size()});
        ++state->waiting;
        tier_.changed_.notify_all();
        tier_.changed_.wait(state.lock(), [&] { return !state->held; });
        --state->waiting;
        if (state->to_fail > 0) {
          --state->to_fail;
          return fail(ErrorCode::kUnavailable, "the store is away");
        }
      }
      return snapshot_->read(offset, to, deadline);
    }
    Result<std::vector<uint64_t>> changed_pages(std::span<const uint32_t> chunks, uint64_t since,
                                                Deadline deadline) override {
      return snapshot_->changed_pages(chunks, since, deadline);
    }

   private:
    WatchedTier& tier_;
    const std::shared_ptr<Snapshot> snapshot_;
  };
  struct State {
    std::vector<Read> reads;
    int to_fail = 0;
    int waiting = 0;
    bool held = false;
  };
  Guarded<State> state_;
  std::condition_variable changed_;
};

// Two hosts with one global tier.
class ReplicaTest : public ::testing::Test {
 protected:
  struct Host {
    explicit Host(GlobalTier& global) : tracker(*WindowTracker::start(2)), tier(global, tracker.get(), {}) {}
    std::shared_ptr<Replica> open(std::optional<uint64_t> size = {}, const ValueId& id = kId) {
      auto opened = tier.open(id, size, soon());
      EXPECT_TRUE(opened.has_value()) << (opened ? "" : opened.error().message);
      return opened ? *opened : nullptr;
    }
    std::unique_ptr<WindowTracker> tracker;
    LocalTier tier;
  };

  Bytes stored(const ValueId& id = kId) {
    auto pinned = global_.pin(id, soon());
    if (!pinned) return {};
    Bytes bytes((*pinned)->manifest().size_bytes);
    EXPECT_TRUE((*pinned)->read(0, bytes, soon()));
    return bytes;
  }
  void store(const Bytes& bytes) {
    Push push;
    push.patches = {{0, bytes}};
    push.size_bytes = bytes.size();
    push.replace = true;
    ASSERT_TRUE(global_.push(kId, push, soon()));
  }
  static void write(Replica& replica, uint64_t offset, std::string text) {
    const iovec buffer{text.data(), text.size()};
    ASSERT_EQ(replica.try_write(offset, {&buffer, 1}), static_cast<ssize_t>(text.size()));
  }
  static std::string read(Replica& replica, uint64_t offset, size_t size) {
    EXPECT_TRUE(replica.fetch({offset, size}, soon()));
    std::string text(size, '?');
    const iovec buffer{text.data(), text.size()};
    const auto got = replica.try_read(offset, {&buffer, 1});
    if (!got || *got < 0) return "error";
    text.resize(static_cast<size_t>(*got));
    return text;
  }
  static Bytes pattern(size_t size, unsigned seed) {
    Bytes bytes(size);
    std::mt19937 random(seed);
    for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
    return bytes;
  }

  ReferenceTier global_;
  Host a_{global_}, b_{global_};
};

}  // namespace

TEST_F(ReplicaTest, WindowsOfOneHostShowEachOthersWrites) {
  const auto replica = a_.open(10'000);
  const Mapped one(replica, true), other(replica, false);
  one[9'999] = 7;
  EXPECT_EQ(other[9'999], 7);
}

TEST_F(ReplicaTest, OthersSeeWritesAfterPushAndPullAndNotBefore) {
  const auto here = a_.open(100'000);
  const Mapped window(here, true);
  window[5] = 1;
  ASSERT_TRUE(here->push({}, soon()));
  const auto there = b_.open();
  const Mapped far(there, true);
  EXPECT_EQ(far[5], 1);
  window[5] = 2;
  window[99'999] = 3;
  EXPECT_EQ(far[5], 1);
  ASSERT_TRUE(here->push({}, soon()));
  EXPECT_EQ(far[5], 1);
  ASSERT_TRUE(there->pull(soon()));
  EXPECT_EQ(far[5], 2);
  EXPECT_EQ(far[99'999], 3);
}

TEST_F(ReplicaTest, PushMovesOnlyDirtyPages) {
  store(pattern(1 << 20, 1));
  const auto replica = a_.open();
  const Mapped window(replica, true);
  for (uint64_t page = 0; page < 256; page += 3) window[page * 4096 + 17] = 0xaa;
  write(*replica, 4096 * 100 + 5, "by the host");
  EXPECT_TRUE(replica->dirty());
  Bytes expected = pattern(1 << 20, 1);
  for (uint64_t page = 0; page < 256; page += 3) expected[page * 4096 + 17] = 0xaa;
  std::memcpy(expected.data() + 4096 * 100 + 5, "by the host", 11);
  // Another host changes a page that is not dirty here: a push that wrote it back would undo that.
  Push other;
  const Bytes byte{0x55};
  other.patches = {{4096 * 1 + 1, byte}};
  ASSERT_TRUE(global_.push(kId, other, soon()));
  expected[4096 + 1] = 0x55;
  ASSERT_TRUE(replica->push({}, soon()));
  EXPECT_EQ(stored(), expected);
  EXPECT_FALSE(replica->dirty());
}

TEST_F(ReplicaTest, PushOfARangePublishesItsPagesAlone) {
  const auto replica = a_.open(20 * 4096);
  write(*replica, 0, "first");
  write(*replica, 10 * 4096, "tenth");
  ASSERT_TRUE(replica->push({.range = {10 * 4096 + 1, 1}}, soon()));
  EXPECT_EQ(as_text(ByteSpan(stored()).subspan(10 * 4096, 5)), "tenth");
  EXPECT_EQ(stored()[0], 0);
  EXPECT_TRUE(replica->dirty());
  ASSERT_TRUE(replica->push({}, soon()));
  EXPECT_EQ(as_text(ByteSpan(stored()).first(5)), "first");
}

TEST_F(ReplicaTest, AFailedPushLeavesThePagesDirty) {
  const auto replica = a_.open(8192);
  ASSERT_TRUE(replica->push({}, soon()));
  write(*replica, 4096, "kept");
  EXPECT_EQ(replica->push({.range = {}, .expected = Version{4711, 1}}, soon()).error().code, ErrorCode::kAlreadyExists);
  EXPECT_TRUE(replica->dirty());
  EXPECT_EQ(stored()[4096], 0);
  ASSERT_TRUE(replica->push({.range = {}, .expected = replica->version()}, soon()));
  EXPECT_EQ(as_text(ByteSpan(stored()).subspan(4096, 4)), "kept");
}

TEST_F(ReplicaTest, TouchingThreeChunksFetchesThreeChunks) {
  const uint64_t size = 3ull << 30;
  Push push;
  push.size_bytes = size;
  const Bytes byte{9};
  push.patches = {{0, byte}, {size / 2, byte}, {size - 1, byte}};
  ASSERT_TRUE(global_.push(kId, push, soon()));
  const auto replica = a_.open();
  const Mapped window(replica, true);
  EXPECT_EQ(replica->fetched_bytes(), 0u);
  EXPECT_EQ(window[0] + window[size / 2] + window[size - 1], 27);
  EXPECT_EQ(window[1], 0);
  EXPECT_EQ(replica->fetched_bytes(), 3 * kChunkBytes);
}

TEST_F(ReplicaTest, AbsentChunksSideBySideAreReadAtOnceAndPresentOnesNotAgain) {
  WatchedTier watched(global_);
  Host host(watched);
  const Bytes bytes = pattern(40 * kChunkBytes - 1'000, 6);
  store(bytes);
  const auto replica = host.open();
  const Mapped window(replica, true);
  EXPECT_EQ(window[5 * kChunkBytes + 7], bytes[5 * kChunkBytes + 7]);
  EXPECT_EQ(watched.reads(), (std::vector<WatchedTier::Read>{{5 * kChunkBytes, kChunkBytes}}));
  window[5 * kChunkBytes + 7] = static_cast<uint8_t>(bytes[5 * kChunkBytes + 7] + 1);
  ASSERT_TRUE(replica->fetch({}, soon()));
  EXPECT_EQ(watched.reads(), (std::vector<WatchedTier::Read>{{5 * kChunkBytes, kChunkBytes},
                                                             {0, 5 * kChunkBytes},
                                                             {6 * kChunkBytes, 16 * kChunkBytes},
                                                             {22 * kChunkBytes, 16 * kChunkBytes},
                                                             {38 * kChunkBytes, 2 * kChunkBytes - 1'000}}));
  EXPECT_EQ(replica->fetched_bytes(), bytes.size());
  Bytes expected = bytes;
  ++expected[5 * kChunkBytes + 7];
  EXPECT_TRUE(std::ranges::equal(ByteSpan(window.data(), bytes.size()), expected));
  ASSERT_TRUE(replica->fetch({}, soon()));
  EXPECT_EQ(watched.reads().size(), 5u);
}

TEST_F(ReplicaTest, ARangeIsFetchedInWholeChunksAndNoMore) {
  WatchedTier watched(global_);
  Host host(watched);
  store(pattern(10 * kChunkBytes, 6));
  const auto replica = host.open();
  ASSERT_TRUE(replica->fetch({2 * kChunkBytes - 1, 2}, soon()));
  ASSERT_TRUE(replica->fetch({7 * kChunkBytes, 0}, soon()));
  ASSERT_TRUE(replica->fetch({11 * kChunkBytes, 5}, soon()));
  EXPECT_EQ(watched.reads(), (std::vector<WatchedTier::Read>{{kChunkBytes, 2 * kChunkBytes}}));
}

TEST_F(ReplicaTest, WhoNeedsAChunkThatIsBeingFetchedWaitsForIt) {
  WatchedTier watched(global_);
  Host host(watched);
  const Bytes bytes = pattern(8 * kChunkBytes, 7);
  store(bytes);
  const auto replica = host.open();
  const Mapped window(replica, true);
  watched.hold();
  std::thread all([&] { EXPECT_TRUE(replica->fetch({}, soon())); });
  watched.await_read();
  std::thread one([&] { EXPECT_TRUE(replica->fetch({3 * kChunkBytes, 1}, soon())); });
  std::thread guest([&] { EXPECT_EQ(window[7 * kChunkBytes], bytes[7 * kChunkBytes]); });
  EXPECT_EQ(replica->fetch({3 * kChunkBytes, 1}, Clock::now()).error().code, ErrorCode::kDeadlineExceeded);
  watched.let_go();
  for (std::thread* thread : {&all, &one, &guest}) thread->join();
  EXPECT_EQ(watched.reads().size(), 1u);
  EXPECT_EQ(replica->fetched_bytes(), bytes.size());
}

TEST_F(ReplicaTest, AFetchThatFailsLeavesItsChunksToOthers) {
  WatchedTier watched(global_);
  Host host(watched);
  const Bytes bytes = pattern(8 * kChunkBytes, 8);
  store(bytes);
  const auto replica = host.open();
  const Mapped window(replica, true);
  watched.hold();
  watched.fail_next(1);
  std::thread all([&] {
    const auto fetched = replica->fetch({}, soon());
    ASSERT_FALSE(fetched);
    EXPECT_EQ(fetched.error().code, ErrorCode::kUnavailable);
    EXPECT_NE(fetched.error().message.find("the store is away"), std::string::npos);
  });
  watched.await_read();
  std::thread guest([&] { EXPECT_EQ(window[7 * kChunkBytes], bytes[7 * kChunkBytes]); });
  watched.let_go();
  all.join();
  guest.join();
  EXPECT_EQ(replica->fetched_bytes(), kChunkBytes);
  ASSERT_TRUE(replica->fetch({}, soon()));
  EXPECT_EQ(replica->fetched_bytes(), bytes.size());
  EXPECT_TRUE(std::ranges::equal(ByteSpan(window.data(), bytes.size()), bytes));
  EXPECT_TRUE(replica->windows_reusable());
}

TEST_F(ReplicaTest, FetchingAChunkDoesNotMakeItDirty) {
  store(pattern(3 * kChunkBytes + 100, 2));
  const auto replica = a_.open();
  const Mapped window(replica, true);
  EXPECT_EQ(window[kChunkBytes], pattern(3 * kChunkBytes + 100, 2)[kChunkBytes]);
  EXPECT_EQ(read(*replica, 3 * kChunkBytes + 98, 10).size(), 2u);
  EXPECT_FALSE(replica->dirty());
}

TEST_F(ReplicaTest, LazyChunksAreOfTheVersionThatWasOpened) {
  store(Bytes(4 * kChunkBytes, 1));
  const auto replica = a_.open();
  EXPECT_EQ(read(*replica, 0, 1), "\x01");
  store(Bytes(4 * kChunkBytes, 2));
  EXPECT_EQ(read(*replica, 3 * kChunkBytes, 1), "\x01");
  ASSERT_TRUE(replica->pull(soon()));
  EXPECT_EQ(read(*replica, 0, 1), "\x02");
  EXPECT_EQ(read(*replica, 3 * kChunkBytes, 1), "\x02");
  EXPECT_EQ(read(*replica, 2 * kChunkBytes, 1), "\x02");
}

TEST_F(ReplicaTest, PullKeepsWhatIsDirtyHere) {
  store(Bytes(8 * 4096, 1));
  const auto replica = a_.open();
  const Mapped window(replica, true);
  window[4096] = 77;
  store(Bytes(8 * 4096, 2));
  ASSERT_TRUE(replica->pull(soon()));
  EXPECT_EQ(window[4096], 77);
  EXPECT_EQ(window[4097], 1);
  EXPECT_EQ(window[0], 2);
  ASSERT_TRUE(replica->push({}, soon()));
  EXPECT_EQ(stored()[4096], 77);
  EXPECT_EQ(stored()[8191], 1);
  EXPECT_EQ(stored()[8192], 2);
}

TEST_F(ReplicaTest, PullFetchesOnlyPagesThatChanged) {
  store(pattern(2 * kChunkBytes, 3));
  const auto replica = a_.open();
  ASSERT_TRUE(replica->fetch({}, soon()));
  const uint64_t before = replica->fetched_bytes();
  Push push;
  const Bytes byte{1};
  push.patches = {{4096, byte}};
  ASSERT_TRUE(global_.push(kId, push, soon()));
  ASSERT_TRUE(replica->pull(soon()));
  EXPECT_EQ(replica->fetched_bytes() - before, 4096u);
}

TEST_F(ReplicaTest, WhatLiesBehindTheEndIsNeverPushedAndIsZeroWhenMapped) {
  const auto replica = a_.open(100);
  {
    const Mapped window(replica, true);
    window[99] = 1;
    window[100] = 2;
    window[4095] = 3;
  }
  ASSERT_TRUE(replica->push({}, soon()));
  EXPECT_EQ(stored().size(), 100u);
  const Mapped window(replica, true);
  EXPECT_EQ(window[99], 1);
  EXPECT_EQ(window[100], 0);
  EXPECT_EQ(window[4095], 0);
}

TEST_F(ReplicaTest, ResizingShowsElsewhereAfterAPush) {
  const auto replica = a_.open(10'000);
  write(*replica, 9'000, std::string(1'000, 'x'));
  ASSERT_TRUE(replica->push({}, soon()));
  ASSERT_TRUE(*replica->try_resize(9'500));
  ASSERT_TRUE(*replica->try_resize(600'000));
  EXPECT_EQ(read(*replica, 9'499, 2), std::string("x\0", 2));
  const auto there = b_.open();
  EXPECT_EQ(there->size_bytes(), 10'000u);
  EXPECT_EQ(read(*there, 9'500, 1), "x");
  write(*replica, 599'999, "e");
  ASSERT_TRUE(replica->push({}, soon()));
  ASSERT_TRUE(there->pull(soon()));
  EXPECT_EQ(there->size_bytes(), 600'000u);
  EXPECT_EQ(read(*there, 9'499, 2), std::string("x\0", 2));
  EXPECT_EQ(read(*there, 599'999, 9), "e");
  ASSERT_TRUE(*replica->try_resize(3));
  ASSERT_TRUE(replica->push({}, soon()));
  const auto pulled = there->pull(soon());
  ASSERT_TRUE(pulled) << pulled.error().message;
  EXPECT_EQ(there->size_bytes(), 3u);
  EXPECT_EQ(read(*there, 0, 10).size(), 3u);
  EXPECT_EQ(stored().size(), 3u);
}

TEST_F(ReplicaTest, ASizeChangesOnlyFromTheExpectedOneAndWithItsCharge) {
  const auto replica = a_.open(100);
  std::vector<uint64_t> charged;
  bool room = true;
  const auto charge = [&](uint64_t bytes) {
    charged.push_back(bytes);
    return room;
  };
  EXPECT_FALSE(*replica->try_resize(300, {.expected = 200, .charge = charge}));
  EXPECT_TRUE(charged.empty());
  EXPECT_TRUE(*replica->try_resize(300, {.expected = 100, .charge = charge}));
  EXPECT_TRUE(*replica->try_resize(200, {.charge = charge}));
  EXPECT_EQ(charged, (std::vector<uint64_t>{300, 200}));
  room = false;
  EXPECT_EQ(replica->try_resize(300, {.charge = charge}).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(replica->size_bytes(), 200u);
}

TEST_F(ReplicaTest, AValueThatWasRemovedAndMadeAgainIsTakenOverWhole) {
  store(Bytes(2 * kChunkBytes, 1));
  const auto replica = a_.open();
  const Mapped window(replica, true);
  EXPECT_EQ(window[kChunkBytes], 1);
  ASSERT_TRUE(global_.remove(kId, {}, soon()));
  EXPECT_EQ(replica->pull(soon()).error().code, ErrorCode::kNotFound);
  store(Bytes(2 * kChunkBytes, 4));
  ASSERT_TRUE(replica->pull(soon()));
  EXPECT_EQ(window[kChunkBytes], 4);
  EXPECT_EQ(window[0], 4);
}

TEST_F(ReplicaTest, WritesDuringPushesAreLostByNone) {
  const uint64_t pages = 512;
  const auto replica = a_.open(pages * 4096);
  const Mapped window(replica, true);
  std::atomic<bool> stop = false;
  // Each thread counts up in pages of its own.
  std::vector<std::thread> writers;
  std::array<std::vector<uint32_t>, 2> counts;
  for (unsigned w = 0; w < 2; ++w) {
    counts[w].assign(pages, 0);
    writers.emplace_back([&, w] {
      std::mt19937 random(w);
      while (!stop) {
        const uint64_t page = random() % (pages / 2) * 2 + w;
        ++counts[w][page];
        std::memcpy(window.data() + page * 4096 + 8, &counts[w][page], 4);
      }
    });
  }
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(replica->push({}, soon()));
  stop = true;
  for (auto& writer : writers) writer.join();
  ASSERT_TRUE(replica->push({}, soon()));
  const Bytes result = stored();
  for (uint64_t page = 0; page < pages; ++page) {
    uint32_t value;
    std::memcpy(&value, result.data() + page * 4096 + 8, 4);
    EXPECT_EQ(value, counts[page % 2][page]) << page;
  }
}

TEST_F(ReplicaTest, TwoHostsThatWriteDisjointPagesLoseNothing) {
  const uint64_t pages = 256;
  store(Bytes(pages * 4096, 0));
  std::array<std::vector<uint32_t>, 2> counts;
  std::vector<std::thread> hosts;
  for (unsigned h = 0; h < 2; ++h) {
    counts[h].assign(pages, 0);
    hosts.emplace_back([&, h] {
      const auto replica = (h == 0 ? a_ : b_).open();
      const Mapped window(replica, true);
      std::mt19937 random(h);
      for (int round = 0; round < 100; ++round) {
        for (int i = 0; i < 20; ++i) {
          const uint64_t page = random() % (pages / 2) * 2 + h;
          ++counts[h][page];
          if (random() % 2) {
            std::memcpy(window.data() + page * 4096 + 8, &counts[h][page], 4);
          } else {
            const iovec buffer{&counts[h][page], 4};
            while (!replica->try_write(page * 4096 + 8, {&buffer, 1})) ASSERT_TRUE(replica->fetch({}, soon()));
          }
        }
        if (random() % 2) ASSERT_TRUE(replica->push({}, soon()));
        if (random() % 2) ASSERT_TRUE(replica->pull(soon()));
      }
      ASSERT_TRUE(replica->push({}, soon()));
    });
  }
  for (auto& host : hosts) host.join();
  const Bytes result = stored();
  for (uint64_t page = 0; page < pages; ++page) {
    uint32_t value;
    std::memcpy(&value, result.data() + page * 4096 + 8, 4);
    EXPECT_EQ(value, counts[page % 2][page]) << page;
  }
}

// ---- merging --------------------------------------------------------------------------------------------------------

namespace {

// A tier whose answers get lost: pushes are applied, or not, and nobody is told.
class LossyTier final : public ForwardingTier {
 public:
  using ForwardingTier::ForwardingTier;
  Result<Pushed> push(const ValueId& id, const Push& push, Deadline deadline) override {
    const unsigned fate = random_() % 4;
    if (fate == 0) return fail(ErrorCode::kUnavailable, "lost on the way there");
    auto pushed = ForwardingTier::push(id, push, deadline);
    if (fate == 1) return fail(ErrorCode::kDeadlineExceeded, "lost on the way back");
    return pushed;
  }

 private:
  std::mt19937 random_{7};
};

template <class T>
T element(ByteSpan bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

TEST_F(ReplicaTest, SumsOfTwoHostsAreExactAlsoWhereAnswersAreLost) {
  constexpr uint64_t kElements = 2'000;
  store(Bytes(kElements * 8, 0));
  LossyTier lossy(global_);
  Host a(lossy), b(lossy);
  std::vector<int64_t> expected(kElements, 0);
  std::array<std::shared_ptr<Replica>, 2> replicas{a.open(), b.open()};
  for (const auto& replica : replicas) ASSERT_TRUE(replica->set_merging({MergeOp::kSum, Element::kI64}, soon()));
  {
    const std::array<Mapped, 2> windows{Mapped(replicas[0], true), Mapped(replicas[1], true)};
    std::mt19937 random(3);
    for (int round = 0; round < 1'000; ++round) {
      const unsigned h = random() % 2;
      for (int i = 0; i < 5; ++i) {
        const uint64_t index = random() % kElements;
        const auto delta = static_cast<int64_t>(random()) - (int64_t{1} << 31);
        auto* const at = reinterpret_cast<int64_t*>(windows[h].data()) + index;
        *at += delta;
        expected[index] += delta;
      }
      if (random() % 2) (void)replicas[h]->push({}, soon());
      if (random() % 4 == 0) (void)replicas[h]->pull(soon());
    }
    for (const auto& replica : replicas) {
      // The random bits run out of bad luck some time.
      for (int attempt = 0; attempt < 200 && replica->dirty(); ++attempt) (void)replica->push({}, soon());
      EXPECT_FALSE(replica->dirty());
    }
    for (const auto& replica : replicas) ASSERT_TRUE(replica->pull(soon()));
    const Bytes result = stored();
    for (uint64_t i = 0; i < kElements; ++i) {
      ASSERT_EQ(element<int64_t>(result, i), expected[i]) << i;
      for (const Mapped& window : windows)
        ASSERT_EQ(reinterpret_cast<const int64_t*>(window.data())[i], expected[i]) << i;
    }
  }
}

TEST_F(ReplicaTest, AtomicAddsDuringPullsAndPushesAreCountedOnce) {
  constexpr uint64_t kElements = 1'024;
  store(Bytes(kElements * 8, 0));
  const std::array<std::shared_ptr<Replica>, 2> replicas{a_.open(), b_.open()};
  for (const auto& replica : replicas) ASSERT_TRUE(replica->set_merging({MergeOp::kSum, Element::kI64}, soon()));
  const std::array<Mapped, 2> windows{Mapped(replicas[0], true), Mapped(replicas[1], true)};
  std::atomic<bool> stop = false;
  std::array<std::vector<int64_t>, 2> added{std::vector<int64_t>(kElements), std::vector<int64_t>(kElements)};
  std::vector<std::thread> adders;
  for (unsigned h = 0; h < 2; ++h) {
    adders.emplace_back([&, h] {
      std::mt19937 random(h);
      while (!stop) {
        const uint64_t index = random() % kElements;
        const auto delta = static_cast<int64_t>(random() % 1'000);
        std::atomic_ref(reinterpret_cast<int64_t*>(windows[h].data())[index]) += delta;
        added[h][index] += delta;
      }
    });
  }
  for (int round = 0; round < 300; ++round) {
    ASSERT_TRUE(replicas[round % 2]->push({}, soon()));
    ASSERT_TRUE(replicas[(round + round / 7) % 2]->pull(soon()));
  }
  stop = true;
  for (auto& adder : adders) adder.join();
  for (const auto& replica : replicas) ASSERT_TRUE(replica->push({}, soon()));
  const Bytes result = stored();
  for (uint64_t i = 0; i < kElements; ++i) ASSERT_EQ(element<int64_t>(result, i), added[0][i] + added[1][i]) << i;
}

TEST_F(ReplicaTest, MinimaAndMaximaOfTwoHosts) {
  for (const MergeOp op : {MergeOp::kMin, MergeOp::kMax}) {
    const ValueId id{"tenant", op == MergeOp::kMin ? "min" : "max"};
    const auto here = a_.open(80, id);
    ASSERT_TRUE(here->push({}, soon()));
    const auto there = b_.open({}, id);
    ASSERT_TRUE(there->fetch({}, soon()));
    ASSERT_TRUE(here->set_merging({op, Element::kF64}, soon()));
    ASSERT_TRUE(there->set_merging({op, Element::kF64}, soon()));
    const auto set = [&](Replica& replica, uint64_t index, double value) {
      write(replica, index * 8, std::string(reinterpret_cast<const char*>(&value), 8));
    };
    const double sign = op == MergeOp::kMin ? -1 : 1;
    set(*here, 0, sign * 5);
    set(*there, 0, sign * 7);
    set(*here, 1, sign * 9);
    set(*there, 2, sign * 3);
    ASSERT_TRUE(there->push({}, soon()));
    ASSERT_TRUE(here->push({}, soon()));
    const Bytes result = stored(id);
    EXPECT_EQ(element<double>(result, 0), sign * 7);
    EXPECT_EQ(element<double>(result, 1), sign * 9);
    EXPECT_EQ(element<double>(result, 2), sign * 3);
    ASSERT_TRUE(here->pull(soon()));
    EXPECT_EQ(read(*here, 0, 80), std::string(as_text(result)));
  }
}

TEST_F(ReplicaTest, MergingBeginsFromWhatIsPushedAndWholeElements) {
  const auto replica = a_.open(12);
  write(*replica, 0, "x");
  EXPECT_EQ(replica->set_merging({MergeOp::kSum, Element::kI64}, soon()).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(replica->set_merging({MergeOp::kSum, Element::kI32}, soon()).error().code, ErrorCode::kFailedPrecondition);
  ASSERT_TRUE(replica->push({}, soon()));
  EXPECT_TRUE(replica->set_merging({MergeOp::kSum, Element::kI32}, soon()));
  EXPECT_EQ(replica->try_resize(16).error().code, ErrorCode::kFailedPrecondition);
}

// ---- the local tier -------------------------------------------------------------------------------------------------

TEST_F(ReplicaTest, OpeningWithAnotherSizeIsRefused) {
  a_.open(100);
  EXPECT_EQ(a_.tier.open(kId, 101, soon()).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(b_.tier.open(kId, {}, soon()).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(b_.tier.open({"tenant", "big"}, kValueBytesMax + 1, soon()).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(b_.tier.open({"tenant", ""}, 1, soon()).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(ReplicaTest, CleanReplicasGoWhereThereIsNoRoomAndDirtyOnesNever) {
  LocalTier tier(global_, a_.tracker.get(), {.bytes_max = 10'000, .bytes_per_tenant_max = 8'000});
  const auto open = [&](const std::string& tenant, const std::string& key, uint64_t size) {
    return tier.open({tenant, key}, size, soon());
  };
  {
    const auto clean = open("t", "clean", 4'000);
    ASSERT_TRUE(clean);
    ASSERT_TRUE((*clean)->push({}, soon()));
  }
  ASSERT_TRUE(open("t", "dirty", 4'000));
  EXPECT_EQ(open("t", "more", 4'001).error().code, ErrorCode::kResourceExhausted);
  ASSERT_TRUE(open("t", "more", 4'000));
  EXPECT_EQ(tier.find({"t", "clean"}), nullptr);
  EXPECT_NE(tier.find({"t", "dirty"}), nullptr);
  EXPECT_EQ(open("t", "third", 1).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(open("u", "other", 3'000).error().code, ErrorCode::kResourceExhausted);
  ASSERT_TRUE(open("u", "other", 2'000));
  EXPECT_EQ(tier.stats().bytes, 10'000u);
  ASSERT_TRUE(tier.remove({"t", "more"}, soon()));
  EXPECT_EQ(tier.stats().bytes, 6'000u);
  ASSERT_TRUE(open("t", "third", 4'000));
}

TEST_F(ReplicaTest, ReplicasCountInTheBooksOfTheHost) {
  MemoryBooks books({.bytes_max = 10'000, .bytes_per_tenant_max = 8'000});
  MemoryCharge other(books.account_of("t"), MemoryKind::kFaaslets);
  int asked = 0;
  {
    LocalTier tier(global_, a_.tracker.get(), {.memory = &books});
    const auto open = [&](const std::string& tenant, const std::string& key, uint64_t size) {
      return tier.open({tenant, key}, size, soon());
    };
    ASSERT_TRUE((*open("t", "clean", 3'000))->push({}, soon()));
    ASSERT_TRUE((*open("u", "clean", 1'000))->push({}, soon()));
    EXPECT_EQ(books.total().by_kind()[static_cast<size_t>(MemoryKind::kState)], 4'000u);
    ASSERT_EQ(other.cover(5'000), MemoryAccount::Refusal::kNone);
    ASSERT_TRUE(open("t", "dirty", 3'000)) << "the clean one goes";
    EXPECT_EQ(tier.find({"t", "clean"}), nullptr);
    EXPECT_NE(tier.find({"u", "clean"}), nullptr) << "another tenant's stays";
    EXPECT_EQ(open("t", "more", 1'000).error().code, ErrorCode::kResourceExhausted);
    books.on_shortage([&](const MemoryAccount* of, uint64_t bytes) {
      EXPECT_EQ(of, books.account_of("t").get());
      EXPECT_EQ(bytes, 1'000u);
      ++asked;
      other.lower(4'000);
    });
    ASSERT_TRUE(open("t", "more", 1'000)) << "others make room";
    EXPECT_EQ(asked, 1);
    ASSERT_TRUE(open("u", "dirty", 1'000));
    EXPECT_EQ(books.total().bytes(), 10'000u);
    EXPECT_EQ(tier.shed(nullptr, 1), 1'000u);
    EXPECT_EQ(tier.shed(nullptr, 1), 0u) << "the rest is dirty";
    ASSERT_TRUE(tier.remove({"t", "more"}, soon()));
    EXPECT_EQ(books.total().bytes(), 4'000u + 3'000u + 1'000u);
  }
  EXPECT_EQ(books.total().bytes(), 4'000u);
}

TEST_F(ReplicaTest, ManyMoreValuesThanMayBeOpenAreUsedOneAfterAnother) {
  LocalTier tier(global_, a_.tracker.get(), {.replicas_max = 50, .replicas_per_tenant_max = 30});
  for (int i = 0; i < 1'000; ++i) {
    const auto replica = tier.open({"t", std::to_string(i)}, 8, soon());
    ASSERT_TRUE(replica) << replica.error().message;
    ASSERT_TRUE((*replica)->push({}, soon()));
  }
  EXPECT_EQ(tier.stats().replicas, 30u);
  EXPECT_EQ(tier.stats().bytes, 240u);
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(tier.open({"t", "dirty" + std::to_string(i)}, 8, soon()));
  EXPECT_EQ(tier.open({"t", "more"}, 8, soon()).error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(tier.open({"u", "more"}, 8, soon()));
}

TEST_F(ReplicaTest, WhatGrowsIsChargedAndCleanReplicasMakeRoomForIt) {
  LocalTier tier(global_, a_.tracker.get(), {.bytes_max = 10'000});
  ASSERT_TRUE((*tier.open({"t", "clean"}, 6'000, soon()))->push({}, soon()));
  const auto grows = *tier.open({"t", "grows"}, 1'000, soon());
  EXPECT_TRUE(tier.charge(*grows, 4'000));
  EXPECT_FALSE(tier.charge(*grows, 4'001));
  EXPECT_EQ(tier.stats().bytes, 10'000u);
  EXPECT_EQ(tier.make_room_for(*grows, 10'001).error().code, ErrorCode::kResourceExhausted);
  ASSERT_TRUE(tier.open({"t", "clean"}, {}, soon()));
  ASSERT_TRUE(tier.make_room_for(*grows, 4'001));
  EXPECT_EQ(tier.find({"t", "clean"}), nullptr);
  EXPECT_EQ(tier.stats().bytes, 4'000u);  // not taken yet
  EXPECT_TRUE(tier.charge(*grows, 10'000));
  // One that was removed has no part in the budget of what comes after it.
  ASSERT_TRUE(tier.remove({"t", "grows"}, soon()));
  EXPECT_EQ(tier.stats().bytes, 0u);
  ASSERT_TRUE(tier.open({"t", "grows"}, 1'000, soon()));
  EXPECT_FALSE(tier.charge(*grows, 2'000));
  EXPECT_EQ(tier.make_room_for(*grows, 2'000).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(tier.stats().bytes, 1'000u);
}

TEST_F(ReplicaTest, WhatExistsIsNotCreated) {
  ASSERT_TRUE(a_.tier.create(kId, 0, soon()));
  EXPECT_EQ(a_.tier.create(kId, 0, soon()).error().code, ErrorCode::kAlreadyExists);
  const auto there = b_.tier.create(kId, 10, soon());  // nobody has pushed it
  ASSERT_TRUE(there);
  ASSERT_TRUE((*there)->push({}, soon()));
  ASSERT_TRUE(a_.tier.remove(kId, soon()));
  ASSERT_TRUE((*b_.tier.open({"tenant", "other"}, 10, soon()))->push({}, soon()));
  EXPECT_EQ(a_.tier.create({"tenant", "other"}, 10, soon()).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(a_.tier.find({"tenant", "other"}), nullptr);
  EXPECT_EQ(a_.tier.stats().bytes, 0u);
}

TEST_F(ReplicaTest, WindowsKeepAReplicaHere) {
  LocalTier tier(global_, a_.tracker.get(), {.bytes_max = 8'192});
  bool asked = false;
  std::optional<Mapped> window;
  tier.on_shortage([&] {
    asked = true;
    window.reset();
  });
  auto replica = *tier.open({"t", "mapped"}, 8'192, soon());
  ASSERT_TRUE(replica->push({}, soon()));
  window.emplace(std::move(replica), false);
  ASSERT_TRUE(tier.open({"t", "next"}, 8'192, soon()));
  EXPECT_TRUE(asked);
}

TEST_F(ReplicaTest, RemovedValuesAreGoneHereAndThere) {
  const auto replica = a_.open(100);
  ASSERT_TRUE(replica->push({}, soon()));
  ASSERT_TRUE(a_.tier.remove(kId, soon()));
  EXPECT_EQ(a_.tier.find(kId), nullptr);
  EXPECT_FALSE(replica->windows_reusable());
  EXPECT_EQ(b_.tier.open(kId, {}, soon()).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(a_.tier.remove(kId, soon()).error().code, ErrorCode::kNotFound);
  a_.open(100);  // never pushed: only here
  EXPECT_TRUE(a_.tier.remove(kId, soon()));
}

TEST_F(ReplicaTest, AppendsAreThereAtOnce) {
  EXPECT_EQ(a_.tier.append(kId, as_bytes("one"), "", soon()), 0u);
  const auto there = b_.open();
  EXPECT_EQ(b_.tier.append(kId, as_bytes("two"), "", soon()), 3u);
  EXPECT_EQ(read(*there, 0, 10), "onetwo");
  EXPECT_EQ(read(*a_.open(), 0, 10), "onetwo");
}

TEST_F(ReplicaTest, ListsWhatIsPushedAndWhatIsOnlyHere) {
  for (const char* key : {"a", "c", "e", "other"}) ASSERT_TRUE(a_.open(10, {"tenant", key})->push({}, soon()));
  for (const char* key : {"b", "d", "zz"}) a_.open(10, {"tenant", key});
  a_.open(10, {"stranger", "b"});
  const auto list = [&](const std::string& prefix, const std::string& after, uint64_t bytes) {
    std::string out;
    for (const std::string& key : a_.tier.list("tenant", prefix, after, bytes, soon()).value()) out += key + " ";
    return out;
  };
  EXPECT_EQ(list("", "", 10'000), "a b c d e other zz ");
  EXPECT_EQ(list("", "c", 10'000), "d e other zz ");
  EXPECT_EQ(list("o", "", 10'000), "other ");
  EXPECT_FALSE(a_.tier.list("tenant", "", "", 100, soon()));
}

}  // namespace spore::state

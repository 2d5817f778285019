#include "state/global_tier_conformance.h"

#include <atomic>
#include <cstring>
#include <limits>
#include <thread>

#include "state/merge.h"
#include "state/reference_tier.h"

namespace spore::state {

using std::chrono::milliseconds;

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GlobalTierConformance);
INSTANTIATE_TEST_SUITE_P(Reference, GlobalTierConformance,
                         testing::Values(TierKind{"Reference", [] { return std::make_shared<ReferenceTier>(); }}),
                         kind_name);

Bytes noise(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes out(size);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(1 + random() % 255);
  return out;
}

void GlobalTierConformance::SetUp() {
  tier_ = GetParam().make();
  if (!tier_) GTEST_SKIP() << GetParam().name << " cannot be had here";
  std::random_device random;
  char name[32];
  std::snprintf(name, sizeof name, "t-%08x%08x", random(), random());
  tenant_ = name;
}

Pushed GlobalTierConformance::push(const ValueId& value, const Push& what) {
  auto result = tier_->push(value, what, soon());
  if (result) return *result;
  ADD_FAILURE() << result.error().message;
  return {};
}

Pushed GlobalTierConformance::put(const ValueId& value, ByteSpan bytes) {
  return push(value, {.patches = {{.offset = 0, .bytes = bytes}}, .size_bytes = bytes.size(), .replace = true});
}

Pushed GlobalTierConformance::patch(const ValueId& value, uint64_t offset, ByteSpan bytes) {
  return push(value, {.patches = {{.offset = offset, .bytes = bytes}}});
}

Bytes GlobalTierConformance::read(Snapshot& snapshot) {
  Bytes out(snapshot.manifest().size_bytes, 0xee);
  if (auto result = snapshot.read(0, out, soon()); !result) {
    ADD_FAILURE() << result.error().message;
    out.clear();
  }
  return out;
}

Bytes GlobalTierConformance::read(const ValueId& value) {
  auto snapshot = tier_->pin(value, soon());
  if (!snapshot) {
    if (snapshot.error().code != ErrorCode::kNotFound) ADD_FAILURE() << snapshot.error().message;
    return {};
  }
  return read(**snapshot);
}

std::string GlobalTierConformance::text(const ValueId& value) { return std::string(as_text(read(value))); }

uint64_t GlobalTierConformance::changed(Snapshot& snapshot, uint32_t chunk, uint64_t since) {
  auto pages = snapshot.changed_pages(std::span(&chunk, 1), since, soon());
  if (pages && pages->size() == 1) return pages->front();
  ADD_FAILURE() << (pages ? "another number of chunks" : pages.error().message);
  return 0;
}

std::vector<std::string> GlobalTierConformance::keys(const std::string& prefix, const std::string& from, size_t limit) {
  std::vector<std::string> out;
  auto page = tier_->list(tenant_, prefix, from, limit, soon());
  if (!page) {
    ADD_FAILURE() << page.error().message;
    return out;
  }
  for (const auto& entry : page->entries) out.push_back(entry.key);
  return out;
}

LockGrant GlobalTierConformance::lock_patiently(const ValueId& value, LockMode mode, const std::string& owner,
                                                milliseconds lease) {
  for (const Deadline end = soon(); Clock::now() < end; std::this_thread::sleep_for(milliseconds(2))) {
    auto grant = tier_->try_lock(value, mode, owner, lease, end);
    if (!grant) {
      ADD_FAILURE() << grant.error().message;
      return {};
    }
    if (*grant) return **grant;
  }
  ADD_FAILURE() << "the lock was not granted";
  return {};
}

namespace {

template <class T>
Bytes elements(std::initializer_list<T> values) {
  Bytes out(values.size() * sizeof(T));
  std::memcpy(out.data(), std::data(values), out.size());
  return out;
}

template <class T>
std::vector<T> as_elements(const Bytes& bytes) {
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
  return out;
}

}  // namespace

// ---- versions, sizes, bytes

TEST_P(GlobalTierConformance, ThereIsNoValueBeforeItIsMade) {
  EXPECT_FAILS(tier_->describe(id("k"), soon()), ErrorCode::kNotFound);
  EXPECT_FAILS(tier_->pin(id("k"), soon()), ErrorCode::kNotFound);
  EXPECT_FAILS(tier_->remove(id("k"), std::nullopt, soon()), ErrorCode::kNotFound);
  EXPECT_FAILS(tier_->push(id("k"), {}, soon()), ErrorCode::kNotFound);
  EXPECT_FAILS(tier_->push(id("k"), {.replace = true}, soon()), ErrorCode::kNotFound);
  const Bytes bytes(8, 1);
  EXPECT_FAILS(tier_->push(id("k"), {.patches = {{.offset = 0, .bytes = bytes}}}, soon()), ErrorCode::kNotFound);
  EXPECT_FAILS(tier_->describe(id("k"), soon()), ErrorCode::kNotFound);
}

TEST_P(GlobalTierConformance, EachPushCountsFromOneWithinItsEpoch) {
  const Pushed first = put(id("k"), "one");
  EXPECT_EQ(first.before, Version{});
  EXPECT_EQ(first.after.version.number, 1u);
  EXPECT_NE(first.after.version.epoch, 0u);
  EXPECT_EQ(first.after.size_bytes, 3u);
  const Pushed second = patch(id("k"), 1, as_bytes("N"));
  EXPECT_EQ(second.before, first.after.version);
  EXPECT_EQ(second.after.version, (Version{first.after.version.epoch, 2}));
  // One that changes nothing counts as well.
  EXPECT_EQ(push(id("k"), {}).after.version.number, 3u);
  auto manifest = tier_->describe(id("k"), soon());
  ASSERT_TRUE(manifest);
  EXPECT_EQ(manifest->version.number, 3u);
  EXPECT_EQ(manifest->version.epoch, first.after.version.epoch);
  EXPECT_EQ(manifest->size_bytes, 3u);
  EXPECT_EQ(text(id("k")), "oNe");
}

TEST_P(GlobalTierConformance, AValueMadeAgainHasAnotherEpochAndNoneOfTheOldBytes) {
  const Bytes bytes = noise(300'000, 1);
  const Pushed old = put(id("k"), bytes);
  ASSERT_TRUE(tier_->remove(id("k"), std::nullopt, soon()));
  EXPECT_FAILS(tier_->describe(id("k"), soon()), ErrorCode::kNotFound);
  const Pushed made = push(id("k"), {.size_bytes = 300'000});
  EXPECT_EQ(made.before, Version{});
  EXPECT_EQ(made.after.version.number, 1u);
  EXPECT_NE(made.after.version.epoch, old.after.version.epoch);
  EXPECT_TRUE(is_zero(read(id("k"))));
  EXPECT_FAILS(tier_->push(id("k"), {.expected = old.after.version}, soon()), ErrorCode::kAlreadyExists);
}

TEST_P(GlobalTierConformance, PatchesLandWhereTheySayAndNowhereElse) {
  constexpr uint64_t kSize = 3 * kChunkBytes + 1234;
  Bytes model(kSize, 0);
  push(id("k"), {.size_bytes = kSize});
  const Bytes bytes = noise(kChunkBytes, 2);
  uint64_t used = 0;
  Push what;
  for (const auto& [offset, size] : std::initializer_list<std::pair<uint64_t, uint64_t>>{{0, 1},
                                                                                         {4095, 2},
                                                                                         {8192, 4096},
                                                                                         {kChunkBytes - 3, 6},
                                                                                         {kChunkBytes + 5000, 100'000},
                                                                                         {3 * kChunkBytes - 1, 1},
                                                                                         {3 * kChunkBytes, 1},
                                                                                         {kSize - 1, 1}}) {
    what.patches.push_back({.offset = offset, .bytes = ByteSpan(bytes).subspan(used, size)});
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(used), size, model.begin() + static_cast<ptrdiff_t>(offset));
    used += size;
  }
  EXPECT_EQ(push(id("k"), what).after.size_bytes, kSize);
  EXPECT_EQ(read(id("k")), model);
  auto snapshot = tier_->pin(id("k"), soon());
  ASSERT_TRUE(snapshot);
  for (const auto& [offset, size] : std::initializer_list<std::pair<uint64_t, uint64_t>>{
           {0, 0}, {4094, 4}, {kChunkBytes - 10, 20}, {kSize - 1, 1}, {kSize, 0}, {2 * kChunkBytes, kChunkBytes}}) {
    Bytes part(size, 0xee);
    ASSERT_TRUE((*snapshot)->read(offset, part, soon()));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), model.begin() + static_cast<ptrdiff_t>(offset))) << offset;
  }
}

TEST_P(GlobalTierConformance, ReadsAndPatchesBeyondTheSizeAreRefused) {
  const Bytes bytes(10, 7);
  const Version version = put(id("k"), bytes).after.version;
  auto snapshot = tier_->pin(id("k"), soon());
  ASSERT_TRUE(snapshot);
  Bytes to(5);
  EXPECT_FAILS((*snapshot)->read(6, to, soon()), ErrorCode::kInvalidArgument);
  EXPECT_FAILS((*snapshot)->read(11, std::span<uint8_t>(), soon()), ErrorCode::kInvalidArgument);
  EXPECT_FAILS((*snapshot)->read(UINT64_MAX - 2, to, soon()), ErrorCode::kInvalidArgument);
  const uint32_t chunk = 1;
  EXPECT_FAILS((*snapshot)->changed_pages(std::span(&chunk, 1), 0, soon()), ErrorCode::kInvalidArgument);
  for (const uint64_t offset : std::initializer_list<uint64_t>{1, 10, 4096, 1ull << 40, UINT64_MAX - 4})
    EXPECT_FAILS(tier_->push(id("k"), {.patches = {{.offset = offset, .bytes = bytes}}}, soon()),
                 ErrorCode::kInvalidArgument);
  // Inside the old size, but not inside the one that the push sets.
  EXPECT_FAILS(tier_->push(id("k"), {.patches = {{.offset = 0, .bytes = bytes}}, .size_bytes = 9}, soon()),
               ErrorCode::kInvalidArgument);
  EXPECT_EQ(tier_->describe(id("k"), soon())->version, version);
  EXPECT_EQ(read(id("k")), bytes);
}

TEST_P(GlobalTierConformance, PatchesMustBeSortedAndApart) {
  const Bytes bytes(10, 7);
  put(id("k"), Bytes(100, 1));
  EXPECT_FAILS(
      tier_->push(id("k"), {.patches = {{.offset = 20, .bytes = bytes}, {.offset = 0, .bytes = bytes}}}, soon()),
      ErrorCode::kInvalidArgument);
  EXPECT_FAILS(
      tier_->push(id("k"), {.patches = {{.offset = 0, .bytes = bytes}, {.offset = 9, .bytes = bytes}}}, soon()),
      ErrorCode::kInvalidArgument);
  EXPECT_EQ(read(id("k")), Bytes(100, 1));
  push(id("k"), {.patches = {{.offset = 0, .bytes = bytes}, {.offset = 10, .bytes = bytes}}});
}

TEST_P(GlobalTierConformance, SizesUpToTheLimitAndNotBeyond) {
  EXPECT_FAILS(tier_->push(id("k"), {.size_bytes = kValueBytesMax + 1}, soon()), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(tier_->push(id("k"), {.size_bytes = UINT64_MAX}, soon()), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(tier_->describe(id("k"), soon()), ErrorCode::kNotFound);
  EXPECT_EQ(push(id("k"), {.size_bytes = kValueBytesMax}).after.size_bytes, kValueBytesMax);
  const Bytes bytes(1, 1);
  EXPECT_FAILS(tier_->push(id("k"), {.append = ByteSpan(bytes)}, soon()), ErrorCode::kInvalidArgument);
  EXPECT_EQ(push(id("empty"), {.size_bytes = 0}).after.size_bytes, 0u);
  EXPECT_EQ(tier_->describe(id("empty"), soon())->size_bytes, 0u);
  EXPECT_TRUE(read(id("empty")).empty());
}

TEST_P(GlobalTierConformance, WhatNobodyPushedIsZeroAndTakesNoTimeToStore) {
  push(id("k"), {.size_bytes = kValueBytesMax});
  const Bytes bytes = noise(5000, 3);
  for (const uint64_t offset : {uint64_t{0}, uint64_t{3} << 30, kValueBytesMax - 5000}) patch(id("k"), offset, bytes);
  auto snapshot = tier_->pin(id("k"), soon());
  ASSERT_TRUE(snapshot);
  EXPECT_EQ((*snapshot)->manifest().size_bytes, kValueBytesMax);
  for (const uint64_t offset : {uint64_t{0}, uint64_t{3} << 30, kValueBytesMax - 5000}) {
    Bytes there(5000);
    ASSERT_TRUE((*snapshot)->read(offset, there, soon()));
    EXPECT_EQ(there, bytes) << offset;
  }
  Bytes nothing(1 << 20, 0xee);
  ASSERT_TRUE((*snapshot)->read(uint64_t{1} << 30, nothing, soon()));
  EXPECT_TRUE(is_zero(nothing));
}

TEST_P(GlobalTierConformance, WhatWasCutOffIsZeroWhenTheValueGrowsAgain) {
  Bytes model = noise(2 * kChunkBytes + 20'000, 4);
  put(id("k"), model);
  for (const uint64_t cut :
       {2 * kChunkBytes + 9000, 2 * kChunkBytes, 2 * kChunkBytes - 1, uint64_t{5000}, uint64_t{1}, uint64_t{0}}) {
    EXPECT_EQ(push(id("k"), {.size_bytes = cut}).after.size_bytes, cut);
    EXPECT_EQ(read(id("k")), Bytes(model.begin(), model.begin() + static_cast<ptrdiff_t>(cut))) << cut;
    push(id("k"), {.size_bytes = model.size()});
    std::fill(model.begin() + static_cast<ptrdiff_t>(cut), model.end(), 0);
    ASSERT_EQ(read(id("k")), model) << cut;
  }
}

TEST_P(GlobalTierConformance, ASizeAndPatchesInOnePush) {
  put(id("k"), "0123456789");
  push(id("k"), {.patches = {{.offset = 1, .bytes = as_bytes("ab")}}, .size_bytes = 4});
  EXPECT_EQ(text(id("k")), "0ab3");
  push(id("k"), {.patches = {{.offset = 5, .bytes = as_bytes("z")}}, .size_bytes = 6});
  EXPECT_EQ(text(id("k")), std::string("0ab3\0z", 6));
}

TEST_P(GlobalTierConformance, ReplaceMakesZeroWhatIsOutsideThePatches) {
  const Bytes bytes = noise(3 * kChunkBytes, 5);
  put(id("k"), bytes);
  const Bytes part = noise(10'000, 6);
  const Pushed pushed = push(id("k"), {.patches = {{.offset = kChunkBytes + 17, .bytes = part}}, .replace = true});
  EXPECT_EQ(pushed.after.size_bytes, bytes.size());  // it keeps its size
  EXPECT_EQ(pushed.after.version.number, 2u);
  Bytes model(bytes.size(), 0);
  std::ranges::copy(part, model.begin() + kChunkBytes + 17);
  EXPECT_EQ(read(id("k")), model);
  put(id("k"), "short");
  EXPECT_EQ(text(id("k")), "short");
}

TEST_P(GlobalTierConformance, AppendPutsBytesBehindTheEndAndMakesTheValue) {
  const auto append = [&](ByteSpan bytes) { return push(id("k"), {.append = bytes}); };
  EXPECT_EQ(append(as_bytes("abc")).after.size_bytes, 3u);
  EXPECT_EQ(append({}).after.version.number, 2u);
  EXPECT_EQ(append(as_bytes("defg")).after.size_bytes, 7u);
  EXPECT_EQ(text(id("k")), "abcdefg");
  Bytes model = read(id("k"));
  for (int i = 0; i < 4; ++i) {
    const Bytes bytes = noise(100'000, static_cast<uint64_t>(i));
    append(bytes);
    model.insert(model.end(), bytes.begin(), bytes.end());
  }
  EXPECT_EQ(read(id("k")), model);
}

TEST_P(GlobalTierConformance, AppendStandsAlone) {
  const ByteSpan bytes = as_bytes("abcdefgh");
  put(id("k"), "there");
  EXPECT_FAILS(tier_->push(id("k"), {.patches = {{.offset = 0, .bytes = bytes}}, .append = bytes}, soon()),
               ErrorCode::kInvalidArgument);
  EXPECT_FAILS(tier_->push(id("k"), {.size_bytes = 3, .append = bytes}, soon()), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(tier_->push(id("k"), {.replace = true, .append = bytes}, soon()), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(tier_->push(id("k"), {.merge = MergeOp::kSum, .append = bytes}, soon()), ErrorCode::kInvalidArgument);
  EXPECT_EQ(text(id("k")), "there");
}

TEST_P(GlobalTierConformance, AppendsFromManyThreadsAreAllThereAndWhole) {
  constexpr int kThreads = 4, kAppends = 50;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      const std::string line(9, static_cast<char>('a' + t));
      for (int i = 0; i < kAppends; ++i) push(id("k"), {.append = as_bytes(line)});
    });
  threads.clear();
  const std::string all = text(id("k"));
  ASSERT_EQ(all.size(), 9u * kThreads * kAppends);
  std::array<int, kThreads> counts{};
  for (size_t at = 0; at < all.size(); at += 9) {
    ASSERT_EQ(all.substr(at, 9), std::string(9, all[at]));
    ++counts[static_cast<size_t>(all[at] - 'a')];
  }
  for (const int count : counts) EXPECT_EQ(count, kAppends);
  EXPECT_EQ(tier_->describe(id("k"), soon())->version.number, uint64_t{kThreads} * kAppends);
}

// ---- expected, once

TEST_P(GlobalTierConformance, ExpectedLetsOnlyThatVersionThrough) {
  const Push make{.size_bytes = 4, .expected = Version{}};
  const Version first = push(id("k"), make).after.version;
  EXPECT_FAILS(tier_->push(id("k"), make, soon()), ErrorCode::kAlreadyExists);
  const Version second = push(id("k"), {.expected = first}).after.version;
  EXPECT_FAILS(tier_->push(id("k"), {.expected = first}, soon()), ErrorCode::kAlreadyExists);
  EXPECT_FAILS(tier_->push(id("k"), {.expected = Version{first.epoch + 1, second.number}}, soon()),
               ErrorCode::kAlreadyExists);
  EXPECT_FAILS(tier_->push(id("k"), {.append = as_bytes("x"), .expected = first}, soon()), ErrorCode::kAlreadyExists);
  EXPECT_FAILS(tier_->push(id("other"), {.size_bytes = 4, .expected = first}, soon()), ErrorCode::kAlreadyExists);
  EXPECT_EQ(tier_->describe(id("k"), soon())->version, second);
  EXPECT_FAILS(tier_->remove(id("k"), first, soon()), ErrorCode::kAlreadyExists);
  EXPECT_FAILS(tier_->remove(id("k"), Version{}, soon()), ErrorCode::kAlreadyExists);
  EXPECT_TRUE(tier_->remove(id("k"), second, soon()));
  EXPECT_FAILS(tier_->remove(id("k"), second, soon()), ErrorCode::kNotFound);
}

TEST_P(GlobalTierConformance, OfManyWhoExpectOneVersionOneGetsThrough) {
  put(id("k"), Bytes(8, 0));
  constexpr int kThreads = 4, kRounds = 25;
  std::atomic<uint64_t> applied = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (int done = 0; done < kRounds;) {
        auto snapshot = tier_->pin(id("k"), soon());
        ASSERT_TRUE(snapshot);
        uint64_t count = 0;
        ASSERT_TRUE((*snapshot)->read(0, {reinterpret_cast<uint8_t*>(&count), 8}, soon()));
        ++count;
        auto result = tier_->push(id("k"),
                                  {.patches = {{.offset = 0, .bytes = {reinterpret_cast<uint8_t*>(&count), 8}}},
                                   .expected = (*snapshot)->manifest().version},
                                  soon());
        if (result) {
          ++done;
          ++applied;
        } else {
          ASSERT_EQ(code_of(result), to_string(ErrorCode::kAlreadyExists));
        }
      }
    });
  threads.clear();
  EXPECT_EQ(as_elements<uint64_t>(read(id("k"))), std::vector<uint64_t>{kThreads * kRounds});
  EXPECT_EQ(applied, static_cast<uint64_t>(kThreads * kRounds));
}

TEST_P(GlobalTierConformance, APushThatHasANameHappensOnce) {
  const Push add{.append = as_bytes("x"), .once = "call-1/0"};
  const Pushed first = push(id("k"), add);
  push(id("k"), {.append = as_bytes("y"), .once = "call-1/1"});
  const Pushed again = push(id("k"), add);
  EXPECT_EQ(again.before, first.before);
  EXPECT_EQ(again.after.version, first.after.version);
  EXPECT_EQ(again.after.size_bytes, first.after.size_bytes);
  EXPECT_EQ(text(id("k")), "xy");
  EXPECT_EQ(tier_->describe(id("k"), soon())->version.number, 2u);
  // The name is of this value only.
  push(id("other"), add);
  EXPECT_EQ(text(id("other")), "x");
  // A name of 64 bytes is good, a longer one is not.
  push(id("k"), {.append = as_bytes("z"), .once = std::string(64, 'n')});
  EXPECT_FAILS(tier_->push(id("k"), {.append = as_bytes("z"), .once = std::string(65, 'n')}, soon()),
               ErrorCode::kInvalidArgument);
  EXPECT_EQ(text(id("k")), "xyz");
}

TEST_P(GlobalTierConformance, ANamedPushThatWasAppliedSucceedsAgainThoughItsVersionIsGone) {
  const Version made = put(id("k"), "0").after.version;
  const Push named{.append = as_bytes("1"), .expected = made, .once = "n"};
  const Pushed first = push(id("k"), named);
  put(id("k"), "later");
  EXPECT_EQ(push(id("k"), named).after.version, first.after.version);
  EXPECT_EQ(text(id("k")), "later");
}

TEST_P(GlobalTierConformance, ANameOfAPushThatWasRefusedIsFree) {
  const Version made = put(id("k"), "0").after.version;
  EXPECT_FAILS(tier_->push(id("k"), {.append = as_bytes("1"), .expected = Version{made.epoch, 9}, .once = "n"}, soon()),
               ErrorCode::kAlreadyExists);
  push(id("k"), {.append = as_bytes("1"), .expected = made, .once = "n"});
  EXPECT_EQ(text(id("k")), "01");
}

TEST_P(GlobalTierConformance, TheLastNamesAreKept) {
  push(id("k"), {.size_bytes = 0});
  const auto named = [&](size_t i) { return Push{.append = as_bytes("x"), .once = "n" + std::to_string(i)}; };
  std::vector<std::jthread> threads;
  constexpr size_t kThreads = 4;
  push(id("k"), named(0));
  for (size_t t = 0; t < kThreads; ++t)  // with the first one, exactly the names that are kept
    threads.emplace_back([&, t] {
      for (size_t i = 1 + t; i < kOnceNamesMax; i += kThreads) push(id("k"), named(i));
    });
  threads.clear();
  ASSERT_EQ(tier_->describe(id("k"), soon())->size_bytes, kOnceNamesMax);
  EXPECT_EQ(push(id("k"), named(0)).after.size_bytes, 1u);
  EXPECT_EQ(tier_->describe(id("k"), soon())->size_bytes, kOnceNamesMax);
}

TEST_P(GlobalTierConformance, NamesFromManyThreadsCountOnceEach) {
  push(id("k"), {.size_bytes = 8});
  constexpr int kThreads = 4, kNames = 50;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      const Bytes one = elements<int64_t>({1});
      for (int i = 0; i < kNames; ++i)
        push(id("k"), {.patches = {{.offset = 0, .bytes = one}},
                       .merge = MergeOp::kSum,
                       .element = Element::kI64,
                       .once = std::to_string(i)});
    });
  threads.clear();
  EXPECT_EQ(as_elements<int64_t>(read(id("k"))), std::vector<int64_t>{kNames});
}

// ---- merges

template <class T>
struct MergeCase {
  Element element;
  std::vector<T> there, pushed, sum, min, max;
};

template <class T, class Push_, class Read_>
void check_merges(const MergeCase<T>& merge_case, const Push_& push_bytes, const Read_& read_bytes) {
  const auto bytes_of = [](const std::vector<T>& values) {
    Bytes out(values.size() * sizeof(T));
    std::memcpy(out.data(), values.data(), out.size());
    return out;
  };
  const auto same = [](T a, T b) { return a == b || (a != a && b != b); };
  for (const auto& [op, want] : {std::pair(MergeOp::kSum, merge_case.sum),
                                 {MergeOp::kMin, merge_case.min},
                                 {MergeOp::kMax, merge_case.max},
                                 {MergeOp::kOverwrite, merge_case.pushed}}) {
    push_bytes(MergeOp::kOverwrite, bytes_of(merge_case.there));
    push_bytes(op, bytes_of(merge_case.pushed));
    const std::vector<T> got = as_elements<T>(read_bytes());
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(same(got[i], want[i])) << "op " << int(op) << ", element " << i << ": " << got[i] << " not "
                                         << want[i];
  }
}

TEST_P(GlobalTierConformance, MergesMeetWhatIsThere) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();
  constexpr float kNanF = std::numeric_limits<float>::quiet_NaN();
  const auto check = [&]<class T>(const MergeCase<T>& merge_case) {
    const uint64_t offset = kPageBytes - sizeof(T);  // across two pages
    push(id("k"), {.size_bytes = 2 * kPageBytes});
    check_merges(
        merge_case,
        [&](MergeOp op, const Bytes& bytes) {
          push(id("k"), {.patches = {{.offset = offset, .bytes = bytes}}, .merge = op, .element = merge_case.element});
        },
        [&] {
          const Bytes all = read(id("k"));
          const auto begin = all.begin() + static_cast<ptrdiff_t>(offset);
          return Bytes(begin, begin + static_cast<ptrdiff_t>(merge_case.there.size() * sizeof(T)));
        });
  };
  constexpr int32_t kMin32 = INT32_MIN, kMax32 = INT32_MAX;
  constexpr int64_t kMin64 = INT64_MIN, kMax64 = INT64_MAX;
  check(MergeCase<int32_t>{.element = Element::kI32,
                           .there = {1, kMax32, kMin32, -5},
                           .pushed = {2, 1, -1, 7},
                           .sum = {3, kMin32, kMax32, 2},
                           .min = {1, 1, kMin32, -5},
                           .max = {2, kMax32, -1, 7}});
  check(MergeCase<int64_t>{.element = Element::kI64,
                           .there = {1, kMax64, kMin64, -5},
                           .pushed = {2, 1, -1, 7},
                           .sum = {3, kMin64, kMax64, 2},
                           .min = {1, 1, kMin64, -5},
                           .max = {2, kMax64, -1, 7}});
  check(MergeCase<float>{.element = Element::kF32,
                         .there = {1.5f, kNanF, 2, kNanF, -1},
                         .pushed = {2.25f, 1, kNanF, kNanF, -2},
                         .sum = {3.75f, kNanF, kNanF, kNanF, -3},
                         .min = {1.5f, 1, 2, kNanF, -2},
                         .max = {2.25f, 1, 2, kNanF, -1}});
  check(MergeCase<double>{.element = Element::kF64,
                          .there = {1.5, kNan, 2, kNan, kInf},
                          .pushed = {2.25, 1, kNan, kNan, -kInf},
                          .sum = {3.75, kNan, kNan, kNan, kNan},
                          .min = {1.5, 1, 2, kNan, -kInf},
                          .max = {2.25, 1, 2, kNan, kInf}});
}

TEST_P(GlobalTierConformance, MergesMeetZerosWhereNothingIs) {
  const Bytes bytes = elements<int64_t>({5, -5});
  const auto at = [&](const std::string& key, MergeOp op) {
    return push(id(key), {.patches = {{.offset = kChunkBytes - 8, .bytes = bytes}},
                          .merge = op,
                          .element = Element::kI64,
                          .size_bytes = kChunkBytes + 8});
  };
  const auto got = [&](const std::string& key) {
    const Bytes all = read(id(key));
    return all.size() == kChunkBytes + 8 ? as_elements<int64_t>(Bytes(all.end() - 16, all.end()))
                                         : std::vector<int64_t>();
  };
  at("sum", MergeOp::kSum);
  at("min", MergeOp::kMin);
  at("max", MergeOp::kMax);
  EXPECT_EQ(got("sum"), (std::vector<int64_t>{5, -5}));
  EXPECT_EQ(got("min"), (std::vector<int64_t>{0, -5}));
  EXPECT_EQ(got("max"), (std::vector<int64_t>{5, 0}));
  at("sum", MergeOp::kSum);
  EXPECT_EQ(got("sum"), (std::vector<int64_t>{10, -10}));
}

TEST_P(GlobalTierConformance, AMergeTakesWholeAlignedElements) {
  put(id("k"), Bytes(64, 1));
  const Bytes bytes(16, 1);
  const auto merge = [&](Element element, uint64_t offset, size_t size) {
    return tier_->push(id("k"),
                       {.patches = {{.offset = offset, .bytes = ByteSpan(bytes).first(size)}},
                        .merge = MergeOp::kSum,
                        .element = element},
                       soon());
  };
  EXPECT_FAILS(merge(Element::kI64, 4, 8), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(merge(Element::kF64, 8, 12), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(merge(Element::kI32, 2, 4), ErrorCode::kInvalidArgument);
  EXPECT_FAILS(merge(Element::kF32, 4, 6), ErrorCode::kInvalidArgument);
  EXPECT_EQ(read(id("k")), Bytes(64, 1));
  EXPECT_TRUE(merge(Element::kI32, 4, 12));
}

TEST_P(GlobalTierConformance, SumsFromManyThreadsAreExact) {
  push(id("k"), {.size_bytes = 16 * 8});
  constexpr int kThreads = 4, kPushes = 50;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      const Bytes bytes = elements<double>({1.0, 2.0});
      for (int i = 0; i < kPushes; ++i)
        push(id("k"), {.patches = {{.offset = 8 * static_cast<uint64_t>(t), .bytes = bytes}}, .merge = MergeOp::kSum});
    });
  threads.clear();
  const auto got = as_elements<double>(read(id("k")));
  EXPECT_EQ(got[0], 50);
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(got[i], 150) << i;
  EXPECT_EQ(got[4], 100);
}

// ---- pins

TEST_P(GlobalTierConformance, APinSeesOneVersionWhileOthersPush) {
  const Bytes old = noise(2 * kChunkBytes + 100, 7);
  put(id("k"), old);
  auto pin = tier_->pin(id("k"), soon());
  ASSERT_TRUE(pin);
  const Manifest manifest = (*pin)->manifest();
  EXPECT_EQ(manifest.version.number, 1u);
  const Bytes bytes = noise(10, 8);
  patch(id("k"), kChunkBytes - 5, bytes);
  EXPECT_EQ(read(**pin), old);
  push(id("k"), {.size_bytes = 10});
  EXPECT_EQ(read(**pin), old);
  put(id("k"), noise(kChunkBytes, 9));
  EXPECT_EQ(read(**pin), old);
  ASSERT_TRUE(tier_->remove(id("k"), std::nullopt, soon()));
  put(id("k"), "made again");
  EXPECT_EQ(read(**pin), old);
  EXPECT_EQ((*pin)->manifest().version, manifest.version);
  EXPECT_EQ((*pin)->manifest().size_bytes, old.size());
  EXPECT_EQ(text(id("k")), "made again");
}

TEST_P(GlobalTierConformance, PinsNeverSeeHalfAPush) {
  // Every push writes its own letter to both ends of a value of three chunks.
  put(id("k"), Bytes(3 * kChunkBytes, 'a'));
  std::atomic<bool> done = false;
  std::jthread pusher([&] {
    for (int i = 1; i <= 100; ++i) {
      const Bytes letter(5000, static_cast<uint8_t>('a' + i % 26));
      push(id("k"), {.patches = {{.offset = 0, .bytes = letter},
                                 {.offset = kChunkBytes + 77, .bytes = letter},
                                 {.offset = 3 * kChunkBytes - 5000, .bytes = letter}}});
    }
    done = true;
  });
  uint64_t pins = 0;
  do {
    auto pin = tier_->pin(id("k"), soon());
    ASSERT_TRUE(pin);
    const auto letter = static_cast<uint8_t>('a' + ((*pin)->manifest().version.number - 1) % 26);
    for (const uint64_t offset : {3 * kChunkBytes - 5000, kChunkBytes + 77, uint64_t{0}}) {
      Bytes part(5000);
      ASSERT_TRUE((*pin)->read(offset, part, soon()));
      ASSERT_EQ(part, Bytes(5000, letter)) << offset << ", pin " << pins;
    }
    ++pins;
  } while (!done);
}

TEST_P(GlobalTierConformance, ManyThreadsReadOnePin) {
  const Bytes bytes = noise(4 * kChunkBytes, 10);
  put(id("k"), bytes);
  auto pin = tier_->pin(id("k"), soon());
  ASSERT_TRUE(pin);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back([&] { EXPECT_EQ(read(**pin), bytes); });
}

// ---- changed pages

TEST_P(GlobalTierConformance, ChangedPagesAreThoseOfThePushesSince) {
  constexpr uint64_t kSize = 2 * kChunkBytes + 3 * kPageBytes;
  push(id("k"), {.size_bytes = kSize});  // 1
  const Bytes page = noise(kPageBytes, 11);
  const Bytes byte(2, 9);
  patch(id("k"), 0, page);                                                   // 2: page 0
  push(id("k"), {.patches = {{.offset = 5 * kPageBytes - 1, .bytes = byte},  // 3: pages 4, 5, 63 of chunk 0,
                             {.offset = kChunkBytes - 1, .bytes = byte},     //    page 0 of chunk 1,
                             {.offset = kSize - 2, .bytes = byte}}});        //    page 2 of chunk 2
  patch(id("k"), kPageBytes, page);                                          // 4: page 1
  push(id("k"), {});                                                         // 5: none
  auto pin = tier_->pin(id("k"), soon());
  ASSERT_TRUE(pin);
  const auto bits = [](std::initializer_list<int> pages) {
    uint64_t out = 0;
    for (const int at : pages) out |= 1ull << at;
    return out;
  };
  EXPECT_EQ(changed(**pin, 0, 1), bits({0, 1, 4, 5, 63}));
  EXPECT_EQ(changed(**pin, 0, 2), bits({1, 4, 5, 63}));
  EXPECT_EQ(changed(**pin, 0, 3), bits({1}));
  EXPECT_EQ(changed(**pin, 0, 4), 0u);
  EXPECT_EQ(changed(**pin, 0, 5), 0u);
  EXPECT_EQ(changed(**pin, 1, 2), bits({0}));
  EXPECT_EQ(changed(**pin, 1, 3), 0u);
  EXPECT_EQ(changed(**pin, 2, 2), bits({2}));
  const std::vector<uint32_t> chunks{2, 0, 1};
  auto pages = (*pin)->changed_pages(chunks, 2, soon());
  ASSERT_TRUE(pages);
  EXPECT_EQ(*pages, (std::vector<uint64_t>{bits({2}), bits({1, 4, 5, 63}), bits({0})}));
  // A pin answers for its own version.
  patch(id("k"), 2 * kPageBytes, page);
  EXPECT_EQ(changed(**pin, 0, 4), 0u);
  auto later = tier_->pin(id("k"), soon());
  ASSERT_TRUE(later);
  EXPECT_EQ(changed(**later, 0, 4), bits({2}));
}

TEST_P(GlobalTierConformance, MergesChangeTheirPages) {
  push(id("k"), {.size_bytes = 4 * kPageBytes});
  const Bytes zero = elements<int64_t>({0});
  push(id("k"), {.patches = {{.offset = kPageBytes, .bytes = elements<int64_t>({1})}},
                 .merge = MergeOp::kSum,
                 .element = Element::kI64});
  auto pin = tier_->pin(id("k"), soon());
  ASSERT_TRUE(pin);
  EXPECT_EQ(changed(**pin, 0, 1), 0b10u);
}

TEST_P(GlobalTierConformance, PagesThatWereCutOrReplacedHaveChanged) {
  const Bytes bytes = noise(kChunkBytes, 12);
  put(id("k"), bytes);                                 // 1
  push(id("k"), {.size_bytes = 10 * kPageBytes - 1});  // 2: cuts page 9 and what is behind
  push(id("k"), {.size_bytes = 20 * kPageBytes});      // 3
  auto pin = tier_->pin(id("k"), soon());
  ASSERT_TRUE(pin);
  // Pages 9 to 19 are not what they were at version 1; those that a value of this size does not have are no matter.
  EXPECT_EQ(changed(**pin, 0, 1) & 0xfffff, 0xffe00u);
  EXPECT_EQ(changed(**pin, 0, 2) & 0x3ff, 0u);
  push(id("k"), {.patches = {{.offset = 0, .bytes = ByteSpan(bytes).first(10)}}, .replace = true});  // 4
  pin = tier_->pin(id("k"), soon());
  ASSERT_TRUE(pin);
  EXPECT_EQ(changed(**pin, 0, 3) & 0x3ff, 0x3ffu);
  EXPECT_EQ(changed(**pin, 0, 4), 0u);
}

TEST_P(GlobalTierConformance, ChangedPagesOfAHugeSparseValue) {
  push(id("k"), {.size_bytes = kValueBytesMax});
  const uint32_t last = static_cast<uint32_t>(chunks_of(kValueBytesMax) - 1);
  patch(id("k"), kValueBytesMax - 1, as_bytes("x"));
  auto pin = tier_->pin(id("k"), soon());
  ASSERT_TRUE(pin);
  EXPECT_EQ(changed(**pin, last, 1), 1ull << ((kValueBytesMax - 1) % kChunkBytes / kPageBytes));
  EXPECT_EQ(changed(**pin, 5, 1), 0u);
}

// ---- names, lists, tenants, usage

const std::vector<std::string>& odd_keys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> out{"a",
                                 "a/b",
                                 "a/b/c",
                                 "a/b0",
                                 "a b",
                                 " ",
                                 "%",
                                 "%2F",
                                 "%00",
                                 "{",
                                 "}",
                                 "{tag}/x",
                                 ".",
                                 "..",
                                 "../../etc",
                                 "/",
                                 "//",
                                 "\x01",
                                 "\x7f",
                                 "\xc3\xa9",
                                 "*",
                                 "?",
                                 "[a-z]",
                                 "a*",
                                 "\n",
                                 "\\",
                                 "\"",
                                 "\xf0\x9f\x98\x80",
                                 "a:b",
                                 "a\xef\xbf\xbf",
                                 std::string(512, 'k'),
                                 std::string(511, 'k'),
                                 std::string(509, 'k') + "\xe2\x82\xac"};
    std::sort(out.begin(), out.end());
    return out;
  }();
  return keys;
}

TEST_P(GlobalTierConformance, OddKeysAreOrdinary) {
  for (const std::string& key : odd_keys()) put(id(key), "value of " + key);
  for (const std::string& key : odd_keys()) EXPECT_EQ(text(id(key)), "value of " + key);
  EXPECT_EQ(keys(""), odd_keys());
  for (const std::string prefix : {"a", "a/", "a/b", "{", "%", ".", "/", "k", "*", "\xc3", "\xf0\x9f", "zz", "\x7f"}) {
    std::vector<std::string> want;
    for (const std::string& key : odd_keys())
      if (key.starts_with(prefix)) want.push_back(key);
    EXPECT_EQ(keys(prefix), want) << prefix;
  }
  for (const std::string& key : odd_keys()) ASSERT_TRUE(tier_->remove(id(key), std::nullopt, soon())) << key;
  EXPECT_TRUE(keys("").empty());
}

TEST_P(GlobalTierConformance, WrongKeysAreRefusedEverywhere) {
  for (const std::string& key :
       {std::string(), std::string(513, 'k'), std::string("a\0b", 3), std::string("\x80"), std::string("a\xc3")}) {
    EXPECT_FAILS(tier_->pin(id(key), soon()), ErrorCode::kInvalidArgument);
    EXPECT_FAILS(tier_->describe(id(key), soon()), ErrorCode::kInvalidArgument);
    EXPECT_FAILS(tier_->push(id(key), {.size_bytes = 1}, soon()), ErrorCode::kInvalidArgument);
    EXPECT_FAILS(tier_->remove(id(key), std::nullopt, soon()), ErrorCode::kInvalidArgument);
    EXPECT_FAILS(tier_->try_lock(id(key), LockMode::kWrite, "me", milliseconds(1000), soon()),
                 ErrorCode::kInvalidArgument);
    EXPECT_FAILS(tier_->renew_lock(id(key), "me", milliseconds(1000), soon()), ErrorCode::kInvalidArgument);
    EXPECT_FAILS(tier_->unlock(id(key), "me", soon()), ErrorCode::kInvalidArgument);
  }
}

TEST_P(GlobalTierConformance, ListsComeInPages) {
  std::vector<std::string> all;
  for (int i = 0; i < 25; ++i) {
    char name[16];
    std::snprintf(name, sizeof name, "n/%02d", i);
    put(id(name), name);
    all.push_back(name);
  }
  put(id("m"), "");
  put(id("o"), "");
  for (const size_t limit : {1u, 7u, 25u, 26u}) {
    std::vector<std::string> got;
    std::string from;
    size_t pages = 0;
    do {
      auto page = tier_->list(tenant_, "n/", from, limit, soon());
      ASSERT_TRUE(page) << page.error().message;
      EXPECT_LE(page->entries.size(), limit);
      for (const auto& entry : page->entries) {
        got.push_back(entry.key);
        EXPECT_EQ(entry.manifest.version.number, 1u);
        EXPECT_EQ(entry.manifest.size_bytes, entry.key.size());
      }
      from = page->next;
      ASSERT_LE(++pages, 30u);
    } while (!from.empty());
    EXPECT_EQ(got, all) << limit;
  }
  EXPECT_EQ(keys("n/", "n/23"), (std::vector<std::string>{"n/23", "n/24"}));
  EXPECT_EQ(keys("n/", "n/23x"), (std::vector<std::string>{"n/24"}));
  EXPECT_EQ(keys("n/", "a").size(), 25u);
  EXPECT_TRUE(keys("n/", "o").empty());
  for (const size_t limit : {size_t{0}, size_t{1001}})
    EXPECT_FAILS(tier_->list(tenant_, "", "", limit, soon()), ErrorCode::kInvalidArgument);
}

TEST_P(GlobalTierConformance, TenantsDoNotMeet) {
  const ValueId mine = id("k");
  const ValueId theirs{.tenant = tenant_ + "2", .key = "k"};
  const ValueId near{.tenant = tenant_.substr(0, tenant_.size() - 1), .key = tenant_.back() + std::string("k")};
  put(mine, "mine");
  for (const ValueId& other : {theirs, near}) {
    EXPECT_FAILS(tier_->describe(other, soon()), ErrorCode::kNotFound);
    EXPECT_FAILS(tier_->remove(other, std::nullopt, soon()), ErrorCode::kNotFound);
    EXPECT_TRUE(tier_->list(other.tenant, "", "", 10, soon())->entries.empty());
    EXPECT_EQ(tier_->usage(other.tenant, soon())->keys, 0u);
  }
  put(theirs, "theirs");
  EXPECT_EQ(text(mine), "mine");
  EXPECT_EQ(text(theirs), "theirs");
  ASSERT_TRUE(*tier_->try_lock(mine, LockMode::kWrite, "a", milliseconds(60'000), soon()));
  EXPECT_TRUE(*tier_->try_lock(theirs, LockMode::kWrite, "b", milliseconds(60'000), soon()));
  ASSERT_TRUE(tier_->remove(theirs, std::nullopt, soon()));
  EXPECT_EQ(text(mine), "mine");
}

TEST_P(GlobalTierConformance, UsageIsTheSumOfKeysAndSizes) {
  const auto expect = [&](uint64_t value_count, uint64_t bytes) {
    auto usage = tier_->usage(tenant_, soon());
    ASSERT_TRUE(usage);
    EXPECT_EQ(usage->keys, value_count);
    EXPECT_EQ(usage->bytes, bytes);
  };
  expect(0, 0);
  put(id("a"), Bytes(100, 1));
  push(id("b"), {.size_bytes = kValueBytesMax});
  expect(2, kValueBytesMax + 100);
  push(id("b"), {.size_bytes = 50});
  push(id("a"), {.append = as_bytes("xyz")});
  patch(id("a"), 0, as_bytes("xyz"));
  expect(2, 153);
  EXPECT_FAILS(tier_->push(id("a"), {.size_bytes = 5, .expected = Version{1, 1}}, soon()), ErrorCode::kAlreadyExists);
  push(id("c"), {.append = as_bytes("1"), .once = "n"});
  push(id("c"), {.append = as_bytes("1"), .once = "n"});
  expect(3, 154);
  ASSERT_TRUE(tier_->remove(id("a"), std::nullopt, soon()));
  expect(2, 51);
  ASSERT_TRUE(tier_->remove(id("b"), std::nullopt, soon()));
  ASSERT_TRUE(tier_->remove(id("c"), std::nullopt, soon()));
  expect(0, 0);
}

TEST_P(GlobalTierConformance, UsageIsExactAfterManyThreads) {
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        const ValueId value = id(std::to_string(t) + "/" + std::to_string(i));
        put(value, Bytes(10, 1));
        push(value, {.append = as_bytes("12345")});
        if (i % 2 == 0) EXPECT_TRUE(tier_->remove(value, std::nullopt, soon()));
      }
    });
  threads.clear();
  EXPECT_EQ(tier_->usage(tenant_, soon())->keys, 20u);
  EXPECT_EQ(tier_->usage(tenant_, soon())->bytes, 300u);
}

TEST_P(GlobalTierConformance, ADeadlineThatIsPastIsAnErrorAndChangesNothing) {
  put(id("k"), "there");
  auto pin = tier_->pin(id("k"), soon());
  ASSERT_TRUE(pin);
  const Deadline past = Clock::now() - milliseconds(1);
  Bytes to(1);
  const uint32_t chunk = 0;
  EXPECT_FAILS((*pin)->read(0, to, past), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS((*pin)->changed_pages(std::span(&chunk, 1), 0, past), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier_->pin(id("k"), past), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier_->describe(id("k"), past), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier_->push(id("k"), {.size_bytes = 1}, past), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier_->remove(id("k"), std::nullopt, past), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier_->list(tenant_, "", "", 1, past), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier_->usage(tenant_, past), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier_->try_lock(id("k"), LockMode::kWrite, "me", milliseconds(1000), past),
               ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier_->renew_lock(id("k"), "me", milliseconds(1000), past), ErrorCode::kDeadlineExceeded);
  EXPECT_FAILS(tier_->unlock(id("k"), "me", past), ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(text(id("k")), "there");
}

TEST_P(GlobalTierConformance, ItHasAName) { EXPECT_FALSE(tier_->name().empty()); }

}  // namespace spore::state

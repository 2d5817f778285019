#include "state/quota_tier.h"

#include <atomic>
#include <thread>

#include "state/global_tier_conformance.h"
#include "state/reference_tier.h"

namespace spore::state {
namespace {

// With a quota that nothing here meets, it is as what is behind it.
struct Unbound {
  ReferenceTier reference;
  QuotaTier tier{reference, {.keys_max = 1 << 20, .bytes_max = 1ull << 50}};
};
INSTANTIATE_TEST_SUITE_P(Quota, GlobalTierConformance,
                         testing::Values(TierKind{"Quota",
                                                  [] {
                                                    const auto world = std::make_shared<Unbound>();
                                                    return std::shared_ptr<GlobalTier>(world, &world->tier);
                                                  }}),
                         kind_name);

Deadline soon() { return Clock::now() + std::chrono::seconds(60); }
ValueId id(const std::string& key) { return {.tenant = "t", .key = key}; }

class Quota : public testing::Test {
 protected:
  Result<Pushed> put(const ValueId& value, uint64_t size_bytes) {
    return tier_.push(value, {.size_bytes = size_bytes, .replace = true}, soon());
  }
  Result<Pushed> append(const ValueId& value, const std::string& text) {
    return tier_.push(value, {.append = as_bytes(text)}, soon());
  }

  ReferenceTier reference_;
  QuotaTier tier_{reference_, {.keys_max = 3, .bytes_max = 1000}};
};

}  // namespace

TEST_F(Quota, SoManyValuesAndNoMore) {
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(put(id(key), 0));
  const auto refused = put(id("d"), 0);
  EXPECT_FAILS(refused, ErrorCode::kResourceExhausted);
  EXPECT_EQ(refused.error().message, "tenant \"t\" may keep 3 values in the store of state");
  EXPECT_FAILS(append(id("d"), "x"), ErrorCode::kResourceExhausted);
  EXPECT_FAILS(tier_.describe(id("d"), soon()), ErrorCode::kNotFound);
  EXPECT_TRUE(put(id("a"), 10));
  EXPECT_TRUE(put({.tenant = "other", .key = "d"}, 0));
  ASSERT_TRUE(tier_.remove(id("a"), std::nullopt, soon()));
  EXPECT_TRUE(put(id("d"), 0));
}

TEST_F(Quota, SoManyBytesAndNoMore) {
  ASSERT_TRUE(put(id("a"), 600));
  const auto refused = put(id("b"), 401);
  EXPECT_FAILS(refused, ErrorCode::kResourceExhausted);
  EXPECT_EQ(refused.error().message, "tenant \"t\" may keep 1000 bytes in the store of state");
  ASSERT_TRUE(put(id("b"), 399));
  EXPECT_FAILS(append(id("b"), "xy"), ErrorCode::kResourceExhausted);
  EXPECT_TRUE(append(id("b"), "x"));
  EXPECT_FAILS(put(id("a"), 601), ErrorCode::kResourceExhausted);
  // What does not grow goes on: the same size, other bytes, less.
  EXPECT_TRUE(put(id("a"), 600));
  EXPECT_TRUE(tier_.push(id("a"), {.patches = {{.offset = 599, .bytes = as_bytes("x")}}}, soon()));
  EXPECT_TRUE(put(id("a"), 500));
  EXPECT_TRUE(put(id("c"), 100));
  EXPECT_EQ(tier_.usage("t", soon())->bytes, 1000u);
  // A size that no value may have is no matter of quota.
  EXPECT_FAILS(put(id("a"), kValueBytesMax + 1), ErrorCode::kInvalidArgument);
}

TEST_F(Quota, WhoIsOverItAlreadyMayKeepAndRemove) {
  for (const char* key : {"a", "b", "c", "d"}) ASSERT_TRUE(reference_.push(id(key), {.size_bytes = 500}, soon()));
  EXPECT_TRUE(put(id("a"), 500));
  EXPECT_TRUE(put(id("a"), 400));
  EXPECT_FAILS(put(id("a"), 401), ErrorCode::kResourceExhausted);
  EXPECT_TRUE(tier_.remove(id("a"), std::nullopt, soon()));
  EXPECT_FAILS(put(id("a"), 0), ErrorCode::kResourceExhausted);
}

TEST_F(Quota, APushThatIsRepeatedUnderItsNameIsNotRefused) {
  const Push push{.size_bytes = 1000, .once = "name"};
  ASSERT_TRUE(tier_.push(id("a"), push, soon()));
  const auto again = tier_.push(id("a"), push, soon());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->after.version.number, 1u);
}

TEST_F(Quota, PushesAtOnceDoNotGoPastItTogether) {
  QuotaTier tier(reference_, {.keys_max = 50, .bytes_max = 500});
  std::atomic<int> made = 0;
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread)
      threads.emplace_back([&, thread] {
        for (int i = 0; i < 40; ++i)
          made +=
              tier.push(id(std::to_string(thread) + "/" + std::to_string(i)), {.size_bytes = 10}, soon()).has_value();
      });
  }
  const Usage usage = *tier.usage("t", soon());
  EXPECT_LE(usage.keys, 50u);
  EXPECT_EQ(usage.keys, static_cast<uint64_t>(made));
  // Nothing is left counted of those that were refused.
  for (uint64_t more = usage.keys; more < 50; ++more)
    EXPECT_TRUE(tier.push(id("more/" + std::to_string(more)), {.size_bytes = 10}, soon()));
  EXPECT_FAILS(tier.push(id("one"), {.size_bytes = 0}, soon()), ErrorCode::kResourceExhausted);
}

}  // namespace spore::state

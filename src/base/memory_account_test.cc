#include "base/memory_account.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

namespace spore {
namespace {

using Refusal = MemoryAccount::Refusal;

constexpr MemoryKind kKinds[] = {MemoryKind::kFaaslets, MemoryKind::kPageTables, MemoryKind::kFiles,
                                 MemoryKind::kBuffers,  MemoryKind::kState,      MemoryKind::kImages};

uint64_t sum_of(const MemoryByKind& kinds) {
  uint64_t sum = 0;
  for (const uint64_t bytes : kinds) sum += bytes;
  return sum;
}

TEST(MemoryBooks, WhatIsRefusedByEitherLimitCountsNowhere) {
  MemoryBooks books({.bytes_max = 150, .bytes_per_tenant_max = 100, .tenant_bytes_max = {{"small", 10}}});
  MemoryCharge one(books.account_of("one"), MemoryKind::kFaaslets);
  MemoryCharge two(books.account_of("two"), MemoryKind::kState);
  MemoryCharge small(books.account_of("small"), MemoryKind::kFiles);
  EXPECT_EQ(one.cover(101), Refusal::kTenant);
  EXPECT_EQ(one.cover(100), Refusal::kNone);
  EXPECT_EQ(two.cover(51), Refusal::kHost);
  EXPECT_EQ(books.account_of("two")->total().bytes(), 0u) << "the host refused it";
  EXPECT_EQ(two.cover(50), Refusal::kNone);
  EXPECT_EQ(small.cover(11), Refusal::kTenant);
  EXPECT_EQ(small.cover(1), Refusal::kHost);
  EXPECT_EQ(books.total().bytes(), 150u);
  one.lower(60);
  EXPECT_EQ(small.cover(10), Refusal::kNone);
  MemoryCharge another(books.account_of("one"), MemoryKind::kFiles);
  EXPECT_EQ(another.cover(UINT64_MAX - 30), Refusal::kTenant) << "the sum is a small number, modulo 2^64";
  EXPECT_EQ(books.total().by_kind(), (MemoryByKind{60, 0, 10, 0, 50, 0}));
  const auto tenants = books.tenants();
  ASSERT_EQ(tenants.size(), 3u);
  EXPECT_EQ(tenants[0].tenant, "one");
  EXPECT_EQ(tenants[2].bytes_max, 10u);
  EXPECT_EQ(books.refused(Refusal::kTenant), 3u);
  EXPECT_EQ(books.refused(Refusal::kHost), 2u);
}

TEST(MemoryBooks, AChargeIsGivenBackWhateverBecomesOfIt) {
  MemoryBooks books({});
  const auto account = books.account_of("tenant");
  {
    MemoryCharge first(account, MemoryKind::kBuffers), moved_to;
    EXPECT_EQ(first.cover(7), Refusal::kNone);
    moved_to = std::move(first);
    MemoryCharge again(std::move(moved_to));
    EXPECT_EQ(again.bytes(), 7u);
    EXPECT_EQ(account->total().bytes(), 7u);
    MemoryCharge other(account, MemoryKind::kFiles);
    EXPECT_EQ(other.cover(5), Refusal::kNone);
    other = std::move(again);
    EXPECT_EQ(other.cover(8), Refusal::kNone);
    EXPECT_EQ(account->total().by_kind()[static_cast<size_t>(MemoryKind::kBuffers)], 8u);
  }
  EXPECT_EQ(account->total().bytes(), 0u);
  EXPECT_EQ(sum_of(books.total().by_kind()), 0u);
}

TEST(MemoryBooks, AsksForRoomOnceAndNotAgainAtOnceWhereThereWasNone) {
  MemoryBooks books({.bytes_max = 1'000, .bytes_per_tenant_max = 100});
  MemoryCharge kept(books.account_of("tenant"), MemoryKind::kFaaslets);
  MemoryCharge wanted(books.account_of("tenant"), MemoryKind::kFaaslets);
  int asked = 0;
  bool gives = true;
  books.on_shortage([&](const MemoryAccount* of, uint64_t bytes) {
    EXPECT_EQ(of, books.account_of("tenant").get());
    ++asked;
    if (gives) kept.lower(kept.bytes() - bytes);
  });
  ASSERT_EQ(kept.cover(100), Refusal::kNone);
  EXPECT_EQ(wanted.cover_at_once(10), Refusal::kTenant);
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(wanted.cover(10), Refusal::kNone);
  EXPECT_EQ(wanted.cover(20), Refusal::kNone) << "it made room a moment ago";
  EXPECT_EQ(asked, 2);
  gives = false;
  for (int i = 0; i < 1'000; ++i) EXPECT_EQ(wanted.cover(50), Refusal::kTenant);
  EXPECT_LT(asked, 100);
  EXPECT_EQ(wanted.cover(101), Refusal::kTenant) << "more than it can ever have: nobody is asked";
  EXPECT_LT(asked, 100);
}

// What the books say after each step against sums that are kept beside them.
TEST(MemoryBooks, AreExactAfterManyRandomSteps) {
  constexpr uint64_t kHostMax = 16'000, kTenantMax = 6'000;
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t bound) { return random() % bound; };
  MemoryBooks books({.bytes_max = kHostMax, .bytes_per_tenant_max = kTenantMax});
  const std::string tenants[] = {"a", "b", "c", "d"};
  struct Reference {
    size_t tenant = 0, kind = 0;
    uint64_t bytes = 0;
  };
  std::vector<MemoryCharge> charges(50);
  std::vector<Reference> reference(charges.size());
  size_t refusals[3] = {};
  for (int step = 0; step < 100'000; ++step) {
    const size_t i = below(charges.size());
    Reference& known = reference[i];
    uint64_t of_host = 0, of_tenant[4] = {};
    for (const Reference& each : reference) {
      of_host += each.bytes;
      of_tenant[each.tenant] += each.bytes;
    }
    switch (below(5)) {
      case 0: {  // another one in its place
        known = {.tenant = below(4), .kind = below(kMemoryKinds), .bytes = 0};
        charges[i] = MemoryCharge(books.account_of(tenants[known.tenant]), kKinds[known.kind]);
        break;
      }
      case 1: {
        const uint64_t to = below(2'000);
        charges[i].lower(to);
        known.bytes = std::min(known.bytes, to);
        break;
      }
      case 2: {
        const size_t j = below(charges.size());
        if (i == j) break;
        charges[i] = std::move(charges[j]);
        charges[j] = MemoryCharge();
        known = std::exchange(reference[j], {});
        break;
      }
      default: {
        const uint64_t to = below(2'000);
        const bool counted = charges[i].account() != nullptr;
        const uint64_t more = to > known.bytes ? to - known.bytes : 0;
        const Refusal expected = !counted || more == 0                         ? Refusal::kNone
                                 : of_tenant[known.tenant] + more > kTenantMax ? Refusal::kTenant
                                 : of_host + more > kHostMax                   ? Refusal::kHost
                                                                               : Refusal::kNone;
        ASSERT_EQ(charges[i].cover(to), expected);
        ++refusals[static_cast<size_t>(expected)];
        if (expected == Refusal::kNone && counted) known.bytes = std::max(known.bytes, to);
      }
    }
    MemoryByKind kinds{};
    uint64_t sums[4] = {};
    for (const Reference& each : reference) {
      kinds[each.kind] += each.bytes;
      sums[each.tenant] += each.bytes;
    }
    ASSERT_EQ(books.total().by_kind(), kinds) << step;
    ASSERT_EQ(books.total().bytes(), sum_of(kinds)) << step;
    for (size_t t = 0; t < 4; ++t) ASSERT_EQ(books.account_of(tenants[t])->total().bytes(), sums[t]) << step;
  }
  EXPECT_GT(refusals[1], 100u);
  EXPECT_GT(refusals[2], 100u);
}

TEST(MemoryBooks, ManyThreadsNeverHaveMoreThanTheLimitsAndLeaveNothing) {
  constexpr uint64_t kHostMax = 1'000, kTenantMax = 600;
  MemoryBooks books({.bytes_max = kHostMax, .bytes_per_tenant_max = kTenantMax});
  const auto one = books.account_of("one"), two = books.account_of("two");
  std::atomic<bool> over = false;
  {
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(t);
        for (int i = 0; i < 50'000; ++i) {
          MemoryCharge charge(random() % 2 ? one : two, kKinds[random() % kMemoryKinds]);
          (void)charge.cover_at_once(random() % 500);
          if (books.total().bytes() > kHostMax || one->total().bytes() > kTenantMax) over = true;
        }
      });
    }
  }
  EXPECT_FALSE(over);
  EXPECT_EQ(books.total().bytes(), 0u);
  EXPECT_EQ(sum_of(books.total().by_kind()), 0u);
  EXPECT_EQ(one->total().bytes() + two->total().bytes(), 0u);
}

}  // namespace
}  // namespace spore

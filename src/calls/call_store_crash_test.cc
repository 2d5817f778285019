// What the store of calls has answered is there after the machine loses its power, and nothing is there by half.
// Threads take calls in, begin and end attempts; at an append drawn at random the power goes, and what was not synced
// with it. Then the store is opened again and looked at.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "calls/call_store.h"
#include "object_store/directory_store.h"
#include "state/rocksdb_fault_fs.h"
#include "state/rocksdb_test_world.h"

namespace spore::calls {
namespace {

constexpr int kThreads = 4;
constexpr size_t kLargeEvery = 5;
constexpr size_t kLargeBytes = 70'000;

// What was answered for a call.
struct Told {
  CallId id;
  uint32_t attempt = 0;
  bool ended = false;
};
using Ledger = std::map<std::string, Told>;  // by idempotency key

Bytes input_of(const std::string& key, size_t number) {
  Bytes out(number % kLargeEvery == 0 ? kLargeBytes : 10);
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<uint8_t>(key[i % key.size()] + i);
  return out;
}

uint64_t seed_from_environment() {
  const char* text = std::getenv("SPORE_STATE_SEED");
  const uint64_t seed = text ? std::strtoull(text, nullptr, 10) : std::random_device()();
  std::printf("SPORE_STATE_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

int rounds_from_environment() {
  const char* text = std::getenv("SPORE_STATE_ROUNDS");
  return text ? std::atoi(text) : 20;
}

// Calls of one thread, each taken in, begun and ended, until something fails.
void work(CallStore& store, const std::string& prefix, Ledger& ledger) {
  for (size_t number = 0;; ++number) {
    CallRecord record;
    record.id = CallId::random();
    record.function = {"tenant", "function"};
    record.key = prefix + std::to_string(number);
    record.key_until_ms = INT64_MAX;
    record.created_ms = static_cast<int64_t>(number);
    const std::string key = record.key;
    const auto inserted = store.insert(std::move(record), input_of(key, number));
    if (!inserted) return;
    const CallId id = inserted->record.id;
    ASSERT_FALSE(inserted->existed);
    ledger[key] = {.id = id};
    const auto begun = store.change(
        id,
        [](CallRecord& there) {
          there.state = CallState::kRunning;
          ++there.attempt;
          return true;
        },
        Synced::kYes);
    if (!begun) return;
    ledger[key].attempt = (*begun)->record.attempt;
    const CallStore::Ending ending{.output = input_of(key, number), .log = {}};
    const auto ended = store.change(
        id,
        [](CallRecord& there) {
          there.state = CallState::kSucceeded;
          there.expires_ms = INT64_MAX;
          return true;
        },
        Synced::kYes, &ending);
    if (!ended) return;
    ledger[key].ended = true;
  }
}

void expect_whole(CallStore& store, size_t live, const Ledger& ledger) {
  size_t count = 0, live_listed = 0;
  uint64_t bytes = 0;
  ListQuery query{.tenant = "tenant", .limit = 1000};
  std::map<std::string, CallRecord> there;
  do {
    const auto page = store.list(query);
    ASSERT_TRUE(page) << page.error().message;
    for (const CallRecord& record : page->calls) {
      ++count;
      bytes += record.stored_bytes();
      live_listed += record.ended() ? 0 : 1;
      EXPECT_TRUE(there.emplace(record.key, record).second) << record.key << " stands for two calls";
      const size_t number = std::stoul(record.key.substr(record.key.find('/') + 1));
      const auto input = store.input(record);
      ASSERT_TRUE(input) << input.error().message;
      EXPECT_TRUE(*input == input_of(record.key, number));
      if (record.state != CallState::kSucceeded) continue;
      const auto output = store.output(record);
      ASSERT_TRUE(output) << output.error().message;
      EXPECT_TRUE(*output == input_of(record.key, number));
    }
    query.cursor = page->cursor;
  } while (!query.cursor.empty());
  EXPECT_EQ(live, live_listed);
  EXPECT_EQ(store.usage().calls, count);
  EXPECT_EQ(store.usage().bytes, bytes);
  for (const auto& [key, told] : ledger) {
    const auto found = there.find(key);
    ASSERT_NE(found, there.end()) << key << ": an acknowledged call is gone";
    EXPECT_EQ(found->second.id, told.id);
    EXPECT_GE(found->second.attempt, told.attempt);
    EXPECT_TRUE(found->second.ended() || !told.ended) << key << ": a result is gone";
    CallRecord again;
    again.id = CallId::random();
    again.function = found->second.function;
    again.key = key;
    const auto inserted = store.insert(std::move(again), {});
    ASSERT_TRUE(inserted) << inserted.error().message;
    EXPECT_TRUE(inserted->existed);
    EXPECT_EQ(inserted->record.id, told.id);
  }
}

TEST(CallStoreCrash, WhatWasAnsweredSurvivesALossOfPower) {
  std::mt19937_64 random(seed_from_environment());
  const state::TemporaryDirectory directory;
  auto objects = object_store::DirectoryStore::open(directory.path() / "objects");
  ASSERT_TRUE(objects);
  const auto fs = std::make_shared<state::FaultFs>();
  state::FaultEnv env(fs);
  const CallStoreOptions options{.room_for_intake_min = 0, .env = &env};
  Ledger ledger;
  for (int round = 0; round < rounds_from_environment() && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    fs->lose_power_after(static_cast<int64_t>(1 + random() % 300));
    {
      auto store = CallStore::open(directory.path() / "calls", **objects, options, [](const CallRecord&) {});
      std::vector<Ledger> ledgers(kThreads);
      std::vector<std::jthread> threads;
      for (int i = 0; store && i < kThreads; ++i)
        threads.emplace_back(
            [&, i] { work(**store, std::to_string(round) + "-" + std::to_string(i) + "/", ledgers[i]); });
      threads.clear();
      EXPECT_FALSE(fs->has_power()) << "the work ended though nothing happened";
      for (Ledger& one : ledgers) ledger.merge(one);
    }
    fs->restart();
    size_t live = 0;
    auto store = CallStore::open(directory.path() / "calls", **objects, options, [&](const CallRecord&) { ++live; });
    ASSERT_TRUE(store) << store.error().message;
    expect_whole(**store, live, ledger);
  }
  EXPECT_GT(ledger.size(), 0u);
}

}  // namespace
}  // namespace spore::calls

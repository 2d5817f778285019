#include "calls/call_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "object_store/directory_store.h"
#include "state/rocksdb_test_world.h"
#include "state/rocksdb_tier.h"

namespace spore::calls {
namespace {

using state::TemporaryDirectory;

class CallStoreTest : public testing::Test {
 protected:
  CallStoreTest() {
    objects_ = std::move(*object_store::DirectoryStore::open(directory_.path() / "objects"));
    options_.now_ms = [this] { return now_ms_.load(); };
  }

  // Closes what is open; the calls that have not ended are in live_.
  CallStore& open() {
    store_.reset();
    live_.clear();
    auto opened = CallStore::open(directory_.path() / "calls", *objects_, options_,
                                  [this](const CallRecord& record) { live_.push_back(record); });
    EXPECT_TRUE(opened) << opened.error().message;
    store_ = std::move(*opened);
    return *store_;
  }
  CallRecord new_call(std::string key = "", const std::string& tenant = "t") {
    CallRecord record;
    record.id = CallId::random();
    record.function = {tenant, "f"};
    record.attempts_max = 3;
    record.key = std::move(key);
    record.created_ms = now_ms_;
    if (!record.key.empty()) record.key_until_ms = now_ms_ + 1'000;
    return record;
  }
  CallRecord insert(std::string key = "", std::string_view input = "input") {
    auto inserted = store_->insert(new_call(std::move(key)), as_bytes(input));
    EXPECT_TRUE(inserted) << inserted.error().message;
    return inserted->record;
  }
  bool end(const CallId& id, CallState state, Bytes output = {}, int64_t ttl_ms = 1'000) {
    CallStore::Ending ending{.output = std::move(output), .log = {'l', 'o', 'g'}};
    if (state != CallState::kSucceeded) ending.output.reset();
    const auto changed = store_->change(
        id,
        [&](CallRecord& record) {
          if (record.ended()) return false;
          ++record.attempt;
          record.state = state;
          record.dead = state == CallState::kFailed;
          record.ended_ms = now_ms_;
          record.expires_ms = now_ms_ + ttl_ms;
          return true;
        },
        Synced::kYes, &ending);
    EXPECT_TRUE(changed && *changed);
    return (*changed)->changed;
  }
  std::vector<CallId> listed(ListQuery query) {
    std::vector<CallId> out;
    for (const CallRecord& record : store_->list(query)->calls) out.push_back(record.id);
    return out;
  }
  size_t objects() { return objects_->list("calls/")->size(); }

  const TemporaryDirectory directory_;
  std::unique_ptr<object_store::DirectoryStore> objects_;
  std::atomic<int64_t> now_ms_ = 1'000'000;
  CallStoreOptions options_;
  std::unique_ptr<CallStore> store_;
  std::vector<CallRecord> live_;
};

TEST_F(CallStoreTest, ACallIsThereAgainWithItsInputAndItsResult) {
  open();
  const CallRecord first = insert();
  now_ms_ += 5;
  const CallRecord second = insert("", std::string(100'000, 'x'));
  EXPECT_EQ(objects(), 1u);
  open();
  ASSERT_EQ(live_.size(), 2u);
  EXPECT_EQ(live_[0].id, first.id);
  EXPECT_EQ(live_[1].id, second.id);
  EXPECT_EQ(as_text(*store_->input(live_[0])), "input");
  EXPECT_EQ(store_->input(live_[1])->size(), 100'000u);
  EXPECT_TRUE(end(first.id, CallState::kSucceeded, {'o', 'u', 't'}));
  EXPECT_TRUE(end(second.id, CallState::kSucceeded, Bytes(200'000, 'y')));
  EXPECT_FALSE(end(first.id, CallState::kCancelled));
  open();
  EXPECT_TRUE(live_.empty());
  EXPECT_EQ(as_text(*store_->output(**store_->find(first.id))), "out");
  EXPECT_EQ(as_text(*store_->log(**store_->find(first.id))), "log");
  EXPECT_EQ(*store_->output(**store_->find(second.id)), Bytes(200'000, 'y'));
  EXPECT_EQ(objects(), 2u);
}

TEST_F(CallStoreTest, TheResultOfAnAttemptComesBackAsItWas) {
  open();
  const CallRecord call = insert();
  worker::CallResult result;
  result.id = call.id;
  result.status = worker::CallStatus::kTrapped;
  result.trap = {.kind = wasm::TrapKind::kUnreachable,
                 .message = "unreachable",
                 .stack = {{.function_index = 7, .function = "inner", .code_offset = 12}}};
  result.start = worker::StartKind::kWarm;
  result.duration = std::chrono::microseconds(1234);
  ASSERT_TRUE(store_->change(call.id, [&](CallRecord& record) { return record.result = result, true; }, Synced::kNo));
  open();
  const worker::CallResult there = (*store_->find(call.id))->result;
  EXPECT_EQ(there.id, call.id);
  EXPECT_EQ(there.status, result.status);
  EXPECT_EQ(there.trap.kind, result.trap.kind);
  EXPECT_EQ(there.trap.message, result.trap.message);
  ASSERT_EQ(there.trap.stack.size(), 1u);
  EXPECT_EQ(there.trap.stack[0].function, "inner");
  EXPECT_EQ(there.trap.stack[0].code_offset, 12u);
  EXPECT_EQ(there.start, result.start);
  EXPECT_EQ(there.duration, result.duration);
}

TEST_F(CallStoreTest, RecordsThatAreCutOffOrDamagedAreNone) {
  const Bytes whole = new_call("key").write();
  ASSERT_TRUE(CallRecord::parse(whole));
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(CallRecord::parse(ByteSpan(whole).first(size)));
  Bytes longer = whole;
  longer.push_back(0);
  EXPECT_FALSE(CallRecord::parse(longer));
}

TEST_F(CallStoreTest, AKeyStandsForOneCallUntilItsTimeIsOverAndTheCallHasEnded) {
  open();
  const CallRecord first = insert("key");
  now_ms_ += 2'000;  // the key's time is over, the call's is not
  const auto again = store_->insert(new_call("key"), {});
  EXPECT_TRUE(again->existed);
  EXPECT_EQ(again->record.id, first.id);
  EXPECT_TRUE(end(first.id, CallState::kSucceeded, {}, 10'000));
  const CallRecord second = insert("key");
  EXPECT_NE(second.id, first.id);
  // What is removed takes only its own key along.
  const auto always = [](const CallRecord&) { return true; };
  EXPECT_TRUE(*store_->remove(first.id, always, Synced::kYes));
  EXPECT_TRUE(store_->insert(new_call("key"), {})->existed);
  EXPECT_TRUE(*store_->remove(second.id, always, Synced::kYes));
  EXPECT_FALSE(store_->insert(new_call("key"), {})->existed);
}

TEST_F(CallStoreTest, OfManyAtOnceWithOneKeyOneIsStored) {
  open();
  std::atomic<int> stored = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i)
      threads.emplace_back([&] { stored += store_->insert(new_call("key"), {})->existed ? 0 : 1; });
  }
  EXPECT_EQ(stored, 1);
  EXPECT_EQ(store_->usage().calls, 1u);
}

TEST_F(CallStoreTest, ExpiredCallsAreHiddenAtOnceAndRemovedLaterWithAllThatIsTheirs) {
  open();
  const CallRecord call = insert("key", std::string(100'000, 'x'));
  const CallRecord kept = insert();
  EXPECT_TRUE(end(call.id, CallState::kFailed));
  EXPECT_TRUE(end(kept.id, CallState::kSucceeded, Bytes(100'000, 'y'), 5'000));
  EXPECT_EQ(store_->usage().dead, 1u);
  now_ms_ += 1'000;
  EXPECT_FALSE(*store_->find(call.id));
  EXPECT_EQ(*store_->expire(100), 1u);
  EXPECT_EQ(*store_->expire(100), 0u);
  EXPECT_EQ(objects(), 1u);
  EXPECT_EQ(store_->usage().calls, 1u);
  EXPECT_EQ(store_->usage().dead, 0u);
  now_ms_ += 5'000;
  EXPECT_EQ(*store_->expire(100), 1u);
  EXPECT_EQ(store_->usage().calls, 0u);
  EXPECT_EQ(store_->usage().bytes, 0u);
  open();
  EXPECT_EQ(store_->usage().calls, 0u);
  EXPECT_TRUE(listed({}).empty());
}

TEST_F(CallStoreTest, ListsAreNewestFirstInPagesAndFiltered) {
  open();
  std::vector<CallId> newest_first;
  for (int i = 0; i < 7; ++i) {
    newest_first.insert(newest_first.begin(), insert().id);
    now_ms_ += 1;
  }
  ASSERT_TRUE(store_->insert(new_call("", "other"), {}));
  EXPECT_EQ(listed({.tenant = "t"}), newest_first);
  EXPECT_EQ(listed({}).size(), 8u);
  EXPECT_TRUE(listed({.tenant = "nobody"}).empty());
  std::vector<CallId> paged;
  ListQuery query{.tenant = "t", .limit = 3};
  do {
    const auto page = store_->list(query);
    for (const CallRecord& record : page->calls) paged.push_back(record.id);
    query.cursor = page->cursor;
  } while (!query.cursor.empty());
  EXPECT_EQ(paged, newest_first);
  EXPECT_TRUE(end(newest_first[2], CallState::kFailed));
  EXPECT_EQ(listed({.tenant = "t", .dead = true}), std::vector{newest_first[2]});
  EXPECT_EQ(listed({.tenant = "t", .state = CallState::kQueued}).size(), 6u);
  EXPECT_FALSE(store_->list({.tenant = "t", .cursor = "x"}));
  EXPECT_FALSE(store_->list({.tenant = "t", .cursor = std::string(40, '\0')}));
}

TEST_F(CallStoreTest, BoundsAreOfATenantAndOfAll) {
  options_.calls_per_tenant_max = 2;
  options_.calls_max = 3;
  options_.bytes_per_tenant_max = 10'000;
  open();
  insert();
  insert();
  EXPECT_EQ(store_->insert(new_call(), {}).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(store_->insert(new_call("", "large"), Bytes(10'000)).error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(store_->insert(new_call("", "other"), {}));
  EXPECT_EQ(store_->insert(new_call("", "third"), {}).error().code, ErrorCode::kUnavailable);
  open();  // they are counted again
  EXPECT_EQ(store_->insert(new_call("", "third"), {}).error().code, ErrorCode::kUnavailable);
}

TEST_F(CallStoreTest, WhatNoRecordRefersToGoesWhenTheStoreIsOpened) {
  open();
  const CallRecord call = insert("", std::string(100'000, 'x'));
  for (const std::string& name : {"calls/" + CallId::random().text() + "/input",
                                  "calls/" + call.id.text() + "/output-1", std::string("calls/other")})
    ASSERT_TRUE(objects_->put(name, as_bytes("x")));
  open();
  ASSERT_EQ(objects(), 1u);
  EXPECT_EQ(store_->input(live_[0])->size(), 100'000u);
}

TEST_F(CallStoreTest, WithoutRoomNothingIsTakenAndWhatIsThereGoesOn) {
  open();
  const CallRecord call = insert();
  options_.room_for_intake_min = 1ull << 60;
  open();
  EXPECT_EQ(store_->insert(new_call("key"), Bytes(100'000)).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(store_->usage().calls, 1u);
  EXPECT_EQ(objects(), 0u);
  EXPECT_TRUE(end(call.id, CallState::kSucceeded, {'x'}));
  options_.room_for_intake_min = 0;
  open();
  EXPECT_FALSE(store_->insert(new_call("key"), {})->existed);
}

TEST_F(CallStoreTest, AnotherFormatIsRefused) {
  ASSERT_TRUE(state::RocksDbTier::open(directory_.path() / "calls", {}));
  const auto opened = CallStore::open(directory_.path() / "calls", *objects_, options_, [](const CallRecord&) {});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_NE(opened.error().message.find("spore state 1"), std::string::npos) << opened.error().message;
}

}  // namespace
}  // namespace spore::calls

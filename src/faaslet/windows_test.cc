#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "base/fd.h"
#include "faaslet/faaslet.h"
#include "support/runtime.h"

namespace spore::faaslet {
namespace {

using testing::call;
using testing::restore;
using wasm::Cell;

// A file, and what was heard of its mappings.
class File final : public WindowSource {
 public:
  explicit File(uint64_t size_bytes) {
    file_ = std::move(*make_memfd("window"));
    EXPECT_EQ(::ftruncate(file_.get(), static_cast<off_t>(size_bytes)), 0);
  }
  int fd() const override { return file_.get(); }
  Result<void> mapped(uint8_t* at, uint64_t, bool) override {
    if (refuses) return fail(ErrorCode::kUnavailable, "no");
    at_.push_back(at);
    return {};
  }
  void unmapping(uint8_t* at) override {
    EXPECT_EQ(std::erase(at_, at), 1u);
    bytes_seen_at_the_end = *at;  // it is still there
  }
  bool reusable() const override { return !stale; }
  std::unique_ptr<WindowWait> wait_at(uint64_t, const std::function<bool()>&) override { return nullptr; }
  uint32_t notify_at(uint64_t, uint32_t) override { return 0; }
  size_t mappings() const { return at_.size(); }

  bool refuses = false;
  bool stale = false;
  uint8_t bytes_seen_at_the_end = 0;

 private:
  UniqueFd file_;
  std::vector<uint8_t*> at_;
};

constexpr uint64_t kMiB = 1 << 20;

class Windows : public ::testing::Test {
 protected:
  void SetUp() override {
    auto prepared = testing::prepare(R"((module (memory 1)
      (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
      (func (export "store") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))
      (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))))");
    ASSERT_TRUE(prepared.has_value());
    ready_ = *prepared;
    faaslet_ = restore(ready_);
  }
  uint32_t map(const std::shared_ptr<File>& file, uint64_t size_bytes, bool writable = true) {
    auto mapped = faaslet_->map_window(file, size_bytes, writable);
    EXPECT_TRUE(mapped.has_value()) << (mapped ? "" : mapped.error().message);
    return mapped.value_or(0);
  }
  bool store(uint32_t at, uint8_t value) {
    const Cell arguments[] = {{at, 0}, {value, 0}};
    return call(*faaslet_, "store", arguments).kind == Outcome::Kind::kReturned;
  }
  int load(uint32_t at) {
    const Cell argument{at, 0};
    if (call(*faaslet_, "load", {&argument, 1}).kind != Outcome::Kind::kReturned) return -1;
    return static_cast<int>(static_cast<uint32_t>(faaslet_->result(0).low));
  }
  int32_t grow(uint32_t pages) {
    const Cell argument{pages, 0};
    EXPECT_EQ(call(*faaslet_, "grow", {&argument, 1}).kind, Outcome::Kind::kReturned);
    return static_cast<int32_t>(faaslet_->result(0).low);
  }

  testing::Ready ready_;
  std::unique_ptr<Faaslet> faaslet_;
};

}  // namespace

TEST_F(Windows, AreSharedMemoryBetweenGuardsAboveLinearMemory) {
  const auto file = std::make_shared<File>(3 * kMiB);
  const uint32_t at = map(file, 3 * kMiB - 100);
  EXPECT_EQ(at % 65536, 0u);
  EXPECT_GT(at, 0xff000000u);
  const uint32_t read_only = map(file, 4096, false);
  EXPECT_LE(read_only + 2 * 65536, at);
  EXPECT_TRUE(store(at + 7, 42));
  EXPECT_EQ(load(read_only + 7), 42);
  EXPECT_FALSE(store(read_only + 7, 1));
  EXPECT_TRUE(store(at + 3 * kMiB - 1, 1));  // the rest of the last page
  EXPECT_FALSE(store(at + 3 * kMiB, 1));
  EXPECT_FALSE(store(at - 1, 1));
  EXPECT_EQ(load(read_only + 4096), -1);
  EXPECT_TRUE(faaslet_->holds(at, 3 * kMiB));
  EXPECT_FALSE(faaslet_->holds(at, 3 * kMiB + 1));
  EXPECT_FALSE(faaslet_->holds(at - 1, 2));
  EXPECT_FALSE(faaslet_->holds(at + 1, UINT64_MAX));
}

TEST_F(Windows, StayThroughAResetUnlessTheirSourceSaysNo) {
  const auto stays = std::make_shared<File>(4096), goes = std::make_shared<File>(4096);
  const uint32_t first = map(stays, 4096), second = map(goes, 4096);
  EXPECT_TRUE(store(second, 9));
  goes->stale = true;
  ASSERT_TRUE(faaslet_->reset());
  EXPECT_EQ(stays->mappings(), 1u);
  EXPECT_EQ(goes->mappings(), 0u);
  EXPECT_EQ(goes->bytes_seen_at_the_end, 9);
  EXPECT_TRUE(store(first, 1));
  EXPECT_FALSE(store(second, 1));
}

TEST_F(Windows, ThatNobodyUsesMakeRoomForMemory) {
  const auto large = std::make_shared<File>(1ull << 30), small = std::make_shared<File>(4096);
  map(large, 1ull << 30);
  ASSERT_TRUE(faaslet_->reset());
  const uint32_t at = map(small, 4096);
  const uint32_t room = at / 65536 - 1;  // up to the window in use, through the other
  EXPECT_EQ(grow(room + 1), -1);
  EXPECT_EQ(large->mappings(), 0u);
  EXPECT_EQ(small->mappings(), 1u);
  faaslet_->unmap_windows();
  EXPECT_EQ(grow(65536), -1);
}

TEST_F(Windows, FindTheGapsBetweenOthers) {
  std::vector<std::shared_ptr<File>> files;
  std::vector<uint32_t> at;
  for (int i = 0; i < 5; ++i) at.push_back(map(files.emplace_back(std::make_shared<File>(100'000)), 100'000));
  EXPECT_TRUE(std::ranges::is_sorted(at, std::greater<>()));
  faaslet_->unmap_window(at[2]);
  EXPECT_EQ(files[2]->mappings(), 0u);
  EXPECT_EQ(map(std::make_shared<File>(200'000), 200'000) < at[4], true);
  EXPECT_EQ(map(files[2], 90'000), at[2]);
}

TEST_F(Windows, AreBoundedInNumberAndRoom) {
  const auto file = std::make_shared<File>(4096);
  for (size_t i = 0; i < kWindowsMax; ++i) map(file, 4096);
  EXPECT_EQ(faaslet_->map_window(file, 4096, true).error().code, ErrorCode::kResourceExhausted);
  faaslet_->unmap_windows();
  EXPECT_EQ(faaslet_->map_window(file, 4ull << 30, true).error().code, ErrorCode::kResourceExhausted);
  file->refuses = true;
  EXPECT_EQ(faaslet_->map_window(file, 4096, true).error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(faaslet_->windows().empty());
}

TEST_F(Windows, GoWithASlotAndNotWithAnIdleOnesReturn) {
  const auto file = std::make_shared<File>(4096);
  const uint32_t at = map(file, 4096);
  EXPECT_TRUE(store(at, 5));
  // In the midst of a call it keeps them, in whatever slot.
  Slot old = std::move(*faaslet_->move_out());
  EXPECT_EQ(file->mappings(), 0u);
  ASSERT_TRUE(old.clear());
  ASSERT_TRUE(faaslet_->move_into(std::move(*Slot::reserve())));
  EXPECT_EQ(file->mappings(), 1u);
  EXPECT_EQ(load(at), 5);
  // An idle one does not.
  ASSERT_TRUE(faaslet_->reset());
  ASSERT_TRUE(faaslet_->move_out());
  ASSERT_TRUE(faaslet_->move_into(std::move(old)));
  EXPECT_TRUE(faaslet_->windows().empty());
  map(file, 4096);
  faaslet_.reset();
  EXPECT_EQ(file->mappings(), 0u);
}

}  // namespace spore::faaslet

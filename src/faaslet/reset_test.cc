#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <thread>

#include "base/mapping.h"
#include "faaslet/page_scan.h"
#include "support/runtime.h"

namespace spore::faaslet {
namespace {

constexpr uint64_t kPage = 4096;

// Exports: touch(begin, end, step) writes to memory, grow(pages), and dirty(), which changes a global and a table.
testing::Ready module() {
  auto ready = testing::prepare(R"((module
    (memory (export "memory") 40 100) (data (i32.const 5000) "image") (table 2 funcref) (global $g (mut i32) (i32.const 1))
    (elem declare func $dirty)
    (func (export "touch") (param $at i32) (param $end i32) (param $step i32)
      (loop $again
        (i32.store (local.get $at) (i32.const 0x55555555))
        (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (local.get $step))) (local.get $end)))))
    (func (export "grow") (param i32) (drop (memory.grow (local.get 0))))
    (func $dirty (export "dirty") (global.set $g (i32.const 2)) (table.set 0 (i32.const 1) (ref.func $dirty)))
    (func (export "stop") unreachable)))");
  EXPECT_TRUE(ready.has_value()) << (ready ? "" : ready.error().message);
  return *ready;
}

void expect_image(const Faaslet& faaslet, const testing::Ready& ready) {
  const int64_t bottom = ready.object->layout().stack_bottom;
  const uint64_t size = static_cast<uint64_t>(-bottom) + ready.proto->memory_bytes();
  EXPECT_EQ(faaslet.memory_bytes(), ready.proto->memory_bytes());
  EXPECT_TRUE(std::equal(faaslet.memory() + bottom, faaslet.memory() + bottom + size, ready.proto->image()));
}

Outcome touch(Faaslet& faaslet, uint64_t begin, uint64_t end, uint64_t step) {
  const wasm::Cell arguments[] = {{begin, 0}, {end, 0}, {step, 0}};
  return testing::call(faaslet, "touch", arguments);
}

bool kernel_can_scan() {
  alignas(kPage) static uint8_t page[kPage];
  std::array<PageRange, 1> ranges;
  return scan_copied_pages(reinterpret_cast<uint64_t>(page), reinterpret_cast<uint64_t>(page) + kPage, 2, ranges)
      .has_value();
}

TEST(Reset, UndoesAFewPagesAndKeepsThemMapped) {
  const auto ready = module();
  const auto faaslet = testing::restore(ready);
  for (int round = 0; round < 3; ++round) {
    testing::call(*faaslet, "dirty");
    touch(*faaslet, 4096, 100'000, 40'000);
    ASSERT_TRUE(faaslet->reset());
    expect_image(*faaslet, ready);
  }
  // The page of 4096 was copied for the guest and is so still.
  if (!kernel_can_scan()) GTEST_SKIP() << "PAGEMAP_SCAN needs Linux 6.7";
  std::array<PageRange, 8> ranges;
  const uint64_t page = reinterpret_cast<uint64_t>(faaslet->memory()) + kPage;
  EXPECT_EQ(scan_copied_pages(page, page + kPage, 8, ranges), 1u);
}

TEST(Reset, UndoesManyPages) {
  const auto ready = module();
  const auto faaslet = testing::restore(ready);
  for (const uint64_t step : {uint64_t{4}, kPage, 2 * kPage}) {
    touch(*faaslet, 0, ready.proto->memory_bytes(), step);
    ASSERT_TRUE(faaslet->reset());
    expect_image(*faaslet, ready);
  }
}

TEST(Reset, TakesGrownMemoryAway) {
  const auto ready = module();
  const auto faaslet = testing::restore(ready);
  const uint64_t size = ready.proto->memory_bytes();
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(touch(*faaslet, size, size + 4, 4).trap.kind, wasm::TrapKind::kMemoryOutOfBounds);
    const wasm::Cell pages{20, 0};
    testing::call(*faaslet, "grow", {&pages, 1});
    EXPECT_EQ(touch(*faaslet, size - 8, size + 100'000, 4).kind, Outcome::Kind::kReturned);
    ASSERT_TRUE(faaslet->reset());
    expect_image(*faaslet, ready);
  }
}

TEST(Reset, FollowsATrap) {
  const auto ready = module();
  const auto faaslet = testing::restore(ready);
  EXPECT_EQ(testing::call(*faaslet, "stop").kind, Outcome::Kind::kTrapped);
  ASSERT_TRUE(faaslet->reset());
  expect_image(*faaslet, ready);
  EXPECT_EQ(testing::call(*faaslet, "dirty").kind, Outcome::Kind::kReturned);
}

TEST(Reset, HasTheSameEffectWhereTheKernelCannotTellPages) {
  const auto ready = module();
  const auto faaslet = testing::restore(ready);
  for (const bool available : {true, false, true, false}) {
    set_page_scan_available(available);
    const wasm::Cell pages{3, 0};
    testing::call(*faaslet, "grow", {&pages, 1});
    touch(*faaslet, 4096, ready.proto->memory_bytes() + 100'000, 12'000);
    testing::call(*faaslet, "dirty");
    EXPECT_TRUE(faaslet->reset());
    expect_image(*faaslet, ready);
  }
  set_page_scan_available(true);
}

TEST(Reset, ClearsPagesThatItKeptOfAGrowth) {
  const auto ready = module();
  const auto faaslet = testing::restore(ready);
  const uint64_t size = ready.proto->memory_bytes();
  for (int round = 0; round < 40; ++round) {
    const wasm::Cell pages{static_cast<uint64_t>(1 + round % 5), 0};
    testing::call(*faaslet, "grow", {&pages, 1});
    const uint64_t end = size + pages.low * 65536;
    for (uint64_t at = size; at < end; at += 4)
      ASSERT_EQ(*reinterpret_cast<uint32_t*>(faaslet->memory() + at), 0u) << at;
    touch(*faaslet, size, end, 4);
    ASSERT_TRUE(faaslet->reset());
    expect_image(*faaslet, ready);
  }
  EXPECT_GT(faaslet->kept_bytes(), 0u);
}

TEST(Reset, GivesBackPagesThatCallsNoLongerTouch) {
  const auto ready = module();
  const auto faaslet = testing::restore(ready);
  touch(*faaslet, 0, 300 * kPage, kPage);
  ASSERT_TRUE(faaslet->reset());
  EXPECT_GE(faaslet->kept_bytes(), 300 * kPage);
  for (int round = 0; round < 600; ++round) {
    touch(*faaslet, 0, 2 * kPage, kPage);
    ASSERT_TRUE(faaslet->reset());
    expect_image(*faaslet, ready);
  }
  EXPECT_LE(faaslet->kept_bytes(), 10 * kPage);
}

TEST(Reset, SeesPagesThatAnotherSeatCopied) {
  const auto ready = module();
  const auto faaslet = testing::restore(ready);
  touch(*faaslet, 0, 4 * kPage, kPage);
  ASSERT_TRUE(faaslet->reset());
  for (int round = 0; round < 3; ++round) {
    std::thread([&] {
      Seat seat;
      seat.begin_call();
      const wasm::Cell arguments[] = {{(20u + static_cast<unsigned>(round)) * kPage, 0}, {30 * kPage, 0}, {kPage, 0}};
      EXPECT_EQ(faaslet->start(seat, testing::exported_function(faaslet->module(), "touch"), arguments).kind,
                Outcome::Kind::kReturned);
      seat.end_call();
    }).join();
    ASSERT_TRUE(faaslet->reset());
    expect_image(*faaslet, ready);
  }
}

TEST(Move, CarriesWhatHasChangedToAnotherSlot) {
  const auto ready = module();
  const auto faaslet = testing::restore(ready);
  const wasm::Cell pages{2, 0};
  testing::call(*faaslet, "grow", {&pages, 1});
  const uint64_t size = faaslet->memory_bytes();
  touch(*faaslet, 8, size, 40'000);
  const Bytes before(faaslet->memory(), faaslet->memory() + size);
  auto slot = faaslet->move_out();
  ASSERT_TRUE(slot.has_value());
  EXPECT_FALSE(faaslet->has_slot());
  EXPECT_LT(faaslet->parked_bytes(), 80 * kPage);
  ASSERT_TRUE(slot->clear().has_value());
  auto other = Slot::reserve();
  ASSERT_TRUE(other.has_value());
  ASSERT_TRUE(faaslet->move_into(std::move(*other)).has_value());
  EXPECT_EQ(faaslet->memory_bytes(), size);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), faaslet->memory()));
  EXPECT_EQ(touch(*faaslet, size, size + 4, 4).trap.kind, wasm::TrapKind::kMemoryOutOfBounds);
  ASSERT_TRUE(faaslet->reset());
  expect_image(*faaslet, ready);
  // Between calls there is nothing to carry.
  ASSERT_TRUE(faaslet->move_out().has_value());
  EXPECT_EQ(faaslet->parked_bytes(), 0u);
}

TEST(WorkingSet, OfTheFirstCallsIsCopiedWithTheMapping) {
  if (!kernel_can_scan()) GTEST_SKIP() << "PAGEMAP_SCAN needs Linux 6.7";
  const auto ready = module();
  const auto copied = [](const Faaslet& faaslet) {
    const auto begin = reinterpret_cast<uint64_t>(faaslet.memory());
    uint64_t pages = 0;
    for (const PageRange& range : *list_copied_pages(begin, begin + faaslet.memory_bytes()))
      pages += (range.end - range.begin) / kPage;
    return pages;
  };
  for (uint32_t i = 0; i < ProtoFaaslet::kObservedCalls; ++i) {
    const auto faaslet = testing::restore(ready);
    EXPECT_EQ(copied(*faaslet), 0u);
    touch(*faaslet, 10 * kPage, 20 * kPage, kPage);                        // in every call
    touch(*faaslet, (40 + 10 * i) * kPage, (48 + 10 * i) * kPage, kPage);  // in this one
    ASSERT_TRUE(faaslet->reset());
  }
  const auto faaslet = testing::restore(ready);
  EXPECT_EQ(copied(*faaslet), 10u);
  expect_image(*faaslet, ready);
  touch(*faaslet, 12 * kPage, 14 * kPage, kPage);
  ASSERT_TRUE(faaslet->reset());
  expect_image(*faaslet, ready);
}

TEST(PageScan, FindsWhatWasWrittenAndNothingElse) {
  if (!kernel_can_scan()) GTEST_SKIP() << "PAGEMAP_SCAN needs Linux 6.7";
  auto fd = make_memfd("page scan test", Bytes(16 * kPage, 1));
  ASSERT_TRUE(fd.has_value());
  void* at = ::mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd->get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  const Mapping mapping(at, 16 * kPage);
  uint8_t* const data = mapping.data();
  const auto begin = reinterpret_cast<uint64_t>(data);
  std::array<PageRange, 4> ranges;
  for (size_t page = 0; page < 16; ++page) EXPECT_EQ(static_cast<volatile uint8_t*>(data)[page * kPage], 1);
  EXPECT_EQ(scan_copied_pages(begin, begin + 16 * kPage, 16, ranges), 0u);
  data[3 * kPage] = data[4 * kPage + 5] = data[9 * kPage] = 2;
  ASSERT_EQ(scan_copied_pages(begin, begin + 16 * kPage, 16, ranges), 2u);
  EXPECT_EQ(ranges[0].begin, begin + 3 * kPage);
  EXPECT_EQ(ranges[0].end, begin + 5 * kPage);
  EXPECT_EQ(ranges[1].begin, begin + 9 * kPage);
}

TEST(PageScan, SaysNothingWhereItIsTooMuch) {
  if (!kernel_can_scan()) GTEST_SKIP() << "PAGEMAP_SCAN needs Linux 6.7";
  auto fd = make_memfd("page scan test", Bytes(16 * kPage, 1));
  ASSERT_TRUE(fd.has_value());
  void* at = ::mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd->get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  const Mapping mapping(at, 16 * kPage);
  const auto begin = reinterpret_cast<uint64_t>(mapping.data());
  for (size_t page = 0; page < 16; page += 2) mapping.data()[page * kPage] = 2;
  std::array<PageRange, 8> ranges;
  EXPECT_EQ(scan_copied_pages(begin, begin + 16 * kPage, 16, std::span(ranges).first(4)), std::nullopt);
  EXPECT_EQ(scan_copied_pages(begin, begin + 16 * kPage, 4, ranges), std::nullopt);
  EXPECT_EQ(scan_copied_pages(begin, begin + 15 * kPage, 16, ranges), 8u);
}

// ---- what it counts for ---------------------------------------------------------------------------------------------

uint64_t copied_bytes(const Faaslet& faaslet, const testing::Ready& ready) {
  const auto begin = reinterpret_cast<uint64_t>(faaslet.memory() + ready.proto->regions()[0].offset);
  // Also what it keeps beyond its end.
  const auto ranges = list_copied_pages(begin, reinterpret_cast<uint64_t>(faaslet.memory()) + (16 << 20));
  uint64_t bytes = 0;
  for (const PageRange& range : *ranges) bytes += range.end - range.begin;
  return bytes;
}

TEST(MemoryOfAFaaslet, IsWhatItCanTouchWhileACallIsInsideAndWhatItHoldsWhenSomebodyLooked) {
  if (!kernel_can_scan()) GTEST_SKIP() << "this kernel has no PAGEMAP_SCAN";
  MemoryBooks books({});
  const auto account = books.account_of("tenant");
  const auto ready = module();
  {
    const auto faaslet = testing::restore(ready);
    faaslet->charge_to(account);
    ASSERT_EQ(faaslet->cover_memory(), MemoryAccount::Refusal::kNone);
    const uint64_t small = faaslet->charged_bytes();
    EXPECT_GT(small, 40u << 16);
    const wasm::Cell grow[] = {{20, 0}};
    testing::call(*faaslet, "grow", grow);
    EXPECT_GE(faaslet->charged_bytes(), small + (20 << 16));
    touch(*faaslet, 39 << 16, 59 << 16, 4096);
    EXPECT_GE(faaslet->charged_bytes(), copied_bytes(*faaslet, ready));
    faaslet->settle_memory();
    EXPECT_GE(faaslet->charged_bytes(), copied_bytes(*faaslet, ready)) << "inside a call the kernel is asked";
    ASSERT_TRUE(faaslet->reset());
    faaslet->settle_memory();
    const uint64_t kept = copied_bytes(*faaslet, ready);
    EXPECT_GT(kept, 20u << 16) << "they stay mapped";
    EXPECT_GE(faaslet->charged_bytes(), kept);
    EXPECT_LT(faaslet->charged_bytes(), kept + (64 << 10));
    // The next call can touch all of its memory beside what is kept beyond its end.
    ASSERT_EQ(faaslet->cover_memory(), MemoryAccount::Refusal::kNone);
    touch(*faaslet, 0, 40 << 16, 4096);
    EXPECT_GE(faaslet->charged_bytes(), copied_bytes(*faaslet, ready));
    ASSERT_TRUE(faaslet->reset());
    auto slot = faaslet->move_out();
    ASSERT_TRUE(slot.has_value());
    EXPECT_EQ(faaslet->charged_bytes(), Faaslet::kOverheadBytes);
    EXPECT_EQ(account->total().bytes(), Faaslet::kOverheadBytes);
  }
  EXPECT_EQ(books.total().bytes(), 0u);
}

TEST(MemoryOfAFaaslet, GrowFailsWhereTheAccountHasNoRoomAndChangesNothing) {
  const auto ready = module();
  MemoryBooks without_limit({.bytes_max = UINT64_MAX, .bytes_per_tenant_max = UINT64_MAX});
  const auto first = testing::restore(ready);
  first->charge_to(without_limit.account_of("tenant"));
  ASSERT_EQ(first->cover_memory(), MemoryAccount::Refusal::kNone);
  MemoryBooks books({.bytes_max = UINT64_MAX, .bytes_per_tenant_max = without_limit.total().bytes() + (20u << 16)});
  const auto faaslet = testing::restore(ready);
  faaslet->charge_to(books.account_of("tenant"));
  ASSERT_EQ(faaslet->cover_memory(), MemoryAccount::Refusal::kNone);
  const uint64_t charged = books.total().bytes();
  const wasm::Cell grow[] = {{50, 0}};
  testing::call(*faaslet, "grow", grow);
  EXPECT_EQ(faaslet->memory_bytes(), 40u << 16);
  EXPECT_EQ(books.total().bytes(), charged);
  const wasm::Cell grow_less[] = {{4, 0}};
  testing::call(*faaslet, "grow", grow_less);
  EXPECT_EQ(faaslet->memory_bytes(), 44u << 16);
}

}  // namespace
}  // namespace spore::faaslet

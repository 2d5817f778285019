#include "host/guest_ptr.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <numeric>

#include "base/mapping.h"
#include "faaslet/seat.h"
#include "host/wasi.h"

namespace spore::host {
namespace {

constexpr uint64_t kMemoryBytes = 2 * 65536;

// Two pages of memory with inaccessible ground on both sides, so that a check that is off by one byte shows.
class GuestPtrTest : public testing::Test {
 protected:
  GuestPtrTest() {
    constexpr size_t kGuard = 65536;
    mapping_ = Mapping(::mmap(nullptr, kMemoryBytes + 2 * kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                       kMemoryBytes + 2 * kGuard);
    base_ = mapping_.data() + kGuard;
    EXPECT_EQ(::mprotect(base_, kMemoryBytes, PROT_READ | PROT_WRITE), 0);
  }

  GuestMemory memory() const { return GuestMemory(base_, kMemoryBytes); }

  Mapping mapping_;
  uint8_t* base_ = nullptr;
};

TEST_F(GuestPtrTest, CopiesBothWays) {
  const GuestPtr<uint64_t> pointer(1003);  // not aligned: nothing asks for that
  EXPECT_TRUE(pointer.copy_out(memory(), uint64_t{0x1122334455667788}));
  EXPECT_EQ(pointer.copy_in(memory()), uint64_t{0x1122334455667788});
  EXPECT_EQ(base_[1003], 0x88);
}

TEST_F(GuestPtrTest, LastElementIsReachableAndTheNextByteIsNot) {
  EXPECT_TRUE(GuestPtr<uint32_t>(kMemoryBytes - 4).copy_in(memory()));
  for (uint32_t beyond = 1; beyond <= 4; ++beyond) {
    EXPECT_FALSE(GuestPtr<uint32_t>(kMemoryBytes - 4 + beyond).copy_in(memory())) << beyond;
    EXPECT_FALSE(GuestPtr<uint32_t>(kMemoryBytes - 4 + beyond).copy_out(memory(), 7u)) << beyond;
  }
}

TEST_F(GuestPtrTest, RefusesEveryRangeThatLeavesMemory) {
  struct Range {
    uint32_t address;
    uint32_t size;
  };
  const Range bad[] = {{0, kMemoryBytes + 1},    {1, kMemoryBytes},       {kMemoryBytes, 1},
                       {kMemoryBytes + 1, 0},    {kMemoryBytes - 1, 2},   {0xffffffff, 1},
                       {0xffffffff, 0xffffffff}, {0, 0xffffffff},         {0x80000000, 0x80000000},
                       {100, 0xffffffff - 99},   {100, 0xffffffff - 100}, {0xffffffff, 0}};
  for (const Range& range : bad) {
    EXPECT_FALSE(GuestPtr<uint8_t>(range.address).range(memory(), range.size)) << range.address << " " << range.size;
  }
  const Range good[] = {{0, 0}, {0, kMemoryBytes}, {kMemoryBytes, 0}, {kMemoryBytes - 1, 1}, {1, kMemoryBytes - 1}};
  for (const Range& range : good) {
    const auto found = GuestPtr<uint8_t>(range.address).range(memory(), range.size);
    ASSERT_TRUE(found) << range.address << " " << range.size;
    EXPECT_EQ(found->iov_base, base_ + range.address);
    EXPECT_EQ(found->iov_len, range.size);
  }
}

TEST_F(GuestPtrTest, CountTimesSizeDoesNotWrap) {
  struct Wide {
    uint64_t words[8];
  };
  EXPECT_FALSE(GuestPtr<Wide>(0).range(memory(), 0x0400'0000));            // 2^32 bytes
  EXPECT_FALSE(GuestPtr<Wide>(0).range(memory(), 0x0400'0000'0000'0000));  // 2^64 bytes
  EXPECT_FALSE(GuestPtr<Wide>(0).range(memory(), UINT64_MAX));
}

TEST_F(GuestPtrTest, ElementsPastTheEndOfAddressesAreRefused) {
  const GuestPtr<uint64_t> pointer(0xfffffff8);
  EXPECT_FALSE(pointer.at(1).copy_in(memory()));  // would be address 0 in 32 bits
  EXPECT_FALSE(GuestPtr<uint64_t>(16).at(0x1fffffff).copy_in(memory()));
  EXPECT_TRUE(GuestPtr<uint64_t>(16).at(2).copy_in(memory()));
}

TEST_F(GuestPtrTest, MemoryOfFourGibibytesHasItsLastByte) {
  const GuestMemory whole(base_, 1ull << 32);
  EXPECT_TRUE(whole.holds(0xffffffff, 1));
  EXPECT_FALSE(whole.holds(0xffffffff, 2));
  EXPECT_TRUE(whole.holds(0, 1ull << 32));
  EXPECT_FALSE(whole.holds(1, 1ull << 32));
}

TEST_F(GuestPtrTest, EmptyMemoryHoldsNothing) {
  const GuestMemory none(base_, 0);
  EXPECT_FALSE(GuestPtr<uint8_t>(0).copy_in(none));
  EXPECT_TRUE(GuestPtr<uint8_t>(0).range(none, 0));
}

TEST_F(GuestPtrTest, HoleInMemoryFailsTheCopyNotTheProcess) {
  ASSERT_TRUE(faaslet::install_signal_handlers());
  ASSERT_EQ(::mprotect(base_ + 65536, 4096, PROT_NONE), 0);
  std::array<uint8_t, 64> bytes{};
  EXPECT_FALSE(GuestPtr<uint8_t>(65536 - 8).copy_in(memory(), std::span(bytes)));
  EXPECT_FALSE(GuestPtr<uint8_t>(65536 - 8).copy_out(memory(), std::span<const uint8_t>(bytes)));
  EXPECT_TRUE(GuestPtr<uint8_t>(65536 - 64).copy_in(memory(), std::span(bytes)));
}

TEST_F(GuestPtrTest, ReadOnlyPageFailsTheCopyOut) {
  ASSERT_TRUE(faaslet::install_signal_handlers());
  ASSERT_EQ(::mprotect(base_ + 65536, 4096, PROT_READ), 0);
  EXPECT_FALSE(GuestPtr<uint32_t>(65536).copy_out(memory(), 1u));
  EXPECT_TRUE(GuestPtr<uint32_t>(65536).copy_in(memory()));
}

// ---- lists of buffers ----

class BuffersTest : public GuestPtrTest {
 protected:
  static constexpr uint32_t kList = 4096;

  void put(uint32_t index, wasi::Iovec value) {
    ASSERT_TRUE(GuestPtr<wasi::Iovec>(kList).at(index).copy_out(memory(), value));
  }
  wasi::Errno gather(uint32_t count, uint32_t list = kList) {
    return buffers_.gather(memory(), GuestPtr<wasi::Iovec>(list), count);
  }

  wasi::Buffers buffers_;
};

TEST_F(BuffersTest, NoneIsEmpty) {
  EXPECT_EQ(gather(0), wasi::Errno::kSuccess);
  EXPECT_TRUE(buffers_.list().empty());
}

TEST_F(BuffersTest, OneIsChecked) {
  put(0, {.buf = 16, .buf_len = 32});
  ASSERT_EQ(gather(1), wasi::Errno::kSuccess);
  ASSERT_EQ(buffers_.list().size(), 1u);
  EXPECT_EQ(buffers_.list()[0].iov_base, base_ + 16);
  EXPECT_EQ(buffers_.size_bytes(), 32u);
}

TEST_F(BuffersTest, CountIsBounded) {
  for (uint32_t i = 0; i < 1024; ++i) put(i, {.buf = i, .buf_len = 1});
  ASSERT_EQ(gather(1024), wasi::Errno::kSuccess);
  EXPECT_EQ(buffers_.size_bytes(), 1024u);
  EXPECT_EQ(buffers_.list()[1023].iov_base, base_ + 1023);
  EXPECT_EQ(gather(1025), wasi::Errno::kInval);
  EXPECT_EQ(gather(0xffffffff), wasi::Errno::kInval);
}

TEST_F(BuffersTest, ListOutsideMemoryFaults) {
  EXPECT_EQ(gather(1, kMemoryBytes), wasi::Errno::kFault);
  EXPECT_EQ(gather(2, kMemoryBytes - 8), wasi::Errno::kFault);
  EXPECT_EQ(gather(1024, 0xfffffff8), wasi::Errno::kFault);
  EXPECT_EQ(gather(1, kMemoryBytes - 8), wasi::Errno::kSuccess);
}

TEST_F(BuffersTest, EveryBufferIsCheckedAlsoTheLast) {
  for (uint32_t i = 0; i < 100; ++i) put(i, {.buf = 0, .buf_len = 8});
  put(99, {.buf = kMemoryBytes - 7, .buf_len = 8});
  EXPECT_EQ(gather(99), wasi::Errno::kSuccess);
  EXPECT_EQ(gather(100), wasi::Errno::kFault);
  put(99, {.buf = 1, .buf_len = 0xffffffff});
  EXPECT_EQ(gather(100), wasi::Errno::kFault);
}

TEST_F(BuffersTest, EmptyBufferMayPointAnywhere) {
  put(0, {.buf = 0xffffffff, .buf_len = 0});
  put(1, {.buf = 8, .buf_len = 8});
  ASSERT_EQ(gather(2), wasi::Errno::kSuccess);
  EXPECT_EQ(buffers_.list().size(), 1u);
}

TEST_F(BuffersTest, TransferOfOneCallIsBounded) {
  // 1024 times all of memory is more than one call moves; what is beyond is checked but left for the next call.
  for (uint32_t i = 0; i < 1024; ++i) put(i, {.buf = 0, .buf_len = kMemoryBytes});
  ASSERT_EQ(gather(1024), wasi::Errno::kSuccess);
  EXPECT_EQ(buffers_.size_bytes(), wasi::kTransferBytesMax);
  put(1023, {.buf = 1, .buf_len = kMemoryBytes});
  EXPECT_EQ(gather(1024), wasi::Errno::kFault);
}

}  // namespace
}  // namespace spore::host

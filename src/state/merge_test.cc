#include "state/merge.h"

#include <gtest/gtest.h>

namespace spore::state {

TEST(Merge, TrimmedBytesEndWithOneThatIsNotZero) {
  for (size_t size : {0u, 1u, 7u, 8u, 9u, 31u, 4096u}) {
    Bytes bytes(size + 20, 0);
    if (size > 0) bytes[size - 1] = 3;
    EXPECT_EQ(trim_zeros(bytes).size(), size);
    EXPECT_EQ(trim_zeros(bytes).data(), bytes.data());
    EXPECT_EQ(is_zero(bytes), size == 0);
  }
  EXPECT_TRUE(is_zero({}));
}

TEST(Merge, IntoBytesOfAnyAlignment) {
  Bytes buffer(1 + 8, 0);
  const Bytes one{1, 0, 0, 0, 0, 0, 0, 0};
  for (int i = 0; i < 300; ++i) merge_into(std::span(buffer).subspan(1), one, MergeOp::kSum, Element::kI64);
  EXPECT_EQ(buffer, (Bytes{0, 44, 1, 0, 0, 0, 0, 0, 0}));
}

TEST(PushPlan, AnAppendIsAPatchBehindTheEnd) {
  const Bytes bytes(5, 1);
  const Manifest there{.version = {7, 3}, .size_bytes = 10};
  const auto plan = plan_push({"t", "k"}, {.append = ByteSpan(bytes)}, there);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->size_before, 10u);
  EXPECT_EQ(plan->size_after, 15u);
  ASSERT_EQ(plan->patches.size(), 1u);
  EXPECT_EQ(plan->patches[0].offset, 10u);
}

TEST(PushPlan, ErrorsNameTheKeyAndTheBytes) {
  const Bytes bytes(5, 1);
  const auto plan = plan_push({"t", "counts"}, {.patches = {{.offset = 8, .bytes = bytes}}},
                              Manifest{.version = {7, 3}, .size_bytes = 10});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().message,
            "push to the state value counts: the patch of 5 bytes at 8 ends beyond its size of 10 bytes");
}

}  // namespace spore::state

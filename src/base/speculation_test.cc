#include "base/speculation.h"

#include <gtest/gtest.h>

namespace spore {

TEST(Bounded, IsTheIndexBelowTheLimitAndElseZero) {
  for (const uint64_t limit : {uint64_t{1}, uint64_t{7}, uint64_t{6} << 30, uint64_t{1} << 63, UINT64_MAX}) {
    EXPECT_EQ(bounded(0, limit), 0u);
    EXPECT_EQ(bounded(limit - 1, limit), limit - 1);
    EXPECT_EQ(bounded(limit, limit), 0u);
    EXPECT_EQ(bounded(UINT64_MAX, limit), 0u);
  }
  EXPECT_EQ(bounded(5, 0), 0u);
}

}  // namespace spore

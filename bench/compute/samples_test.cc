#include "samples.h"

#include <gtest/gtest.h>

namespace spore::bench {
namespace {

TEST(Median, OfAnOddCountIsTheMiddleSample) { EXPECT_EQ(median_of({5, 1, 3}).value, 3); }

TEST(Median, OfAnEvenCountIsBetweenTheMiddleSamples) { EXPECT_EQ(median_of({8, 2, 4, 6}).value, 5); }

// The known intervals for the median: of 6 samples the 1st to the 6th (96.9 %), of 9 the 2nd to the 8th (96.1 %), of 11
// the 2nd to the 10th (98.8 %), of 20 the 6th to the 15th (95.9 %).
TEST(Median, IntervalIsTheNarrowestPairOfOrderStatisticsWithNinetyFivePercent) {
  const auto interval = [](int count) {
    std::vector<double> samples;
    for (int i = 1; i <= count; ++i) samples.push_back(i);
    return median_of(samples);
  };
  struct Known {
    int count;
    double low, high, confidence;
  };
  for (const Known& known : {Known{6, 1, 6, 0.96875}, Known{9, 2, 8, 0.9609375}, Known{11, 2, 10, 0.98828125},
                             Known{20, 6, 15, 0.9586105346679688}}) {
    const Median median = interval(known.count);
    EXPECT_EQ(median.low, known.low) << known.count;
    EXPECT_EQ(median.high, known.high) << known.count;
    EXPECT_NEAR(median.confidence, known.confidence, 1e-7) << known.count;
  }
}

TEST(Median, IntervalOfTooFewSamplesStatesItsLowConfidence) {
  const Median median = median_of({1, 2, 3});
  EXPECT_EQ(median.low, 1);
  EXPECT_EQ(median.high, 3);
  EXPECT_DOUBLE_EQ(median.confidence, 0.75);
  EXPECT_DOUBLE_EQ(median_of({7}).confidence, 0);
}

TEST(GeometricMean, OfRatiosThatCancelIsOne) {
  EXPECT_NEAR(geometric_mean({0.5, 2, 4, 0.25}), 1, 1e-12);
  EXPECT_NEAR(geometric_mean({2, 8}), 4, 1e-12);
}

}  // namespace
}  // namespace spore::bench

// What a round of the benchmark gives, and what many rounds give together.
#pragma once

#include <cstdint>
#include <vector>

namespace spore::bench {

// One run of one kernel by one contender.
struct Sample {
  double wall_ms = 0;
  double cpu_ms = 0;      // of the thread, or for V8 of its process
  uint64_t checksum = 0;  // the bits of the double that the kernel returned
};

// The median, and an interval that holds the true median with the stated confidence whatever the distribution: a pair
// of order statistics, by the binomial distribution.
struct Median {
  double value = 0;
  double low = 0;
  double high = 0;
  double confidence = 0;  // 0 to 1; the smallest that is at least 0.95, where the count of samples permits one
};

Median median_of(std::vector<double> values);
double geometric_mean(const std::vector<double>& values);

}  // namespace spore::bench

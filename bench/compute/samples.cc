#include "samples.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace spore::bench {

Median median_of(std::vector<double> values) {
  CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t count = values.size();
  Median median;
  median.value = count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
  // The k-th smallest and k-th largest enclose the median unless fewer than k samples fell on one side of it:
  // 1 - 2 * P(Binomial(count, 1/2) < k). Take the narrowest pair that is sure enough.
  double below = std::exp2(-static_cast<double>(count));  // P(exactly 0)
  double term = below;
  size_t k = 1;
  while (k < count / 2) {
    const double next_term = term * static_cast<double>(count - k + 1) / static_cast<double>(k);
    if (1 - 2 * (below + next_term) < 0.95) break;
    term = next_term;
    below += next_term;
    ++k;
  }
  median.low = values[k - 1];
  median.high = values[count - k];
  median.confidence = std::max(0.0, 1 - 2 * below);
  return median;
}

double geometric_mean(const std::vector<double>& values) {
  CHECK(!values.empty());
  double sum = 0;
  for (const double value : values) sum += std::log(value);
  return std::exp(sum / static_cast<double>(values.size()));
}

}  // namespace spore::bench

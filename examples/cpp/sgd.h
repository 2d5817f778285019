// Logistic regression by stochastic gradient descent on sparse points: what sgd.cc does in Spore on shared state, over
// whatever holds points and weights, so that a program of its own can do the same (tests/system/sgd_serial.cc).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace sgd {

// The same numbers everywhere: splitmix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  size_t below(size_t end) { return static_cast<size_t>(bits() % end); }
  double symmetric() { return static_cast<double>(bits() >> 11) * 0x1p-52 - 1; }  // -1 to 1

 private:
  uint64_t state_;
};

// Points as the columns of a sparse matrix: point i has the elements [begins[i], begins[i + 1]).
struct Points {
  std::vector<uint32_t> begins = {0};
  std::vector<uint32_t> features;
  std::vector<double> values;
  std::vector<double> labels;  // 0 or 1
};

// Of some features each, 16 on average; labels by a plane of random weights, one in fifty of them wrong.
inline Points generate(size_t points, size_t features, uint64_t seed) {
  Random random(seed);
  std::vector<double> plane(features);
  for (double& weight : plane) weight = random.symmetric();
  Points out;
  for (size_t i = 0; i < points; ++i) {
    double side = 0;
    for (size_t left = 8 + random.below(17); left > 0; --left) {
      const size_t feature = random.below(features);
      out.features.push_back(static_cast<uint32_t>(feature));
      out.values.push_back(random.symmetric());
      side += plane[feature] * out.values.back();
    }
    out.begins.push_back(static_cast<uint32_t>(out.features.size()));
    const bool wrong = random.below(50) == 0;
    out.labels.push_back((side > 0) != wrong ? 1 : 0);
  }
  return out;
}

// `point` has .rows and .values, `weights` operator[].
template <class Point, class Weights>
double score(const Point& point, const Weights& weights) {
  double sum = 0;
  for (size_t j = 0; j < point.rows.size(); ++j) sum += weights[point.rows[j]] * point.values[j];
  return sum;
}

// Once through the points [first, first + count), in an order of its own for each epoch. `add(feature, by)` changes a
// weight.
template <class PointOf, class Labels, class Weights, class Add>
void train(PointOf point_of, const Labels& labels, const Weights& weights, Add add, size_t first, size_t count,
           uint64_t epoch) {
  const double rate = 0.5 / (1 + static_cast<double>(epoch));
  Random random(epoch * 1'000'003 + first);
  std::vector<uint32_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = static_cast<uint32_t>(first + i);
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  for (const uint32_t i : order) {
    const auto point = point_of(i);
    const double step = rate * (labels[i] - 1 / (1 + std::exp(-score(point, weights))));
    for (size_t j = 0; j < point.rows.size(); ++j) add(point.rows[j], step * point.values[j]);
  }
}

// The mean logarithmic loss of the points.
template <class PointOf, class Labels, class Weights>
double loss(PointOf point_of, const Labels& labels, const Weights& weights, size_t points) {
  double sum = 0;
  for (size_t i = 0; i < points; ++i) {
    const double margin = score(point_of(i), weights) * (labels[i] > 0.5 ? 1 : -1);
    sum += margin > 0 ? std::log1p(std::exp(-margin)) : -margin + std::log1p(std::exp(margin));
  }
  return sum / static_cast<double>(points);
}

}  // namespace sgd

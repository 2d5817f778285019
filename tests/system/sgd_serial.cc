// usage: sgd_serial POINTS FEATURES SEED EPOCHS
// What examples/cpp/sgd.cc does on shared state, by one thread in plain memory. Prints the loss before and after.
#include <cstdio>
#include <cstdlib>
#include <span>

#include "../../examples/cpp/sgd.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const size_t points = std::strtoull(argv[1], nullptr, 10), features = std::strtoull(argv[2], nullptr, 10);
  const auto data = sgd::generate(points, features, std::strtoull(argv[3], nullptr, 10));
  std::vector<double> weights(features);
  struct Point {
    std::span<const uint32_t> rows;
    std::span<const double> values;
  };
  const auto point_of = [&](size_t i) {
    const size_t begin = data.begins[i], count = data.begins[i + 1] - begin;
    return Point{std::span(data.features).subspan(begin, count), std::span(data.values).subspan(begin, count)};
  };
  std::printf("%.9f\n", sgd::loss(point_of, data.labels, weights, points));
  for (uint64_t epoch = 0; epoch < std::strtoull(argv[4], nullptr, 10); ++epoch)
    sgd::train(
        point_of, data.labels, weights, [&](size_t feature, double by) { weights[feature] += by; }, 0, points, epoch);
  std::printf("%.9f\n", sgd::loss(point_of, data.labels, weights, points));
  return 0;
}

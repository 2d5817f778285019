// Parallel stochastic gradient descent in the style of HOGWILD: many calls, on many hosts, train one vector of weights
// without waiting for each other. Points lie in a sparse matrix, of which a call fetches the part that it trains on;
// weights in an array that pushes the sum of what was added. The input says what to do:
//
//   generate POINTS FEATURES SEED    makes the data, and weights of zero
//   train FIRST COUNT EPOCH          goes once through these points
//   loss                             says the mean loss over all points
#include "sgd.h"

#include <stdlib.h>

#include <spore_state.hpp>

namespace {

constexpr char kPoints[] = "sgd/points", kLabels[] = "sgd/labels", kWeights[] = "sgd/weights";
constexpr uint64_t kPointsMax = 10'000'000, kFeaturesMax = 10'000'000;
// Some hundred points: what this host learned goes to the others, and what they learned comes here.
constexpr spore::AsyncOptions kOften{.push_every = 8'000, .pull_too = true};

int failed(const char* what, int error) {
  spore::write(std::string(what) + ": " + strerror(error) + "\n");
  return error;
}

int generate(size_t points, size_t features, uint64_t seed) {
  for (const char* key : {kPoints, kLabels, kWeights})
    if (const auto removed = spore::State(key).remove(); !removed && removed.error() != ENOENT)
      return failed(key, removed.error());
  const auto data = sgd::generate(points, features, seed);
  const auto matrix = spore::SparseMatrix<double>::create(
      kPoints, {.rows = features, .begins = data.begins, .row_of = data.features, .values = data.values});
  if (!matrix) return failed(kPoints, matrix.error());
  auto labels = spore::Array<double>::create(kLabels, points);
  if (!labels) return failed(kLabels, labels.error());
  std::copy(data.labels.begin(), data.labels.end(), labels->begin());
  auto weights = spore::Array<double>::create(kWeights, features);
  if (!weights) return failed(kWeights, weights.error());
  for (const auto& pushed : {matrix->push(), labels->push(), weights->push()})
    if (!pushed) return failed("push", pushed.error());
  return 0;
}

// A word, and up to three numbers.
struct Command {
  std::string what;
  uint64_t numbers[3] = {};
  int count = 0;
  explicit Command(const std::string& text) {
    what = text.substr(0, text.find_first_of(" \n"));
    const char* at = text.c_str() + what.size();
    for (char* end = nullptr; count < 3; at = end, ++count) {
      numbers[count] = strtoull(at, &end, 10);
      if (end == at) break;
    }
  }
};

}  // namespace

SPORE_FUNCTION {
  const Command command(spore::input());
  const auto& [first, second, third] = command.numbers;
  if (command.what == "generate") {
    if (command.count != 3 || first == 0 || first > kPointsMax || second == 0 || second > kFeaturesMax)
      return failed("generate", EINVAL);
    return generate(static_cast<size_t>(first), static_cast<size_t>(second), third);
  }

  const auto points = spore::SparseMatrix<double>::open(kPoints);
  if (!points) return failed(kPoints, points.error());
  const auto labels = spore::Array<double>::open(kLabels);
  if (!labels) return failed(kLabels, labels.error());
  auto weights = spore::AsyncArray<double>::open(kWeights, kOften);
  if (!weights) return failed(kWeights, weights.error());
  const auto point_of = [&](size_t i) { return points->column(i); };
  if (command.what == "train") {
    if (command.count != 3 || first > points->columns() || second > points->columns() - first)
      return failed("train", EINVAL);
    sgd::train(
        point_of, *labels, *weights, [&](size_t feature, double by) { weights->add(feature, by); },
        static_cast<size_t>(first), static_cast<size_t>(second), third);
    const auto flushed = weights->flush();
    return flushed ? 0 : failed(kWeights, flushed.error());
  }
  if (command.what == "loss") {
    if (const auto pulled = weights->pull(); !pulled) return failed(kWeights, pulled.error());
    char text[32];
    snprintf(text, sizeof(text), "%.9f\n", sgd::loss(point_of, *labels, *weights, points->columns()));
    spore::write(text);
    return 0;
  }
  return failed(command.what.c_str(), EINVAL);
}

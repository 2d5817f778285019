// Sorts numbers, one a line: the last stage of the pipeline of examples/go/pipeline.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <spore.hpp>
#include <string>
#include <vector>

SPORE_FUNCTION {
  const std::string text = spore::input();
  std::vector<double> numbers;
  for (const char* at = text.c_str();;) {
    char* end = nullptr;
    const double number = std::strtod(at, &end);
    if (end == at) break;
    if (std::isnan(number)) {
      std::fprintf(stderr, "sort: not a number has no place in an order\n");
      return 1;
    }
    numbers.push_back(number);
    at = end;
  }
  std::ranges::sort(numbers);
  std::string sorted;
  for (const double number : numbers) {
    char line[40];
    sorted.append(line, static_cast<size_t>(std::snprintf(line, sizeof(line), "%.17g\n", number)));
  }
  spore::write(sorted);
  return 0;
}

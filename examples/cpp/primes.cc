// Counts the primes below a number, many parts of it at once: each part is a call of this program itself, entered at
// another of its functions.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <spore.hpp>
#include <string>
#include <vector>

namespace {

constexpr uint64_t kParts = 8, kNumberMax = 100'000'000;

bool is_prime(uint64_t n) {
  for (uint64_t i = 2; i * i <= n; ++i)
    if (n % i == 0) return false;
  return n > 1;
}

// The input is "BEGIN END", the output how many there are.
int count_part() {
  const std::string text = spore::input();
  char* rest = nullptr;
  const uint64_t begin = std::strtoull(text.c_str(), &rest, 10), end = std::strtoull(rest, nullptr, 10);
  uint64_t count = 0;
  for (uint64_t n = begin; n < end; ++n) count += is_prime(n);
  spore::write(std::to_string(count));
  return 0;
}

}  // namespace

SPORE_FUNCTION {
  const uint64_t below = std::strtoull(spore::input().c_str(), nullptr, 10);
  if (below > kNumberMax) {
    std::fprintf(stderr, "primes: the input is larger than %llu\n", static_cast<unsigned long long>(kNumberMax));
    return 1;
  }
  std::vector<std::string> parts;
  for (uint64_t i = 0; i < kParts; ++i)
    parts.push_back(std::to_string(i * below / kParts) + " " + std::to_string((i + 1) * below / kParts));
  uint64_t sum = 0;
  for (const spore::Call& part : spore::map(count_part, parts)) {
    if (part.await() != 0) {
      std::fprintf(stderr, "primes: a part failed: %s\n", part.message().c_str());
      return 1;
    }
    sum += std::strtoull(part.output().c_str(), nullptr, 10);
  }
  spore::write(std::to_string(sum) + "\n");
  return 0;
}

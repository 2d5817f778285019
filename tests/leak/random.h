// A small generator of pseudo-random numbers (splitmix64): the same sequence for the same seed, on every machine.
#pragma once

#include <cstdint>

namespace spore::leak {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // Of [0, bound); bound > 0.
  uint64_t below(uint64_t bound) { return next() % bound; }
  bool one_in(uint64_t times) { return below(times) == 0; }

 private:
  uint64_t state_;
};

}  // namespace spore::leak

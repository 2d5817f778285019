// What every kernel of this benchmark is: one file, no input, one exported function that sets up its data, does its
// work and returns a checksum that is the same bit for bit wherever it is computed. The same source is built as a
// shared object and as WebAssembly with and without SIMD. Nothing here needs a library; loops that compilers turn into
// memset or memcpy take them from libc. A run takes some 20 to 100 ms.
#pragma once

#include <stdint.h>

#if defined(__wasm__)
#define KERNEL __attribute__((export_name("run")))
#else
#define KERNEL __attribute__((visibility("default")))
#endif

KERNEL double run(void);

// xorshift64*: the same numbers everywhere, from a seed that is not 0.
static inline uint64_t next_random(uint64_t* state) {
  uint64_t x = *state;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  *state = x;
  return x * 0x2545F4914F6CDD1Dull;
}

// In [0, 1), a multiple of 2^-24: exact in float too.
static inline double random_unit(uint64_t* state) { return (double)(next_random(state) >> 40) * (1.0 / 16777216.0); }

// A hash as a checksum that a double holds exactly.
static inline double as_checksum(uint64_t hash) { return (double)((hash ^ (hash >> 32)) & 0xFFFFFFFFull); }

// Strided writes of bytes: the sieve of Eratosthenes, in segments that fit into a cache.
#include "kernel.h"

enum { kLimit = 16000000, kSegment = 1 << 16, kRoot = 4001 };

static uint8_t small[kRoot], segment[kSegment];
static uint32_t prime[600], next_multiple[600];

double run(void) {
  uint32_t primes = 0;
  for (uint32_t i = 0; i < kRoot; i++) small[i] = 0;
  for (uint32_t i = 2; i < kRoot; i++) {
    if (small[i]) continue;
    prime[primes] = i;
    next_multiple[primes++] = i * i;
    for (uint32_t j = i * i; j < kRoot; j += i) small[j] = 1;
  }
  uint64_t count = 0, hash = 0;
  for (uint32_t low = 0; low < kLimit; low += kSegment) {
    for (uint32_t i = 0; i < kSegment; i++) segment[i] = 0;
    for (uint32_t p = 0; p < primes; p++) {
      uint32_t at = next_multiple[p] - low;
      for (; at < kSegment; at += prime[p]) segment[at] = 1;
      next_multiple[p] = low + at;
    }
    for (uint32_t i = 0; i < kSegment && low + i < kLimit; i++) {
      if (segment[i] == 0 && low + i >= 2) {
        count++;
        hash = hash * 31 + low + i;
      }
    }
  }
  return (double)count + as_checksum(hash) / 4294967296.0;
}

// Dynamic programming over one array: the 0/1 knapsack.
#include "kernel.h"

enum { kItems = 1200, kCapacity = 50000 };

static int32_t best[kCapacity + 1];

double run(void) {
  uint64_t random = 11;
  for (int c = 0; c <= kCapacity; c++) best[c] = 0;
  for (int item = 0; item < kItems; item++) {
    const int32_t weight = 10 + (int32_t)((next_random(&random) >> 33) % 400);
    const int32_t worth = weight + (int32_t)((next_random(&random) >> 33) % 100);
    for (int32_t c = kCapacity; c >= weight; c--) {
      const int32_t with = best[c - weight] + worth;
      if (with > best[c]) best[c] = with;
    }
  }
  return best[kCapacity];
}

// Dynamic programming with a chain through each row: the edit distance of two texts of four letters.
#include "kernel.h"

enum { kLength = 4000 };

static uint8_t first[kLength], second[kLength];
static int32_t row[kLength + 1];

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

double run(void) {
  uint64_t random = 5;
  for (int i = 0; i < kLength; i++) {
    first[i] = "ACGT"[next_random(&random) >> 62];
    second[i] = (next_random(&random) >> 60) < 11 ? first[i] : (uint8_t)"ACGT"[next_random(&random) >> 62];
  }
  for (int j = 0; j <= kLength; j++) row[j] = j;
  for (int i = 1; i <= kLength; i++) {
    int32_t diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= kLength; j++) {
      const int32_t above = row[j];
      const int32_t replaced = diagonal + (first[i - 1] != second[j - 1]);
      row[j] = least(replaced, least(above, row[j - 1]) + 1);
      diagonal = above;
    }
  }
  return row[kLength];
}

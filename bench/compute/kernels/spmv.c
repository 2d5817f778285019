// Sparse linear algebra: repeated products of a matrix in compressed rows with a vector, as in a power iteration.
#include "kernel.h"

enum { kRows = 60000, kPerRow = 12, kRounds = 60 };

static int32_t row_begin[kRows + 1], column[kRows * kPerRow];
static double value[kRows * kPerRow], x[kRows], y[kRows];

double run(void) {
  uint64_t random = 3;
  int32_t count = 0;
  for (int i = 0; i < kRows; i++) {
    row_begin[i] = count;
    const int entries = 1 + (int)(next_random(&random) >> 33) % kPerRow;
    for (int e = 0; e < entries; e++) {
      column[count] = (int32_t)((next_random(&random) >> 33) % kRows);
      value[count++] = random_unit(&random);
    }
    x[i] = 1.0;
  }
  row_begin[kRows] = count;
  for (int round = 0; round < kRounds; round++) {
    double largest = 0;
    for (int i = 0; i < kRows; i++) {
      double sum = 0;
      for (int32_t e = row_begin[i]; e < row_begin[i + 1]; e++) sum += value[e] * x[column[e]];
      y[i] = sum;
      if (sum > largest) largest = sum;
    }
    const double scale = 1.0 / largest;
    for (int i = 0; i < kRows; i++) x[i] = y[i] * scale;
  }
  double checksum = 0;
  for (int i = 0; i < kRows; i++) checksum += x[i];
  return checksum;
}

// Dense linear algebra: C = A * B of doubles, row by row, so that the inner loop runs along rows of B and C.
#include "kernel.h"

enum { kSize = 560 };

static double a[kSize][kSize], b[kSize][kSize], c[kSize][kSize];

double run(void) {
  uint64_t random = 1;
  for (int i = 0; i < kSize; i++) {
    for (int j = 0; j < kSize; j++) {
      a[i][j] = random_unit(&random) - 0.5;
      b[i][j] = random_unit(&random) - 0.5;
    }
  }
  for (int i = 0; i < kSize; i++) {
    for (int j = 0; j < kSize; j++) c[i][j] = 0;
    for (int k = 0; k < kSize; k++) {
      const double factor = a[i][k];
      for (int j = 0; j < kSize; j++) c[i][j] += factor * b[k][j];
    }
  }
  double trace = 0;
  for (int i = 0; i < kSize; i++) trace += c[i][i] + c[i][kSize - 1 - i];
  return trace;
}

// Dense linear algebra with divisions and searches: LU decomposition with partial pivoting, then one solve.
#include "kernel.h"

enum { kSize = 720 };

static double m[kSize][kSize], x[kSize];
static int row_at[kSize];

double run(void) {
  uint64_t random = 7;
  for (int i = 0; i < kSize; i++) {
    row_at[i] = i;
    x[i] = random_unit(&random);
    for (int j = 0; j < kSize; j++) m[i][j] = random_unit(&random) - 0.5;
  }
  for (int k = 0; k < kSize; k++) {
    int pivot = k;
    for (int i = k + 1; i < kSize; i++) {
      if (__builtin_fabs(m[row_at[i]][k]) > __builtin_fabs(m[row_at[pivot]][k])) pivot = i;
    }
    const int swapped = row_at[k];
    row_at[k] = row_at[pivot];
    row_at[pivot] = swapped;
    const double* upper = m[row_at[k]];
    for (int i = k + 1; i < kSize; i++) {
      double* row = m[row_at[i]];
      const double factor = row[k] / upper[k];
      row[k] = factor;
      for (int j = k + 1; j < kSize; j++) row[j] -= factor * upper[j];
    }
  }
  static double y[kSize];
  for (int i = 0; i < kSize; i++) {
    double sum = x[row_at[i]];
    for (int j = 0; j < i; j++) sum -= m[row_at[i]][j] * y[j];
    y[i] = sum;
  }
  double checksum = 0;
  for (int i = kSize - 1; i >= 0; i--) {
    double sum = y[i];
    for (int j = i + 1; j < kSize; j++) sum -= m[row_at[i]][j] * y[j];
    y[i] = sum / m[row_at[i]][i];
    checksum += y[i];
  }
  return checksum;
}

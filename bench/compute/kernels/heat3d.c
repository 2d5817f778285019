// A stencil in three dimensions: heat spreading in a cube of doubles, seven points each.
#include "kernel.h"

enum { kSide = 80, kSteps = 32 };

static double now[kSide][kSide][kSide], next[kSide][kSide][kSide];

static void step(double (*restrict to)[kSide][kSide], const double (*restrict from)[kSide][kSide]) {
  for (int i = 1; i < kSide - 1; i++) {
    for (int j = 1; j < kSide - 1; j++) {
      for (int k = 1; k < kSide - 1; k++) {
        const double centre = from[i][j][k];
        to[i][j][k] = centre + 0.125 * (from[i + 1][j][k] - 2.0 * centre + from[i - 1][j][k]) +
                      0.125 * (from[i][j + 1][k] - 2.0 * centre + from[i][j - 1][k]) +
                      0.125 * (from[i][j][k + 1] - 2.0 * centre + from[i][j][k - 1]);
      }
    }
  }
}

double run(void) {
  uint64_t random = 41;
  for (int i = 0; i < kSide; i++) {
    for (int j = 0; j < kSide; j++) {
      for (int k = 0; k < kSide; k++) now[i][j][k] = next[i][j][k] = random_unit(&random);
    }
  }
  for (int s = 0; s < kSteps; s++) {
    step(next, (const double(*)[kSide][kSide])now);
    step(now, (const double(*)[kSide][kSide])next);
  }
  double checksum = 0;
  for (int i = 0; i < kSide; i++) checksum += now[i][kSide / 2][kSide - 1 - i] + now[i][i][i];
  return checksum;
}

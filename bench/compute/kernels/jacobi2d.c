// A stencil in two dimensions: Jacobi's relaxation on floats, with the largest change as the test for the end.
#include "kernel.h"

enum { kSide = 512, kSweeps = 512 };

static float grid[2][kSide][kSide];

double run(void) {
  for (int i = 0; i < kSide; i++) {
    for (int j = 0; j < kSide; j++) {
      const float edge = (i == 0 || j == 0) ? 1.0f : (i == kSide - 1 || j == kSide - 1) ? -0.5f : 0.0f;
      grid[0][i][j] = grid[1][i][j] = edge;
    }
  }
  float change = 0;
  for (int sweep = 0; sweep < kSweeps; sweep++) {
    const float(*from)[kSide] = (const float(*)[kSide])grid[sweep & 1];
    float(*to)[kSide] = grid[(sweep & 1) ^ 1];
    for (int i = 1; i < kSide - 1; i++) {
      for (int j = 1; j < kSide - 1; j++) {
        to[i][j] = 0.25f * (from[i - 1][j] + from[i + 1][j] + from[i][j - 1] + from[i][j + 1]);
      }
    }
    if (sweep % 32 == 31) {
      change = 0;
      for (int i = 1; i < kSide - 1; i++) {
        for (int j = 1; j < kSide - 1; j++) {
          const float delta = __builtin_fabsf(to[i][j] - from[i][j]);
          if (delta > change) change = delta;
        }
      }
      if (change < 1e-6f) break;
    }
  }
  double checksum = change;
  for (int i = 0; i < kSide; i++) checksum += grid[0][i][i] + grid[0][i][kSide / 2];
  return checksum;
}

// Floating point in short loops of unknown length: the Mandelbrot set.
#include "kernel.h"

enum { kWidth = 480, kHeight = 320, kIterations = 200 };

static uint16_t image[kHeight][kWidth];

double run(void) {
  for (int py = 0; py < kHeight; py++) {
    for (int px = 0; px < kWidth; px++) {
      const double cx = -2.2 + 3.2 * px / kWidth, cy = -1.1 + 2.2 * py / kHeight;
      double x = 0, y = 0, xx = 0, yy = 0;
      int i = 0;
      while (i < kIterations && xx + yy <= 4.0) {
        y = 2.0 * x * y + cy;
        x = xx - yy + cx;
        xx = x * x;
        yy = y * y;
        i++;
      }
      image[py][px] = (uint16_t)i;
    }
  }
  uint64_t hash = 0;
  for (int py = 0; py < kHeight; py++) {
    for (int px = 0; px < kWidth; px++) hash = hash * 31 + image[py][px];
  }
  return as_checksum(hash);
}

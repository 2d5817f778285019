// Recursion: Fibonacci's and Ackermann's functions and the queens' problem, which are nearly nothing but calls.
#include "kernel.h"

static __attribute__((noinline)) uint32_t fibonacci(uint32_t n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static __attribute__((noinline)) uint32_t ackermann(uint32_t m, uint32_t n) {
  if (m == 0) return n + 1;
  if (n == 0) return ackermann(m - 1, 1);
  return ackermann(m - 1, ackermann(m, n - 1));
}

static __attribute__((noinline)) uint32_t queens(uint32_t all, uint32_t columns, uint32_t left, uint32_t right) {
  if (columns == all) return 1;
  uint32_t solutions = 0;
  for (uint32_t free = all & ~(columns | left | right); free != 0; free &= free - 1) {
    const uint32_t queen = free & -free;
    solutions += queens(all, columns | queen, (left | queen) << 1, (right | queen) >> 1);
  }
  return solutions;
}

double run(void) {
  return fibonacci(33) + ackermann(2, 1500) + ackermann(3, 7) + queens((1u << 11) - 1, 0, 0, 0) * 1e-6;
}

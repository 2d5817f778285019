// Makes calls of a function that does nothing, and writes what they took as lines "NAME VALUE...". Its input says
// which:
//
//   await ROUNDS       begins a call and awaits it at once; the time of both          -> us p50, us p99
//   elsewhere ROUNDS   begins a call and looks until it has ended, never giving up its seat: another one runs it
//                                                                                     -> us p50, us p99
//   fan COUNT ROUNDS   begins COUNT calls, then awaits each; the time of all of it     -> us p50, us p99, failed
#include <spore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS_MAX = 20000, COUNT_MAX = 10000 };
static double samples[ROUNDS_MAX];
static uint32_t calls[COUNT_MAX];
static const char name[] = "noop";

static double now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static int by_size(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static int64_t begin(void) { return spore_call(name, sizeof(name) - 1, "", 0); }

SPORE_FUNCTION {
  char order[64] = {0}, kind[16] = {0}, line[128];
  unsigned a = 0, b = 0;
  spore_input_read(0, order, sizeof(order) - 1);
  if (sscanf(order, "%15s %u %u", kind, &a, &b) < 2) return 2;
  const int is_fan = strcmp(kind, "fan") == 0, elsewhere = strcmp(kind, "elsewhere") == 0;
  const unsigned rounds = is_fan ? b : a, count = is_fan ? a : 1;
  if (rounds == 0 || rounds > ROUNDS_MAX || count > COUNT_MAX) return 2;
  unsigned failed = 0;
  for (unsigned round = 0; round < rounds; ++round) {
    const double start = now_us();
    for (unsigned i = 0; i < count; ++i) {
      const int64_t call = begin();
      if (call < 0) ++failed;
      calls[i] = call < 0 ? 0 : (uint32_t)call;
    }
    for (unsigned i = 0; i < count; ++i) {
      if (!calls[i]) continue;
      if (elsewhere) {
        while (spore_call_output_size(calls[i]) < 0) {
        }
      }
      if (spore_call_await(calls[i], SPORE_AWAIT_FOREVER) != 0) ++failed;
    }
    samples[round] = now_us() - start;
    for (unsigned i = 0; i < count; ++i)
      if (calls[i]) spore_call_close(calls[i]);
  }
  qsort(samples, rounds, sizeof(samples[0]), by_size);
  const int length =
      snprintf(line, sizeof(line), "%.2f %.2f %u\n", samples[rounds / 2], samples[rounds * 99 / 100], failed);
  spore_output_write(line, (uint32_t)length);
  return 0;
}

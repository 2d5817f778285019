// Arguments, environment, clocks, randomness: what the host gave is what is seen. argv: "process" "with space" "".
// Environment: A=1, EMPTY=.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

int main(int argc, char** argv) {
  EXPECT(argc, 3);
  EXPECT(strcmp(argv[0], "process"), 0);
  EXPECT(strcmp(argv[1], "with space"), 0);
  EXPECT(strcmp(argv[2], ""), 0);
  EXPECT(strcmp(getenv("A"), "1"), 0);
  EXPECT(strcmp(getenv("EMPTY"), ""), 0);
  EXPECT_TRUE(getenv("HOME") == NULL);

  __wasi_timestamp_t resolution = 0, first = 0, second = 0;
  for (__wasi_clockid_t clock = 0; clock < 4; ++clock) {
    EXPECT_OK(__wasi_clock_res_get(clock, &resolution));
    EXPECT_TRUE(resolution > 0 && resolution < 1000000000);
    EXPECT_OK(__wasi_clock_time_get(clock, 0, &first));
    EXPECT_OK(__wasi_clock_time_get(clock, 0, &second));
    EXPECT_TRUE(second >= first);
  }
  EXPECT_OK(__wasi_clock_time_get(__WASI_CLOCKID_REALTIME, 0, &first));
  EXPECT_TRUE(first > 1600000000ull * 1000000000ull);
  EXPECT(__wasi_clock_time_get(4, 0, &first), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_clock_res_get(99, &first), __WASI_ERRNO_INVAL);

  // The CPU time is that of this call, and it goes on.
  EXPECT_OK(__wasi_clock_time_get(__WASI_CLOCKID_PROCESS_CPUTIME_ID, 0, &first));
  volatile uint32_t work = 0;
  for (uint32_t i = 0; i < 30000000; ++i) work += i;
  EXPECT_OK(__wasi_clock_time_get(__WASI_CLOCKID_PROCESS_CPUTIME_ID, 0, &second));
  EXPECT_TRUE(second > first);

  uint8_t random[2][64] = {{0}};
  EXPECT_OK(__wasi_random_get(random[0], 64));
  EXPECT_OK(__wasi_random_get(random[1], 64));
  EXPECT_TRUE(memcmp(random[0], random[1], 64) != 0);
  EXPECT_OK(__wasi_random_get(random[0], 0));

  // More than the host fills in one go: every part of it is random.
  const size_t many = 20u << 20;
  uint8_t* large = calloc(1, many);
  EXPECT_OK(__wasi_random_get(large, many));
  for (size_t at = 0; at + 16 <= many; at += 1u << 20) {
    static const uint8_t kZeros[16];
    EXPECT_TRUE(memcmp(large + at, kZeros, 16) != 0);
  }
  EXPECT_TRUE(memcmp(large, large + (8u << 20), 64) != 0);
  free(large);
  EXPECT_OK(__wasi_sched_yield());
  return finish();
}

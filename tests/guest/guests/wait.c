// Waiting. "sleep MS", "stdin" (until there is input; prints what poll_oneoff said), "ever", "spin".
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static __wasi_subscription_t on_clock(uint64_t id, __wasi_clockid_t clock, uint64_t timeout, uint16_t flags) {
  __wasi_subscription_t out;
  memset(&out, 0, sizeof(out));
  out.userdata = id;
  out.u.tag = __WASI_EVENTTYPE_CLOCK;
  out.u.u.clock.id = clock;
  out.u.u.clock.timeout = timeout;
  out.u.u.clock.flags = flags;
  return out;
}

static __wasi_subscription_t on_fd(uint64_t id, uint8_t type, int fd) {
  __wasi_subscription_t out;
  memset(&out, 0, sizeof(out));
  out.userdata = id;
  out.u.tag = type;
  out.u.u.fd_read.file_descriptor = fd;
  return out;
}

static void poll_cases(void) {
  __wasi_subscription_t in[4];
  __wasi_event_t out[4];
  __wasi_size_t count = 99;
  // The clock that is due first is told, the other is not.
  in[0] = on_clock(7, __WASI_CLOCKID_MONOTONIC, 3600ull * 1000000000, 0);
  in[1] = on_clock(8, __WASI_CLOCKID_MONOTONIC, 2000000, 0);
  __wasi_timestamp_t before, after;
  EXPECT_OK(__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 0, &before));
  EXPECT_OK(__wasi_poll_oneoff(in, out, 2, &count));
  EXPECT_OK(__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 0, &after));
  EXPECT(count, 1);
  EXPECT(out[0].userdata, 8);
  EXPECT(out[0].error, 0);
  EXPECT(out[0].type, __WASI_EVENTTYPE_CLOCK);
  EXPECT_TRUE(after - before >= 2000000);
  // Absolute times: past, and two milliseconds from now, on both clocks.
  in[0] = on_clock(1, __WASI_CLOCKID_REALTIME, 1, __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
  EXPECT_OK(__wasi_poll_oneoff(in, out, 1, &count));
  EXPECT(count, 1);
  for (__wasi_clockid_t clock = 0; clock < 2; ++clock) {
    EXPECT_OK(__wasi_clock_time_get(clock, 0, &before));
    in[0] = on_clock(1, clock, before + 2000000, __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
    EXPECT_OK(__wasi_poll_oneoff(in, out, 1, &count));
    EXPECT_OK(__wasi_clock_time_get(clock, 0, &after));
    EXPECT_TRUE(after - before >= 2000000);
  }
  // A time that no clock reaches does not wrap into the past: the other event comes.
  in[0] = on_clock(1, __WASI_CLOCKID_MONOTONIC, UINT64_MAX, 0);
  in[1] = on_clock(2, __WASI_CLOCKID_MONOTONIC, 1000, 0);
  EXPECT_OK(__wasi_poll_oneoff(in, out, 2, &count));
  EXPECT(count, 1);
  EXPECT(out[0].userdata, 2);
  // What is wrong with one subscription is told in its event.
  in[0] = on_fd(1, __WASI_EVENTTYPE_FD_READ, 77);
  in[1] = on_clock(2, 9, 0, 0);
  in[2] = on_clock(3, __WASI_CLOCKID_PROCESS_CPUTIME_ID, 1, 0);
  in[3] = on_fd(4, 9, 0);
  EXPECT_OK(__wasi_poll_oneoff(in, out, 4, &count));
  EXPECT(count, 4);
  EXPECT(out[0].error, __WASI_ERRNO_BADF);
  EXPECT(out[1].error, __WASI_ERRNO_INVAL);
  EXPECT(out[2].error, __WASI_ERRNO_NOTSUP);
  EXPECT(out[3].error, __WASI_ERRNO_INVAL);
  EXPECT(__wasi_poll_oneoff(in, out, 0, &count), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_poll_oneoff(in, out, 5000, &count), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_poll_oneoff((void*)0xfffffff0, out, 1, &count), __WASI_ERRNO_FAULT);
  EXPECT(__wasi_poll_oneoff(in, (void*)0xfffffff0, 1, &count), __WASI_ERRNO_FAULT);
  // Buffers and output are always ready.
  in[0] = on_fd(5, __WASI_EVENTTYPE_FD_WRITE, 1);
  in[1] = on_clock(6, __WASI_CLOCKID_MONOTONIC, 3600ull * 1000000000, 0);
  EXPECT_OK(__wasi_poll_oneoff(in, out, 2, &count));
  EXPECT(count, 1);
  EXPECT(out[0].userdata, 5);
  EXPECT(out[0].type, __WASI_EVENTTYPE_FD_WRITE);
}

int main(int argc, char** argv) {
  if (strcmp(argv[1], "sleep") == 0) {
    const long ms = atol(argv[2]);
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    return nanosleep(&time, NULL);
  }
  if (strcmp(argv[1], "poll") == 0) {
    poll_cases();
    return finish();
  }
  if (strcmp(argv[1], "stdin") == 0) {
    // Both streams at once, and a clock that must not be due.
    __wasi_subscription_t in[3] = {on_fd(1, __WASI_EVENTTYPE_FD_READ, 0),
                                   on_clock(2, __WASI_CLOCKID_MONOTONIC, 3600ull * 1000000000, 0),
                                   on_fd(1, __WASI_EVENTTYPE_FD_READ, 0)};
    __wasi_event_t out[3];
    __wasi_size_t count = 0;
    EXPECT_OK(__wasi_poll_oneoff(in, out, 3, &count));
    EXPECT(count, 2);
    EXPECT(out[0].userdata, 1);
    EXPECT(out[0].error, 0);
    char text[16];
    EXPECT(read(0, text, sizeof(text)), 5);
    EXPECT(memcmp(text, "hello", 5), 0);
    return finish();
  }
  if (strcmp(argv[1], "ever") == 0) {
    while (1) sleep(3600);
  }
  volatile unsigned spin = 1;
  while (spin) ++spin, spin |= 1;
  return 0;
}

// What is no file: arguments, environment, clocks, randomness, waiting, sockets, the end. Arguments: "spec_process" and
// the section. Environment: A=1, EMPTY=.
#include "spec.h"

static u32 words[64];
static char text[256];

SECTION(args_sizes_get) {
  EXPECT_OK(raw_args_sizes_get(at(words), at(words + 1)));
  EXPECT(words[0], 2);
  EXPECT(words[1], sizeof("spec_process") + sizeof("args_sizes_get"));
  EXPECT_FAULTS(4, raw_args_sizes_get(p, at(words)));
  EXPECT_FAULTS(4, raw_args_sizes_get(at(words), p));
  EXPECT_LAST_BYTES(4, raw_args_sizes_get(p, at(words)));
  EXPECT_LAST_BYTES(4, raw_args_sizes_get(at(words), p));
}

SECTION(args_get) {
  const u32 size = sizeof("spec_process") + sizeof("args_get");
  memset(text, '#', sizeof(text));
  EXPECT_OK(raw_args_get(at(words), at(text)));
  EXPECT(words[0], at(text));
  EXPECT(words[1], at(text) + sizeof("spec_process"));
  EXPECT(memcmp(text, "spec_process\0args_get\0#", size + 1), 0);
  EXPECT_FAULTS(8, raw_args_get(p, at(text)));
  EXPECT_FAULTS(size, raw_args_get(at(words), p));
  EXPECT_LAST_BYTES(8, raw_args_get(p, at(text)));
  EXPECT_LAST_BYTES(size, raw_args_get(at(words), p));
  EXPECT(memcmp((void*)words[1], "args_get", 9), 0);
}

SECTION(environ_sizes_get) {
  EXPECT_OK(raw_environ_sizes_get(at(words), at(words + 1)));
  EXPECT(words[0], 2);
  EXPECT(words[1], sizeof("A=1") + sizeof("EMPTY="));
  EXPECT_FAULTS(4, raw_environ_sizes_get(p, at(words)));
  EXPECT_FAULTS(4, raw_environ_sizes_get(at(words), p));
  EXPECT_LAST_BYTES(4, raw_environ_sizes_get(p, at(words)));
  EXPECT_LAST_BYTES(4, raw_environ_sizes_get(at(words), p));
}

SECTION(environ_get) {
  memset(text, '#', sizeof(text));
  EXPECT_OK(raw_environ_get(at(words), at(text)));
  EXPECT(words[0], at(text));
  EXPECT(words[1], at(text) + 4);
  EXPECT(memcmp(text, "A=1\0EMPTY=\0#", 12), 0);
  EXPECT_FAULTS(8, raw_environ_get(p, at(text)));
  EXPECT_FAULTS(11, raw_environ_get(at(words), p));
  EXPECT_LAST_BYTES(8, raw_environ_get(p, at(text)));
  EXPECT_LAST_BYTES(11, raw_environ_get(at(words), p));
}

SECTION(clock_res_get) {
  u64 resolution = 0;
  for (u32 clock = 0; clock < 4; ++clock) {
    resolution = 0;
    EXPECT_OK(raw_clock_res_get(clock, at(&resolution)));
    EXPECT_TRUE(resolution > 0 && resolution <= 1000000000);
  }
  EXPECT(raw_clock_res_get(4, at(&resolution)), E(INVAL));
  EXPECT(raw_clock_res_get(0x100, at(&resolution)), E(INVAL));
  EXPECT(raw_clock_res_get(0xffffffffu, at(&resolution)), E(INVAL));
  EXPECT_FAULTS(8, raw_clock_res_get(0, p));
  EXPECT_LAST_BYTES(8, raw_clock_res_get(0, p));
}

SECTION(clock_time_get) {
  u64 first = 0, second = 0;
  for (u32 clock = 0; clock < 4; ++clock) {
    EXPECT_OK(raw_clock_time_get(clock, 0, at(&first)));
    EXPECT_OK(raw_clock_time_get(clock, UINT64_MAX, at(&second)));  // a precision is a wish
    if (clock != __WASI_CLOCKID_REALTIME) EXPECT_TRUE(second >= first);
  }
  EXPECT_OK(raw_clock_time_get(__WASI_CLOCKID_REALTIME, 0, at(&first)));
  EXPECT_TRUE(first > 1600000000ull * 1000000000);
  EXPECT(raw_clock_time_get(4, 0, at(&first)), E(INVAL));
  EXPECT(raw_clock_time_get(0xffffffffu, 0, at(&first)), E(INVAL));
  EXPECT_FAULTS(8, raw_clock_time_get(0, 0, p));
  EXPECT_LAST_BYTES(8, raw_clock_time_get(0, 0, p));
}

SECTION(random_get) {
  static uint8_t random[2][64];
  EXPECT_OK(raw_random_get(at(random[0]), 64));
  EXPECT_OK(raw_random_get(at(random[1]), 63));
  EXPECT_TRUE(memcmp(random[0], random[1], 63) != 0);
  EXPECT(random[1][63], 0);  // no more than asked for
  EXPECT_OK(raw_random_get(at(random[0]), 0));
  EXPECT_OK(raw_random_get(memory_end(), 0));
  EXPECT_FAULTS(64, raw_random_get(p, 64));
  EXPECT(raw_random_get(1, 0xffffffffu), E(FAULT));
  EXPECT_LAST_BYTES(64, raw_random_get(p, 64));
}

SECTION(sched_yield) { EXPECT_OK(raw_sched_yield()); }

// Deviates: a guest has no signals, so that there is none to raise.
SECTION(proc_raise) {
  for (u32 signal = 0; signal < 32; ++signal) EXPECT(raw_proc_raise(signal), E(NOSYS));
}

// The code is checked by the host; here, that nothing runs behind it.
SECTION(proc_exit) {
  raw_proc_exit((u32)failures);
  ++failures;
  fprintf(stderr, "the end was not the end\n");
}

static __wasi_subscription_t on_clock(u64 id, u32 clock, u64 timeout, u32 flags) {
  __wasi_subscription_t out;
  memset(&out, 0, sizeof(out));
  out.userdata = id;
  out.u.tag = __WASI_EVENTTYPE_CLOCK;
  out.u.u.clock.id = clock;
  out.u.u.clock.timeout = timeout;
  out.u.u.clock.flags = (uint16_t)flags;
  return out;
}

static __wasi_subscription_t on_fd(u64 id, u32 type, u32 fd) {
  __wasi_subscription_t out;
  memset(&out, 0, sizeof(out));
  out.userdata = id;
  out.u.tag = (uint8_t)type;
  out.u.u.fd_read.file_descriptor = (__wasi_fd_t)fd;
  return out;
}

SECTION(poll_oneoff) {
  static __wasi_subscription_t in[4097];
  static __wasi_event_t out[4097];
  u32 count = 0;
  // Files, directories' errors and streams at once; the clock that is not due is not told.
  make_file("a", "12345");
  const u32 file = (u32)open_file("a", FILE_RIGHTS);
  u64 position = 0;
  EXPECT_OK(raw_fd_seek(file, 2, __WASI_WHENCE_SET, at(&position)));
  const u32 deaf = (u32)open_file("a", FILE_RIGHTS & ~R(POLL_FD_READWRITE));
  in[0] = on_fd(10, __WASI_EVENTTYPE_FD_READ, file);
  in[1] = on_fd(11, __WASI_EVENTTYPE_FD_WRITE, file);
  in[2] = on_fd(12, __WASI_EVENTTYPE_FD_READ, 0);
  in[3] = on_fd(13, __WASI_EVENTTYPE_FD_WRITE, 2);
  in[4] = on_clock(14, __WASI_CLOCKID_MONOTONIC, UINT64_MAX, 0);
  in[5] = on_fd(15, __WASI_EVENTTYPE_FD_READ, kClosed);
  in[6] = on_fd(16, __WASI_EVENTTYPE_FD_READ, deaf);
  in[7] = on_clock(17, 99, 0, 0);
  in[8] = on_clock(18, __WASI_CLOCKID_MONOTONIC, 0, 2);
  in[9] = on_clock(19, __WASI_CLOCKID_THREAD_CPUTIME_ID, 0, 0);
  in[10] = on_fd(20, 3, 0);
  in[11] = on_clock(21, __WASI_CLOCKID_REALTIME, 0, 0);
  memset(out, 0xff, sizeof(out));
  EXPECT_OK(raw_poll_oneoff(at(in), at(out), 12, at(&count)));
  EXPECT(count, 11);
  static const struct {
    u32 userdata, error, type, nbytes;
  } kEvents[] = {{10, 0, 1, 3},        {11, 0, 2, 0},        {12, 0, 1, 5},
                 {13, 0, 2, 0},        {15, E(BADF), 1, 0},  {16, E(NOTCAPABLE), 1, 0},
                 {17, E(INVAL), 0, 0}, {18, E(INVAL), 0, 0}, {19, E(NOTSUP), 0, 0},
                 {20, E(INVAL), 3, 0}, {21, 0, 0, 0}};
  for (u32 i = 0; i < 11; ++i) {
    EXPECT(out[i].userdata, kEvents[i].userdata);
    EXPECT(out[i].error, kEvents[i].error);
    EXPECT(out[i].type, kEvents[i].type);
    EXPECT(out[i].fd_readwrite.nbytes, kEvents[i].nbytes);
    EXPECT(out[i].fd_readwrite.flags, 0);
  }
  EXPECT(out[11].userdata, UINT64_MAX);  // no event more than counted
  // The end of the input is a hang-up.
  char byte[8];
  const __wasi_iovec_t vector = {(uint8_t*)byte, 8};
  EXPECT_OK(raw_fd_read(0, at(&vector), 1, at(&count)));
  EXPECT_OK(raw_poll_oneoff(at(in + 2), at(out), 1, at(&count)));
  EXPECT(out[0].fd_readwrite.nbytes, 0);
  EXPECT(out[0].fd_readwrite.flags, __WASI_EVENTRWFLAGS_FD_READWRITE_HANGUP);
  // A relative and an absolute time that come; the earlier one alone.
  u64 before = 0, after = 0;
  EXPECT_OK(raw_clock_time_get(__WASI_CLOCKID_MONOTONIC, 0, at(&before)));
  in[0] = on_clock(1, __WASI_CLOCKID_MONOTONIC, before + 1000000, __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
  in[1] = on_clock(2, __WASI_CLOCKID_MONOTONIC, 3600ull * 1000000000, 0);
  EXPECT_OK(raw_poll_oneoff(at(in), at(out), 2, at(&count)));
  EXPECT_OK(raw_clock_time_get(__WASI_CLOCKID_MONOTONIC, 0, at(&after)));
  EXPECT(count, 1);
  EXPECT(out[0].userdata, 1);
  EXPECT_TRUE(after >= before + 1000000);
  // How many: from 1 to 4096.
  for (int i = 0; i < 4097; ++i) in[i] = on_clock((u64)i, __WASI_CLOCKID_MONOTONIC, 0, 0);
  EXPECT(raw_poll_oneoff(at(in), at(out), 0, at(&count)), E(INVAL));
  EXPECT_OK(raw_poll_oneoff(at(in), at(out), 4096, at(&count)));
  EXPECT(count, 4096);
  EXPECT(out[4095].userdata, 4095);
  EXPECT(raw_poll_oneoff(at(in), at(out), 4097, at(&count)), E(INVAL));
  EXPECT(raw_poll_oneoff(at(in), at(out), 0xffffffffu, at(&count)), E(INVAL));
  EXPECT_FAULTS(sizeof(in[0]), raw_poll_oneoff(p, at(out), 1, at(&count)));
  EXPECT_FAULTS(sizeof(out[0]), raw_poll_oneoff(at(in), p, 1, at(&count)));
  EXPECT_FAULTS(4, raw_poll_oneoff(at(in), at(out), 1, p));
  EXPECT_LAST_BYTES(sizeof(out[0]), raw_poll_oneoff(at(in), p, 1, at(&count)));
  EXPECT_LAST_BYTES(4, raw_poll_oneoff(at(in), at(out), 1, p));
  // Events may be written over the subscriptions they answer.
  in[0] = on_clock(7, __WASI_CLOCKID_MONOTONIC, 0, 0);
  in[1] = on_clock(8, __WASI_CLOCKID_MONOTONIC, 0, 0);
  EXPECT_OK(raw_poll_oneoff(at(in), at(in), 2, at(&count)));
  EXPECT(count, 2);
  const __wasi_event_t* over = (const __wasi_event_t*)in;
  EXPECT(over[0].userdata, 7);
  EXPECT(over[1].userdata, 8);
}

// No descriptor is a socket.
#define EXPECT_NO_SOCKET(call)                               \
  do {                                                       \
    static const u32 kOpen[] = {0, 1, 2, kRw, kRo};          \
    static const u32 kNone[] = {kClosed, 1024, 0xffffffffu}; \
    for (int n_ = 0; n_ < 5; ++n_) {                         \
      const u32 fd = kOpen[n_];                              \
      EXPECT(call, E(NOTSOCK));                              \
    }                                                        \
    for (int n_ = 0; n_ < 3; ++n_) {                         \
      const u32 fd = kNone[n_];                              \
      EXPECT(call, E(BADF));                                 \
    }                                                        \
  } while (0)

SECTION(sock_accept) { EXPECT_NO_SOCKET(raw_sock_accept(fd, 0, at(words))); }
SECTION(sock_recv) { EXPECT_NO_SOCKET(raw_sock_recv(fd, at(words), 0, 0, at(words), at(words))); }
SECTION(sock_send) { EXPECT_NO_SOCKET(raw_sock_send(fd, at(words), 0, 0, at(words))); }
SECTION(sock_shutdown) {
  for (u32 how = 0; how < 4; ++how) EXPECT_NO_SOCKET(raw_sock_shutdown(fd, how));
}

MAIN(LISTED(args_sizes_get), LISTED(args_get), LISTED(environ_sizes_get), LISTED(environ_get), LISTED(clock_res_get),
     LISTED(clock_time_get), LISTED(random_get), LISTED(sched_yield), LISTED(proc_raise), LISTED(proc_exit),
     LISTED(poll_oneoff), LISTED(sock_accept), LISTED(sock_recv), LISTED(sock_send), LISTED(sock_shutdown))

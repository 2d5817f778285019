// Checks of a guest program: each failure is a line on standard error, and finish() gives how many there were.
#pragma once

#include <stdio.h>
#include <wasi/api.h>

static int failures = 0;

#define EXPECT(expression, wanted)                                                                           \
  do {                                                                                                       \
    long long got_ = (long long)(expression), wanted_ = (long long)(wanted);                                 \
    if (got_ != wanted_) {                                                                                   \
      ++failures;                                                                                            \
      fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE_NAME__, __LINE__, #expression, got_, wanted_); \
    }                                                                                                        \
  } while (0)
#define EXPECT_OK(expression) EXPECT(expression, __WASI_ERRNO_SUCCESS)
#define EXPECT_TRUE(expression) EXPECT(!!(expression), 1)

static int finish(void) { return failures > 100 ? 100 : failures; }

// The imports themselves, for arguments that wasi-libc's wrappers do not let through.
#define RAW(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

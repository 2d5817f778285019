// Counts the primes below a number, many parts of it at once: each part is a call of this program itself, entered at
// another of its functions.
//
//   echo 100000 | spore call demo/primes --data-file -
#include <spore.h>
#include <stdio.h>
#include <stdlib.h>

enum { kParts = 8, kNumberMax = 100 * 1000 * 1000 };

struct range {
  uint32_t begin, end;
};

static int is_prime(uint32_t n) {
  for (uint32_t i = 2; i * i <= n; i++)
    if (n % i == 0) return 0;
  return n > 1;
}

// The input is a range, the output how many there are in it.
static int count_part(void) {
  struct range range;
  if (spore_input_read(0, &range, sizeof(range)) != sizeof(range)) return 1;
  uint32_t count = 0;
  for (uint32_t n = range.begin; n < range.end; n++) count += (uint32_t)is_prime(n);
  spore_output_write(&count, sizeof(count));
  return 0;
}

static int fail(const char* what, int64_t error) {
  fprintf(stderr, "primes: %s: error %lld\n", what, (long long)-error);
  return 1;
}

SPORE_FUNCTION {
  char text[16] = {0};
  spore_input_read(0, text, sizeof(text) - 1);
  const long below = strtol(text, 0, 10);
  if (below < 0 || below > kNumberMax) return fail("the input is no number up to 100000000", 0);
  int64_t calls[kParts];
  for (uint64_t part = 0; part < kParts; part++) {
    const struct range range = {(uint32_t)(part * (uint64_t)below / kParts),
                                (uint32_t)((part + 1) * (uint64_t)below / kParts)};
    calls[part] = spore_call_self(count_part, &range, sizeof(range));
    if (calls[part] < 0) return fail("a part cannot begin", calls[part]);
  }
  uint32_t sum = 0;
  for (int part = 0; part < kParts; part++) {
    uint32_t count;
    const int64_t code = spore_call_await((uint32_t)calls[part], SPORE_AWAIT_FOREVER);
    if (code != 0) return fail("a part failed", code);
    spore_call_output_read((uint32_t)calls[part], 0, &count, sizeof(count));
    sum += count;
  }
  const int bytes = snprintf(text, sizeof(text), "%u\n", sum);
  spore_output_write(text, (uint32_t)bytes);
  return 0;
}

// Plain loops over an array of doubles, as native code and as a WebAssembly function. Each goes over the array, or
// makes kRandomAccesses to it, `passes` times; `count` is a power of two. What they return differs where what they read
// or wrote does.
#include <stdint.h>

#if defined(__wasm__)
#include <spore.h>
#define KERNEL(name) SPORE_EXPORT(#name)
#else
#define KERNEL(name)
#endif

enum { kRandomAccesses = 1 << 20 };

// To the compiler somebody may have changed all memory here: no pass is left out.
#define ANOTHER_PASS(array) __asm__ volatile("" : : "r"(array) : "memory")

static uint64_t next_random(uint64_t random) { return random * 6364136223846793005u + 1442695040888963407u; }

static uint64_t bits_of(double value) {
  union {
    double value;
    uint64_t bits;
  } both = {value};
  return both.bits;
}

KERNEL(sum_integers) uint64_t sum_integers(const double* array, uint32_t count, uint32_t passes) {
  uint64_t sum = 0;
  for (; passes > 0; --passes) {
    const uint64_t* integers = (const uint64_t*)array;
    for (uint32_t i = 0; i < count; ++i) sum += integers[i];
    ANOTHER_PASS(array);
  }
  return sum;
}

// With sums enough for additions not to wait for each other.
KERNEL(sum_doubles) uint64_t sum_doubles(const double* array, uint32_t count, uint32_t passes) {
  double sums[16] = {0}, sum = 0;
  for (; passes > 0; --passes) {
    for (uint32_t i = 0; i < count; i += 16)
      for (uint32_t k = 0; k < 16; ++k) sums[k] += array[i + k];
    ANOTHER_PASS(array);
  }
  for (uint32_t k = 0; k < 16; ++k) sum += sums[k];
  return bits_of(sum);
}

KERNEL(read_random) uint64_t read_random(const double* array, uint32_t count, uint32_t passes) {
  uint64_t sum = 0, random = 1;
  for (; passes > 0; --passes) {
    for (uint32_t i = 0; i < kRandomAccesses; ++i) {
      random = next_random(random);
      sum += ((const uint64_t*)array)[(uint32_t)(random >> 33) & (count - 1)];
    }
    ANOTHER_PASS(array);
  }
  return sum;
}

KERNEL(fill) uint64_t fill(double* array, uint32_t count, uint32_t passes) {
  for (; passes > 0; --passes) {
    for (uint32_t i = 0; i < count; ++i) array[i] = 0.5 * (double)(int32_t)i + (double)passes;
    ANOTHER_PASS(array);
  }
  return bits_of(array[count / 2]);
}

KERNEL(scale) uint64_t scale(double* array, uint32_t count, uint32_t passes) {
  for (; passes > 0; --passes) {
    for (uint32_t i = 0; i < count; ++i) array[i] = array[i] * 0.75 + 3;
    ANOTHER_PASS(array);
  }
  return bits_of(array[count / 2]);
}

KERNEL(write_random) uint64_t write_random(double* array, uint32_t count, uint32_t passes) {
  uint64_t random = 1;
  for (; passes > 0; --passes) {
    for (uint32_t i = 0; i < kRandomAccesses; ++i) {
      random = next_random(random);
      array[(uint32_t)(random >> 33) & (count - 1)] = (double)(int32_t)i;
    }
    ANOTHER_PASS(array);
  }
  return bits_of(array[count / 2]);
}

// One word in each page of 4 KiB.
KERNEL(read_pages) uint64_t read_pages(const volatile uint64_t* array, uint32_t pages) {
  uint64_t sum = 0;
  for (uint32_t page = 0; page < pages; ++page) sum += array[page * 512];
  return sum;
}
KERNEL(write_pages) uint64_t write_pages(volatile uint64_t* array, uint32_t pages) {
  for (uint32_t page = 0; page < pages; ++page) array[page * 512] = page;
  return pages;
}

#if defined(__wasm__)
SPORE_EXPORT("nothing") uint64_t nothing(void) { return 1; }

// The array in the function's own memory.
static double linear_memory[2 << 20] __attribute__((aligned(4096)));
SPORE_EXPORT("linear") uint64_t linear(void) { return (uintptr_t)linear_memory; }

// The state value whose key is the letter, as large as it is.
SPORE_EXPORT("map") uint64_t map(uint32_t letter) {
  const char key[2] = {(char)letter, 0};
  return (uintptr_t)spore_state_map(key, 0, 0, 0);
}
// One byte at each of three places of it.
SPORE_EXPORT("three_places")
uint64_t three_places(const volatile uint8_t* value, uint32_t first, uint32_t second, uint32_t third) {
  return (uint64_t)value[first] + value[second] + value[third];
}
#endif

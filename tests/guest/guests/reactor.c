// A reactor: the input backwards, in two writes; the exit code is the number of constructors that ran plus 40.
#include <stdint.h>
#include <stdlib.h>

#define SPORE(name) __attribute__((import_module("spore"), import_name(#name)))
SPORE(input_size) uint32_t input_size(void);
SPORE(input_read) uint32_t input_read(uint32_t offset, void* to, uint32_t size);
SPORE(output_write) uint32_t output_write(const void* from, uint32_t size);

static int constructed = 0;
__attribute__((constructor)) static void construct(void) { ++constructed; }

__attribute__((export_name("spore_call"))) int32_t spore_call(void) {
  const uint32_t size = input_size();
  char* bytes = malloc(2 * (size_t)size + 1);
  // In pieces, and past the end.
  uint32_t got = input_read(0, bytes, size / 2);
  got += input_read(got, bytes + got, size);
  if (got != size || input_read(size, bytes, 1) != 0 || input_read(0xffffffffu, bytes, 1) != 0) return 1;
  for (uint32_t i = 0; i < size / 2; ++i) {
    char swap = bytes[i];
    bytes[i] = bytes[size - 1 - i];
    bytes[size - 1 - i] = swap;
  }
  if (output_write(bytes, size / 3) != size / 3) return 2;
  if (output_write(bytes + size / 3, size - size / 3) != size - size / 3) return 3;
  return 40 + constructed;
}

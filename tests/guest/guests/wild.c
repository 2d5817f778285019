// Hands a bad pointer to Spore's own calls: each traps. The first argument chooses.
#include <stdint.h>
#include <stdlib.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
IMPORT("spore", "input_read") uint32_t input_read(uint32_t offset, uint32_t to, uint32_t size);
IMPORT("spore", "output_write") uint32_t output_write(uint32_t from, uint32_t size);
IMPORT("env", "abort") void as_abort(uint32_t message, uint32_t file, uint32_t line, uint32_t column);
IMPORT("env", "console.log") void as_log(uint32_t text);

struct {
  uint32_t bytes;
  uint16_t text[11];
} static const kMessage = {22, {'b', 'a', 'd', ' ', 0x20ac, ' ', 0xd83d, 0xde00, ' ', 0xd800, '!'}};
struct {
  uint32_t bytes;
  uint16_t text[4];
} static const kFile = {8, {'a', '.', 't', 's'}};

int main(int argc, char** argv) {
  const uint32_t end = (uint32_t)__builtin_wasm_memory_size(0) * 65536;
  switch (atoi(argv[1])) {
    case 0: input_read(0, end - 1, 2); break;
    case 1: output_write(end, 1); break;
    case 2: output_write(0xffffffffu, 0xffffffffu); break;
    case 3: as_abort((uint32_t)kMessage.text, (uint32_t)kFile.text, 7, 9); break;
    case 4: as_abort(0, 0, 0, 0); break;
    case 5: as_abort(end + 2, 3, 1, 1); break;
    case 6: as_log(end + 4); break;
    case 7: as_log((uint32_t)kMessage.text); return 5;
    case 8: output_write(end, 0); return 6;  // the empty range at the end is inside
  }
  return 0;
}

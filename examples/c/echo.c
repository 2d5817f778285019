// Gives its input back, in pieces of a fixed size.
#include <spore.h>

SPORE_FUNCTION {
  static char piece[64 << 10];
  uint32_t offset = 0, count;
  while ((count = spore_input_read(offset, piece, sizeof(piece))) != 0) {
    spore_output_write(piece, count);
    offset += count;
  }
  return 0;
}

// The input is a key of 8 bytes, the output 8 bytes: the key again, or, of a function that keeps state, how often it
// was called with that key.
#include <spore.h>

SPORE_FUNCTION {
  char key[8];
  if (spore_input_read(0, key, 8) != 8) return 1;
#if defined(STATEFUL)
  uint64_t* const counter = spore_state_map(key, 0, 0, 0);
  if (!counter) return 2;
  const uint64_t count = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
  spore_output_write(&count, 8);
#else
  spore_output_write(key, 8);
#endif
  return 0;
}

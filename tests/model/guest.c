// A writer of the model test: does the steps of its order on the value "model", each by one of the ways to it, and ends
// as it is told. The value is always as large; a page has one writer.
#include <spore.h>
#include <string.h>

#include "random.h"

static const char kKey[] = "model";
enum { kKeyBytes = sizeof(kKey) - 1 };

// A wrong reading ends the call with the number of its line.
#define EXPECT(condition) \
  if (!(condition)) return __LINE__

SPORE_FUNCTION {
  struct order order;
  EXPECT(spore_input_read(0, &order, sizeof(order)) == sizeof(order));
  const uint64_t size = (uint64_t)order.pages * 4096;
  uint8_t* bytes = spore_state_map(kKey, size, 0, 0);
  EXPECT(bytes);
  uint64_t random = order.seed;
  for (uint32_t step = 0; step < order.steps; ++step) {
    const uint64_t r = next_random(&random);
    const uint32_t at = page_of(&order, r) * 4096 + place_of(r);
    const uint64_t value = next_random(&random);
    switch (r % kKinds) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4: memcpy(bytes + at, &value, 8); break;
      case 5:
      case 6: {
        uint8_t block[kCopyBytes];
        memset(block, (int)value, sizeof(block));
        __builtin_memcpy(bytes + at, block, sizeof(block));
        break;
      }
      case 7: memset(bytes + at, (int)value, kCopyBytes); break;
      case 8:
      case 9:
      case 10: EXPECT(spore_state_write(kKey, kKeyBytes, at, &value, 8) == 8); break;
      case 11: EXPECT(spore_state_push(kKey, kKeyBytes, 0, 0) == 0); break;
      case 12: EXPECT(spore_state_pull(kKey, kKeyBytes, 0, 0) == 0); break;
      case 13: EXPECT(spore_state_push(kKey, kKeyBytes, at, 1) == 0); break;
      case 14: {  // its own pages are the same by all ways
        uint64_t seen;
        EXPECT(spore_state_read(kKey, kKeyBytes, at, &seen, 8) == 8);
        EXPECT(memcmp(&seen, bytes + at, 8) == 0);
        break;
      }
      case 15:
        if (value % 4 == 0) {
          EXPECT(spore_state_unmap(kKey, kKeyBytes) == 0);
          EXPECT(bytes = spore_state_map(kKey, size, 0, 0));
        }
        break;
    }
  }
  if (order.ending == kEndTrap) __builtin_trap();
  if (order.ending == kEndSpin) {
    spore_output_write("spinning", 8);
    for (;;) __asm__ volatile("" ::: "memory");
  }
  return 0;
}

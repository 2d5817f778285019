// A hash table with open addressing: inserts, look-ups and removals of 64-bit keys with linear probing.
#include "kernel.h"

enum { kSlots = 1 << 17, kOperations = 3000000 };

typedef struct {
  uint64_t key;  // 0: free
  uint64_t count;
} Slot;

static Slot slots[kSlots];

static inline uint32_t home_of(uint64_t key) { return (uint32_t)((key * 0x9E3779B97F4A7C15ull) >> 47); }

static Slot* find(uint64_t key) {
  uint32_t at = home_of(key);
  while (slots[at].key != 0 && slots[at].key != key) at = (at + 1) % kSlots;
  return &slots[at];
}

// Moves later entries of the chain forward, so that no chain has a hole.
static void erase(Slot* slot) {
  uint32_t hole = (uint32_t)(slot - slots);
  uint32_t at = hole;
  for (;;) {
    at = (at + 1) % kSlots;
    if (slots[at].key == 0) break;
    const uint32_t home = home_of(slots[at].key);
    if ((at - home) % kSlots >= (at - hole) % kSlots) {
      slots[hole] = slots[at];
      hole = at;
    }
  }
  slots[hole].key = 0;
}

double run(void) {
  for (int i = 0; i < kSlots; i++) slots[i].key = slots[i].count = 0;
  uint64_t random = 19;
  uint64_t hash = 0;
  uint32_t used = 0;
  for (int i = 0; i < kOperations; i++) {
    const uint64_t r = next_random(&random);
    const uint64_t key = 1 + (r >> 8) % 100000;
    Slot* slot = find(key);
    if (slot->key == 0) {
      slot->key = key;
      slot->count = 1;
      used++;
    } else if ((r & 7) == 0) {
      hash = hash * 31 + slot->count;
      erase(slot);
      used--;
    } else {
      slot->count++;
    }
  }
  return as_checksum(hash + used);
}

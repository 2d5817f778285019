// What a processor must not do while it runs ahead of a check.
#pragma once

#include <cstdint>

namespace spore {

// `index` where it is below `limit`, else 0: by arithmetic, so that it also holds past a check that was mispredicted
// (Spectre, variant 1; as array_index_nospec of Linux). For what a guest chooses and has been checked.
inline uint64_t bounded(uint64_t index, uint64_t limit) {
  uint64_t mask;
  asm("cmpq %2, %1\n\tsbbq %0, %0" : "=&r"(mask) : "r"(index), "re"(limit) : "cc");
  return index & mask;
}

}  // namespace spore

#include "faaslet/guarded_copy.h"

#include <cstdint>

extern "C" {
uint32_t spore_guarded_copy(void* to, const void* from, size_t size_bytes);
uint32_t spore_guarded_fill(void* to, uint32_t value, size_t size_bytes);
}

namespace spore::faaslet {

bool guarded_copy(void* to, const void* from, size_t size_bytes) { return spore_guarded_copy(to, from, size_bytes); }
bool guarded_fill(void* to, unsigned char value, size_t size_bytes) {
  return spore_guarded_fill(to, value, size_bytes);
}

}  // namespace spore::faaslet

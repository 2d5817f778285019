// A slot: the reservation of address space that one instance lives in (wasm/abi.h has the picture). It knows nothing
// of what is inside; a Faaslet puts mappings into it and the slot is empty again after clear().
#pragma once

#include <cstdint>
#include <utility>

#include "base/result.h"

namespace spore::faaslet {

// Once in a process, before a thread that may not (seats are filtered) reserves a slot; later calls tell what the first
// one did. The kernel may turn small pages into a huge one at any time, and so give a guest pages that it never faulted
// in. A reset that goes by the thread's fault count would not know of them. For the whole process, as a slot's mappings
// come and go.
Result<void> forbid_huge_pages();

class Slot {
 public:
  // kResourceExhausted when the process has no address space or no mappings left. Forbids huge pages first.
  static Result<Slot> reserve();

  Slot(Slot&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
  Slot& operator=(Slot&& other) noexcept {
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~Slot();

  // M: where linear memory 0 begins. Null after a move.
  uint8_t* memory() const { return memory_; }
  // Makes all of it inaccessible and gives its pages back.
  Result<void> clear();

 private:
  explicit Slot(uint8_t* memory) : memory_(memory) {}
  uint8_t* memory_ = nullptr;
};

}  // namespace spore::faaslet

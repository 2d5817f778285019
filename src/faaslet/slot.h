// A slot: the reservation of address space that one instance lives in (wasm/abi.h has the picture). It knows nothing
// of what is inside; a Faaslet puts mappings into it and the slot is empty again after clear().
#pragma once

#include <cstdint>
#include <utility>

#include "base/result.h"

namespace spore::faaslet {

class Slot {
 public:
  // kResourceExhausted when the process has no address space or no mappings left.
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

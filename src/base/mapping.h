// A range of address space that unmaps itself.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace spore {

class Mapping {
 public:
  Mapping() = default;
  Mapping(void* address, size_t size_bytes) : address_(static_cast<uint8_t*>(address)), size_bytes_(size_bytes) {}
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
  }
  ~Mapping() {
    if (address_) ::munmap(address_, size_bytes_);
  }

  uint8_t* data() const { return address_; }
  size_t size() const { return size_bytes_; }

 private:
  uint8_t* address_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace spore

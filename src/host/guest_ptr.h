// Guest memory, as a host function may touch it.
//
// An address that comes from a guest is only a number. A GuestPtr<T> offers no way to the bytes but three: copy_in,
// copy_out, and range(), an iovec for a system call. Each first checks the whole range against the size of linear
// memory (unsigned, in 64 bits, so that nothing wraps), and each copy fetches a guest word once: what has been checked
// is what is used, whatever another thread or another Faaslet writes meanwhile. A page that is not there or cannot be
// written (a hole, a file cut short, a read-only window) makes a copy fail, as a range outside does. No alignment is
// asked of a guest.
//
// A function of WASI answers a failure with EFAULT, as POSIX does; others trap (out of bounds memory access).
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

#include "base/check.h"
#include "base/speculation.h"
#include "faaslet/faaslet.h"
#include "faaslet/guarded_copy.h"

namespace spore::host {

// Linear memory 0 and the windows above it, for the time of one host call. Memory may grow, but never moves or shrinks,
// and windows stay, so a range that was inside stays inside.
class GuestMemory {
 public:
  GuestMemory(uint8_t* base, uint64_t size_bytes) : base_(base), size_bytes_(size_bytes) {}
  explicit GuestMemory(const faaslet::Faaslet& faaslet)
      : base_(faaslet.memory()), size_bytes_(faaslet.memory_bytes()), faaslet_(&faaslet) {}
  explicit GuestMemory(faaslet::HostCall& call) : GuestMemory(call.faaslet()) {}

  bool holds(uint64_t address, uint64_t size_bytes) const {
    return (address <= size_bytes_ && size_bytes <= size_bytes_ - address) ||
           (faaslet_ && faaslet_->window_holds(address, size_bytes));
  }

 private:
  template <class T>
  friend class GuestPtr;
  uint8_t* base_;
  uint64_t size_bytes_;
  const faaslet::Faaslet* faaslet_ = nullptr;
};

template <class T>
class GuestPtr {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  GuestPtr() = default;
  explicit GuestPtr(uint32_t address) : address_(address) {}

  uint32_t address() const { return static_cast<uint32_t>(address_); }
  // The element of that index; past the end of memory it is an address that no check lets through.
  GuestPtr at(uint32_t index) const {
    GuestPtr out;
    out.address_ = address_ + uint64_t{index} * sizeof(T);
    return out;
  }
  bool is_null() const { return address_ == 0; }

  [[nodiscard]] std::optional<T> copy_in(const GuestMemory& memory) const {
    T value;
    if (!copy_in(memory, std::span(&value, 1))) return std::nullopt;
    return value;
  }
  // to.size() elements.
  [[nodiscard]] bool copy_in(const GuestMemory& memory, std::span<T> to) const {
    const auto bytes = range_bytes(memory, to.size());
    return bytes && (*bytes == 0 || faaslet::guarded_copy(to.data(), memory.base_ + offset(), *bytes));
  }

  [[nodiscard]] bool copy_out(const GuestMemory& memory, const T& value) const {
    return copy_out(memory, std::span(&value, 1));
  }
  [[nodiscard]] bool copy_out(const GuestMemory& memory, std::span<const T> from) const {
    const auto bytes = range_bytes(memory, from.size());
    return bytes && (*bytes == 0 || faaslet::guarded_copy(memory.base_ + offset(), from.data(), *bytes));
  }

  // `count` elements as a buffer for a system call, which finds a page that is not there by itself (EFAULT).
  [[nodiscard]] std::optional<iovec> range(const GuestMemory& memory, uint64_t count) const {
    const auto bytes = range_bytes(memory, count);
    if (!bytes) return std::nullopt;
    return iovec{memory.base_ + offset(), *bytes};
  }

 private:
  std::optional<uint64_t> range_bytes(const GuestMemory& memory, uint64_t count) const {
    if (count > UINT32_MAX || !memory.holds(address_, count * sizeof(T))) return std::nullopt;
    return count * sizeof(T);
  }

  // Of an address that has been checked; also where a processor runs ahead of that, it stays in the guest's slot.
  uint64_t offset() const { return bounded(address_, wasm::kSlotAboveBytes); }

  uint64_t address_ = 0;  // wider than the guest's, so that at() does not wrap
};

}  // namespace spore::host

// The operations of generated code that the host carries out: growing, bulk copies, tables, waiting on memory. Private
// to src/faaslet. Every operand comes from the guest and is checked in full; nothing is written before all checks.
#pragma once

#include "faaslet/faaslet.h"

namespace spore::faaslet {

class Builtins {
 public:
  explicit Builtins(Faaslet& faaslet) : f_(faaslet) {}
  HostResult run(wasm::Builtin builtin);

 private:
  struct Memory {
    uint8_t* base;
    uint64_t size_bytes;
  };
  Memory memory(uint64_t index) const;
  // Whether [address, +count) is in a window, where copies must expect pages that are missing or read-only.
  bool in_window(uint64_t memory_index, uint64_t address, uint64_t count) const {
    return memory_index == 0 && f_.window_holds(address, count);
  }
  wasm::TableDescriptor& table(uint64_t index) const;
  wasm::TableEntry* entries(const wasm::TableDescriptor& table) const;
  wasm::TableEntry entry_of(uint64_t table_index, uint64_t reference) const;
  uint64_t operand(uint32_t index) const { return f_.cell(index).low; }
  HostResult trap(wasm::TrapKind kind);
  HostResult done(uint64_t result);

  HostResult memory_copy();
  HostResult memory_fill();
  HostResult memory_init();
  HostResult table_set();
  HostResult table_fill();
  HostResult table_copy();
  HostResult table_init();
  HostResult atomic_wait(uint64_t size_bytes);
  HostResult atomic_notify();

  Faaslet& f_;
};

}  // namespace spore::faaslet

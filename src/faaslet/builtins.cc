#include "faaslet/builtins.h"

#include <poll.h>

#include <algorithm>
#include <cstring>

#include "base/speculation.h"
#include "faaslet/const_expr.h"
#include "faaslet/guarded_copy.h"

namespace spore::faaslet {

using wasm::Builtin;
using wasm::TrapKind;

namespace {

bool fits(uint64_t offset, uint64_t count, uint64_t size) { return offset <= size && count <= size - offset; }

// As memmove, but false where a page is missing.
bool guarded_move(uint8_t* to, const uint8_t* from, uint64_t count) {
  if (to <= from || to >= from + count) return guarded_copy(to, from, count);
  uint8_t block[4096];
  while (count > 0) {  // from the end, so that nothing is overwritten before it was read
    const uint64_t bytes = std::min<uint64_t>(count, sizeof(block));
    count -= bytes;
    if (!guarded_copy(block, from + count, bytes) || !guarded_copy(to + count, block, bytes)) return false;
  }
  return true;
}

}  // namespace

HostResult Builtins::trap(TrapKind kind) {
  f_.pending_trap_ = {.kind = kind, .message = std::string(message_of(kind)), .stack = {}};
  return HostResult::kTrap;
}

HostResult Builtins::done(uint64_t result) {
  f_.cell(0).low = result;
  return HostResult::kDone;
}

Builtins::Memory Builtins::memory(uint64_t index) const {
  if (index == 0) return {f_.memory(), f_.memory_bytes()};
  const auto& descriptor = f_.in_slot<wasm::MemoryDescriptor>(
      f_.object().layout().memory_descriptors + static_cast<int64_t>(index * sizeof(wasm::MemoryDescriptor)));
  return {f_.memory() + descriptor.base, descriptor.size_bytes};
}

wasm::TableDescriptor& Builtins::table(uint64_t index) const {
  return f_.in_slot<wasm::TableDescriptor>(f_.object().layout().table_descriptors +
                                           static_cast<int64_t>(index * sizeof(wasm::TableDescriptor)));
}

wasm::TableEntry* Builtins::entries(const wasm::TableDescriptor& table) const {
  return &f_.in_slot<wasm::TableEntry>(table.base);
}

// What a table of this type holds for a reference.
wasm::TableEntry Builtins::entry_of(uint64_t table_index, uint64_t reference) const {
  wasm::TableEntry entry;
  if (reference && f_.module().tables[table_index].element == wasm::ValueType::kFuncRef)
    entry = descriptor_of(reference);
  entry.reference = reference;
  return entry;
}

HostResult Builtins::run(Builtin builtin) {
  switch (builtin) {
    case Builtin::kMemoryGrow: {
      const auto index = static_cast<uint32_t>(operand(0));
      return done(f_.grow_memory(index, operand(1)).value_or(~uint64_t{0}));
    }
    case Builtin::kMemoryCopy: return memory_copy();
    case Builtin::kMemoryFill: return memory_fill();
    case Builtin::kMemoryInit: return memory_init();
    case Builtin::kTableSet: return table_set();
    case Builtin::kTableGrow:
      return done(f_.grow_table(static_cast<uint32_t>(operand(0)), operand(2), operand(1)).value_or(~uint64_t{0}));
    case Builtin::kTableFill: return table_fill();
    case Builtin::kTableCopy: return table_copy();
    case Builtin::kTableInit: return table_init();
    case Builtin::kAtomicWait32: return atomic_wait(4);
    case Builtin::kAtomicWait64: return atomic_wait(8);
    case Builtin::kAtomicNotify: return atomic_notify();
    case Builtin::kEnd: break;
  }
  return trap(TrapKind::kHostCall);
}

HostResult Builtins::memory_copy() {
  const Memory to = memory(operand(0));
  const Memory from = memory(operand(1));
  const uint64_t destination = operand(2), source = operand(3), count = operand(4);
  if (fits(destination, count, to.size_bytes) && fits(source, count, from.size_bytes)) {
    std::memmove(to.base + bounded(destination, to.size_bytes), from.base + bounded(source, from.size_bytes), count);
    return HostResult::kDone;
  }
  const bool held = (fits(destination, count, to.size_bytes) || in_window(operand(0), destination, count)) &&
                    (fits(source, count, from.size_bytes) || in_window(operand(1), source, count));
  if (!held || !guarded_move(to.base + bounded(destination, wasm::kSlotAboveBytes),
                             from.base + bounded(source, wasm::kSlotAboveBytes), count))
    return trap(TrapKind::kMemoryOutOfBounds);
  return HostResult::kDone;
}

HostResult Builtins::memory_fill() {
  const Memory to = memory(operand(0));
  const uint64_t destination = operand(1), count = operand(3);
  const auto value = static_cast<uint8_t>(operand(2));
  if (fits(destination, count, to.size_bytes)) {
    std::memset(to.base + bounded(destination, to.size_bytes), value, count);
    return HostResult::kDone;
  }
  if (!in_window(operand(0), destination, count) ||
      !guarded_fill(to.base + bounded(destination, wasm::kSlotAboveBytes), value, count))
    return trap(TrapKind::kMemoryOutOfBounds);
  return HostResult::kDone;
}

HostResult Builtins::memory_init() {
  const uint64_t segment = operand(0);
  const Memory to = memory(operand(1));
  const uint64_t destination = operand(2), source = operand(3), count = operand(4);
  const Bytes& bytes = f_.module().data_segments[segment].bytes;
  const bool dropped = f_.in_slot<uint8_t>(f_.object().layout().data_dropped + static_cast<int64_t>(segment));
  const bool windowed = !fits(destination, count, to.size_bytes);
  if ((windowed && !in_window(operand(1), destination, count)) || !fits(source, count, dropped ? 0 : bytes.size()))
    return trap(TrapKind::kMemoryOutOfBounds);
  const uint8_t* const data = bytes.data() + bounded(source, bytes.size());
  if (count != 0 && !windowed) std::memcpy(to.base + bounded(destination, to.size_bytes), data, count);
  if (windowed && !guarded_copy(to.base + bounded(destination, wasm::kSlotAboveBytes), data, count))
    return trap(TrapKind::kMemoryOutOfBounds);
  return HostResult::kDone;
}

HostResult Builtins::table_set() {
  const wasm::TableDescriptor& to = table(operand(0));
  if (operand(1) >= to.size) return trap(TrapKind::kTableOutOfBounds);
  entries(to)[bounded(operand(1), to.size)] = entry_of(operand(0), operand(2));
  return HostResult::kDone;
}

HostResult Builtins::table_fill() {
  const wasm::TableDescriptor& to = table(operand(0));
  const uint64_t destination = operand(1), count = operand(3);
  if (!fits(destination, count, to.size)) return trap(TrapKind::kTableOutOfBounds);
  std::fill_n(entries(to) + bounded(destination, to.size), count, entry_of(operand(0), operand(2)));
  return HostResult::kDone;
}

HostResult Builtins::table_copy() {
  const wasm::TableDescriptor& to = table(operand(0));
  const wasm::TableDescriptor& from = table(operand(1));
  const uint64_t destination = operand(2), source = operand(3), count = operand(4);
  if (!fits(destination, count, to.size) || !fits(source, count, from.size)) return trap(TrapKind::kTableOutOfBounds);
  std::memmove(entries(to) + bounded(destination, to.size), entries(from) + bounded(source, from.size),
               count * sizeof(wasm::TableEntry));
  return HostResult::kDone;
}

HostResult Builtins::table_init() {
  const uint64_t segment = operand(0);
  const wasm::TableDescriptor& to = table(operand(1));
  const uint64_t destination = operand(2), source = operand(3), count = operand(4);
  const auto& elements = f_.module().element_segments[segment].elements;
  const bool dropped = f_.in_slot<uint8_t>(f_.object().layout().elements_dropped + static_cast<int64_t>(segment));
  if (!fits(destination, count, to.size) || !fits(source, count, dropped ? 0 : elements.size()))
    return trap(TrapKind::kTableOutOfBounds);
  for (uint64_t i = 0; i < count; ++i) {
    const wasm::Cell value = evaluate(
        elements[bounded(source + i, elements.size())], [&](uint32_t global) { return f_.constant_global(global); },
        [&](uint32_t function) { return f_.object().reference(function); });
    entries(to)[bounded(destination + i, to.size)] = entry_of(operand(1), value.low);
  }
  return HostResult::kDone;
}

// There is one thread in an instance, so nobody else can wake who waits in its own memory: it waits for its time-out,
// without a thread. In a window others can.
HostResult Builtins::atomic_wait(uint64_t size_bytes) {
  const Memory at = memory(operand(0));
  const uint64_t address = operand(1);
  if (address % size_bytes) return trap(TrapKind::kUnalignedAtomic);
  const Window* const window =
      operand(0) == 0 && !fits(address, size_bytes, at.size_bytes) ? f_.window_at(address, size_bytes) : nullptr;
  if (!window && !fits(address, size_bytes, at.size_bytes)) return trap(TrapKind::kMemoryOutOfBounds);
  if (!window && !f_.module().memories[operand(0)].shared) return trap(TrapKind::kExpectedSharedMemory);
  constexpr uint64_t kWoken = 0, kNotEqual = 1, kTimedOut = 2;
  const uint64_t expected = size_bytes == 4 ? static_cast<uint32_t>(operand(2)) : operand(2);
  bool readable = true;
  const auto as_expected = [&] {
    uint64_t value = 0;
    readable = guarded_copy(&value, at.base + bounded(address, wasm::kSlotAboveBytes), size_bytes);
    return readable && value == expected;
  };
  if (!f_.atomic_wait_deadline_) {
    const bool equal = as_expected();  // a page that is missing comes now, not while others are kept from notifying
    if (equal && window) f_.window_wait_ = window->source->wait_at(address - window->offset, as_expected);
    if (!readable) return trap(TrapKind::kMemoryOutOfBounds);
    if (!equal || (window && !f_.window_wait_)) return done(kNotEqual);
    // A negative time-out is for ever: the call's own deadline ends it.
    const auto timeout_ns = static_cast<int64_t>(operand(3));
    constexpr int64_t kLongest = int64_t{1} << 60;
    f_.atomic_wait_deadline_ =
        Clock::now() + std::chrono::nanoseconds(timeout_ns < 0 ? kLongest : std::min(timeout_ns, kLongest));
  }
  const bool woken = f_.window_wait_ && f_.window_wait_->woken();
  if (!woken && Clock::now() < *f_.atomic_wait_deadline_) {
    f_.pending_wait_ = {.deadline = f_.atomic_wait_deadline_};
    if (f_.window_wait_) {
      f_.pending_wait_.fd = f_.window_wait_->fd();
      f_.pending_wait_.events = POLLIN;
    }
    return HostResult::kPark;
  }
  f_.atomic_wait_deadline_.reset();
  f_.window_wait_.reset();
  return done(woken ? kWoken : kTimedOut);
}

HostResult Builtins::atomic_notify() {
  const Memory at = memory(operand(0));
  const uint64_t address = operand(1);
  if (address % 4) return trap(TrapKind::kUnalignedAtomic);
  if (fits(address, 4, at.size_bytes)) return done(0);
  const Window* const window = operand(0) == 0 ? f_.window_at(address, 4) : nullptr;
  if (!window) return trap(TrapKind::kMemoryOutOfBounds);
  return done(window->source->notify_at(address - window->offset, static_cast<uint32_t>(operand(2))));
}

}  // namespace spore::faaslet

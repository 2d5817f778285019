// What generated code and the runtime agree on. Nothing else is shared between src/compiler and src/faaslet.
//
// One instance lives in one slot, a contiguous reservation of address space around M, the base of linear memory 0.
// While a guest runs, GS.base = M, and everything the guest owns is addressed relative to it:
//
//   low                                                                                                       high
//   | guard | native stack -> grows down | spare cells | tables | descriptors, flags | globals | cells | header | M ...
//           ^stack_bottom                ^stack_top                                                    -512     0
//
//   M: linear memory 0, grows upwards ........... windows, placed downwards <- 4 GiB | guard 2 GiB
//
// The parts below M are packed without page alignment, so that a small function touches one page for its header,
// globals, table and stack top. Offsets depend on the module (InstanceLayout), are computed once, by the same function
// on both sides, and never change: version kAbiVersion covers all of this file.
//
// Nothing in a slot is a host address. Table entries and references are offsets into the code arena, which lies at the
// same address in every process; return addresses on the native stack point into the arena.
//
// All functions are called alike: the System V convention, but no argument is ever on the stack. What does not fit into
// its registers (register_parameters) travels in cells of 16 bytes, by position, as do results beyond the first, and
// all arguments and results between guest and host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wasm/module.h"

namespace spore::wasm {

constexpr uint32_t kAbiVersion = 2;

// ---- the slot -------------------------------------------------------------------------------------------------------
constexpr int64_t kSlotBelowBytes = 256ll << 20;   // reserved below M: guard, stack, tables, globals, header
constexpr int64_t kSlotAboveBytes = 6ll << 30;     // reserved above M: 4 GiB that an index reaches + 2 GiB of guard
constexpr uint64_t kWindowsEndBytes = 4ull << 30;  // windows lie below this offset from M
constexpr uint64_t kStaticOffsetMax = (2ull << 30) - 16;  // a larger static offset is checked by code, not by the guard
constexpr uint64_t kNativeStackBytes = 8ull << 20;
constexpr uint64_t kTableElementsMax = 1'000'000;  // per table, where the module asks for no more at the start

struct TableDescriptor {
  int64_t base = 0;   // from M, of entry 0
  uint64_t size = 0;  // entries
  uint64_t max = 0;
  uint64_t reserved = 0;
};
static_assert(sizeof(TableDescriptor) == 32);

// Code and type are a copy of what `reference` points to, so that an indirect call reads one cache line.
struct TableEntry {
  uint64_t code = 0;  // arena offset
  TypeId type;        // all zero: null
  uint64_t reference = 0;
};
static_assert(sizeof(TableEntry) == 32);

// What a funcref points to (by arena offset); one for each function of a loaded object, in read-only memory.
using FunctionDescriptor = TableEntry;

// Memories other than 0, which generated code addresses by base and checks explicitly.
struct MemoryDescriptor {
  int64_t base = 0;  // from M
  uint64_t size_bytes = 0;
  uint64_t pages_max = 0;
  uint64_t reserved = 0;
};
static_assert(sizeof(MemoryDescriptor) == 32);

struct InstanceHeader {
  uint64_t memory_size_bytes = 0;  // of memory 0
  uint64_t memory_pages_max = 0;
  int64_t guest_sp = 0;       // from M, while the guest is in the host; 0 when no guest frame is live
  uint64_t pending_call = 0;  // the host call that the guest is in
  uint64_t trap_kind = 0;
  uint64_t exception_tag = 0;  // identity of the exception on its way to a handler, its values in cells; 0: none
  uint64_t reserved[26] = {};
};
constexpr int64_t kHeaderOffset = -256;
static_assert(sizeof(InstanceHeader) == 256);
static_assert(offsetof(InstanceHeader, guest_sp) == 16, "stubs.S");
static_assert(offsetof(InstanceHeader, pending_call) == 24, "stubs.S");
static_assert(offsetof(InstanceHeader, trap_kind) == 32, "stubs.S");

struct Cell {
  uint64_t low = 0;
  uint64_t high = 0;
};
static_assert(sizeof(Cell) == 16);
constexpr int64_t kCellsOffset = -512;
constexpr uint32_t kNearCells = 16;

// Indices of the parameters that travel in registers: the first six integers and references, the first eight floats and
// vectors. Parameter i of the others is in cell i when the function begins.
std::vector<uint32_t> register_parameters(const Signature& signature);

struct InstanceLayout {
  std::vector<int64_t>
      globals;               // of each global's value; for an imported mutable global, of an i64 offset to its value
  int64_t data_dropped = 0;  // one byte a data segment, 1 = dropped
  int64_t elements_dropped = 0;  // one byte an element segment
  int64_t table_descriptors = 0;
  int64_t tags = 0;                // a u64 for each exception tag: its identity, never 0
  int64_t memory_descriptors = 0;  // [0] is unused: memory 0 is in the header
  std::vector<int64_t> tables;     // of entry 0, for tables that the module defines; 0 for imported ones
  std::vector<uint64_t> table_max;
  int64_t spare_cells = 0;   // cells 16 and up
  int64_t stack_top = 0;     // 16-aligned
  int64_t stack_bottom = 0;  // page-aligned; all from here to M is accessible, below it is guard

  int64_t cell(uint32_t index) const {
    return index < kNearCells ? kCellsOffset + 16 * int64_t{index} : spare_cells + 16 * int64_t{index - kNearCells};
  }
};
// kResourceExhausted where the module needs more than kSlotBelowBytes.
Result<InstanceLayout> instance_layout(const ModuleInfo& info);

// How many pages a memory may have at most, for want of room in the slot or by the module's own word. Memory 0 has the
// host's limit besides.
constexpr uint64_t kExtraMemoryPagesMax = 4096;  // a memory other than 0: 256 MiB, or its initial size
uint64_t memory_pages_limit(const ModuleInfo& info, size_t memory);

// ---- traps ----------------------------------------------------------------------------------------------------------
enum class TrapKind : uint32_t {
  kNone = 0,
  kUnreachable,
  kMemoryOutOfBounds,
  kIntegerDivideByZero,
  kIntegerOverflow,
  kInvalidConversion,
  kTableOutOfBounds,         // table.get, .set, .init, .copy, .fill
  kIndirectCallOutOfBounds,  // call_indirect past the table's end
  kIndirectCallNull,
  kIndirectCallType,
  kUnalignedAtomic,
  kStackOverflow,
  kUncaughtException,
  kOutOfMemory,
  kNullReference,
  kExpectedSharedMemory,
  // From here on: not raised by generated code.
  kInterrupted,  // timeout, cancel, shutdown; the reason is with whoever interrupted
  kHostCall,     // a host function refused; its message says why
};

// ---- the code arena and objects -------------------------------------------------------------------------------------
constexpr uint64_t kArenaBase = 0x5500'0000'0000;
constexpr uint64_t kArenaBytes = 256ull << 30;

// A mapped object:  | stub page | code, page-aligned | read-only data | function descriptors, filled by the loader |
// Code reaches the runtime only through the stub page: stub k is at object base + 16 * k.
constexpr uint64_t kStubPageBytes = 4096;
constexpr uint64_t kStubBytes = 16;
enum class Stub : uint32_t {
  kHostCall,     // edi = index of the import, or a Builtin; arguments and results in cells
  kTrap,         // edi = TrapKind; does not return
  kEnterReturn,  // where the outermost guest frame returns to
  kThunkCall,    // edi = function index in the object that holds the caller; switches to that object's instance
  kCount,
};

// Operations of generated code that the host carries out, called like imports. Cells hold the operands in this order.
enum class Builtin : uint32_t {
  kFirst = 0x4000'0000,
  kMemoryGrow = kFirst,  // memory, delta -> old size in pages, or -1
  kMemoryCopy,           // destination memory, source memory, destination, source, count
  kMemoryFill,           // memory, destination, value, count
  kMemoryInit,           // segment, memory, destination, source, count
  kTableSet,             // table, index, reference
  kTableGrow,            // table, value, delta -> old size, or -1
  kTableFill,            // table, destination, value, count
  kTableCopy,            // destination table, source table, destination, source, count
  kTableInit,            // segment, table, destination, source, count
  kAtomicWait32,         // memory, address (with its offset), expected, timeout -> 0 woken, 1 not equal, 2 timed out
  kAtomicWait64,
  kAtomicNotify,  // memory, address, count -> woken
  kEnd,
};

}  // namespace spore::wasm

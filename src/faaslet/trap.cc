#include "faaslet/trap.h"

namespace spore::faaslet {

namespace {

struct Words {
  std::string_view message;
  std::string_view name;
};

Words words_of(wasm::TrapKind kind) {
  using K = wasm::TrapKind;
  switch (kind) {
    case K::kNone: return {"no trap", "none"};
    case K::kUnreachable: return {"unreachable", "unreachable"};
    case K::kMemoryOutOfBounds: return {"out of bounds memory access", "memory_out_of_bounds"};
    case K::kIntegerDivideByZero: return {"integer divide by zero", "integer_divide_by_zero"};
    case K::kIntegerOverflow: return {"integer overflow", "integer_overflow"};
    case K::kInvalidConversion: return {"invalid conversion to integer", "invalid_conversion"};
    case K::kTableOutOfBounds: return {"out of bounds table access", "table_out_of_bounds"};
    case K::kIndirectCallOutOfBounds: return {"undefined element", "undefined_element"};
    case K::kIndirectCallNull: return {"uninitialized element", "indirect_call_null"};
    case K::kIndirectCallType: return {"indirect call type mismatch", "indirect_call_type"};
    case K::kUnalignedAtomic: return {"unaligned atomic", "unaligned_atomic"};
    case K::kStackOverflow: return {"call stack exhausted", "stack_overflow"};
    case K::kUncaughtException: return {"uncaught exception", "uncaught_exception"};
    case K::kOutOfMemory: return {"out of memory", "out_of_memory"};
    case K::kNullReference: return {"null reference", "null_reference"};
    case K::kExpectedSharedMemory: return {"expected shared memory", "expected_shared_memory"};
    case K::kInterrupted: return {"interrupted", "interrupted"};
    case K::kHostCall: return {"refused by the host", "host_call"};
  }
  return {"unknown trap", "unknown"};
}

}  // namespace

std::string_view message_of(wasm::TrapKind kind) { return words_of(kind).message; }
std::string_view name_of(wasm::TrapKind kind) { return words_of(kind).name; }

}  // namespace spore::faaslet

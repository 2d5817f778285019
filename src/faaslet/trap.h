// How a guest goes wrong: a trap ends its call, and only its call.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "wasm/abi.h"

namespace spore::faaslet {

struct Frame {
  uint32_t function_index = 0;
  std::string function;      // its name, or func[INDEX]
  uint32_t code_offset = 0;  // of the program counter, from the start of the function's code
};

struct Trap {
  wasm::TrapKind kind = wasm::TrapKind::kNone;
  std::string message;       // one line for the user, for instance "out of bounds memory access"
  std::vector<Frame> stack;  // innermost first; at most kFramesMax
};
constexpr size_t kFramesMax = 64;

// The words of the WebAssembly spec suite: "out of bounds memory access", "integer divide by zero", ...
std::string_view message_of(wasm::TrapKind kind);
// A short stable name for programs: "memory_out_of_bounds", "unreachable", "stack_overflow", ...
std::string_view name_of(wasm::TrapKind kind);

}  // namespace spore::faaslet

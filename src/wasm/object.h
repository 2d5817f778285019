// A compiled module: native code, what the runtime must know about the module, and how to walk its frames.
//
// The code is position independent and has no relocations: it refers to its own read-only data and to the stub page by
// distance, and to its instance through GS. So one sealed memory file is mapped, shared, wherever the loader decides.
#pragma once

#include "base/digest.h"
#include "wasm/abi.h"

namespace spore::wasm {

// What an object may use of the CPU: the x86-64 psABI's micro-architecture levels.
enum class CpuLevel : uint8_t { kV2 = 2, kV3 = 3 };
std::string_view to_string(CpuLevel level);
// The best level that this CPU has; kFailedPrecondition below x86-64-v2 or without fsgsbase, naming what is missing.
Result<CpuLevel> cpu_level_of_this_machine();

// The fast tier compiles some ten times quicker; only objects of the optimised tier hold no native address in a frame.
enum class Tier : uint8_t { kFast = 0, kOptimised = 1 };
std::string_view to_string(Tier tier);

// From code offset `begin` to the next row, the canonical frame address (the caller's stack pointer) is rsp +
// cfa_bytes.
struct UnwindRow {
  uint32_t begin = 0;      // from the object base
  uint32_t cfa_bytes = 0;  // 0: no frame here (padding)
};

struct Object {
  Tier tier = Tier::kOptimised;
  CpuLevel cpu_level = CpuLevel::kV2;
  bool cross_instance = false;  // references of this object go through thunks that switch instances (spec suite only)
  bool hardened = false;   // nothing that a mispredicted branch would load becomes an address (LLVM's load hardening)
  Digest module_digest{};  // SHA-256 of the wasm
  ModuleInfo module;
  Bytes code;                         // mapped at object base + kStubPageBytes; whole pages
  Bytes rodata;                       // mapped behind it; whole pages
  std::vector<uint32_t> functions;    // offset from the object base of each function's code, imports' wrappers too
  std::vector<uint32_t> references;   // of the code a funcref calls: the same, or the thunk
  std::vector<uint32_t> trampolines;  // for each type: reads arguments from cells, calls rdi, writes results to cells
  std::vector<UnwindRow> unwind;      // by `begin`

  // Offset from the object base of the descriptors, and of the end of the mapping.
  uint64_t descriptors_offset() const { return kStubPageBytes + code.size() + rodata.size(); }
  uint64_t mapped_bytes() const {
    return (descriptors_offset() + functions.size() * sizeof(FunctionDescriptor) + 4095) & ~uint64_t{4095};
  }
};

Bytes serialize(const Object& object);
// Rejects another ABI version, truncation, and any offset outside the code.
Result<Object> parse_object(ByteSpan bytes);

}  // namespace spore::wasm

// What a compilation can be asked for; shared by the compiler and by those who run it in a child process.
#pragma once

#include <functional>

#include "base/bytes.h"
#include "base/result.h"
#include "wasm/object.h"

namespace spore::compiler {

// Changes whenever the same module may give other code. Part of the key under which objects are cached.
constexpr uint32_t kCompilerVersion = 5;

// What a module may use beyond the core specification: bits of Options::proposals.
enum Proposal : uint32_t {
  kTailCalls = 1 << 0,
  kExtendedConst = 1 << 1,
  kMultiMemory = 1 << 2,
  kMemory64 = 1 << 3,
  kRelaxedSimd = 1 << 4,
  kThreads = 1 << 5,
  kExceptions = 1 << 6,  // try, catch, delegate: the form that engines shipped first
};
constexpr uint32_t kAllProposals = (1 << 7) - 1;

struct Options {
  wasm::Tier tier = wasm::Tier::kOptimised;
  wasm::CpuLevel cpu_level = wasm::CpuLevel::kV2;
  unsigned threads = 1;         // does not change a single byte of the object
  bool cross_instance = false;  // see wasm::Object
  bool hardened = false;        // see wasm::Object
  uint32_t proposals = kAllProposals;
};

// Called from compiling threads, one at a time, with the share of the work that is done (0 to 1).
using Progress = std::function<void(double share)>;

}  // namespace spore::compiler

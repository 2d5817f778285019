// Where a call enters a module.
//
// A command exports `_start`. A reactor exports `spore_call`, and perhaps `_initialize`, which runs before it. A module
// that exports both `_start` and `spore_call` is a reactor. The module's start section, if any, comes first of all.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "wasm/module.h"

namespace spore::host {

struct Entry {
  enum class Kind : uint8_t { kCommand, kReactor };
  Kind kind = Kind::kCommand;
  std::vector<uint32_t> functions;  // run in this order, none with parameters
  bool has_exit_code = false;       // the last one returns an i32, the exit code; else 0
};

// kInvalidModule: names the exports that are missing, or the one whose signature is wrong.
Result<Entry> find_entry(const wasm::ModuleInfo& module);

}  // namespace spore::host

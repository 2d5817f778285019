// The first half of compiling: from bytes to libwabt's module, decoded and validated, and to the ModuleInfo the runtime
// keeps. Everything after this may rely on the module being valid.
#pragma once

#include <wabt/ir.h>

#include <memory>

#include "compiler/options.h"
#include "wasm/module.h"

namespace spore::compiler {

struct Decoded {
  std::unique_ptr<wabt::Module> module;
  wasm::ModuleInfo info;
};

// kInvalidModule: "at byte 0x2a: ...". `proposals`: bits of Proposal.
Result<Decoded> decode(ByteSpan wasm, uint32_t proposals);

wasm::ValueType value_type(wabt::Type type);

}  // namespace spore::compiler

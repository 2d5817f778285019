// From a WebAssembly module to native code. The only folder that uses libwabt and LLVM.
//
// Hosts do not call this in their own process: LLVM may exhaust memory or die on a hostile module. They go through
// compile_in_child (compiler/child.h), which runs the program `spore-compiler` under limits. Tests and fuzz targets,
// and spore-compiler itself, call it here.
#pragma once

#include "compiler/options.h"

namespace spore::compiler {

// Decodes, validates, compiles, links and checks the machine code. kInvalidModule names the byte offset and the reason.
Result<wasm::Object> compile(ByteSpan wasm, const Options& options, const Progress& progress = {});

// The first two steps alone: what the module is, without code.
Result<wasm::ModuleInfo> inspect(ByteSpan wasm);

}  // namespace spore::compiler

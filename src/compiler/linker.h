// Puts the parts of a module together: one run of code, one of read-only data, no relocations left. And turns DWARF
// call frame information into the runtime's unwind table.
#pragma once

#include <llvm/ADT/SmallVector.h>

#include "compiler/options.h"

namespace spore::compiler {

// Fills code, rodata, functions, references, trampolines and unwind of an object whose other fields are set. `parts`
// are relocatable ELF objects, in order. A symbol that is defined nowhere is kInternal and named.
Result<void> link(const std::vector<llvm::SmallVector<char, 0>>& parts, wasm::Object& object);

}  // namespace spore::compiler

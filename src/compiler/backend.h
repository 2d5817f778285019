// From one LLVM module to one relocatable ELF object in memory: optimisation and code generation.
#pragma once

#include <llvm/ADT/SmallVector.h>
#include <llvm/IR/Module.h>

#include "compiler/options.h"

namespace spore::compiler {

// Sets what generation needs to know about the target (data layout, triple). Before Generator::generate fills it.
void prepare_module(llvm::Module& module, const Options& options);

// Consumes the module's content. Any thread; modules of different contexts at the same time.
Result<llvm::SmallVector<char, 0>> emit(llvm::Module& module, const Options& options);

// "x86-64-v2", and what stands beyond the level: the fast tier reads GS.base itself.
std::string target_cpu(const Options& options);
std::string target_features(const Options& options);

}  // namespace spore::compiler

// From a range of a module's functions to one LLVM module. What is generated, and why:
//
// - Memory, globals, tables and cells are addressed relative to GS (address space 256) by getelementptr from null,
// which
//   keeps scalar evolution and so vectorisation; never by inttoptr. The fast tier reads GS.base once per function and
//   uses ordinary pointers, because LLVM's fast instruction selector refuses the address space.
// - Locals are SSA values from the start. A first walk notes which locals each block assigns; only those meet in phis.
// - Traps: a load whose value nobody uses is made volatile (keep_dead_loads), so that it still faults; every other load
//   stays ordinary and can be vectorised. Recursion keeps its frames: ordinary calls are marked notail.
// - NaNs: an operation with a constant that LLVM would fold to its other operand (x * 1.0, x - 0.0) takes the constant
//   from read-only data that LLVM may not look into, so that a signalling NaN is quieted as the specification says.
// - No function calls anything but functions of the module and the stubs of wasm/abi.h; nothing is ever allocated on
//   the native stack by name.
#pragma once

#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/MDBuilder.h>
#include <llvm/IR/Module.h>

#include <map>
#include <unordered_map>

#include "compiler/decode.h"

namespace spore::compiler {

// The functions [begin, end) of a module, and whether this part also holds what belongs to no function: import
// wrappers, trampolines, thunks.
struct Part {
  uint32_t begin = 0;
  uint32_t end = 0;
  bool with_wrappers = false;
};

// Names of symbols between the parts of one object; the linker resolves them.
std::string function_symbol(uint32_t function);
std::string thunk_symbol(uint32_t function);
std::string trampoline_symbol(uint32_t type);
constexpr const char* kStubSymbols[] = {"spore.host_call", "spore.trap", "spore.enter_return", "spore.thunk_call"};
constexpr const char* kDescriptorsSymbol = "spore.descriptors";

class Generator {
 public:
  Generator(llvm::LLVMContext& context, const Decoded& decoded, const wasm::InstanceLayout& layout,
            const Options& options);

  std::unique_ptr<llvm::Module> generate(const Part& part);

 private:
  friend class FunctionGenerator;

  llvm::Type* type_of(wasm::ValueType type) const;
  // Only the parameters that travel in registers; the others are in their cells.
  llvm::FunctionType* function_type(const wasm::Signature& signature) const;
  llvm::Function* declare(llvm::FunctionType* type, const std::string& name);
  llvm::Function* function(uint32_t index);
  llvm::Function* stub(wasm::Stub stub);
  llvm::Function* define(llvm::FunctionType* type, const std::string& name);

  void import_wrapper(uint32_t function, llvm::Function* target, wasm::Stub stub, uint32_t number);
  void trampoline(uint32_t type);

  // A pointer `offset` bytes from M.
  llvm::Value* at(int64_t offset);
  llvm::Value* at(llvm::Value* offset);
  llvm::Instruction* tagged(llvm::Instruction* instruction, llvm::MDNode* tag);
  llvm::Value* load_own(llvm::Type* type, llvm::Value* pointer, llvm::MDNode* tag);
  void store_own(llvm::Value* value, llvm::Value* pointer, llvm::MDNode* tag);
  llvm::Value* load_cell(wasm::ValueType type, uint32_t index);
  void store_cell(llvm::Value* value, uint32_t index);
  // Sets up addressing at the start of a function.
  void begin_body(llvm::Function* function);
  // The constant, where LLVM cannot see it.
  llvm::Value* hidden(llvm::Constant* constant);

  llvm::LLVMContext& context_;
  const Decoded& decoded_;
  const wasm::ModuleInfo& info_;
  const wasm::InstanceLayout& layout_;
  const Options& options_;
  bool fast_;
  std::unique_ptr<llvm::Module> module_;
  llvm::IRBuilder<> b_;
  llvm::Value* base_ = nullptr;  // what offsets are added to
  unsigned address_space_;
  llvm::Type *i8_, *i16_, *i32_, *i64_, *f32_, *f64_, *v128_;
  llvm::MDNode *tag_memory_, *tag_global_, *tag_table_, *tag_cell_, *tag_header_;
  std::unordered_map<uint32_t, llvm::Function*> functions_;
  std::map<std::pair<llvm::Type*, llvm::Constant*>, llvm::GlobalVariable*> hidden_;
};

}  // namespace spore::compiler

#include "compiler/generator.h"

#include <llvm/IR/IntrinsicsX86.h>

#include "base/check.h"
#include "compiler/backend.h"
#include "compiler/function_generator.h"

namespace spore::compiler {

using wasm::ValueType;

std::string function_symbol(uint32_t function) { return "f" + std::to_string(function); }
std::string thunk_symbol(uint32_t function) { return "r" + std::to_string(function); }
std::string trampoline_symbol(uint32_t type) { return "t" + std::to_string(type); }

Generator::Generator(llvm::LLVMContext& context, const Decoded& decoded, const wasm::InstanceLayout& layout,
                     const Options& options)
    : context_(context),
      decoded_(decoded),
      info_(decoded.info),
      layout_(layout),
      options_(options),
      fast_(options.tier == wasm::Tier::kFast),
      b_(context),
      address_space_(fast_ ? 0 : 256) {
  i8_ = b_.getInt8Ty();
  i16_ = b_.getInt16Ty();
  i32_ = b_.getInt32Ty();
  i64_ = b_.getInt64Ty();
  f32_ = b_.getFloatTy();
  f64_ = b_.getDoubleTy();
  v128_ = llvm::FixedVectorType::get(i64_, 2);
  // Kinds of memory that never overlap.
  llvm::MDBuilder metadata(context);
  llvm::MDNode* root = metadata.createTBAARoot("spore");
  auto tag = [&](const char* name) {
    llvm::MDNode* node = metadata.createTBAAScalarTypeNode(name, root);
    return metadata.createTBAAStructTagNode(node, node, 0);
  };
  tag_memory_ = tag("memory");
  tag_global_ = tag("global");
  tag_table_ = tag("table");
  tag_cell_ = tag("cell");
  tag_header_ = tag("header");
}

llvm::Type* Generator::type_of(ValueType type) const {
  switch (type) {
    case ValueType::kI32: return i32_;
    case ValueType::kF32: return f32_;
    case ValueType::kF64: return f64_;
    case ValueType::kV128: return v128_;
    case ValueType::kI64:
    case ValueType::kFuncRef:
    case ValueType::kExternRef: return i64_;
  }
  return i64_;
}

llvm::FunctionType* Generator::function_type(const wasm::Signature& signature) const {
  std::vector<llvm::Type*> params;
  for (uint32_t i : wasm::register_parameters(signature)) params.push_back(type_of(signature.params[i]));
  llvm::Type* result = signature.results.empty() ? llvm::Type::getVoidTy(context_) : type_of(signature.results.front());
  return llvm::FunctionType::get(result, params, false);
}

llvm::Function* Generator::declare(llvm::FunctionType* type, const std::string& name) {
  if (llvm::Function* existing = module_->getFunction(name)) return existing;
  auto* function = llvm::Function::Create(type, llvm::Function::ExternalLinkage, name, *module_);
  function->setVisibility(llvm::GlobalValue::HiddenVisibility);
  function->setDSOLocal(true);
  return function;
}

llvm::Function* Generator::function(uint32_t index) {
  llvm::Function*& entry = functions_[index];
  if (!entry) {
    entry = declare(function_type(info_.signature_of(index)), function_symbol(index));
    entry->setDoesNotThrow();
  }
  return entry;
}

llvm::Function* Generator::stub(wasm::Stub stub) {
  llvm::Function* function =
      declare(llvm::FunctionType::get(b_.getVoidTy(), {i32_}, false), kStubSymbols[static_cast<uint32_t>(stub)]);
  function->setDoesNotThrow();
  if (stub == wasm::Stub::kTrap) {
    function->setDoesNotReturn();
    function->addFnAttr(llvm::Attribute::Cold);
  }
  return function;
}

llvm::Function* Generator::define(llvm::FunctionType* type, const std::string& name) {
  llvm::Function* function = declare(type, name);
  function->setDoesNotThrow();
  function->setUWTableKind(llvm::UWTableKind::Async);
  function->addFnAttr(llvm::Attribute::NullPointerIsValid);
  function->addFnAttr("no-builtins");
  function->addFnAttr("no-realign-stack");
  function->addFnAttr("frame-pointer", "none");
  function->addFnAttr("probe-stack", "inline-asm");
  if (options_.hardened) {
    function->addFnAttr(llvm::Attribute::SpeculativeLoadHardening);
    function->addFnAttr("no-jump-tables", "true");  // a jump through one would be hardened as a load of its own
  }
  function->setAlignment(llvm::Align(16));
  return function;
}

std::unique_ptr<llvm::Module> Generator::generate(const Part& part) {
  module_ = std::make_unique<llvm::Module>("wasm", context_);
  prepare_module(*module_, options_);
  module_->setPICLevel(llvm::PICLevel::SmallPIC);
  functions_.clear();
  hidden_.clear();
  if (part.with_wrappers) {
    for (uint32_t i = 0; i < info_.imported_functions; ++i)
      import_wrapper(i, define(function_type(info_.signature_of(i)), function_symbol(i)), wasm::Stub::kHostCall, i);
    for (uint32_t i = 0; i < info_.types.size(); ++i) trampoline(i);
    if (options_.cross_instance) {
      for (uint32_t i = 0; i < info_.functions.size(); ++i)
        import_wrapper(i, define(function_type(info_.signature_of(i)), thunk_symbol(i)), wasm::Stub::kThunkCall, i);
    }
  }
  for (uint32_t i = part.begin; i < part.end; ++i) FunctionGenerator(*this, i).generate();
  return std::move(module_);
}

// A function whose body is elsewhere: its register arguments to cells, where the others are already, the stub, the
// first result from its cell. The other results are where the caller looks for them.
void Generator::import_wrapper(uint32_t function, llvm::Function* target, wasm::Stub stub_kind, uint32_t number) {
  const wasm::Signature& signature = info_.signature_of(function);
  begin_body(target);
  unsigned argument = 0;
  for (uint32_t i : wasm::register_parameters(signature)) store_cell(target->getArg(argument++), i);
  b_.CreateCall(stub(stub_kind), {b_.getInt32(number)})->setTailCallKind(llvm::CallInst::TCK_NoTail);
  if (signature.results.empty()) {
    b_.CreateRetVoid();
  } else {
    b_.CreateRet(load_cell(signature.results[0], 0));
  }
}

// void trampoline(u64 code): how the host calls a function of this type.
void Generator::trampoline(uint32_t type) {
  const wasm::Signature& signature = info_.types[type];
  llvm::Function* target = define(llvm::FunctionType::get(b_.getVoidTy(), {i64_}, false), trampoline_symbol(type));
  begin_body(target);
  std::vector<llvm::Value*> arguments;
  for (uint32_t i : wasm::register_parameters(signature)) arguments.push_back(load_cell(signature.params[i], i));
  llvm::Value* code = b_.CreateIntToPtr(target->getArg(0), b_.getPtrTy());
  llvm::CallInst* call = b_.CreateCall(function_type(signature), code, arguments);
  call->setTailCallKind(llvm::CallInst::TCK_NoTail);
  if (!signature.results.empty()) store_cell(call, 0);
  b_.CreateRetVoid();
}

void Generator::begin_body(llvm::Function* function) {
  b_.SetInsertPoint(llvm::BasicBlock::Create(context_, "", function));
  if (fast_) {
    llvm::Value* gs = b_.CreateIntrinsic(llvm::Intrinsic::x86_rdgsbase_64, {}, {});
    base_ = b_.CreateIntToPtr(gs, b_.getPtrTy());
  } else {
    base_ = llvm::ConstantPointerNull::get(b_.getPtrTy(256));
  }
}

llvm::Value* Generator::at(int64_t offset) { return b_.CreateConstGEP1_64(i8_, base_, static_cast<uint64_t>(offset)); }
llvm::Value* Generator::at(llvm::Value* offset) { return b_.CreateGEP(i8_, base_, offset); }

llvm::Instruction* Generator::tagged(llvm::Instruction* instruction, llvm::MDNode* tag) {
  if (!fast_) instruction->setMetadata(llvm::LLVMContext::MD_tbaa, tag);
  return instruction;
}

llvm::Value* Generator::load_own(llvm::Type* type, llvm::Value* pointer, llvm::MDNode* tag) {
  return tagged(b_.CreateAlignedLoad(type, pointer, llvm::Align(8)), tag);
}
void Generator::store_own(llvm::Value* value, llvm::Value* pointer, llvm::MDNode* tag) {
  tagged(b_.CreateAlignedStore(value, pointer, llvm::Align(8)), tag);
}

llvm::Value* Generator::load_cell(ValueType type, uint32_t index) {
  return load_own(type_of(type), at(layout_.cell(index)), tag_cell_);
}
void Generator::store_cell(llvm::Value* value, uint32_t index) { store_own(value, at(layout_.cell(index)), tag_cell_); }

llvm::Value* Generator::hidden(llvm::Constant* constant) {
  llvm::GlobalVariable*& global = hidden_[{constant->getType(), constant}];
  if (!global) {
    global = new llvm::GlobalVariable(*module_, constant->getType(), /*isConstant=*/true,
                                      llvm::GlobalValue::PrivateLinkage, constant, "hidden", nullptr,
                                      llvm::GlobalValue::NotThreadLocal, 0, /*isExternallyInitialized=*/true);
    global->setAlignment(llvm::Align(16));
  }
  return b_.CreateAlignedLoad(constant->getType(), global, llvm::Align(16));
}

}  // namespace spore::compiler

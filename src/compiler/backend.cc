#include "compiler/backend.h"

#include <llvm/Analysis/TargetLibraryInfo.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/CommandLine.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>

#include <mutex>

#include "base/check.h"

namespace spore::compiler {

namespace {

constexpr const char* kTriple = "x86_64-unknown-linux-gnu";

std::unique_ptr<llvm::TargetMachine> target_machine(const Options& options) {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser();
    LLVMInitializeX86Disassembler();
    // Hardened code stops at calls and returns until it is known whether they were predicted well. LLVM's other way
    // carries that knowledge in the stack pointer, where code that can be captured may have no value (code_check.h).
    llvm::cl::Option* const fences = llvm::cl::getRegisteredOptions().lookup("x86-slh-fence-call-and-ret");
    CHECK(fences);
    static_cast<llvm::cl::opt<bool>*>(fences)->setValue(true);
  });
  std::string error;
  const llvm::Target* target = llvm::TargetRegistry::lookupTarget(kTriple, error);
  CHECK(target, error);
  llvm::TargetOptions target_options;
  target_options.AllowFPOpFusion = llvm::FPOpFusion::Strict;  // a * b + c rounds twice
  target_options.TrapUnreachable = true;
  target_options.NoTrapAfterNoreturn = true;
  const bool fast = options.tier == wasm::Tier::kFast;
  if (fast) target_options.EnableFastISel = true;
  std::unique_ptr<llvm::TargetMachine> machine(target->createTargetMachine(
      kTriple, target_cpu(options), target_features(options), target_options, llvm::Reloc::PIC_, llvm::CodeModel::Small,
      fast ? llvm::CodeGenOptLevel::None : llvm::CodeGenOptLevel::Default));
  CHECK(machine);
  if (fast) machine->setFastISel(true);
  return machine;
}

// -O2 for code that a producer has already inlined: no inliner, no interprocedural passes, so a part of a module
// compiles to the same code whichever parts surround it.
void optimise(llvm::Module& module, llvm::TargetMachine& machine) {
  llvm::PipelineTuningOptions tuning;
  tuning.LoopVectorization = true;
  tuning.SLPVectorization = true;
  tuning.LoopInterleaving = true;
  tuning.MergeFunctions = false;
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager components;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine, tuning);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(components);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, components, modules);
  llvm::ModulePassManager passes;
  passes.addPass(llvm::createModuleToFunctionPassAdaptor(
      builder.buildFunctionSimplificationPipeline(llvm::OptimizationLevel::O2, llvm::ThinOrFullLTOPhase::None)));
  passes.addPass(builder.buildModuleOptimizationPipeline(llvm::OptimizationLevel::O2, llvm::ThinOrFullLTOPhase::None));
  passes.run(module, modules);
}

}  // namespace

std::string target_cpu(const Options& options) { return std::string(wasm::to_string(options.cpu_level)); }

std::string target_features(const Options& options) { return options.tier == wasm::Tier::kFast ? "+fsgsbase" : ""; }

void prepare_module(llvm::Module& module, const Options& options) {
  const auto machine = target_machine(options);
  module.setDataLayout(machine->createDataLayout());
  module.setTargetTriple(kTriple);
}

Result<llvm::SmallVector<char, 0>> emit(llvm::Module& module, const Options& options) {
  const auto machine = target_machine(options);
  for (llvm::Function& function : module) {
    if (function.isDeclaration()) continue;
    function.addFnAttr("target-cpu", machine->getTargetCPU());
    function.addFnAttr("target-features", machine->getTargetFeatureString());
  }
  if (options.tier == wasm::Tier::kOptimised) optimise(module, *machine);
  for (const llvm::Function& function : module)
    for (const llvm::BasicBlock& block : function)
      for (const llvm::Instruction& instruction : block)
        if (llvm::isa<llvm::AllocaInst>(instruction))
          return fail(ErrorCode::kInternal, "compiler: a stack object is left in " + function.getName().str());
  llvm::SmallVector<char, 0> object;
  llvm::raw_svector_ostream out(object);
  llvm::legacy::PassManager emission;
  if (machine->addPassesToEmitFile(emission, out, nullptr, llvm::CodeGenFileType::ObjectFile))
    return fail(ErrorCode::kInternal, "compiler: this target cannot emit an object");
  emission.run(module);
  return object;
}

}  // namespace spore::compiler

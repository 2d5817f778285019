#include "compiler/code_check.h"

#include <fmt/format.h>
#include <llvm/MC/MCAsmInfo.h>
#include <llvm/MC/MCContext.h>
#include <llvm/MC/MCDisassembler/MCDisassembler.h>
#include <llvm/MC/MCInst.h>
#include <llvm/MC/MCInstPrinter.h>
#include <llvm/MC/MCInstrAnalysis.h>
#include <llvm/MC/MCInstrInfo.h>
#include <llvm/MC/MCRegisterInfo.h>
#include <llvm/MC/MCSubtargetInfo.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "base/check.h"

namespace spore::compiler {

namespace {

constexpr const char* kTriple = "x86_64-unknown-linux-gnu";

// The five operands of an x86 memory reference: base, scale, index, displacement, segment.
constexpr unsigned kMemoryOperands = 5;

// What the checker knows of an opcode, worked out once.
struct OpcodeFacts {
  bool forbidden = false;
  bool reads_gs_base = false;
  bool is_lea = false;
  bool is_nop = false;
  bool is_stack_adjustment = false;  // add, sub of rsp
  bool is_compare = false;
  bool is_push_pop = false;
  int memory = -1;  // index of the first memory operand
};

class Checker {
 public:
  explicit Checker(const wasm::Object& object) : object_(object) {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86Disassembler();
    std::string error;
    const llvm::Target* target = llvm::TargetRegistry::lookupTarget(kTriple, error);
    CHECK(target, error);
    registers_.reset(target->createMCRegInfo(kTriple));
    assembly_.reset(target->createMCAsmInfo(*registers_, kTriple, llvm::MCTargetOptions()));
    instructions_.reset(target->createMCInstrInfo());
    subtarget_.reset(target->createMCSubtargetInfo(kTriple, wasm::to_string(object.cpu_level), "+fsgsbase"));
    context_ =
        std::make_unique<llvm::MCContext>(llvm::Triple(kTriple), assembly_.get(), registers_.get(), subtarget_.get());
    disassembler_.reset(target->createMCDisassembler(*subtarget_, *context_));
    printer_.reset(target->createMCInstPrinter(llvm::Triple(kTriple), 0, *assembly_, *instructions_, *registers_));
    analysis_.reset(target->createMCInstrAnalysis(instructions_.get()));
    for (unsigned i = 1; i < registers_->getNumRegs(); ++i) {
      const std::string_view name = registers_->getName(i);
      if (name == "RSP") rsp_ = i;
      if (name == "ESP") esp_ = i;
      if (name == "RIP") rip_ = i;
      if (name == "R11") r11_ = i;
      if (name == "GS") gs_ = i;
      if (name == "FS") fs_ = i;
    }
  }

  Result<void> run() {
    std::vector<uint32_t> starts = object_.functions;
    starts.insert(starts.end(), object_.references.begin(), object_.references.end());
    starts.insert(starts.end(), object_.trampolines.begin(), object_.trampolines.end());
    std::sort(starts.begin(), starts.end());
    starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
    const uint32_t end = static_cast<uint32_t>(wasm::kStubPageBytes + object_.code.size());
    if (starts.empty()) return {};
    if (starts.front() < wasm::kStubPageBytes || starts.back() >= end)
      return violation(0, "a function outside the code");
    for (size_t i = 0; i < starts.size(); ++i)
      TRY(check_function(starts[i], i + 1 < starts.size() ? starts[i + 1] : end));
    return {};
  }

 private:
  struct Decoded {
    llvm::MCInst instruction;
    uint32_t address;
    uint32_t size;
  };

  std::unexpected<Error> violation(uint32_t function, const std::string& what) const {
    return fail(ErrorCode::kInternal, fmt::format("machine code check: {} (in code at {:#x})", what, function));
  }
  std::unexpected<Error> violation(uint32_t function, const char* rule, const Decoded& at) {
    std::string text;
    llvm::raw_string_ostream out(text);
    printer_->printInst(&at.instruction, at.address, "", *subtarget_, out);
    std::replace(text.begin(), text.end(), '\t', ' ');
    return violation(function, fmt::format("{}: '{}' at {:#x}", rule, text, at.address));
  }

  const OpcodeFacts& facts(unsigned opcode) {
    auto [entry, fresh] = facts_.try_emplace(opcode);
    OpcodeFacts& f = entry->second;
    if (!fresh) return f;
    const std::string_view name = instructions_->getName(opcode);
    auto any = [&](std::initializer_list<std::string_view> prefixes) {
      return std::any_of(prefixes.begin(), prefixes.end(), [&](auto prefix) { return name.starts_with(prefix); });
    };
    f.is_lea = name.starts_with("LEA") && !name.starts_with("LEAVE");
    f.is_nop = name.starts_with("NOOP");
    f.reads_gs_base = name.starts_with("RDGSBASE");
    f.is_stack_adjustment = any({"ADD64ri", "SUB64ri", "ADD64i32", "SUB64i32"});
    f.is_compare = any({"CMP64", "TEST64"});
    f.is_push_pop = any({"PUSH64r", "POP64r"});
    f.forbidden =
        any({"SYSCALL",  "SYSENTER", "SYSEXIT",  "SYSRET",  "INT",    "IRET",    "INSB",     "INSL",     "INSW",
             "OUT",      "IN8",      "IN16",     "IN32",    "HLT",    "CLI",     "STI",      "CLD",      "STD",
             "WRGSBASE", "WRFSBASE", "RDFSBASE", "SWAPGS",  "WRMSR",  "RDMSR",   "RDPMC",    "RDTSC",    "CPUID",
             "XGETBV",   "XSETBV",   "XSAVE",    "XRSTOR",  "FXSAVE", "FXRSTOR", "LDMXCSR",  "VLDMXCSR", "STMXCSR",
             "VSTMXCSR", "FLDCW",    "FNSTCW",   "MOVSB",   "MOVSW",  "MOVSL",   "MOVSQ",    "STOS",     "LODS",
             "SCAS",     "CMPSB",    "CMPSW",    "CMPSL",   "CMPSQ",  "REP",     "ENTER",    "LEAVE",    "FARCALL",
             "FARJMP",   "LRET",     "POPF",     "PUSHF",   "XBEGIN", "XEND",    "XABORT",   "RDPKRU",   "WRPKRU",
             "VMCALL",   "CLFLUSH",  "CLZERO",   "MONITOR", "MWAIT",  "ENCLU",   "SETSSBSY", "WRSS",     "LOOP"}) &&
        !any({"INT3", "MOVSLDUP"});
    const llvm::MCInstrDesc& description = instructions_->get(opcode);
    for (unsigned i = 0; i < description.getNumOperands(); ++i) {
      if (description.operands()[i].OperandType == llvm::MCOI::OPERAND_MEMORY) {
        f.memory = static_cast<int>(i);
        break;
      }
    }
    if (f.is_lea) f.memory = 1;  // an address, which its description does not call a memory operand
    return f;
  }

  Result<void> check_function(uint32_t begin, uint32_t end) {
    std::vector<Decoded> body;
    std::set<unsigned> rodata_pointers;  // registers that the function sets by lea from rip
    const uint32_t code_end = static_cast<uint32_t>(wasm::kStubPageBytes + object_.code.size());
    for (uint32_t at = begin; at < end;) {
      const uint8_t* bytes = object_.code.data() + (at - wasm::kStubPageBytes);
      if (*bytes == 0xcc) {  // padding
        ++at;
        continue;
      }
      Decoded decoded;
      uint64_t size = 0;
      const auto status = disassembler_->getInstruction(
          decoded.instruction, size, llvm::ArrayRef<uint8_t>(bytes, code_end - at), at, llvm::nulls());
      if (status != llvm::MCDisassembler::Success || size == 0)
        return violation(begin, fmt::format("rule 1: undecodable bytes at {:#x}", at));
      decoded.address = at;
      decoded.size = static_cast<uint32_t>(size);
      at += decoded.size;
      const OpcodeFacts& f = facts(decoded.instruction.getOpcode());
      if (f.is_lea && f.memory >= 0 && operand(decoded, static_cast<unsigned>(f.memory)) == rip_)
        rodata_pointers.insert(decoded.instruction.getOperand(0).getReg());
      body.push_back(std::move(decoded));
    }
    if (object_.hardened) add_hardened(body, rodata_pointers);
    for (const Decoded& decoded : body) TRY(check_instruction(begin, decoded, rodata_pointers, code_end));
    return {};
  }

  // Hardening ors a pointer with a mask before it is used: to those that the function sets, adds what moves, ors and
  // spills make of them.
  void add_hardened(const std::vector<Decoded>& body, std::set<unsigned>& pointers) {
    std::set<int64_t> spilled;  // by their distance from rsp
    for (bool grows = !pointers.empty(); grows;) {
      const size_t before = pointers.size() + spilled.size();
      for (const Decoded& decoded : body) {
        const std::string_view name = instructions_->getName(decoded.instruction.getOpcode());
        const auto stack_slot = [&](unsigned memory) -> std::optional<int64_t> {
          const llvm::MCOperand& distance = decoded.instruction.getOperand(memory + 3);
          if (operand(decoded, memory) != rsp_ || operand(decoded, memory + 2) != 0 || !distance.isImm()) return {};
          return distance.getImm();
        };
        const auto holds = [&](unsigned index) { return pointers.contains(operand(decoded, index)); };
        if (name.starts_with("MOV64rr") && holds(1)) pointers.insert(operand(decoded, 0));
        if (name.starts_with("OR64rr") && (holds(1) || holds(2))) pointers.insert(operand(decoded, 0));
        if (name == "MOV64mr" && holds(kMemoryOperands))
          if (const auto slot = stack_slot(0)) spilled.insert(*slot);
        if (name == "MOV64rm")
          if (const auto slot = stack_slot(1); slot && spilled.contains(*slot)) pointers.insert(operand(decoded, 0));
        if (name == "OR64rm" && (holds(1) || spilled.contains(stack_slot(2).value_or(INT64_MIN))))
          pointers.insert(operand(decoded, 0));
      }
      grows = pointers.size() + spilled.size() > before;
    }
  }

  unsigned operand(const Decoded& decoded, unsigned index) const {
    const llvm::MCOperand& op = decoded.instruction.getOperand(index);
    return op.isReg() ? op.getReg() : 0;
  }

  Result<void> check_instruction(uint32_t function, const Decoded& decoded, const std::set<unsigned>& rodata_pointers,
                                 uint32_t code_end) {
    const llvm::MCInst& instruction = decoded.instruction;
    const llvm::MCInstrDesc& description = instructions_->get(instruction.getOpcode());
    const OpcodeFacts& f = facts(instruction.getOpcode());
    const bool captured = object_.tier == wasm::Tier::kOptimised;
    if (f.forbidden) return violation(function, "rule 1: instruction not allowed", decoded);
    if (f.reads_gs_base && captured) return violation(function, "rule 6: reads GS.base", decoded);
    if (f.is_nop) return {};

    if ((description.isCall() || description.isBranch()) && !description.isIndirectBranch()) {
      uint64_t target = 0;
      if (analysis_->evaluateBranch(instruction, decoded.address, decoded.size, target)) {
        const bool in_code = target >= wasm::kStubPageBytes && target < code_end;
        const bool in_stubs =
            target < static_cast<uint64_t>(wasm::Stub::kCount) * wasm::kStubBytes && target % wasm::kStubBytes == 0;
        if (!in_code && !in_stubs) return violation(function, "rule 2: leaves the object", decoded);
      }
    }

    int memory = f.memory;
    if (memory >= 0) {
      const auto m = static_cast<unsigned>(memory);
      const unsigned base = operand(decoded, m);
      const unsigned index = operand(decoded, m + 2);
      const unsigned segment = operand(decoded, m + 4);
      if (segment == fs_) return violation(function, "rule 3: FS-relative access", decoded);
      if (f.is_lea) {
        const unsigned destination = instruction.getOperand(0).getReg();
        const bool from_stack = base == rsp_ || index == rsp_;
        if (captured && from_stack && destination != rsp_ && destination != r11_)
          return violation(function, "rule 5: an address of the stack becomes a value", decoded);
      } else if (segment != gs_) {
        if (base == 0 && index == 0) return violation(function, "rule 3: absolute address without GS", decoded);
        if (captured && base != rsp_) {
          const bool rodata = base == rip_ || rodata_pointers.contains(base) || rodata_pointers.contains(index);
          if (!rodata) return violation(function, "rule 4: memory reached through a register", decoded);
          if (description.mayStore() && !description.isCall())
            return violation(function, "rule 4: a store to read-only data", decoded);
        }
      }
    }

    if (!captured) return {};
    // Explicit register operands that are the stack pointer itself, outside a memory reference.
    bool reads_rsp = false;
    for (unsigned i = 0; i < instruction.getNumOperands(); ++i) {
      if (memory >= 0 && i >= static_cast<unsigned>(memory) && i < static_cast<unsigned>(memory) + kMemoryOperands)
        continue;
      const unsigned reg = operand(decoded, i);
      if (reg == rsp_ || reg == esp_) reads_rsp = true;
    }
    if (!reads_rsp) return {};
    if (f.is_stack_adjustment || f.is_compare) return {};
    if (f.is_lea && operand(decoded, static_cast<unsigned>(f.memory)) == rsp_) return {};
    return violation(function, "rule 5: the stack pointer is used as a value", decoded);
  }

  const wasm::Object& object_;
  std::unique_ptr<llvm::MCRegisterInfo> registers_;
  std::unique_ptr<llvm::MCAsmInfo> assembly_;
  std::unique_ptr<llvm::MCInstrInfo> instructions_;
  std::unique_ptr<llvm::MCSubtargetInfo> subtarget_;
  std::unique_ptr<llvm::MCContext> context_;
  std::unique_ptr<llvm::MCDisassembler> disassembler_;
  std::unique_ptr<llvm::MCInstPrinter> printer_;
  std::unique_ptr<llvm::MCInstrAnalysis> analysis_;
  std::unordered_map<unsigned, OpcodeFacts> facts_;
  unsigned rsp_ = 0, esp_ = 0, rip_ = 0, r11_ = 0, gs_ = 0, fs_ = 0;
};

}  // namespace

Result<void> check_code(const wasm::Object& object) { return Checker(object).run(); }

}  // namespace spore::compiler

// One function body: wasm's structured control flow and value stack, in SSA form. Private to src/compiler; Generator
// (generator.h) explains the choices. The operations are spread over three files: control flow, calls and memory in
// function_generator.cc, scalar arithmetic in numeric.cc, vectors in simd.cc.
#pragma once

#include "compiler/generator.h"

namespace spore::compiler {

class FunctionGenerator {
 public:
  FunctionGenerator(Generator& generator, uint32_t index);
  void generate();

 private:
  // Where a branch goes. Branches to a label that comes later are recorded and meet in phis when the label is placed;
  // a loop's phis exist from the start.
  struct Edge {
    llvm::BasicBlock* from = nullptr;
    unsigned count = 1;  // a switch may reach the same block by several cases
    std::vector<llvm::Value*> values;
    std::vector<llvm::Value*> locals;  // of Label::assigned
  };
  struct Label {
    llvm::BasicBlock* block = nullptr;
    bool is_loop = false;
    size_t arity = 0;
    const std::vector<uint32_t>* assigned = nullptr;  // locals that may differ between the edges
    std::vector<llvm::PHINode*> phis;                 // of a loop: its parameters, then its assigned locals
    std::vector<Edge> edges;
    Label* handler = nullptr;           // where an exception goes that is thrown inside; null: to the caller
    llvm::Value* caught_tag = nullptr;  // in a catch: what rethrow throws again
    std::vector<llvm::Value*> caught_payload;
  };

  // ---- control flow (function_generator.cc)
  const std::vector<uint32_t>& note_assigned(const wabt::ExprList& list, const void* key);
  void body(const wabt::ExprList& list);
  void expression(const wabt::Expr& expr);
  void block(const wabt::Block& block);
  void loop(const wabt::Block& block);
  void if_else(const wabt::IfExpr& expr);
  void branch_table(const wabt::BrTableExpr& expr);
  void try_catch(const wabt::TryExpr& expr);
  void catch_clauses(const wabt::TryExpr& expr, size_t height);
  void throw_values(llvm::Value* tag, const std::vector<llvm::Value*>& payload);
  void throw_to_handler();
  llvm::BasicBlock* handler_block();
  void leave_on_exception();
  llvm::Value* exception_tag_pointer();
  void branch_edge(Label& label, unsigned count = 1);
  void place(Label& label, size_t stack_height);
  void return_values();
  llvm::BasicBlock* new_block();
  void go_to(llvm::BasicBlock* block);
  void keep_dead_loads();

  // ---- calls, tables, memory (function_generator.cc)
  void call(llvm::Value* target, const wasm::Signature& signature, bool tail);
  void call_indirect(uint32_t type, uint32_t table, bool tail);
  llvm::Value* table_base(uint32_t table);
  llvm::Value* table_size(uint32_t table);
  llvm::Value* table_entry(uint32_t table, llvm::Value* index, wasm::TrapKind out_of_bounds);
  llvm::Value* mask_below(llvm::Value* value, llvm::Value* limit);
  llvm::Value* global_pointer(uint32_t global);
  void builtin(wasm::Builtin which, std::initializer_list<llvm::Value*> operands);
  llvm::Value* extended(llvm::Value* value);  // to i64, without sign
  llvm::Value* memory_size(uint32_t memory);
  llvm::Value* address(llvm::Value* index, uint64_t offset, uint64_t size, uint32_t memory);
  llvm::Value* load(llvm::Type* type, uint64_t offset, uint32_t memory);
  void store(llvm::Value* value, llvm::Value* index, uint64_t offset, uint32_t memory);
  llvm::Value* atomic_address(llvm::Value* index, uint64_t offset, uint64_t size, uint32_t memory);
  void atomic(const wabt::Expr& expr);

  // ---- traps
  llvm::BasicBlock* trap_block(wasm::TrapKind kind);
  void trap_if(llvm::Value* condition, wasm::TrapKind kind);

  // ---- arithmetic (numeric.cc) and vectors (simd.cc)
  void numeric(wabt::Opcode opcode);
  void truncate_or_trap(llvm::Type* to, bool is_signed);
  llvm::Value* demote(llvm::Value* value, llvm::Type* to);
  llvm::Value* float_binary(wabt::Opcode opcode, llvm::Value* a, llvm::Value* b);
  llvm::Value* float_min_max(bool is_max, llvm::Value* a, llvm::Value* b);
  llvm::Value* quiet_operand(llvm::Value* value);
  bool simd(wabt::Opcode opcode);
  void simd_lane(const wabt::SimdLaneOpExpr& expr);
  void simd_load(wabt::Opcode opcode, uint64_t offset, uint32_t memory);
  llvm::Value* pop_as(llvm::Type* vector);
  void push_vector(llvm::Value* value);

  llvm::Value* pop();
  void push(llvm::Value* value) { stack_.push_back(value); }

  Generator& g_;
  llvm::IRBuilder<>& b_;
  const wasm::ModuleInfo& info_;
  uint32_t index_;
  const wabt::Func& source_;
  const wasm::Signature& signature_;
  llvm::Function* function_;
  std::vector<llvm::Value*> stack_;
  std::vector<llvm::Value*> locals_;
  std::vector<Label> labels_;
  bool reachable_ = true;
  bool has_exceptions_;       // calls may come back with one
  Label* handler_ = nullptr;  // of the innermost try around here
  llvm::BasicBlock* to_caller_ = nullptr;
  std::unordered_map<const void*, std::vector<uint32_t>> assigned_;
  std::map<wasm::TrapKind, llvm::BasicBlock*> trap_blocks_;
};

}  // namespace spore::compiler

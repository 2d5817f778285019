#include "compiler/function_generator.h"

#include <llvm/Analysis/InstructionSimplify.h>
#include <llvm/IR/InlineAsm.h>
#include <llvm/IR/IntrinsicsX86.h>
#include <wabt/cast.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace spore::compiler {

namespace {

// A switch with fewer cases never becomes a table.
constexpr uint32_t kTableTargetsMin = 3;

}  // namespace

using wabt::cast;
using wabt::ExprType;
using wasm::Builtin;
using wasm::TrapKind;
using wasm::ValueType;

FunctionGenerator::FunctionGenerator(Generator& generator, uint32_t index)
    : g_(generator),
      b_(generator.b_),
      info_(generator.info_),
      index_(index),
      source_(*generator.decoded_.module->funcs[index]),
      signature_(info_.signature_of(index)),
      function_(generator.define(generator.function_type(signature_), function_symbol(index))),
      has_exceptions_(!info_.tags.empty() || generator.options_.cross_instance) {}

void FunctionGenerator::generate() {
  g_.begin_body(function_);
  locals_.resize(signature_.params.size());
  unsigned argument = 0;
  for (uint32_t i : wasm::register_parameters(signature_)) locals_[i] = function_->getArg(argument++);
  for (uint32_t i = 0; i < locals_.size(); ++i)
    if (!locals_[i]) locals_[i] = g_.load_cell(signature_.params[i], i);
  for (const auto& [type, count] : source_.local_types.decls())
    locals_.insert(locals_.end(), count, llvm::Constant::getNullValue(g_.type_of(value_type(type))));

  note_assigned(source_.exprs, &source_);
  static const std::vector<uint32_t> kNone;
  labels_.push_back({.block = new_block(), .arity = signature_.results.size(), .assigned = &kNone});
  body(source_.exprs);
  if (reachable_) {
    branch_edge(labels_[0]);
    b_.CreateBr(labels_[0].block);
  }
  place(labels_[0], 0);
  if (reachable_) return_values();
  keep_dead_loads();
}

llvm::Value* FunctionGenerator::pop() {
  CHECK(!stack_.empty(), "value stack", index_);
  llvm::Value* value = stack_.back();
  stack_.pop_back();
  return value;
}

// ---- control flow ---------------------------------------------------------------------------------------------------

const std::vector<uint32_t>& FunctionGenerator::note_assigned(const wabt::ExprList& list, const void* key) {
  std::vector<uint32_t> found;
  auto add_all = [&](const std::vector<uint32_t>& more) { found.insert(found.end(), more.begin(), more.end()); };
  for (const wabt::Expr& expr : list) {
    switch (expr.type()) {
      case ExprType::LocalSet: found.push_back(cast<wabt::LocalSetExpr>(&expr)->var.index()); break;
      case ExprType::LocalTee: found.push_back(cast<wabt::LocalTeeExpr>(&expr)->var.index()); break;
      case ExprType::Block: {
        const wabt::Block& inner = cast<wabt::BlockExpr>(&expr)->block;
        add_all(note_assigned(inner.exprs, &inner));
        break;
      }
      case ExprType::Loop: {
        const wabt::Block& inner = cast<wabt::LoopExpr>(&expr)->block;
        add_all(note_assigned(inner.exprs, &inner));
        break;
      }
      case ExprType::If: {
        const auto* inner = cast<wabt::IfExpr>(&expr);
        std::vector<uint32_t> both = note_assigned(inner->true_.exprs, &inner->true_);
        const std::vector<uint32_t>& other = note_assigned(inner->false_, &inner->false_);
        both.insert(both.end(), other.begin(), other.end());
        std::sort(both.begin(), both.end());
        both.erase(std::unique(both.begin(), both.end()), both.end());
        add_all(both);
        assigned_[&inner->true_] = std::move(both);
        break;
      }
      case ExprType::Try: {
        const auto* inner = cast<wabt::TryExpr>(&expr);
        std::vector<uint32_t> all = note_assigned(inner->block.exprs, &inner->block);
        for (const wabt::Catch& clause : inner->catches) {
          const std::vector<uint32_t>& more = note_assigned(clause.exprs, &clause);
          all.insert(all.end(), more.begin(), more.end());
        }
        std::sort(all.begin(), all.end());
        all.erase(std::unique(all.begin(), all.end()), all.end());
        add_all(all);
        assigned_[inner] = std::move(all);
        break;
      }
      default: break;
    }
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return assigned_[key] = std::move(found);
}

llvm::BasicBlock* FunctionGenerator::new_block() { return llvm::BasicBlock::Create(g_.context_); }

void FunctionGenerator::go_to(llvm::BasicBlock* block) {
  block->insertInto(function_);
  b_.SetInsertPoint(block);
  reachable_ = true;
}

void FunctionGenerator::body(const wabt::ExprList& list) {
  for (const wabt::Expr& expr : list) {
    if (!reachable_) break;  // code after a branch: validated, never run
    expression(expr);
  }
}

void FunctionGenerator::branch_edge(Label& label, unsigned count) {
  CHECK(stack_.size() >= label.arity, index_);
  const size_t base = stack_.size() - label.arity;
  llvm::BasicBlock* from = b_.GetInsertBlock();
  if (label.is_loop) {
    for (unsigned n = 0; n < count; ++n) {
      for (size_t i = 0; i < label.arity; ++i) label.phis[i]->addIncoming(stack_[base + i], from);
      for (size_t i = 0; i < label.assigned->size(); ++i)
        label.phis[label.arity + i]->addIncoming(locals_[(*label.assigned)[i]], from);
    }
    return;
  }
  Edge edge;
  edge.from = from;
  edge.count = count;
  edge.values.assign(stack_.begin() + static_cast<ptrdiff_t>(base), stack_.end());
  for (uint32_t local : *label.assigned) edge.locals.push_back(locals_[local]);
  label.edges.push_back(std::move(edge));
}

// Puts a forward label here: what arrives by its edges becomes the stack above `stack_height` and the locals.
void FunctionGenerator::place(Label& label, size_t stack_height) {
  stack_.resize(std::min(stack_height, stack_.size()));
  if (label.edges.empty()) {
    delete label.block;
    reachable_ = false;
    return;
  }
  go_to(label.block);
  auto meet = [&](auto&& value_of) -> llvm::Value* {
    llvm::Value* first = value_of(label.edges.front());
    const bool same =
        std::all_of(label.edges.begin(), label.edges.end(), [&](Edge& e) { return value_of(e) == first; });
    if (same) return first;
    llvm::PHINode* phi = b_.CreatePHI(first->getType(), static_cast<unsigned>(label.edges.size()));
    for (Edge& edge : label.edges)
      for (unsigned n = 0; n < edge.count; ++n) phi->addIncoming(value_of(edge), edge.from);
    return phi;
  };
  for (size_t i = 0; i < label.arity; ++i) push(meet([&](Edge& e) { return e.values[i]; }));
  for (size_t i = 0; i < label.assigned->size(); ++i)
    locals_[(*label.assigned)[i]] = meet([&](Edge& e) { return e.locals[i]; });
}

void FunctionGenerator::block(const wabt::Block& source) {
  const size_t height = stack_.size() - source.decl.sig.param_types.size();
  labels_.push_back({.block = new_block(),
                     .arity = source.decl.sig.result_types.size(),
                     .assigned = &assigned_[&source],
                     .handler = handler_});
  body(source.exprs);
  Label label = std::move(labels_.back());
  labels_.pop_back();
  if (reachable_) {
    branch_edge(label);
    b_.CreateBr(label.block);
  }
  place(label, height);
}

void FunctionGenerator::loop(const wabt::Block& source) {
  const size_t arity = source.decl.sig.param_types.size();
  const size_t height = stack_.size() - arity;
  Label label{
      .block = new_block(), .is_loop = true, .arity = arity, .assigned = &assigned_[&source], .handler = handler_};
  llvm::BasicBlock* before = b_.GetInsertBlock();
  b_.CreateBr(label.block);
  go_to(label.block);
  auto enter = [&](llvm::Value*& value) {
    llvm::PHINode* phi = b_.CreatePHI(value->getType(), 2);
    phi->addIncoming(value, before);
    value = phi;
    label.phis.push_back(phi);
  };
  for (size_t i = 0; i < arity; ++i) enter(stack_[height + i]);
  for (uint32_t local : *label.assigned) enter(locals_[local]);
  labels_.push_back(std::move(label));
  body(source.exprs);
  labels_.pop_back();
  // Nothing branches to a loop's end, so what fell through is what there is.
  if (!reachable_) stack_.resize(std::min(height, stack_.size()));
}

void FunctionGenerator::if_else(const wabt::IfExpr& expr) {
  llvm::Value* condition = b_.CreateICmpNE(pop(), b_.getInt32(0));
  const wabt::FuncSignature& signature = expr.true_.decl.sig;
  const size_t height = stack_.size() - signature.param_types.size();
  const std::vector<llvm::Value*> params(stack_.begin() + static_cast<ptrdiff_t>(height), stack_.end());
  const std::vector<uint32_t>& assigned = assigned_[&expr.true_];
  std::vector<llvm::Value*> locals;
  for (uint32_t local : assigned) locals.push_back(locals_[local]);

  labels_.push_back(
      {.block = new_block(), .arity = signature.result_types.size(), .assigned = &assigned, .handler = handler_});
  llvm::BasicBlock* on_true = new_block();
  llvm::BasicBlock* on_false = new_block();
  b_.CreateCondBr(condition, on_true, on_false);
  auto arm = [&](llvm::BasicBlock* block, const wabt::ExprList& list) {
    go_to(block);
    body(list);
    if (!reachable_) return;
    branch_edge(labels_.back());
    b_.CreateBr(labels_.back().block);
  };
  arm(on_true, expr.true_.exprs);
  stack_.resize(height);
  stack_.insert(stack_.end(), params.begin(), params.end());
  for (size_t i = 0; i < assigned.size(); ++i) locals_[assigned[i]] = locals[i];
  arm(on_false, expr.false_);
  Label label = std::move(labels_.back());
  labels_.pop_back();
  place(label, height);
}

void FunctionGenerator::branch_table(const wabt::BrTableExpr& expr) {
  llvm::Value* index = pop();
  auto label_at = [&](uint32_t depth) -> Label& { return labels_[labels_.size() - 1 - depth]; };
  std::map<uint32_t, unsigned> counts;  // by depth; a label takes one edge for each case
  ++counts[expr.default_target.index()];
  for (const wabt::Var& target : expr.targets) ++counts[target.index()];
  for (const auto& [depth, count] : counts) branch_edge(label_at(depth), count);
  llvm::BasicBlock* otherwise = label_at(expr.default_target.index()).block;
  const auto targets = static_cast<uint32_t>(expr.targets.size());
  llvm::SwitchInst* choice = nullptr;
  if (targets < kTableTargetsMin) {
    choice = b_.CreateSwitch(index, otherwise, targets);
  } else {
    // The last case stands for all beyond, so that no table is read past its end, whatever the processor predicts.
    llvm::FunctionType* type = llvm::FunctionType::get(g_.i32_, {g_.i32_, g_.i32_}, false);
    llvm::InlineAsm* minimum = llvm::InlineAsm::get(type, "cmpl $2, $0\n\tcmoval $2, $0",
                                                    "=r,0,r,~{flags},~{dirflag},~{fpsr}", /*hasSideEffects=*/false);
    index = b_.CreateCall(minimum, {index, b_.getInt32(targets)});
    llvm::BasicBlock* never = new_block();
    choice = b_.CreateSwitch(index, never, targets + 1);
    choice->addCase(b_.getInt32(targets), otherwise);
    go_to(never);
    b_.CreateUnreachable();
  }
  for (uint32_t i = 0; i < targets; ++i) choice->addCase(b_.getInt32(i), label_at(expr.targets[i].index()).block);
  reachable_ = false;
}

// ---- exceptions -----------------------------------------------------------------------------------------------------
//
// An exception on its way is a tag in the instance's header, its values in cells. Throwing inside a try goes straight
// to the catch clauses; otherwise the function returns, and each call in a module with tags is followed by a look at
// the header. Modules without tags do not pay for that.

llvm::Value* FunctionGenerator::exception_tag_pointer() {
  return g_.at(wasm::kHeaderOffset + int64_t{offsetof(wasm::InstanceHeader, exception_tag)});
}

// The block that an exception thrown here goes to; the edge is noted.
llvm::BasicBlock* FunctionGenerator::handler_block() {
  if (handler_) {
    branch_edge(*handler_);
    return handler_->block;
  }
  if (!to_caller_) {
    to_caller_ = llvm::BasicBlock::Create(g_.context_, "", function_);
    llvm::IRBuilder<>::InsertPointGuard guard(b_);
    b_.SetInsertPoint(to_caller_);
    if (signature_.results.empty()) {
      b_.CreateRetVoid();
    } else {
      b_.CreateRet(llvm::Constant::getNullValue(function_->getReturnType()));
    }
  }
  return to_caller_;
}

void FunctionGenerator::throw_to_handler() {
  b_.CreateBr(handler_block());
  reachable_ = false;
}

void FunctionGenerator::leave_on_exception() {
  if (!has_exceptions_) return;
  llvm::Value* tag = g_.load_own(g_.i64_, exception_tag_pointer(), g_.tag_header_);
  llvm::BasicBlock* next = new_block();
  b_.CreateCondBr(b_.CreateIsNotNull(tag), handler_block(), next,
                  llvm::MDBuilder(g_.context_).createBranchWeights(1, 1 << 20));
  go_to(next);
}

void FunctionGenerator::throw_values(llvm::Value* tag, const std::vector<llvm::Value*>& payload) {
  for (uint32_t i = 0; i < payload.size(); ++i) g_.store_cell(payload[i], i);
  g_.store_own(tag, exception_tag_pointer(), g_.tag_header_);
  throw_to_handler();
}

void FunctionGenerator::try_catch(const wabt::TryExpr& expr) {
  const wabt::FuncSignature& signature = expr.block.decl.sig;
  const size_t height = stack_.size() - signature.param_types.size();
  Label* const outer = handler_;
  Label catches{.block = new_block(), .assigned = &assigned_[&expr.block]};
  if (expr.kind == wabt::TryKind::Delegate) {
    handler_ = labels_[labels_.size() - 1 - expr.delegate_target.index()].handler;
  } else if (expr.kind == wabt::TryKind::Catch) {
    handler_ = &catches;
  }
  labels_.push_back({.block = new_block(),
                     .arity = signature.result_types.size(),
                     .assigned = &assigned_[&expr],
                     .handler = handler_});
  body(expr.block.exprs);
  if (reachable_) {
    branch_edge(labels_.back());
    b_.CreateBr(labels_.back().block);
  }
  handler_ = labels_.back().handler = outer;
  place(catches, height);
  if (reachable_) catch_clauses(expr, height);
  Label label = std::move(labels_.back());
  labels_.pop_back();
  place(label, height);
}

void FunctionGenerator::catch_clauses(const wabt::TryExpr& expr, size_t height) {
  const std::vector<uint32_t>& assigned = assigned_[&expr];
  std::vector<llvm::Value*> locals;
  for (uint32_t local : assigned) locals.push_back(locals_[local]);
  llvm::Value* tag = g_.load_own(g_.i64_, exception_tag_pointer(), g_.tag_header_);
  auto clause = [&](const wabt::Catch& source, const std::vector<ValueType>& payload) {
    Label& label = labels_.back();
    label.caught_tag = tag;
    label.caught_payload.clear();
    for (uint32_t i = 0; i < payload.size(); ++i) label.caught_payload.push_back(g_.load_cell(payload[i], i));
    if (!source.IsCatchAll())
      for (llvm::Value* value : label.caught_payload) push(value);
    g_.store_own(b_.getInt64(0), exception_tag_pointer(), g_.tag_header_);
    body(source.exprs);
    if (reachable_) {
      branch_edge(labels_.back());
      b_.CreateBr(labels_.back().block);
    }
    reachable_ = false;
  };
  for (const wabt::Catch& source : expr.catches) {
    if (source.IsCatchAll()) {
      // Of whatever type: all the cells that an exception of this module may fill.
      size_t cells = 0;
      for (uint32_t type : info_.tags) cells = std::max(cells, info_.types[type].params.size());
      clause(source, std::vector<ValueType>(cells, ValueType::kV128));
      return;
    }
    const uint32_t index = source.var.index();
    llvm::Value* wanted = g_.load_own(g_.i64_, g_.at(g_.layout_.tags + 8 * int64_t{index}), g_.tag_header_);
    llvm::BasicBlock* match = new_block();
    llvm::BasicBlock* next = new_block();
    b_.CreateCondBr(b_.CreateICmpEQ(tag, wanted), match, next);
    go_to(match);
    clause(source, info_.types[info_.tags[index]].params);
    stack_.resize(height);
    for (size_t i = 0; i < assigned.size(); ++i) locals_[assigned[i]] = locals[i];
    go_to(next);
  }
  throw_to_handler();  // nobody here wanted it
}

void FunctionGenerator::return_values() {
  const size_t count = signature_.results.size();
  if (count == 0) {
    b_.CreateRetVoid();
    return;
  }
  const size_t base = stack_.size() - count;
  for (size_t i = 1; i < count; ++i) g_.store_cell(stack_[base + i], static_cast<uint32_t>(i));
  b_.CreateRet(stack_[base]);
}

// LLVM removes a load that nobody uses; WebAssembly says it traps. A load that cannot reach anything observable, also
// after the obvious simplifications (x * 0, x ^ x), is made volatile. All others stay ordinary loads.
void FunctionGenerator::keep_dead_loads() {
  const llvm::SimplifyQuery query(g_.module_->getDataLayout());
  llvm::SmallPtrSet<llvm::Instruction*, 32> live;
  std::vector<llvm::Instruction*> work;
  bool has_loads = false;
  for (llvm::BasicBlock& block : *function_) {
    for (llvm::Instruction& instruction : block) {
      if (llvm::isa<llvm::LoadInst>(instruction)) {
        has_loads = true;
        continue;
      }
      const bool arithmetic = llvm::isa<llvm::BinaryOperator, llvm::CmpInst, llvm::SelectInst>(instruction);
      if (!g_.fast_ && arithmetic) {
        if (llvm::Value* simpler = llvm::simplifyInstruction(&instruction, query);
            simpler && simpler != &instruction && !llvm::isa<llvm::UndefValue>(simpler))
          instruction.replaceAllUsesWith(simpler);
      }
    }
  }
  if (!has_loads) return;
  auto mark = [&](llvm::Instruction* instruction) {
    if (live.insert(instruction).second) work.push_back(instruction);
  };
  for (llvm::BasicBlock& block : *function_)
    for (llvm::Instruction& instruction : block)
      if (instruction.isTerminator() || instruction.mayHaveSideEffects()) mark(&instruction);
  while (!work.empty()) {
    llvm::Instruction* instruction = work.back();
    work.pop_back();
    for (llvm::Value* operand : instruction->operands())
      if (auto* producer = llvm::dyn_cast<llvm::Instruction>(operand)) mark(producer);
  }
  for (llvm::BasicBlock& block : *function_)
    for (llvm::Instruction& instruction : block)
      if (auto* l = llvm::dyn_cast<llvm::LoadInst>(&instruction); l && !live.contains(l)) l->setVolatile(true);
}

// ---- traps ----------------------------------------------------------------------------------------------------------

llvm::BasicBlock* FunctionGenerator::trap_block(TrapKind kind) {
  llvm::BasicBlock*& block = trap_blocks_[kind];
  if (!block) {
    block = llvm::BasicBlock::Create(g_.context_, "", function_);
    llvm::IRBuilder<>::InsertPointGuard guard(b_);
    b_.SetInsertPoint(block);
    llvm::CallInst* trap = b_.CreateCall(g_.stub(wasm::Stub::kTrap), {b_.getInt32(static_cast<uint32_t>(kind))});
    trap->setDoesNotReturn();
    trap->setTailCallKind(llvm::CallInst::TCK_NoTail);
    b_.CreateUnreachable();
  }
  return block;
}

void FunctionGenerator::trap_if(llvm::Value* condition, TrapKind kind) {
  llvm::BasicBlock* next = new_block();
  b_.CreateCondBr(condition, trap_block(kind), next, llvm::MDBuilder(g_.context_).createBranchWeights(1, 1 << 20));
  go_to(next);
}

// ---- calls and tables -----------------------------------------------------------------------------------------------

void FunctionGenerator::call(llvm::Value* target, const wasm::Signature& signature, bool tail) {
  std::vector<llvm::Value*> values(signature.params.size());
  for (size_t i = values.size(); i-- > 0;) values[i] = pop();
  std::vector<llvm::Value*> arguments;
  for (uint32_t i : wasm::register_parameters(signature)) arguments.push_back(std::exchange(values[i], nullptr));
  for (uint32_t i = 0; i < values.size(); ++i)
    if (values[i]) g_.store_cell(values[i], i);
  llvm::CallInst* result = b_.CreateCall(g_.function_type(signature), target, arguments);
  // An ordinary call keeps its frame, also where LLVM could reuse it: recursion must exhaust the stack.
  result->setTailCallKind(tail ? llvm::CallInst::TCK_Tail : llvm::CallInst::TCK_NoTail);
  if (tail) {
    // No arguments lie on the stack, so every tail call becomes a jump. The callee leaves results beyond the first in
    // the cells where our own caller looks for them.
    if (signature.results.empty()) {
      b_.CreateRetVoid();
    } else {
      b_.CreateRet(result);
    }
    reachable_ = false;
    return;
  }
  leave_on_exception();
  if (!signature.results.empty()) push(result);
  for (uint32_t i = 1; i < signature.results.size(); ++i) push(g_.load_cell(signature.results[i], i));
}

llvm::Value* FunctionGenerator::extended(llvm::Value* value) {
  return value->getType() == g_.i64_ ? value : b_.CreateZExt(value, g_.i64_);
}

void FunctionGenerator::builtin(Builtin which, std::initializer_list<llvm::Value*> operands) {
  uint32_t cell = 0;
  for (llvm::Value* operand : operands) g_.store_cell(extended(operand), cell++);
  b_.CreateCall(g_.stub(wasm::Stub::kHostCall), {b_.getInt32(static_cast<uint32_t>(which))})
      ->setTailCallKind(llvm::CallInst::TCK_NoTail);
}

llvm::Value* FunctionGenerator::table_size(uint32_t table) {
  const wasm::Limits& limits = info_.tables[table].limits;
  if (table >= info_.imported_tables && limits.max == limits.min) return b_.getInt64(limits.min);
  return g_.load_own(g_.i64_, g_.at(g_.layout_.table_descriptors + 32 * int64_t{table} + 8), g_.tag_header_);
}

// All ones where `value` is less than `limit`, else 0: by arithmetic, which no processor predicts. What a guest must
// never reach is masked with it behind its check, which a processor may run past before it knows better (Spectre,
// variant 1).
llvm::Value* FunctionGenerator::mask_below(llvm::Value* value, llvm::Value* limit) {
  llvm::FunctionType* type = llvm::FunctionType::get(g_.i64_, {g_.i64_, g_.i64_}, false);
  llvm::InlineAsm* compare = llvm::InlineAsm::get(type, "cmpq $2, $1\n\tsbbq $0, $0",
                                                  "=&r,r,re,~{flags},~{dirflag},~{fpsr}", /*hasSideEffects=*/false);
  return b_.CreateCall(compare, {value, limit});
}

llvm::Value* FunctionGenerator::table_entry(uint32_t table, llvm::Value* index, TrapKind out_of_bounds) {
  llvm::Value* size = table_size(table);
  trap_if(b_.CreateICmpUGE(index, size), out_of_bounds);
  index = b_.CreateShl(b_.CreateAnd(index, mask_below(index, size)), 5);
  if (table >= info_.imported_tables)
    return b_.CreateConstGEP1_64(g_.i8_, g_.at(index), static_cast<uint64_t>(g_.layout_.tables[table]));
  llvm::Value* base = g_.load_own(g_.i64_, g_.at(g_.layout_.table_descriptors + 32 * int64_t{table}), g_.tag_header_);
  return g_.at(b_.CreateAdd(base, index));
}

void FunctionGenerator::call_indirect(uint32_t type, uint32_t table, bool tail) {
  const wasm::TypeId id = wasm::type_id(info_.types[type]);
  llvm::Value* entry = table_entry(table, extended(pop()), TrapKind::kIndirectCallOutOfBounds);
  auto word = [&](uint64_t offset) {
    return g_.load_own(g_.i64_, b_.CreateConstGEP1_64(g_.i8_, entry, offset), g_.tag_table_);
  };
  llvm::Value* low = word(8);
  llvm::Value* difference = b_.CreateXor(low, b_.getInt64(id.low));
  if (id.high) difference = b_.CreateOr(difference, b_.CreateXor(word(16), b_.getInt64(id.high)));
  llvm::BasicBlock* mismatch = new_block();
  llvm::BasicBlock* next = new_block();
  // Of the mask: behind a branch of the difference itself the optimiser would know it to be 0.
  llvm::Value* mask = mask_below(difference, b_.getInt64(1));
  b_.CreateCondBr(b_.CreateICmpNE(mask, b_.getInt64(0)), next, mismatch,
                  llvm::MDBuilder(g_.context_).createBranchWeights(1 << 20, 1));
  go_to(mismatch);
  b_.CreateCondBr(b_.CreateICmpEQ(low, b_.getInt64(0)), trap_block(TrapKind::kIndirectCallNull),
                  trap_block(TrapKind::kIndirectCallType));
  go_to(next);
  llvm::Value* code = b_.CreateAdd(b_.CreateAnd(word(0), mask), b_.getInt64(wasm::kArenaBase));
  call(b_.CreateIntToPtr(code, b_.getPtrTy()), info_.types[type], tail);
}

llvm::Value* FunctionGenerator::global_pointer(uint32_t global) {
  llvm::Value* own = g_.at(g_.layout_.globals[global]);
  if (global >= info_.imported_globals || !info_.globals[global].type.is_mutable) return own;
  return g_.at(g_.load_own(g_.i64_, own, g_.tag_header_));
}

// ---- memory ---------------------------------------------------------------------------------------------------------

llvm::Value* FunctionGenerator::memory_size(uint32_t memory) {
  const int64_t where = memory == 0 ? wasm::kHeaderOffset + int64_t{offsetof(wasm::InstanceHeader, memory_size_bytes)}
                                    : g_.layout_.memory_descriptors + 32 * int64_t{memory} + 8;
  return g_.load_own(g_.i64_, g_.at(where), g_.tag_header_);
}

// Where `size` bytes at `index` + `offset` lie. Memory 0 with a 32-bit index and an ordinary offset needs no check: the
// slot's guard is wide enough.
llvm::Value* FunctionGenerator::address(llvm::Value* index, uint64_t offset, uint64_t size, uint32_t memory) {
  const bool wide = info_.memories[memory].is_64;
  llvm::Value* position = extended(index);
  if (memory == 0 && !wide && offset <= wasm::kStaticOffsetMax) {
    llvm::Value* pointer = g_.at(position);
    return offset ? b_.CreateConstGEP1_64(g_.i8_, pointer, offset) : pointer;
  }
  llvm::Value* start = b_.CreateBinaryIntrinsic(llvm::Intrinsic::uadd_sat, position, b_.getInt64(offset));
  llvm::Value* end = b_.CreateBinaryIntrinsic(llvm::Intrinsic::uadd_sat, start, b_.getInt64(size));
  llvm::Value* bytes = memory_size(memory);
  trap_if(b_.CreateICmpUGT(end, bytes), TrapKind::kMemoryOutOfBounds);
  start = b_.CreateAnd(start, mask_below(start, bytes));
  if (memory == 0) return g_.at(start);
  llvm::Value* base = g_.load_own(g_.i64_, g_.at(g_.layout_.memory_descriptors + 32 * int64_t{memory}), g_.tag_header_);
  return g_.at(b_.CreateAdd(base, start));
}

llvm::Value* FunctionGenerator::load(llvm::Type* type, uint64_t offset, uint32_t memory) {
  const uint64_t size = type->getPrimitiveSizeInBits() / 8;
  llvm::Value* pointer = address(pop(), offset, size, memory);
  return g_.tagged(b_.CreateAlignedLoad(type, pointer, llvm::Align(1)), g_.tag_memory_);
}

void FunctionGenerator::store(llvm::Value* value, llvm::Value* index, uint64_t offset, uint32_t memory) {
  const uint64_t size = value->getType()->getPrimitiveSizeInBits() / 8;
  llvm::Value* pointer = address(index, offset, size, memory);
  g_.tagged(b_.CreateAlignedStore(value, pointer, llvm::Align(1)), g_.tag_memory_);
}

llvm::Value* FunctionGenerator::atomic_address(llvm::Value* index, uint64_t offset, uint64_t size, uint32_t memory) {
  if (size > 1) {
    llvm::Value* position = b_.CreateAdd(extended(index), b_.getInt64(offset));
    trap_if(b_.CreateICmpNE(b_.CreateAnd(position, b_.getInt64(size - 1)), b_.getInt64(0)), TrapKind::kUnalignedAtomic);
  }
  return address(index, offset, size, memory);
}

void FunctionGenerator::atomic(const wabt::Expr& expr) {
  constexpr auto kOrder = llvm::AtomicOrdering::SequentiallyConsistent;
  auto memory_type = [&](wabt::Opcode opcode) { return b_.getIntNTy(8 * opcode.GetMemorySize()); };
  auto result_type = [&](wabt::Opcode opcode) { return g_.type_of(value_type(opcode.GetResultType())); };
  switch (expr.type()) {
    case ExprType::AtomicLoad: {
      const auto* e = cast<wabt::AtomicLoadExpr>(&expr);
      llvm::Type* type = memory_type(e->opcode);
      llvm::Value* pointer = atomic_address(pop(), e->offset, e->opcode.GetMemorySize(), e->memidx.index());
      llvm::LoadInst* value = b_.CreateAlignedLoad(type, pointer, llvm::Align(e->opcode.GetMemorySize()));
      value->setAtomic(kOrder);
      push(b_.CreateZExt(value, result_type(e->opcode)));
      return;
    }
    case ExprType::AtomicStore: {
      const auto* e = cast<wabt::AtomicStoreExpr>(&expr);
      llvm::Value* value = b_.CreateTrunc(pop(), memory_type(e->opcode));
      llvm::Value* pointer = atomic_address(pop(), e->offset, e->opcode.GetMemorySize(), e->memidx.index());
      b_.CreateAlignedStore(value, pointer, llvm::Align(e->opcode.GetMemorySize()))->setAtomic(kOrder);
      return;
    }
    case ExprType::AtomicRmw: {
      const auto* e = cast<wabt::AtomicRmwExpr>(&expr);
      const std::string_view name = e->opcode.GetName();
      using Op = llvm::AtomicRMWInst::BinOp;
      const Op op = name.find(".add") != name.npos   ? Op::Add
                    : name.find(".sub") != name.npos ? Op::Sub
                    : name.find(".and") != name.npos ? Op::And
                    : name.find(".or") != name.npos  ? Op::Or
                    : name.find(".xor") != name.npos ? Op::Xor
                                                     : Op::Xchg;
      llvm::Value* value = b_.CreateTrunc(pop(), memory_type(e->opcode));
      llvm::Value* pointer = atomic_address(pop(), e->offset, e->opcode.GetMemorySize(), e->memidx.index());
      llvm::Value* old = b_.CreateAtomicRMW(op, pointer, value, llvm::Align(e->opcode.GetMemorySize()), kOrder);
      push(b_.CreateZExt(old, result_type(e->opcode)));
      return;
    }
    case ExprType::AtomicRmwCmpxchg: {
      const auto* e = cast<wabt::AtomicRmwCmpxchgExpr>(&expr);
      llvm::Value* replacement = b_.CreateTrunc(pop(), memory_type(e->opcode));
      // The whole operand is compared: one with bits beyond the access never matches.
      llvm::Value* expected = pop();
      llvm::Value* narrow = b_.CreateTrunc(expected, memory_type(e->opcode));
      llvm::Value* pointer = atomic_address(pop(), e->offset, e->opcode.GetMemorySize(), e->memidx.index());
      llvm::Value* fits = b_.CreateICmpEQ(b_.CreateZExt(narrow, expected->getType()), expected);
      const llvm::Align align(e->opcode.GetMemorySize());
      llvm::BasicBlock* exchange = new_block();
      llvm::BasicBlock* read = new_block();
      llvm::BasicBlock* next = new_block();
      b_.CreateCondBr(fits, exchange, read);
      go_to(exchange);
      llvm::Value* exchanged =
          b_.CreateExtractValue(b_.CreateAtomicCmpXchg(pointer, narrow, replacement, align, kOrder, kOrder), 0);
      b_.CreateBr(next);
      go_to(read);
      llvm::LoadInst* current = b_.CreateAlignedLoad(narrow->getType(), pointer, align);
      current->setAtomic(kOrder);
      b_.CreateBr(next);
      go_to(next);
      llvm::PHINode* old = b_.CreatePHI(narrow->getType(), 2);
      old->addIncoming(exchanged, exchange);
      old->addIncoming(current, read);
      push(b_.CreateZExt(old, expected->getType()));
      return;
    }
    case ExprType::AtomicWait: {
      const auto* e = cast<wabt::AtomicWaitExpr>(&expr);
      llvm::Value* timeout = pop();
      llvm::Value* expected = pop();
      llvm::Value* position =
          b_.CreateBinaryIntrinsic(llvm::Intrinsic::uadd_sat, extended(pop()), b_.getInt64(e->offset));
      builtin(expected->getType() == g_.i64_ ? Builtin::kAtomicWait64 : Builtin::kAtomicWait32,
              {b_.getInt64(e->memidx.index()), position, expected, timeout});
      push(g_.load_cell(ValueType::kI32, 0));
      return;
    }
    case ExprType::AtomicNotify: {
      const auto* e = cast<wabt::AtomicNotifyExpr>(&expr);
      llvm::Value* count = pop();
      llvm::Value* position =
          b_.CreateBinaryIntrinsic(llvm::Intrinsic::uadd_sat, extended(pop()), b_.getInt64(e->offset));
      builtin(Builtin::kAtomicNotify, {b_.getInt64(e->memidx.index()), position, count});
      push(g_.load_cell(ValueType::kI32, 0));
      return;
    }
    default: b_.CreateFence(kOrder); return;
  }
}

// ---- expressions ----------------------------------------------------------------------------------------------------

void FunctionGenerator::expression(const wabt::Expr& expr) {
  auto number = [&](uint64_t value) { return b_.getInt64(value); };
  switch (expr.type()) {
    case ExprType::Nop:
    case ExprType::CodeMetadata: return;
    case ExprType::Drop: pop(); return;
    case ExprType::Unreachable:
      b_.CreateBr(trap_block(TrapKind::kUnreachable));
      reachable_ = false;
      return;

    case ExprType::Block: block(cast<wabt::BlockExpr>(&expr)->block); return;
    case ExprType::Loop: loop(cast<wabt::LoopExpr>(&expr)->block); return;
    case ExprType::If: if_else(*cast<wabt::IfExpr>(&expr)); return;
    case ExprType::Br: {
      Label& label = labels_[labels_.size() - 1 - cast<wabt::BrExpr>(&expr)->var.index()];
      branch_edge(label);
      b_.CreateBr(label.block);
      reachable_ = false;
      return;
    }
    case ExprType::BrIf: {
      llvm::Value* condition = b_.CreateICmpNE(pop(), b_.getInt32(0));
      Label& label = labels_[labels_.size() - 1 - cast<wabt::BrIfExpr>(&expr)->var.index()];
      branch_edge(label);
      llvm::BasicBlock* next = new_block();
      b_.CreateCondBr(condition, label.block, next);
      go_to(next);
      return;
    }
    case ExprType::BrTable: branch_table(*cast<wabt::BrTableExpr>(&expr)); return;
    case ExprType::Return:
      return_values();
      reachable_ = false;
      return;

    case ExprType::Call:
    case ExprType::ReturnCall: {
      const bool tail = expr.type() == ExprType::ReturnCall;
      const uint32_t callee =
          tail ? cast<wabt::ReturnCallExpr>(&expr)->var.index() : cast<wabt::CallExpr>(&expr)->var.index();
      call(g_.function(callee), info_.signature_of(callee), tail);
      return;
    }
    case ExprType::CallIndirect: {
      const auto* e = cast<wabt::CallIndirectExpr>(&expr);
      call_indirect(e->decl.type_var.index(), e->table.index(), false);
      return;
    }
    case ExprType::ReturnCallIndirect: {
      const auto* e = cast<wabt::ReturnCallIndirectExpr>(&expr);
      call_indirect(e->decl.type_var.index(), e->table.index(), true);
      return;
    }

    case ExprType::LocalGet: push(locals_[cast<wabt::LocalGetExpr>(&expr)->var.index()]); return;
    case ExprType::LocalSet: locals_[cast<wabt::LocalSetExpr>(&expr)->var.index()] = pop(); return;
    case ExprType::LocalTee: locals_[cast<wabt::LocalTeeExpr>(&expr)->var.index()] = stack_.back(); return;
    case ExprType::GlobalGet: {
      const uint32_t global = cast<wabt::GlobalGetExpr>(&expr)->var.index();
      push(g_.load_own(g_.type_of(info_.globals[global].type.type), global_pointer(global), g_.tag_global_));
      return;
    }
    case ExprType::GlobalSet: {
      const uint32_t global = cast<wabt::GlobalSetExpr>(&expr)->var.index();
      g_.store_own(pop(), global_pointer(global), g_.tag_global_);
      return;
    }
    case ExprType::Select: {
      llvm::Value* condition = b_.CreateICmpNE(pop(), b_.getInt32(0));
      llvm::Value* on_false = pop();
      llvm::Value* on_true = pop();
      push(b_.CreateSelect(condition, on_true, on_false));
      return;
    }
    case ExprType::Const: {
      const wabt::Const& value = cast<wabt::ConstExpr>(&expr)->const_;
      switch (value.type()) {
        case wabt::Type::I32: push(b_.getInt32(value.u32())); return;
        case wabt::Type::I64: push(b_.getInt64(value.u64())); return;
        case wabt::Type::F32:
          push(llvm::ConstantFP::get(g_.context_,
                                     llvm::APFloat(llvm::APFloat::IEEEsingle(), llvm::APInt(32, value.f32_bits()))));
          return;
        case wabt::Type::F64:
          push(llvm::ConstantFP::get(g_.context_,
                                     llvm::APFloat(llvm::APFloat::IEEEdouble(), llvm::APInt(64, value.f64_bits()))));
          return;
        default: {
          const uint64_t words[] = {value.vec128().u64(0), value.vec128().u64(1)};
          push(llvm::ConstantDataVector::get(g_.context_, words));
          return;
        }
      }
    }

    case ExprType::Unary: numeric(cast<wabt::UnaryExpr>(&expr)->opcode); return;
    case ExprType::Binary: numeric(cast<wabt::BinaryExpr>(&expr)->opcode); return;
    case ExprType::Compare: numeric(cast<wabt::CompareExpr>(&expr)->opcode); return;
    case ExprType::Convert: numeric(cast<wabt::ConvertExpr>(&expr)->opcode); return;
    case ExprType::Ternary: numeric(cast<wabt::TernaryExpr>(&expr)->opcode); return;
    case ExprType::SimdLaneOp: simd_lane(*cast<wabt::SimdLaneOpExpr>(&expr)); return;
    case ExprType::SimdShuffleOp: {
      const auto* e = cast<wabt::SimdShuffleOpExpr>(&expr);
      llvm::Type* bytes = llvm::FixedVectorType::get(g_.i8_, 16);
      llvm::Value* b = pop_as(bytes);
      llvm::Value* a = pop_as(bytes);
      std::vector<int> lanes;
      for (int i = 0; i < 16; ++i) lanes.push_back(e->val.u8(i));
      push_vector(b_.CreateShuffleVector(a, b, lanes));
      return;
    }
    case ExprType::SimdLoadLane: {
      const auto* e = cast<wabt::SimdLoadLaneExpr>(&expr);
      llvm::Type* element = b_.getIntNTy(8 * e->opcode.GetMemorySize());
      llvm::Value* vector = pop_as(llvm::FixedVectorType::get(element, 16 / e->opcode.GetMemorySize()));
      push_vector(b_.CreateInsertElement(vector, load(element, e->offset, e->memidx.index()), e->val));
      return;
    }
    case ExprType::SimdStoreLane: {
      const auto* e = cast<wabt::SimdStoreLaneExpr>(&expr);
      llvm::Type* element = b_.getIntNTy(8 * e->opcode.GetMemorySize());
      llvm::Value* vector = pop_as(llvm::FixedVectorType::get(element, 16 / e->opcode.GetMemorySize()));
      llvm::Value* lane = b_.CreateExtractElement(vector, e->val);
      store(lane, pop(), e->offset, e->memidx.index());
      return;
    }
    case ExprType::LoadSplat: {
      const auto* e = cast<wabt::LoadSplatExpr>(&expr);
      simd_load(e->opcode, e->offset, e->memidx.index());
      return;
    }
    case ExprType::LoadZero: {
      const auto* e = cast<wabt::LoadZeroExpr>(&expr);
      simd_load(e->opcode, e->offset, e->memidx.index());
      return;
    }

    case ExprType::Load: {
      const auto* e = cast<wabt::LoadExpr>(&expr);
      const std::string_view name = e->opcode.GetName();
      if (name.starts_with("v128.load") && name != "v128.load") {
        simd_load(e->opcode, e->offset, e->memidx.index());
        return;
      }
      llvm::Type* result = g_.type_of(value_type(e->opcode.GetResultType()));
      const unsigned bits = 8 * e->opcode.GetMemorySize();
      if (bits == result->getPrimitiveSizeInBits()) {
        push(load(result, e->offset, e->memidx.index()));
        return;
      }
      llvm::Value* narrow = load(b_.getIntNTy(bits), e->offset, e->memidx.index());
      push(name.ends_with("_s") ? b_.CreateSExt(narrow, result) : b_.CreateZExt(narrow, result));
      return;
    }
    case ExprType::Store: {
      const auto* e = cast<wabt::StoreExpr>(&expr);
      llvm::Value* value = pop();
      const unsigned bits = 8 * e->opcode.GetMemorySize();
      if (bits < value->getType()->getPrimitiveSizeInBits()) value = b_.CreateTrunc(value, b_.getIntNTy(bits));
      store(value, pop(), e->offset, e->memidx.index());
      return;
    }
    case ExprType::MemorySize: {
      const uint32_t memory = cast<wabt::MemorySizeExpr>(&expr)->memidx.index();
      llvm::Value* pages = b_.CreateLShr(memory_size(memory), 16);
      push(info_.memories[memory].is_64 ? pages : b_.CreateTrunc(pages, g_.i32_));
      return;
    }
    case ExprType::MemoryGrow: {
      const uint32_t memory = cast<wabt::MemoryGrowExpr>(&expr)->memidx.index();
      builtin(Builtin::kMemoryGrow, {number(memory), pop()});
      push(g_.load_cell(info_.memories[memory].is_64 ? ValueType::kI64 : ValueType::kI32, 0));
      return;
    }
    case ExprType::MemoryCopy: {
      const auto* e = cast<wabt::MemoryCopyExpr>(&expr);
      llvm::Value* count = pop();
      llvm::Value* from = pop();
      // The first index in the module is the destination; this libwabt, older than that decision, calls it the source.
      builtin(Builtin::kMemoryCopy, {number(e->srcmemidx.index()), number(e->destmemidx.index()), pop(), from, count});
      return;
    }
    case ExprType::MemoryFill: {
      llvm::Value* count = pop();
      llvm::Value* value = pop();
      builtin(Builtin::kMemoryFill, {number(cast<wabt::MemoryFillExpr>(&expr)->memidx.index()), pop(), value, count});
      return;
    }
    case ExprType::MemoryInit: {
      const auto* e = cast<wabt::MemoryInitExpr>(&expr);
      llvm::Value* count = pop();
      llvm::Value* from = pop();
      builtin(Builtin::kMemoryInit, {number(e->var.index()), number(e->memidx.index()), pop(), from, count});
      return;
    }
    case ExprType::DataDrop:
      b_.CreateStore(b_.getInt8(1),
                     g_.at(g_.layout_.data_dropped + int64_t{cast<wabt::DataDropExpr>(&expr)->var.index()}));
      return;
    case ExprType::ElemDrop:
      b_.CreateStore(b_.getInt8(1),
                     g_.at(g_.layout_.elements_dropped + int64_t{cast<wabt::ElemDropExpr>(&expr)->var.index()}));
      return;

    case ExprType::RefNull: push(number(0)); return;
    case ExprType::RefIsNull: push(b_.CreateZExt(b_.CreateICmpEQ(pop(), number(0)), g_.i32_)); return;
    case ExprType::RefFunc: {
      llvm::Constant* descriptors = g_.module_->getOrInsertGlobal(kDescriptorsSymbol, g_.i8_);
      auto* global = llvm::cast<llvm::GlobalVariable>(descriptors);
      global->setVisibility(llvm::GlobalValue::HiddenVisibility);
      global->setDSOLocal(true);
      const uint64_t offset = sizeof(wasm::FunctionDescriptor) * uint64_t{cast<wabt::RefFuncExpr>(&expr)->var.index()};
      llvm::Value* pointer = b_.CreateConstGEP1_64(g_.i8_, global, offset);
      push(b_.CreateSub(b_.CreatePtrToInt(pointer, g_.i64_), number(wasm::kArenaBase)));
      return;
    }
    case ExprType::TableGet: {
      llvm::Value* entry =
          table_entry(cast<wabt::TableGetExpr>(&expr)->var.index(), extended(pop()), TrapKind::kTableOutOfBounds);
      push(g_.load_own(g_.i64_, b_.CreateConstGEP1_64(g_.i8_, entry, 24), g_.tag_table_));
      return;
    }
    case ExprType::TableSet: {
      llvm::Value* value = pop();
      builtin(Builtin::kTableSet, {number(cast<wabt::TableSetExpr>(&expr)->var.index()), pop(), value});
      return;
    }
    case ExprType::TableSize:
      push(b_.CreateTrunc(table_size(cast<wabt::TableSizeExpr>(&expr)->var.index()), g_.i32_));
      return;
    case ExprType::TableGrow: {
      llvm::Value* delta = pop();
      builtin(Builtin::kTableGrow, {number(cast<wabt::TableGrowExpr>(&expr)->var.index()), pop(), delta});
      push(g_.load_cell(ValueType::kI32, 0));
      return;
    }
    case ExprType::TableFill: {
      llvm::Value* count = pop();
      llvm::Value* value = pop();
      builtin(Builtin::kTableFill, {number(cast<wabt::TableFillExpr>(&expr)->var.index()), pop(), value, count});
      return;
    }
    case ExprType::TableCopy: {
      const auto* e = cast<wabt::TableCopyExpr>(&expr);
      llvm::Value* count = pop();
      llvm::Value* from = pop();
      builtin(Builtin::kTableCopy, {number(e->dst_table.index()), number(e->src_table.index()), pop(), from, count});
      return;
    }
    case ExprType::TableInit: {
      const auto* e = cast<wabt::TableInitExpr>(&expr);
      llvm::Value* count = pop();
      llvm::Value* from = pop();
      builtin(Builtin::kTableInit,
              {number(e->segment_index.index()), number(e->table_index.index()), pop(), from, count});
      return;
    }

    case ExprType::AtomicLoad:
    case ExprType::AtomicStore:
    case ExprType::AtomicRmw:
    case ExprType::AtomicRmwCmpxchg:
    case ExprType::AtomicWait:
    case ExprType::AtomicNotify:
    case ExprType::AtomicFence: atomic(expr); return;

    case ExprType::Try: try_catch(*cast<wabt::TryExpr>(&expr)); return;
    case ExprType::Throw: {
      const uint32_t tag = cast<wabt::ThrowExpr>(&expr)->var.index();
      std::vector<llvm::Value*> payload(info_.types[info_.tags[tag]].params.size());
      for (size_t i = payload.size(); i-- > 0;) payload[i] = pop();
      throw_values(g_.load_own(g_.i64_, g_.at(g_.layout_.tags + 8 * int64_t{tag}), g_.tag_header_), payload);
      return;
    }
    case ExprType::Rethrow: {
      const Label& label = labels_[labels_.size() - 1 - cast<wabt::RethrowExpr>(&expr)->var.index()];
      throw_values(label.caught_tag, label.caught_payload);
      return;
    }

    case ExprType::CallRef: break;
  }
  CHECK(false, "an expression that decode() should have refused", wabt::GetExprTypeName(expr));
}

}  // namespace spore::compiler

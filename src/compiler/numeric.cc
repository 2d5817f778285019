// Scalar arithmetic. Vector opcodes are passed on to simd.cc.
#include <llvm/IR/IntrinsicInst.h>

#include "base/check.h"
#include "compiler/function_generator.h"

namespace spore::compiler {

using llvm::CmpInst;
using llvm::Intrinsic::ID;
using wabt::Opcode;
using wasm::TrapKind;

namespace {

// Whether any lane of a constant could make an operation an identity that LLVM folds away: +-1.0 or +-0.0.
bool may_fold_away(const llvm::Constant* constant) {
  auto lane = [](const llvm::Constant* c) {
    const auto* number = llvm::dyn_cast_or_null<llvm::ConstantFP>(c);
    return !number || number->isZero() || number->isExactlyValue(1.0) || number->isExactlyValue(-1.0);
  };
  if (const auto* type = llvm::dyn_cast<llvm::FixedVectorType>(constant->getType())) {
    for (unsigned i = 0; i < type->getNumElements(); ++i)
      if (lane(constant->getAggregateElement(i))) return true;
    return false;
  }
  return lane(constant);
}

}  // namespace

// An operand of float arithmetic. LLVM takes x * 1.0 for x, which would let a signalling NaN through unquieted.
llvm::Value* FunctionGenerator::quiet_operand(llvm::Value* value) {
  auto* constant = llvm::dyn_cast<llvm::Constant>(value);
  return constant && may_fold_away(constant) ? g_.hidden(constant) : value;
}

llvm::Value* FunctionGenerator::float_binary(Opcode opcode, llvm::Value* a, llvm::Value* b) {
  a = quiet_operand(a);
  b = quiet_operand(b);
  switch (opcode) {
    case Opcode::F32Add:
    case Opcode::F64Add:
    case Opcode::F32X4Add:
    case Opcode::F64X2Add: return b_.CreateFAdd(a, b);
    case Opcode::F32Sub:
    case Opcode::F64Sub:
    case Opcode::F32X4Sub:
    case Opcode::F64X2Sub: return b_.CreateFSub(a, b);
    case Opcode::F32Mul:
    case Opcode::F64Mul:
    case Opcode::F32X4Mul:
    case Opcode::F64X2Mul: return b_.CreateFMul(a, b);
    default: return b_.CreateFDiv(a, b);
  }
}

// llvm.minimum has the right order of zeros and the right answer for NaN, but hands a signalling NaN on as it is;
// adding -0.0 changes no number and quiets it.
llvm::Value* FunctionGenerator::float_min_max(bool is_max, llvm::Value* a, llvm::Value* b) {
  llvm::Value* result = b_.CreateBinaryIntrinsic(is_max ? llvm::Intrinsic::maximum : llvm::Intrinsic::minimum, a, b);
  return b_.CreateFAdd(result, g_.hidden(llvm::ConstantFP::getNegativeZero(result->getType())));
}

// LLVM takes demote(promote(x)) for x, also through operations on the sign.
llvm::Value* FunctionGenerator::demote(llvm::Value* value, llvm::Type* to) {
  llvm::Value* source = value;
  for (int depth = 0; depth < 8; ++depth) {
    if (auto* unary = llvm::dyn_cast<llvm::UnaryOperator>(source)) {
      source = unary->getOperand(0);
    } else if (auto* intrinsic = llvm::dyn_cast<llvm::IntrinsicInst>(source);
               intrinsic && (intrinsic->getIntrinsicID() == llvm::Intrinsic::fabs ||
                             intrinsic->getIntrinsicID() == llvm::Intrinsic::copysign)) {
      source = intrinsic->getArgOperand(0);
    } else if (auto* bits = llvm::dyn_cast<llvm::BitCastInst>(source)) {
      source = bits->getOperand(0);
    } else {
      break;
    }
  }
  if (llvm::isa<llvm::FPExtInst>(source))
    value = b_.CreateFMul(value, g_.hidden(llvm::ConstantFP::get(value->getType(), 1.0)));
  return b_.CreateFPTrunc(value, to);
}

void FunctionGenerator::truncate_or_trap(llvm::Type* to, bool is_signed) {
  llvm::Value* value = pop();
  const bool from_double = value->getType()->isDoubleTy();
  const bool to_64 = to->getIntegerBitWidth() == 64;
  auto constant = [&](double x) { return llvm::ConstantFP::get(value->getType(), x); };
  const double above = is_signed ? (to_64 ? 0x1p63 : 0x1p31) : (to_64 ? 0x1p64 : 0x1p32);
  llvm::Value* not_too_low;
  if (!is_signed) {
    not_too_low = b_.CreateFCmpOGT(value, constant(-1.0));
  } else if (!to_64 && from_double) {
    not_too_low = b_.CreateFCmpOGT(value, constant(-0x1p31 - 1));
  } else {
    not_too_low = b_.CreateFCmpOGE(value, constant(to_64 ? -0x1p63 : -0x1p31));
  }
  llvm::Value* fits = b_.CreateAnd(not_too_low, b_.CreateFCmpOLT(value, constant(above)));
  llvm::BasicBlock* next = new_block();
  llvm::BasicBlock* wrong = new_block();
  b_.CreateCondBr(fits, next, wrong, llvm::MDBuilder(g_.context_).createBranchWeights(1 << 20, 1));
  go_to(wrong);
  b_.CreateCondBr(b_.CreateFCmpUNO(value, value), trap_block(TrapKind::kInvalidConversion),
                  trap_block(TrapKind::kIntegerOverflow));
  go_to(next);
  push(is_signed ? b_.CreateFPToSI(value, to) : b_.CreateFPToUI(value, to));
}

void FunctionGenerator::numeric(Opcode opcode) {
  if (simd(opcode)) return;
  auto unary = [&](ID id) { push(b_.CreateUnaryIntrinsic(id, pop())); };
  auto counting = [&](ID id) {
    llvm::Value* a = pop();
    push(b_.CreateIntrinsic(id, {a->getType()}, {a, b_.getFalse()}));
  };
  auto compare = [&](CmpInst::Predicate predicate) {
    llvm::Value* b = pop();
    llvm::Value* a = pop();
    push(b_.CreateZExt(b_.CreateCmp(predicate, a, b), g_.i32_));
  };
  auto binary = [&](auto&& make) {
    llvm::Value* b = pop();
    llvm::Value* a = pop();
    push(make(a, b));
  };
  auto shift = [&](llvm::Instruction::BinaryOps op) {
    binary([&](llvm::Value* a, llvm::Value* b) {
      const uint64_t mask = a->getType()->getIntegerBitWidth() - 1;
      return b_.CreateBinOp(op, a, b_.CreateAnd(b, llvm::ConstantInt::get(b->getType(), mask)));
    });
  };
  auto rotate = [&](ID id) {
    binary([&](llvm::Value* a, llvm::Value* b) { return b_.CreateIntrinsic(id, {a->getType()}, {a, a, b}); });
  };
  auto divide = [&](bool is_signed, bool remainder) {
    llvm::Value* b = pop();
    llvm::Value* a = pop();
    llvm::Type* type = a->getType();
    trap_if(b_.CreateICmpEQ(b, llvm::ConstantInt::get(type, 0)), TrapKind::kIntegerDivideByZero);
    if (!is_signed) {
      push(remainder ? b_.CreateURem(a, b) : b_.CreateUDiv(a, b));
      return;
    }
    llvm::Value* minus_one = b_.CreateICmpEQ(b, llvm::ConstantInt::getSigned(type, -1));
    if (remainder) {  // x rem -1 is 0, also for the smallest x, where the CPU's instruction faults
      push(b_.CreateSRem(a, b_.CreateSelect(minus_one, llvm::ConstantInt::get(type, 1), b)));
      return;
    }
    const auto smallest = llvm::APInt::getSignedMinValue(type->getIntegerBitWidth());
    trap_if(b_.CreateAnd(minus_one, b_.CreateICmpEQ(a, llvm::ConstantInt::get(type, smallest))),
            TrapKind::kIntegerOverflow);
    push(b_.CreateSDiv(a, b));
  };
  auto extend = [&](llvm::Type* from) {
    llvm::Value* a = pop();
    push(b_.CreateSExt(b_.CreateTrunc(a, from), a->getType()));
  };
  auto saturate = [&](llvm::Type* to, ID id) {
    llvm::Value* a = pop();
    push(b_.CreateIntrinsic(id, {to, a->getType()}, {a}));
  };
  using P = CmpInst::Predicate;
  switch (opcode) {
    case Opcode::I32Eqz:
    case Opcode::I64Eqz: push(b_.CreateZExt(b_.CreateIsNull(pop()), g_.i32_)); return;
    case Opcode::I32Eq:
    case Opcode::I64Eq: return compare(P::ICMP_EQ);
    case Opcode::I32Ne:
    case Opcode::I64Ne: return compare(P::ICMP_NE);
    case Opcode::I32LtS:
    case Opcode::I64LtS: return compare(P::ICMP_SLT);
    case Opcode::I32LtU:
    case Opcode::I64LtU: return compare(P::ICMP_ULT);
    case Opcode::I32GtS:
    case Opcode::I64GtS: return compare(P::ICMP_SGT);
    case Opcode::I32GtU:
    case Opcode::I64GtU: return compare(P::ICMP_UGT);
    case Opcode::I32LeS:
    case Opcode::I64LeS: return compare(P::ICMP_SLE);
    case Opcode::I32LeU:
    case Opcode::I64LeU: return compare(P::ICMP_ULE);
    case Opcode::I32GeS:
    case Opcode::I64GeS: return compare(P::ICMP_SGE);
    case Opcode::I32GeU:
    case Opcode::I64GeU: return compare(P::ICMP_UGE);
    case Opcode::F32Eq:
    case Opcode::F64Eq: return compare(P::FCMP_OEQ);
    case Opcode::F32Ne:
    case Opcode::F64Ne: return compare(P::FCMP_UNE);
    case Opcode::F32Lt:
    case Opcode::F64Lt: return compare(P::FCMP_OLT);
    case Opcode::F32Gt:
    case Opcode::F64Gt: return compare(P::FCMP_OGT);
    case Opcode::F32Le:
    case Opcode::F64Le: return compare(P::FCMP_OLE);
    case Opcode::F32Ge:
    case Opcode::F64Ge: return compare(P::FCMP_OGE);

    case Opcode::I32Clz:
    case Opcode::I64Clz: return counting(llvm::Intrinsic::ctlz);
    case Opcode::I32Ctz:
    case Opcode::I64Ctz: return counting(llvm::Intrinsic::cttz);
    case Opcode::I32Popcnt:
    case Opcode::I64Popcnt: return unary(llvm::Intrinsic::ctpop);
    case Opcode::I32Add:
    case Opcode::I64Add: return binary([&](auto* a, auto* b) { return b_.CreateAdd(a, b); });
    case Opcode::I32Sub:
    case Opcode::I64Sub: return binary([&](auto* a, auto* b) { return b_.CreateSub(a, b); });
    case Opcode::I32Mul:
    case Opcode::I64Mul: return binary([&](auto* a, auto* b) { return b_.CreateMul(a, b); });
    case Opcode::I32DivS:
    case Opcode::I64DivS: return divide(true, false);
    case Opcode::I32DivU:
    case Opcode::I64DivU: return divide(false, false);
    case Opcode::I32RemS:
    case Opcode::I64RemS: return divide(true, true);
    case Opcode::I32RemU:
    case Opcode::I64RemU: return divide(false, true);
    case Opcode::I32And:
    case Opcode::I64And: return binary([&](auto* a, auto* b) { return b_.CreateAnd(a, b); });
    case Opcode::I32Or:
    case Opcode::I64Or: return binary([&](auto* a, auto* b) { return b_.CreateOr(a, b); });
    case Opcode::I32Xor:
    case Opcode::I64Xor: return binary([&](auto* a, auto* b) { return b_.CreateXor(a, b); });
    case Opcode::I32Shl:
    case Opcode::I64Shl: return shift(llvm::Instruction::Shl);
    case Opcode::I32ShrS:
    case Opcode::I64ShrS: return shift(llvm::Instruction::AShr);
    case Opcode::I32ShrU:
    case Opcode::I64ShrU: return shift(llvm::Instruction::LShr);
    case Opcode::I32Rotl:
    case Opcode::I64Rotl: return rotate(llvm::Intrinsic::fshl);
    case Opcode::I32Rotr:
    case Opcode::I64Rotr: return rotate(llvm::Intrinsic::fshr);

    case Opcode::F32Abs:
    case Opcode::F64Abs: return unary(llvm::Intrinsic::fabs);
    case Opcode::F32Neg:
    case Opcode::F64Neg: push(b_.CreateFNeg(pop())); return;
    case Opcode::F32Ceil:
    case Opcode::F64Ceil: return unary(llvm::Intrinsic::ceil);
    case Opcode::F32Floor:
    case Opcode::F64Floor: return unary(llvm::Intrinsic::floor);
    case Opcode::F32Trunc:
    case Opcode::F64Trunc: return unary(llvm::Intrinsic::trunc);
    case Opcode::F32Nearest:
    case Opcode::F64Nearest: return unary(llvm::Intrinsic::roundeven);
    case Opcode::F32Sqrt:
    case Opcode::F64Sqrt: return unary(llvm::Intrinsic::sqrt);
    case Opcode::F32Add:
    case Opcode::F64Add:
    case Opcode::F32Sub:
    case Opcode::F64Sub:
    case Opcode::F32Mul:
    case Opcode::F64Mul:
    case Opcode::F32Div:
    case Opcode::F64Div: return binary([&](auto* a, auto* b) { return float_binary(opcode, a, b); });
    case Opcode::F32Min:
    case Opcode::F64Min: return binary([&](auto* a, auto* b) { return float_min_max(false, a, b); });
    case Opcode::F32Max:
    case Opcode::F64Max: return binary([&](auto* a, auto* b) { return float_min_max(true, a, b); });
    case Opcode::F32Copysign:
    case Opcode::F64Copysign:
      return binary([&](auto* a, auto* b) { return b_.CreateBinaryIntrinsic(llvm::Intrinsic::copysign, a, b); });

    case Opcode::I32WrapI64: push(b_.CreateTrunc(pop(), g_.i32_)); return;
    case Opcode::I64ExtendI32S: push(b_.CreateSExt(pop(), g_.i64_)); return;
    case Opcode::I64ExtendI32U: push(b_.CreateZExt(pop(), g_.i64_)); return;
    case Opcode::I32Extend8S:
    case Opcode::I64Extend8S: return extend(g_.i8_);
    case Opcode::I32Extend16S:
    case Opcode::I64Extend16S: return extend(g_.i16_);
    case Opcode::I64Extend32S: return extend(g_.i32_);
    case Opcode::I32TruncF32S:
    case Opcode::I32TruncF64S: return truncate_or_trap(g_.i32_, true);
    case Opcode::I32TruncF32U:
    case Opcode::I32TruncF64U: return truncate_or_trap(g_.i32_, false);
    case Opcode::I64TruncF32S:
    case Opcode::I64TruncF64S: return truncate_or_trap(g_.i64_, true);
    case Opcode::I64TruncF32U:
    case Opcode::I64TruncF64U: return truncate_or_trap(g_.i64_, false);
    case Opcode::I32TruncSatF32S:
    case Opcode::I32TruncSatF64S: return saturate(g_.i32_, llvm::Intrinsic::fptosi_sat);
    case Opcode::I32TruncSatF32U:
    case Opcode::I32TruncSatF64U: return saturate(g_.i32_, llvm::Intrinsic::fptoui_sat);
    case Opcode::I64TruncSatF32S:
    case Opcode::I64TruncSatF64S: return saturate(g_.i64_, llvm::Intrinsic::fptosi_sat);
    case Opcode::I64TruncSatF32U:
    case Opcode::I64TruncSatF64U: return saturate(g_.i64_, llvm::Intrinsic::fptoui_sat);
    case Opcode::F32ConvertI32S:
    case Opcode::F32ConvertI64S: push(b_.CreateSIToFP(pop(), g_.f32_)); return;
    case Opcode::F32ConvertI32U:
    case Opcode::F32ConvertI64U: push(b_.CreateUIToFP(pop(), g_.f32_)); return;
    case Opcode::F64ConvertI32S:
    case Opcode::F64ConvertI64S: push(b_.CreateSIToFP(pop(), g_.f64_)); return;
    case Opcode::F64ConvertI32U:
    case Opcode::F64ConvertI64U: push(b_.CreateUIToFP(pop(), g_.f64_)); return;
    case Opcode::F32DemoteF64: push(demote(pop(), g_.f32_)); return;
    case Opcode::F64PromoteF32: push(b_.CreateFPExt(pop(), g_.f64_)); return;
    case Opcode::I32ReinterpretF32: push(b_.CreateBitCast(pop(), g_.i32_)); return;
    case Opcode::I64ReinterpretF64: push(b_.CreateBitCast(pop(), g_.i64_)); return;
    case Opcode::F32ReinterpretI32: push(b_.CreateBitCast(pop(), g_.f32_)); return;
    case Opcode::F64ReinterpretI64: push(b_.CreateBitCast(pop(), g_.f64_)); return;
    default: CHECK(false, "opcode without code", opcode.GetName());
  }
}

}  // namespace spore::compiler

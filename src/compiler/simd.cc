// 128-bit vectors, the relaxed ones included (each relaxed operation takes one fixed meaning, the same on every CPU).
// On the value stack a vector is always <2 x i64>; operations view it in the shape they need.
#include <llvm/IR/IntrinsicsX86.h>

#include "compiler/function_generator.h"

namespace spore::compiler {

using llvm::CmpInst;
using llvm::Intrinsic::ID;
using wabt::Opcode;

llvm::Value* FunctionGenerator::pop_as(llvm::Type* vector) { return b_.CreateBitCast(pop(), vector); }
void FunctionGenerator::push_vector(llvm::Value* value) { push(b_.CreateBitCast(value, g_.v128_)); }

// The vector loads that are more than a load: widening, splat, zero-extended.
void FunctionGenerator::simd_load(Opcode opcode, uint64_t offset, uint32_t memory) {
  auto vector = [](llvm::Type* element, unsigned count) { return llvm::FixedVectorType::get(element, count); };
  auto widen = [&](llvm::Type* from, unsigned count, llvm::Type* to, bool is_signed) {
    llvm::Value* narrow = load(vector(from, count), offset, memory);
    llvm::Type* type = vector(to, count);
    push_vector(is_signed ? b_.CreateSExt(narrow, type) : b_.CreateZExt(narrow, type));
  };
  auto splat = [&](llvm::Type* element) {
    push_vector(b_.CreateVectorSplat(128 / element->getIntegerBitWidth(), load(element, offset, memory)));
  };
  auto zero = [&](llvm::Type* element) {
    llvm::Value* none = llvm::Constant::getNullValue(vector(element, 128 / element->getIntegerBitWidth()));
    push_vector(b_.CreateInsertElement(none, load(element, offset, memory), uint64_t{0}));
  };
  switch (opcode) {
    case Opcode::V128Load8X8S: return widen(g_.i8_, 8, g_.i16_, true);
    case Opcode::V128Load8X8U: return widen(g_.i8_, 8, g_.i16_, false);
    case Opcode::V128Load16X4S: return widen(g_.i16_, 4, g_.i32_, true);
    case Opcode::V128Load16X4U: return widen(g_.i16_, 4, g_.i32_, false);
    case Opcode::V128Load32X2S: return widen(g_.i32_, 2, g_.i64_, true);
    case Opcode::V128Load32X2U: return widen(g_.i32_, 2, g_.i64_, false);
    case Opcode::V128Load8Splat: return splat(g_.i8_);
    case Opcode::V128Load16Splat: return splat(g_.i16_);
    case Opcode::V128Load32Splat: return splat(g_.i32_);
    case Opcode::V128Load64Splat: return splat(g_.i64_);
    case Opcode::V128Load32Zero: return zero(g_.i32_);
    default: return zero(g_.i64_);
  }
}

void FunctionGenerator::simd_lane(const wabt::SimdLaneOpExpr& expr) {
  auto extract = [&](llvm::Type* element, unsigned count, int extend) {
    llvm::Value* lane = b_.CreateExtractElement(pop_as(llvm::FixedVectorType::get(element, count)), expr.val);
    if (extend) lane = extend > 0 ? b_.CreateSExt(lane, g_.i32_) : b_.CreateZExt(lane, g_.i32_);
    push(lane);
  };
  auto replace = [&](llvm::Type* element, unsigned count) {
    llvm::Value* lane = pop();
    if (lane->getType() != element) lane = b_.CreateTrunc(lane, element);
    llvm::Value* vector = pop_as(llvm::FixedVectorType::get(element, count));
    push_vector(b_.CreateInsertElement(vector, lane, expr.val));
  };
  switch (expr.opcode) {
    case Opcode::I8X16ExtractLaneS: return extract(g_.i8_, 16, 1);
    case Opcode::I8X16ExtractLaneU: return extract(g_.i8_, 16, -1);
    case Opcode::I16X8ExtractLaneS: return extract(g_.i16_, 8, 1);
    case Opcode::I16X8ExtractLaneU: return extract(g_.i16_, 8, -1);
    case Opcode::I32X4ExtractLane: return extract(g_.i32_, 4, 0);
    case Opcode::I64X2ExtractLane: return extract(g_.i64_, 2, 0);
    case Opcode::F32X4ExtractLane: return extract(g_.f32_, 4, 0);
    case Opcode::F64X2ExtractLane: return extract(g_.f64_, 2, 0);
    case Opcode::I8X16ReplaceLane: return replace(g_.i8_, 16);
    case Opcode::I16X8ReplaceLane: return replace(g_.i16_, 8);
    case Opcode::I32X4ReplaceLane: return replace(g_.i32_, 4);
    case Opcode::I64X2ReplaceLane: return replace(g_.i64_, 2);
    case Opcode::F32X4ReplaceLane: return replace(g_.f32_, 4);
    default: return replace(g_.f64_, 2);
  }
}

// False where the opcode is not a vector's.
bool FunctionGenerator::simd(Opcode opcode) {
  llvm::Type* const i8x16 = llvm::FixedVectorType::get(g_.i8_, 16);
  llvm::Type* const i16x8 = llvm::FixedVectorType::get(g_.i16_, 8);
  llvm::Type* const i32x4 = llvm::FixedVectorType::get(g_.i32_, 4);
  llvm::Type* const i64x2 = g_.v128_;
  llvm::Type* const f32x4 = llvm::FixedVectorType::get(g_.f32_, 4);
  llvm::Type* const f64x2 = llvm::FixedVectorType::get(g_.f64_, 2);

  auto unary = [&](llvm::Type* shape, auto&& make) {
    push_vector(make(pop_as(shape)));
    return true;
  };
  auto unary_intrinsic = [&](llvm::Type* shape, ID id) {
    return unary(shape, [&](llvm::Value* a) { return b_.CreateUnaryIntrinsic(id, a); });
  };
  auto binary = [&](llvm::Type* shape, auto&& make) {
    llvm::Value* b = pop_as(shape);
    llvm::Value* a = pop_as(shape);
    push_vector(make(a, b));
    return true;
  };
  auto operation = [&](llvm::Type* shape, llvm::Instruction::BinaryOps op) {
    return binary(shape, [&](llvm::Value* a, llvm::Value* b) { return b_.CreateBinOp(op, a, b); });
  };
  auto binary_intrinsic = [&](llvm::Type* shape, ID id) {
    return binary(shape, [&](llvm::Value* a, llvm::Value* b) { return b_.CreateBinaryIntrinsic(id, a, b); });
  };
  // An instruction of the CPU, whose operands have `shape`.
  auto machine = [&](llvm::Type* shape, ID id) {
    return binary(shape, [&](llvm::Value* a, llvm::Value* b) { return b_.CreateIntrinsic(id, {}, {a, b}); });
  };
  auto compare = [&](llvm::Type* shape, CmpInst::Predicate predicate) {
    return binary(shape, [&](llvm::Value* a, llvm::Value* b) {
      return b_.CreateSExt(b_.CreateCmp(predicate, a, b),
                           llvm::VectorType::getInteger(llvm::cast<llvm::VectorType>(shape)));
    });
  };
  auto shift = [&](llvm::Type* shape, llvm::Instruction::BinaryOps op) {
    llvm::Type* element = llvm::cast<llvm::VectorType>(shape)->getElementType();
    const unsigned bits = element->getIntegerBitWidth();
    llvm::Value* count = b_.CreateZExtOrTrunc(b_.CreateAnd(pop(), b_.getInt32(bits - 1)), element);
    return unary(shape, [&](llvm::Value* a) { return b_.CreateBinOp(op, a, b_.CreateVectorSplat(128 / bits, count)); });
  };
  auto splat = [&](llvm::Type* shape) {
    auto* type = llvm::cast<llvm::FixedVectorType>(shape);
    llvm::Value* value = pop();
    if (value->getType() != type->getElementType()) value = b_.CreateTrunc(value, type->getElementType());
    push_vector(b_.CreateVectorSplat(type->getNumElements(), value));
    return true;
  };
  auto all_true = [&](llvm::Type* shape) {
    llvm::Value* set = b_.CreateICmpNE(pop_as(shape), llvm::Constant::getNullValue(shape));
    push(b_.CreateZExt(b_.CreateAndReduce(set), g_.i32_));
    return true;
  };
  auto bitmask = [&](llvm::Type* shape) {
    llvm::Value* negative = b_.CreateICmpSLT(pop_as(shape), llvm::Constant::getNullValue(shape));
    const unsigned lanes = llvm::cast<llvm::FixedVectorType>(shape)->getNumElements();
    push(b_.CreateZExt(b_.CreateBitCast(negative, b_.getIntNTy(lanes)), g_.i32_));
    return true;
  };
  auto lanes = [&](llvm::Value* a, int first, int count, int step = 1) {
    std::vector<int> picked;
    for (int i = 0; i < count; ++i) picked.push_back(first + i * step);
    return b_.CreateShuffleVector(a, picked);
  };
  auto widened = [&](llvm::Value* a, llvm::Type* to, bool is_signed) {
    llvm::Type* type = llvm::FixedVectorType::get(llvm::cast<llvm::VectorType>(to)->getElementType(),
                                                  llvm::cast<llvm::FixedVectorType>(a->getType())->getNumElements());
    return is_signed ? b_.CreateSExt(a, type) : b_.CreateZExt(a, type);
  };
  auto half = [&](llvm::Value* a, bool high, llvm::Type* to, bool is_signed) {
    const int count = static_cast<int>(llvm::cast<llvm::FixedVectorType>(to)->getNumElements());
    return widened(lanes(a, high ? count : 0, count), to, is_signed);
  };
  auto extend = [&](llvm::Type* from, llvm::Type* to, bool high, bool is_signed) {
    return unary(from, [&](llvm::Value* a) { return half(a, high, to, is_signed); });
  };
  auto multiply_wide = [&](llvm::Type* from, llvm::Type* to, bool high, bool is_signed) {
    return binary(from, [&](llvm::Value* a, llvm::Value* b) {
      return b_.CreateMul(half(a, high, to, is_signed), half(b, high, to, is_signed));
    });
  };
  auto pairwise = [&](llvm::Value* a, llvm::Type* to, bool is_signed) {
    const int count = static_cast<int>(llvm::cast<llvm::FixedVectorType>(to)->getNumElements());
    return b_.CreateAdd(widened(lanes(a, 0, count, 2), to, is_signed), widened(lanes(a, 1, count, 2), to, is_signed));
  };
  auto average = [&](llvm::Type* shape) {
    return binary(shape, [&](llvm::Value* a, llvm::Value* b) {
      llvm::Type* wide = llvm::VectorType::getExtendedElementVectorType(llvm::cast<llvm::VectorType>(shape));
      llvm::Value* sum = b_.CreateAdd(b_.CreateZExt(a, wide), b_.CreateZExt(b, wide));
      sum = b_.CreateAdd(sum, llvm::ConstantInt::get(wide, 1));
      return b_.CreateTrunc(b_.CreateLShr(sum, llvm::ConstantInt::get(wide, 1)), shape);
    });
  };
  auto arithmetic = [&](llvm::Type* shape) {
    return binary(shape, [&](llvm::Value* a, llvm::Value* b) { return float_binary(opcode, a, b); });
  };
  auto min_max = [&](llvm::Type* shape, bool is_max) {
    return binary(shape, [&](llvm::Value* a, llvm::Value* b) { return float_min_max(is_max, a, b); });
  };
  auto pseudo_min_max = [&](llvm::Type* shape, bool is_max) {
    return binary(shape, [&](llvm::Value* a, llvm::Value* b) {
      return b_.CreateSelect(is_max ? b_.CreateFCmpOLT(a, b) : b_.CreateFCmpOLT(b, a), b, a);
    });
  };
  auto multiply_add = [&](llvm::Type* shape, bool negate) {
    llvm::Value* c = pop_as(shape);
    llvm::Value* b = pop_as(shape);
    llvm::Value* a = pop_as(shape);
    llvm::Value* product = b_.CreateFMul(quiet_operand(a), quiet_operand(b));
    c = quiet_operand(c);
    push_vector(negate ? b_.CreateFSub(c, product) : b_.CreateFAdd(product, c));
    return true;
  };
  auto with_zeros = [&](llvm::Value* low) {  // a vector of two lanes becomes one of four
    return b_.CreateShuffleVector(low, llvm::Constant::getNullValue(low->getType()), {0, 1, 2, 3});
  };
  auto truncate = [&](llvm::Type* from, bool is_signed) {
    llvm::Value* a = pop_as(from);
    llvm::Type* to = from == f32x4 ? i32x4 : llvm::FixedVectorType::get(g_.i32_, 2);
    llvm::Value* value =
        b_.CreateIntrinsic(is_signed ? llvm::Intrinsic::fptosi_sat : llvm::Intrinsic::fptoui_sat, {to, from}, {a});
    push_vector(from == f32x4 ? value : with_zeros(value));
    return true;
  };
  auto select_bits = [&] {
    llvm::Value* mask = pop();
    llvm::Value* b = pop();
    llvm::Value* a = pop();
    push(b_.CreateOr(b_.CreateAnd(a, mask), b_.CreateAnd(b, b_.CreateNot(mask))));
    return true;
  };
  auto q15_multiply = [&] {
    return binary(i16x8, [&](llvm::Value* a, llvm::Value* b) {
      // pmulhrsw overflows in one case, -1 * -1, to -1: that lane becomes the largest value.
      llvm::Value* product = b_.CreateIntrinsic(llvm::Intrinsic::x86_ssse3_pmul_hr_sw_128, {}, {a, b});
      llvm::Value* over = b_.CreateICmpEQ(product, llvm::ConstantInt::get(i16x8, 0x8000));
      return b_.CreateXor(product, b_.CreateSExt(over, i16x8));
    });
  };
  using P = CmpInst::Predicate;
  using I = llvm::Instruction;
  namespace In = llvm::Intrinsic;
  switch (opcode) {
    case Opcode::V128Not: push(b_.CreateNot(pop())); return true;
    case Opcode::V128And: return operation(i64x2, I::And);
    case Opcode::V128Or: return operation(i64x2, I::Or);
    case Opcode::V128Xor: return operation(i64x2, I::Xor);
    case Opcode::V128Andnot:
      return binary(i64x2, [&](llvm::Value* a, llvm::Value* b) { return b_.CreateAnd(a, b_.CreateNot(b)); });
    case Opcode::V128BitSelect:
    case Opcode::I8X16RelaxedLaneSelect:
    case Opcode::I16X8RelaxedLaneSelect:
    case Opcode::I32X4RelaxedLaneSelect:
    case Opcode::I64X2RelaxedLaneSelect: return select_bits();
    case Opcode::V128AnyTrue: {
      llvm::Value* bits = b_.CreateBitCast(pop(), b_.getIntNTy(128));
      push(b_.CreateZExt(b_.CreateIsNotNull(bits), g_.i32_));
      return true;
    }

    case Opcode::I8X16Swizzle:
    case Opcode::I8X16RelaxedSwizzle:
      return binary(i8x16, [&](llvm::Value* a, llvm::Value* b) {
        // pshufb gives zero where the top bit is set; the saturating addition sets it for every index from 16 on.
        b = b_.CreateBinaryIntrinsic(In::uadd_sat, b, llvm::ConstantInt::get(i8x16, 0x70));
        return b_.CreateIntrinsic(In::x86_ssse3_pshuf_b_128, {}, {a, b});
      });
    case Opcode::I8X16Splat: return splat(i8x16);
    case Opcode::I16X8Splat: return splat(i16x8);
    case Opcode::I32X4Splat: return splat(i32x4);
    case Opcode::I64X2Splat: return splat(i64x2);
    case Opcode::F32X4Splat: return splat(f32x4);
    case Opcode::F64X2Splat: return splat(f64x2);

    case Opcode::I8X16Eq: return compare(i8x16, P::ICMP_EQ);
    case Opcode::I8X16Ne: return compare(i8x16, P::ICMP_NE);
    case Opcode::I8X16LtS: return compare(i8x16, P::ICMP_SLT);
    case Opcode::I8X16LtU: return compare(i8x16, P::ICMP_ULT);
    case Opcode::I8X16GtS: return compare(i8x16, P::ICMP_SGT);
    case Opcode::I8X16GtU: return compare(i8x16, P::ICMP_UGT);
    case Opcode::I8X16LeS: return compare(i8x16, P::ICMP_SLE);
    case Opcode::I8X16LeU: return compare(i8x16, P::ICMP_ULE);
    case Opcode::I8X16GeS: return compare(i8x16, P::ICMP_SGE);
    case Opcode::I8X16GeU: return compare(i8x16, P::ICMP_UGE);
    case Opcode::I16X8Eq: return compare(i16x8, P::ICMP_EQ);
    case Opcode::I16X8Ne: return compare(i16x8, P::ICMP_NE);
    case Opcode::I16X8LtS: return compare(i16x8, P::ICMP_SLT);
    case Opcode::I16X8LtU: return compare(i16x8, P::ICMP_ULT);
    case Opcode::I16X8GtS: return compare(i16x8, P::ICMP_SGT);
    case Opcode::I16X8GtU: return compare(i16x8, P::ICMP_UGT);
    case Opcode::I16X8LeS: return compare(i16x8, P::ICMP_SLE);
    case Opcode::I16X8LeU: return compare(i16x8, P::ICMP_ULE);
    case Opcode::I16X8GeS: return compare(i16x8, P::ICMP_SGE);
    case Opcode::I16X8GeU: return compare(i16x8, P::ICMP_UGE);
    case Opcode::I32X4Eq: return compare(i32x4, P::ICMP_EQ);
    case Opcode::I32X4Ne: return compare(i32x4, P::ICMP_NE);
    case Opcode::I32X4LtS: return compare(i32x4, P::ICMP_SLT);
    case Opcode::I32X4LtU: return compare(i32x4, P::ICMP_ULT);
    case Opcode::I32X4GtS: return compare(i32x4, P::ICMP_SGT);
    case Opcode::I32X4GtU: return compare(i32x4, P::ICMP_UGT);
    case Opcode::I32X4LeS: return compare(i32x4, P::ICMP_SLE);
    case Opcode::I32X4LeU: return compare(i32x4, P::ICMP_ULE);
    case Opcode::I32X4GeS: return compare(i32x4, P::ICMP_SGE);
    case Opcode::I32X4GeU: return compare(i32x4, P::ICMP_UGE);
    case Opcode::I64X2Eq: return compare(i64x2, P::ICMP_EQ);
    case Opcode::I64X2Ne: return compare(i64x2, P::ICMP_NE);
    case Opcode::I64X2LtS: return compare(i64x2, P::ICMP_SLT);
    case Opcode::I64X2GtS: return compare(i64x2, P::ICMP_SGT);
    case Opcode::I64X2LeS: return compare(i64x2, P::ICMP_SLE);
    case Opcode::I64X2GeS: return compare(i64x2, P::ICMP_SGE);
    case Opcode::F32X4Eq: return compare(f32x4, P::FCMP_OEQ);
    case Opcode::F32X4Ne: return compare(f32x4, P::FCMP_UNE);
    case Opcode::F32X4Lt: return compare(f32x4, P::FCMP_OLT);
    case Opcode::F32X4Gt: return compare(f32x4, P::FCMP_OGT);
    case Opcode::F32X4Le: return compare(f32x4, P::FCMP_OLE);
    case Opcode::F32X4Ge: return compare(f32x4, P::FCMP_OGE);
    case Opcode::F64X2Eq: return compare(f64x2, P::FCMP_OEQ);
    case Opcode::F64X2Ne: return compare(f64x2, P::FCMP_UNE);
    case Opcode::F64X2Lt: return compare(f64x2, P::FCMP_OLT);
    case Opcode::F64X2Gt: return compare(f64x2, P::FCMP_OGT);
    case Opcode::F64X2Le: return compare(f64x2, P::FCMP_OLE);
    case Opcode::F64X2Ge: return compare(f64x2, P::FCMP_OGE);

    case Opcode::I8X16Abs:
    case Opcode::I16X8Abs:
    case Opcode::I32X4Abs:
    case Opcode::I64X2Abs: {
      llvm::Type* shape = opcode == Opcode::I8X16Abs   ? i8x16
                          : opcode == Opcode::I16X8Abs ? i16x8
                          : opcode == Opcode::I32X4Abs ? i32x4
                                                       : i64x2;
      return unary(shape, [&](llvm::Value* a) { return b_.CreateBinaryIntrinsic(In::abs, a, b_.getFalse()); });
    }
    case Opcode::I8X16Neg: return unary(i8x16, [&](llvm::Value* a) { return b_.CreateNeg(a); });
    case Opcode::I16X8Neg: return unary(i16x8, [&](llvm::Value* a) { return b_.CreateNeg(a); });
    case Opcode::I32X4Neg: return unary(i32x4, [&](llvm::Value* a) { return b_.CreateNeg(a); });
    case Opcode::I64X2Neg: return unary(i64x2, [&](llvm::Value* a) { return b_.CreateNeg(a); });
    case Opcode::I8X16Popcnt: return unary_intrinsic(i8x16, In::ctpop);
    case Opcode::I8X16AllTrue: return all_true(i8x16);
    case Opcode::I16X8AllTrue: return all_true(i16x8);
    case Opcode::I32X4AllTrue: return all_true(i32x4);
    case Opcode::I64X2AllTrue: return all_true(i64x2);
    case Opcode::I8X16Bitmask: return bitmask(i8x16);
    case Opcode::I16X8Bitmask: return bitmask(i16x8);
    case Opcode::I32X4Bitmask: return bitmask(i32x4);
    case Opcode::I64X2Bitmask: return bitmask(i64x2);
    case Opcode::I8X16NarrowI16X8S: return machine(i16x8, In::x86_sse2_packsswb_128);
    case Opcode::I8X16NarrowI16X8U: return machine(i16x8, In::x86_sse2_packuswb_128);
    case Opcode::I16X8NarrowI32X4S: return machine(i32x4, In::x86_sse2_packssdw_128);
    case Opcode::I16X8NarrowI32X4U: return machine(i32x4, In::x86_sse41_packusdw);

    case Opcode::I8X16Shl: return shift(i8x16, I::Shl);
    case Opcode::I8X16ShrS: return shift(i8x16, I::AShr);
    case Opcode::I8X16ShrU: return shift(i8x16, I::LShr);
    case Opcode::I16X8Shl: return shift(i16x8, I::Shl);
    case Opcode::I16X8ShrS: return shift(i16x8, I::AShr);
    case Opcode::I16X8ShrU: return shift(i16x8, I::LShr);
    case Opcode::I32X4Shl: return shift(i32x4, I::Shl);
    case Opcode::I32X4ShrS: return shift(i32x4, I::AShr);
    case Opcode::I32X4ShrU: return shift(i32x4, I::LShr);
    case Opcode::I64X2Shl: return shift(i64x2, I::Shl);
    case Opcode::I64X2ShrS: return shift(i64x2, I::AShr);
    case Opcode::I64X2ShrU: return shift(i64x2, I::LShr);

    case Opcode::I8X16Add: return operation(i8x16, I::Add);
    case Opcode::I8X16Sub: return operation(i8x16, I::Sub);
    case Opcode::I16X8Add: return operation(i16x8, I::Add);
    case Opcode::I16X8Sub: return operation(i16x8, I::Sub);
    case Opcode::I16X8Mul: return operation(i16x8, I::Mul);
    case Opcode::I32X4Add: return operation(i32x4, I::Add);
    case Opcode::I32X4Sub: return operation(i32x4, I::Sub);
    case Opcode::I32X4Mul: return operation(i32x4, I::Mul);
    case Opcode::I64X2Add: return operation(i64x2, I::Add);
    case Opcode::I64X2Sub: return operation(i64x2, I::Sub);
    case Opcode::I64X2Mul: return operation(i64x2, I::Mul);
    case Opcode::I8X16AddSatS: return binary_intrinsic(i8x16, In::sadd_sat);
    case Opcode::I8X16AddSatU: return binary_intrinsic(i8x16, In::uadd_sat);
    case Opcode::I8X16SubSatS: return binary_intrinsic(i8x16, In::ssub_sat);
    case Opcode::I8X16SubSatU: return binary_intrinsic(i8x16, In::usub_sat);
    case Opcode::I16X8AddSatS: return binary_intrinsic(i16x8, In::sadd_sat);
    case Opcode::I16X8AddSatU: return binary_intrinsic(i16x8, In::uadd_sat);
    case Opcode::I16X8SubSatS: return binary_intrinsic(i16x8, In::ssub_sat);
    case Opcode::I16X8SubSatU: return binary_intrinsic(i16x8, In::usub_sat);
    case Opcode::I8X16MinS: return binary_intrinsic(i8x16, In::smin);
    case Opcode::I8X16MinU: return binary_intrinsic(i8x16, In::umin);
    case Opcode::I8X16MaxS: return binary_intrinsic(i8x16, In::smax);
    case Opcode::I8X16MaxU: return binary_intrinsic(i8x16, In::umax);
    case Opcode::I16X8MinS: return binary_intrinsic(i16x8, In::smin);
    case Opcode::I16X8MinU: return binary_intrinsic(i16x8, In::umin);
    case Opcode::I16X8MaxS: return binary_intrinsic(i16x8, In::smax);
    case Opcode::I16X8MaxU: return binary_intrinsic(i16x8, In::umax);
    case Opcode::I32X4MinS: return binary_intrinsic(i32x4, In::smin);
    case Opcode::I32X4MinU: return binary_intrinsic(i32x4, In::umin);
    case Opcode::I32X4MaxS: return binary_intrinsic(i32x4, In::smax);
    case Opcode::I32X4MaxU: return binary_intrinsic(i32x4, In::umax);
    case Opcode::I8X16AvgrU: return average(i8x16);
    case Opcode::I16X8AvgrU: return average(i16x8);
    case Opcode::I16X8Q15mulrSatS:
    case Opcode::I16X8RelaxedQ15mulrS: return q15_multiply();
    case Opcode::I32X4DotI16X8S: return machine(i16x8, In::x86_sse2_pmadd_wd);
    case Opcode::I16X8DotI8X16I7X16S:
    case Opcode::I32X4DotI8X16I7X16AddS: {
      llvm::Value* sum = opcode == Opcode::I32X4DotI8X16I7X16AddS ? pop_as(i32x4) : nullptr;
      llvm::Value* b = pop_as(i8x16);
      llvm::Value* a = pop_as(i8x16);
      auto products = [&](int first) {
        return b_.CreateMul(widened(lanes(a, first, 8, 2), i16x8, true), widened(lanes(b, first, 8, 2), i16x8, true));
      };
      llvm::Value* dot = b_.CreateAdd(products(0), products(1));
      push_vector(sum ? b_.CreateAdd(pairwise(dot, i32x4, true), sum) : dot);
      return true;
    }

    case Opcode::I16X8ExtaddPairwiseI8X16S:
      return unary(i8x16, [&](llvm::Value* a) { return pairwise(a, i16x8, true); });
    case Opcode::I16X8ExtaddPairwiseI8X16U:
      return unary(i8x16, [&](llvm::Value* a) { return pairwise(a, i16x8, false); });
    case Opcode::I32X4ExtaddPairwiseI16X8S:
      return unary(i16x8, [&](llvm::Value* a) { return pairwise(a, i32x4, true); });
    case Opcode::I32X4ExtaddPairwiseI16X8U:
      return unary(i16x8, [&](llvm::Value* a) { return pairwise(a, i32x4, false); });
    case Opcode::I16X8ExtendLowI8X16S: return extend(i8x16, i16x8, false, true);
    case Opcode::I16X8ExtendHighI8X16S: return extend(i8x16, i16x8, true, true);
    case Opcode::I16X8ExtendLowI8X16U: return extend(i8x16, i16x8, false, false);
    case Opcode::I16X8ExtendHighI8X16U: return extend(i8x16, i16x8, true, false);
    case Opcode::I32X4ExtendLowI16X8S: return extend(i16x8, i32x4, false, true);
    case Opcode::I32X4ExtendHighI16X8S: return extend(i16x8, i32x4, true, true);
    case Opcode::I32X4ExtendLowI16X8U: return extend(i16x8, i32x4, false, false);
    case Opcode::I32X4ExtendHighI16X8U: return extend(i16x8, i32x4, true, false);
    case Opcode::I64X2ExtendLowI32X4S: return extend(i32x4, i64x2, false, true);
    case Opcode::I64X2ExtendHighI32X4S: return extend(i32x4, i64x2, true, true);
    case Opcode::I64X2ExtendLowI32X4U: return extend(i32x4, i64x2, false, false);
    case Opcode::I64X2ExtendHighI32X4U: return extend(i32x4, i64x2, true, false);
    case Opcode::I16X8ExtmulLowI8X16S: return multiply_wide(i8x16, i16x8, false, true);
    case Opcode::I16X8ExtmulHighI8X16S: return multiply_wide(i8x16, i16x8, true, true);
    case Opcode::I16X8ExtmulLowI8X16U: return multiply_wide(i8x16, i16x8, false, false);
    case Opcode::I16X8ExtmulHighI8X16U: return multiply_wide(i8x16, i16x8, true, false);
    case Opcode::I32X4ExtmulLowI16X8S: return multiply_wide(i16x8, i32x4, false, true);
    case Opcode::I32X4ExtmulHighI16X8S: return multiply_wide(i16x8, i32x4, true, true);
    case Opcode::I32X4ExtmulLowI16X8U: return multiply_wide(i16x8, i32x4, false, false);
    case Opcode::I32X4ExtmulHighI16X8U: return multiply_wide(i16x8, i32x4, true, false);
    case Opcode::I64X2ExtmulLowI32X4S: return multiply_wide(i32x4, i64x2, false, true);
    case Opcode::I64X2ExtmulHighI32X4S: return multiply_wide(i32x4, i64x2, true, true);
    case Opcode::I64X2ExtmulLowI32X4U: return multiply_wide(i32x4, i64x2, false, false);
    case Opcode::I64X2ExtmulHighI32X4U: return multiply_wide(i32x4, i64x2, true, false);

    case Opcode::F32X4Ceil: return unary_intrinsic(f32x4, In::ceil);
    case Opcode::F32X4Floor: return unary_intrinsic(f32x4, In::floor);
    case Opcode::F32X4Trunc: return unary_intrinsic(f32x4, In::trunc);
    case Opcode::F32X4Nearest: return unary_intrinsic(f32x4, In::roundeven);
    case Opcode::F32X4Abs: return unary_intrinsic(f32x4, In::fabs);
    case Opcode::F32X4Neg: return unary(f32x4, [&](llvm::Value* a) { return b_.CreateFNeg(a); });
    case Opcode::F32X4Sqrt: return unary_intrinsic(f32x4, In::sqrt);
    case Opcode::F64X2Ceil: return unary_intrinsic(f64x2, In::ceil);
    case Opcode::F64X2Floor: return unary_intrinsic(f64x2, In::floor);
    case Opcode::F64X2Trunc: return unary_intrinsic(f64x2, In::trunc);
    case Opcode::F64X2Nearest: return unary_intrinsic(f64x2, In::roundeven);
    case Opcode::F64X2Abs: return unary_intrinsic(f64x2, In::fabs);
    case Opcode::F64X2Neg: return unary(f64x2, [&](llvm::Value* a) { return b_.CreateFNeg(a); });
    case Opcode::F64X2Sqrt: return unary_intrinsic(f64x2, In::sqrt);
    case Opcode::F32X4Add:
    case Opcode::F32X4Sub:
    case Opcode::F32X4Mul:
    case Opcode::F32X4Div: return arithmetic(f32x4);
    case Opcode::F64X2Add:
    case Opcode::F64X2Sub:
    case Opcode::F64X2Mul:
    case Opcode::F64X2Div: return arithmetic(f64x2);
    case Opcode::F32X4Min:
    case Opcode::F32X4RelaxedMin: return min_max(f32x4, false);
    case Opcode::F32X4Max:
    case Opcode::F32X4RelaxedMax: return min_max(f32x4, true);
    case Opcode::F64X2Min:
    case Opcode::F64X2RelaxedMin: return min_max(f64x2, false);
    case Opcode::F64X2Max:
    case Opcode::F64X2RelaxedMax: return min_max(f64x2, true);
    case Opcode::F32X4PMin: return pseudo_min_max(f32x4, false);
    case Opcode::F32X4PMax: return pseudo_min_max(f32x4, true);
    case Opcode::F64X2PMin: return pseudo_min_max(f64x2, false);
    case Opcode::F64X2PMax: return pseudo_min_max(f64x2, true);
    case Opcode::F32X4RelaxedMadd: return multiply_add(f32x4, false);
    case Opcode::F32X4RelaxedNmadd: return multiply_add(f32x4, true);
    case Opcode::F64X2RelaxedMadd: return multiply_add(f64x2, false);
    case Opcode::F64X2RelaxedNmadd: return multiply_add(f64x2, true);

    case Opcode::I32X4TruncSatF32X4S:
    case Opcode::I32X4RelaxedTruncF32X4S: return truncate(f32x4, true);
    case Opcode::I32X4TruncSatF32X4U:
    case Opcode::I32X4RelaxedTruncF32X4U: return truncate(f32x4, false);
    case Opcode::I32X4TruncSatF64X2SZero:
    case Opcode::I32X4RelaxedTruncF64X2SZero: return truncate(f64x2, true);
    case Opcode::I32X4TruncSatF64X2UZero:
    case Opcode::I32X4RelaxedTruncF64X2UZero: return truncate(f64x2, false);
    case Opcode::F32X4ConvertI32X4S: return unary(i32x4, [&](llvm::Value* a) { return b_.CreateSIToFP(a, f32x4); });
    case Opcode::F32X4ConvertI32X4U: return unary(i32x4, [&](llvm::Value* a) { return b_.CreateUIToFP(a, f32x4); });
    case Opcode::F64X2ConvertLowI32X4S:
      return unary(i32x4, [&](llvm::Value* a) { return b_.CreateSIToFP(lanes(a, 0, 2), f64x2); });
    case Opcode::F64X2ConvertLowI32X4U:
      return unary(i32x4, [&](llvm::Value* a) { return b_.CreateUIToFP(lanes(a, 0, 2), f64x2); });
    case Opcode::F32X4DemoteF64X2Zero: {
      llvm::Value* low = demote(pop_as(f64x2), llvm::FixedVectorType::get(g_.f32_, 2));
      push_vector(with_zeros(low));
      return true;
    }
    case Opcode::F64X2PromoteLowF32X4:
      return unary(f32x4, [&](llvm::Value* a) { return b_.CreateFPExt(lanes(a, 0, 2), f64x2); });
    default: return false;
  }
}

}  // namespace spore::compiler

#include "compiler/decode.h"

#include <fmt/format.h>
#include <wabt/binary-reader-ir.h>
#include <wabt/binary-reader.h>
#include <wabt/cast.h>
#include <wabt/interp/binary-reader-interp.h>
#include <wabt/leb128.h>
#include <wabt/utf8.h>
#include <wabt/validator.h>

namespace spore::compiler {

using wasm::ConstOp;
using wasm::ValueType;

namespace {

std::unexpected<Error> invalid(const wabt::Errors& errors) {
  if (errors.empty()) return fail(ErrorCode::kInvalidModule, "the module is malformed");
  const wabt::Error& first = errors.front();
  return fail(ErrorCode::kInvalidModule, fmt::format("at byte {:#x}: {}", first.loc.offset, first.message));
}

wasm::Signature signature(const wabt::FuncSignature& from) {
  wasm::Signature out;
  for (wabt::Type type : from.param_types) out.params.push_back(value_type(type));
  for (wabt::Type type : from.result_types) out.results.push_back(value_type(type));
  return out;
}

wasm::Limits limits(const wabt::Limits& from) {
  return {from.initial, from.has_max ? std::optional(from.max) : std::nullopt};
}

std::unexpected<Error> bad_constant() {
  return fail(ErrorCode::kInvalidModule, "a constant expression must leave exactly one value: type mismatch");
}

// libwabt has checked the types, but not that there is exactly one value in the end.
Result<wasm::ConstExpr> const_expression(const wabt::ExprList& list) {
  wasm::ConstExpr out;
  size_t height = 0;
  for (const wabt::Expr& expr : list) {
    ConstOp op;
    switch (expr.type()) {
      case wabt::ExprType::Const: {
        const wabt::Const& value = wabt::cast<wabt::ConstExpr>(&expr)->const_;
        op.type = value_type(value.type());
        if (op.type == ValueType::kV128) {
          op.low = value.vec128().u64(0);
          op.high = value.vec128().u64(1);
        } else {
          const bool wide = op.type == ValueType::kI64 || op.type == ValueType::kF64;
          op.low = wide ? value.u64() : value.u32();
        }
        break;
      }
      case wabt::ExprType::GlobalGet:
        op.kind = ConstOp::Kind::kGlobalGet;
        op.low = wabt::cast<wabt::GlobalGetExpr>(&expr)->var.index();
        break;
      case wabt::ExprType::RefFunc:
        op.kind = ConstOp::Kind::kRefFunc;
        op.type = ValueType::kFuncRef;
        op.low = wabt::cast<wabt::RefFuncExpr>(&expr)->var.index();
        break;
      case wabt::ExprType::RefNull:
        op.kind = ConstOp::Kind::kRefNull;
        op.type = value_type(wabt::cast<wabt::RefNullExpr>(&expr)->type);
        break;
      case wabt::ExprType::Binary: {
        const wabt::Opcode opcode = wabt::cast<wabt::BinaryExpr>(&expr)->opcode;
        const std::string_view name = opcode.GetName();
        op.type = name.starts_with("i32") ? ValueType::kI32 : ValueType::kI64;
        op.kind = name.ends_with("add")   ? ConstOp::Kind::kAdd
                  : name.ends_with("sub") ? ConstOp::Kind::kSub
                                          : ConstOp::Kind::kMul;
        if (height < 2) return bad_constant();
        height -= 2;
        break;
      }
      default:
        return fail(ErrorCode::kInvalidModule, fmt::format("at byte {:#x}: not allowed in a constant expression: {}",
                                                           expr.loc.offset, wabt::GetExprTypeName(expr)));
    }
    out.push_back(op);
    ++height;
  }
  if (height != 1) return bad_constant();
  return out;
}

wasm::SegmentMode segment_mode(wabt::SegmentKind kind) {
  switch (kind) {
    case wabt::SegmentKind::Active: return wasm::SegmentMode::kActive;
    case wabt::SegmentKind::Passive: return wasm::SegmentMode::kPassive;
    case wabt::SegmentKind::Declared: return wasm::SegmentMode::kDeclared;
  }
  return wasm::SegmentMode::kPassive;
}

wasm::ExternalKind external_kind(wabt::ExternalKind kind) {
  switch (kind) {
    case wabt::ExternalKind::Func: return wasm::ExternalKind::kFunction;
    case wabt::ExternalKind::Table: return wasm::ExternalKind::kTable;
    case wabt::ExternalKind::Memory: return wasm::ExternalKind::kMemory;
    case wabt::ExternalKind::Global: return wasm::ExternalKind::kGlobal;
    case wabt::ExternalKind::Tag: return wasm::ExternalKind::kTag;
  }
  return wasm::ExternalKind::kFunction;
}

Result<wasm::ModuleInfo> module_info(const wabt::Module& m) {
  wasm::ModuleInfo info;
  for (const wabt::TypeEntry* entry : m.types) {
    const auto* type = wabt::dyn_cast<wabt::FuncType>(entry);
    if (!type) return fail(ErrorCode::kInvalidModule, "struct and array types are not supported");
    info.types.push_back(signature(type->sig));
  }
  for (const wabt::Func* function : m.funcs) {
    info.functions.push_back(function->decl.type_var.index());
    std::string name = function->name;
    if (name.starts_with('$')) name.erase(0, 1);
    info.function_names.push_back(std::move(name));
  }
  for (const wabt::Table* table : m.tables)
    info.tables.push_back({value_type(table->elem_type), limits(table->elem_limits)});
  for (const wabt::Memory* memory : m.memories)
    info.memories.push_back({limits(memory->page_limits), memory->page_limits.is_shared, memory->page_limits.is_64});
  for (const wabt::Tag* tag : m.tags) info.tags.push_back(m.GetFuncTypeIndex(tag->decl));
  info.imported_functions = m.num_func_imports;
  info.imported_tables = m.num_table_imports;
  info.imported_memories = m.num_memory_imports;
  info.imported_globals = m.num_global_imports;
  info.imported_tags = m.num_tag_imports;
  for (size_t i = 0; i < m.globals.size(); ++i) {
    const wabt::Global& global = *m.globals[i];
    wasm::Global out;
    out.type = {value_type(global.type), global.mutable_};
    if (i >= info.imported_globals) {
      ASSIGN_OR_RETURN(out.init, const_expression(global.init_expr));
    }
    info.globals.push_back(std::move(out));
  }
  uint32_t next[5] = {};
  for (const wabt::Import* import : m.imports) {
    const wasm::ExternalKind kind = external_kind(import->kind());
    info.imports.push_back({import->module_name, import->field_name, kind, next[static_cast<int>(kind)]++});
  }
  for (const wabt::Export* entry : m.exports)
    info.exports.push_back({entry->name, external_kind(entry->kind), entry->var.index()});
  for (const wabt::ElemSegment* segment : m.elem_segments) {
    wasm::ElementSegment out;
    out.mode = segment_mode(segment->kind);
    out.type = value_type(segment->elem_type);
    if (out.mode == wasm::SegmentMode::kActive) {
      out.table = segment->table_var.index();
      ASSIGN_OR_RETURN(out.offset, const_expression(segment->offset));
    }
    for (const wabt::ExprList& element : segment->elem_exprs) {
      ASSIGN_OR_RETURN(wasm::ConstExpr expression, const_expression(element));
      out.elements.push_back(std::move(expression));
    }
    info.element_segments.push_back(std::move(out));
  }
  for (const wabt::DataSegment* segment : m.data_segments) {
    wasm::DataSegment out;
    out.mode = segment_mode(segment->kind);
    if (out.mode == wasm::SegmentMode::kActive) {
      out.memory = segment->memory_var.index();
      ASSIGN_OR_RETURN(out.offset, const_expression(segment->offset));
    }
    out.bytes = segment->data;
    info.data_segments.push_back(std::move(out));
  }
  if (!m.starts.empty()) info.start = m.starts.front()->index();
  return info;
}

// libwabt forgives every error in a custom section, because its content means nothing; but its frame and name must be
// well formed all the same. For a module that libwabt has read.
Result<void> check_custom_sections(ByteSpan wasm) {
  constexpr size_t kPreambleBytes = 8;
  const uint8_t* const end = wasm.data() + wasm.size();
  const uint8_t* at = wasm.data() + kPreambleBytes;
  auto malformed = [&](const char* what) {
    return fail(ErrorCode::kInvalidModule,
                fmt::format("at byte {:#x}: malformed custom section: {}", at - wasm.data(), what));
  };
  while (at < end) {
    const bool custom = *at++ == 0;
    uint32_t size = 0;
    size_t length = wabt::ReadU32Leb128(at, end, &size);
    if (length == 0 || size > static_cast<size_t>(end - at) - length) return malformed("its size");
    at += length;
    if (custom) {
      uint32_t name_size = 0;
      length = wabt::ReadU32Leb128(at, at + size, &name_size);
      if (length == 0 || name_size > size - length) return malformed("the size of its name");
      if (!wabt::IsValidUtf8(reinterpret_cast<const char*>(at + length), name_size))
        return malformed("its name is not UTF-8");
    }
    at += size;
  }
  return {};
}

}  // namespace

ValueType value_type(wabt::Type type) {
  switch (type) {
    case wabt::Type::I32: return ValueType::kI32;
    case wabt::Type::I64: return ValueType::kI64;
    case wabt::Type::F32: return ValueType::kF32;
    case wabt::Type::F64: return ValueType::kF64;
    case wabt::Type::V128: return ValueType::kV128;
    case wabt::Type::ExternRef: return ValueType::kExternRef;
    default: return ValueType::kFuncRef;
  }
}

Result<Decoded> decode(ByteSpan wasm, uint32_t proposals) {
  wabt::Features features;
  if (proposals & kTailCalls) features.enable_tail_call();
  if (proposals & kExtendedConst) features.enable_extended_const();
  if (proposals & kMultiMemory) features.enable_multi_memory();
  if (proposals & kMemory64) features.enable_memory64();
  if (proposals & kRelaxedSimd) features.enable_relaxed_simd();
  if (proposals & kThreads) features.enable_threads();
  if (proposals & kExceptions) features.enable_exceptions();
  Decoded out;
  out.module = std::make_unique<wabt::Module>();
  wabt::Errors errors;
  const wabt::ReadBinaryOptions options(features, nullptr, /*read_debug_names=*/true, /*stop_on_first_error=*/true,
                                        /*fail_on_custom_section_error=*/false);
  // First the reader that validates as it goes: the one that builds the module's tree takes a valid module for granted
  // in places, and would abort on some that are not.
  {
    wabt::interp::ModuleDesc unused;
    if (wabt::Failed(wabt::interp::ReadBinaryInterp("module", wasm.data(), wasm.size(), options, &errors, &unused)))
      return invalid(errors);
  }
  TRY(check_custom_sections(wasm));
  if (wabt::Failed(wabt::ReadBinaryIr("module", wasm.data(), wasm.size(), options, &errors, out.module.get())))
    return invalid(errors);
  if (wabt::Failed(wabt::ValidateModule(out.module.get(), &errors, wabt::ValidateOptions(features))))
    return invalid(errors);
  ASSIGN_OR_RETURN(out.info, module_info(*out.module));
  return out;
}

}  // namespace spore::compiler

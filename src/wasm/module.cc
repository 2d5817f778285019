#include "wasm/module.h"

#include "base/check.h"
#include "base/digest.h"
#include "wasm/abi.h"
#include "wasm/archive.h"

namespace spore::wasm {

std::string_view to_string(ValueType type) {
  switch (type) {
    case ValueType::kI32: return "i32";
    case ValueType::kI64: return "i64";
    case ValueType::kF32: return "f32";
    case ValueType::kF64: return "f64";
    case ValueType::kV128: return "v128";
    case ValueType::kFuncRef: return "funcref";
    case ValueType::kExternRef: return "externref";
  }
  return "?";
}

std::string to_string(const Signature& signature) {
  auto list = [](const std::vector<ValueType>& types) {
    std::string out = "(";
    for (ValueType type : types) {
      if (out.size() > 1) out += ", ";
      out += to_string(type);
    }
    return out + ")";
  };
  return list(signature.params) + " -> " + list(signature.results);
}

TypeId type_id(const Signature& signature) {
  const size_t count = signature.params.size() + signature.results.size();
  if (count <= 19) {
    // A leading 1, then three bits a type; 0 stands between parameters and results: 61 bits at the most.
    uint64_t bits = 1;
    for (ValueType type : signature.params) bits = bits << 3 | static_cast<uint64_t>(type);
    bits <<= 3;
    for (ValueType type : signature.results) bits = bits << 3 | static_cast<uint64_t>(type);
    return {bits, 0};
  }
  Bytes text;
  for (ValueType type : signature.params) text.push_back(static_cast<uint8_t>(type));
  text.push_back(0);
  for (ValueType type : signature.results) text.push_back(static_cast<uint8_t>(type));
  const Digest digest = sha256(text);
  TypeId id;
  std::memcpy(&id.low, digest.data(), 8);
  std::memcpy(&id.high, digest.data() + 8, 8);
  id.low |= 1ull << 63;
  return id;
}

const Export* ModuleInfo::find_export(std::string_view name, ExternalKind kind) const {
  for (const Export& entry : exports)
    if (entry.kind == kind && entry.name == name) return &entry;
  return nullptr;
}

std::string ModuleInfo::function_name(uint32_t function) const {
  if (function < imported_functions) {
    for (const Import& entry : imports)
      if (entry.kind == ExternalKind::kFunction && entry.index == function) return entry.module + "." + entry.name;
  }
  if (function < function_names.size() && !function_names[function].empty()) return function_names[function];
  for (const Export& entry : exports)
    if (entry.kind == ExternalKind::kFunction && entry.index == function) return entry.name;
  return "func[" + std::to_string(function) + "]";
}

template <class A>
void archive(A& a, Signature& s) {
  a(s.params, s.results);
}
template <class A>
void archive(A& a, Limits& l) {
  a(l.min, l.max);
}
template <class A>
void archive(A& a, MemoryType& m) {
  a(m.pages, m.shared, m.is_64);
}
template <class A>
void archive(A& a, TableType& t) {
  a(t.element, t.limits);
}
template <class A>
void archive(A& a, ConstOp& o) {
  a(o.kind, o.type, o.low, o.high);
}
template <class A>
void archive(A& a, Import& i) {
  a(i.module, i.name, i.kind, i.index);
}
template <class A>
void archive(A& a, Export& e) {
  a(e.name, e.kind, e.index);
}
template <class A>
void archive(A& a, Global& g) {
  a(g.type.type, g.type.is_mutable, g.init);
}
template <class A>
void archive(A& a, ElementSegment& s) {
  a(s.mode, s.type, s.table, s.offset, s.elements);
}
template <class A>
void archive(A& a, DataSegment& s) {
  a(s.mode, s.memory, s.offset, s.bytes);
}
template <class A>
void archive(A& a, ModuleInfo& m) {
  a(m.types, m.functions, m.tables, m.memories, m.globals, m.tags);
  a(m.imported_functions, m.imported_tables, m.imported_memories, m.imported_globals, m.imported_tags);
  a(m.imports, m.exports, m.element_segments, m.data_segments, m.start, m.function_names);
}

namespace {

// Every index that the runtime will follow.
bool consistent(const ModuleInfo& m) {
  auto type_ok = [](ValueType type) { return type >= ValueType::kI32 && type <= ValueType::kExternRef; };
  auto expression_ok = [&](const ConstExpr& expression) {
    size_t depth = 0;
    for (const ConstOp& op : expression) {
      if (!type_ok(op.type)) return false;
      switch (op.kind) {
        case ConstOp::Kind::kGlobalGet:
          if (op.low >= m.globals.size()) return false;
          ++depth;
          break;
        case ConstOp::Kind::kRefFunc:
          if (op.low >= m.functions.size()) return false;
          ++depth;
          break;
        case ConstOp::Kind::kConst:
        case ConstOp::Kind::kRefNull: ++depth; break;
        case ConstOp::Kind::kAdd:
        case ConstOp::Kind::kSub:
        case ConstOp::Kind::kMul:
          if (depth < 2) return false;
          --depth;
          break;
        default: return false;
      }
    }
    return depth == 1;
  };
  auto index_limit = [&](ExternalKind kind) -> size_t {
    switch (kind) {
      case ExternalKind::kFunction: return m.functions.size();
      case ExternalKind::kTable: return m.tables.size();
      case ExternalKind::kMemory: return m.memories.size();
      case ExternalKind::kGlobal: return m.globals.size();
      case ExternalKind::kTag: return m.tags.size();
    }
    return 0;
  };
  for (const Signature& s : m.types) {
    if (s.params.size() > 1000 || s.results.size() > 1000) return false;
    for (ValueType t : s.params)
      if (!type_ok(t)) return false;
    for (ValueType t : s.results)
      if (!type_ok(t)) return false;
  }
  for (uint32_t type : m.functions)
    if (type >= m.types.size()) return false;
  for (uint32_t type : m.tags)
    if (type >= m.types.size()) return false;
  if (m.imported_functions > m.functions.size() || m.imported_tables > m.tables.size() ||
      m.imported_memories > m.memories.size() || m.imported_globals > m.globals.size() ||
      m.imported_tags > m.tags.size())
    return false;
  for (const Import& i : m.imports)
    if (i.index >= index_limit(i.kind)) return false;
  for (const Export& e : m.exports)
    if (e.index >= index_limit(e.kind)) return false;
  for (const TableType& t : m.tables)
    if (!type_ok(t.element)) return false;
  for (size_t i = 0; i < m.globals.size(); ++i)
    if (!type_ok(m.globals[i].type.type) || (i >= m.imported_globals && !expression_ok(m.globals[i].init)))
      return false;
  for (const ElementSegment& s : m.element_segments) {
    if (s.mode == SegmentMode::kActive && (s.table >= m.tables.size() || !expression_ok(s.offset))) return false;
    for (const ConstExpr& e : s.elements)
      if (!expression_ok(e)) return false;
  }
  for (const DataSegment& s : m.data_segments)
    if (s.mode == SegmentMode::kActive && (s.memory >= m.memories.size() || !expression_ok(s.offset))) return false;
  return !m.start || *m.start < m.functions.size();
}

}  // namespace

void write_module_info(const ModuleInfo& info, ByteWriter& out) {
  WriteArchive write(out);
  archive(write, const_cast<ModuleInfo&>(info));
}

Result<ModuleInfo> read_module_info(ByteReader& in) {
  ModuleInfo info;
  ReadArchive read(in);
  archive(read, info);
  if (!in.ok() || !consistent(info))
    return fail(ErrorCode::kInvalidArgument, "object: the module description is damaged");
  return info;
}

}  // namespace spore::wasm

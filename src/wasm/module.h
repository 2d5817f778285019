// What a WebAssembly module is, as far as the runtime needs to know it: everything of the binary format but the code.
//
// The compiler fills a ModuleInfo from the decoded module and stores it in the object; the runtime instantiates from it
// and never parses wasm itself. Indices are those of the WebAssembly index spaces (imports first).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace spore::wasm {

constexpr uint64_t kPageBytes = 65536;
constexpr uint64_t kMemory32PagesMax = 65536;

enum class ValueType : uint8_t { kI32 = 1, kI64, kF32, kF64, kV128, kFuncRef, kExternRef };

std::string_view to_string(ValueType type);
inline bool is_reference(ValueType type) { return type == ValueType::kFuncRef || type == ValueType::kExternRef; }

struct Signature {
  std::vector<ValueType> params;
  std::vector<ValueType> results;
  bool operator==(const Signature&) const = default;
};
std::string to_string(const Signature& signature);  // "(i32, i64) -> (f32)"

// Identity of a signature, equal in every module, process and host. Up to 19 value types in all, an injective encoding
// (`high` is 0, the top bit of `low` is clear); beyond that 127 bits of SHA-256 (the top bit of `low` is set).
// Never all zero: that is the id of a null table entry.
struct TypeId {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const TypeId&) const = default;
};
TypeId type_id(const Signature& signature);

// Sizes in units of the thing (pages, elements). A missing maximum is the largest the format allows.
struct Limits {
  uint64_t min = 0;
  std::optional<uint64_t> max;
};

struct MemoryType {
  Limits pages;
  bool shared = false;
  bool is_64 = false;  // addressed by i64 (memory64)
};

struct TableType {
  ValueType element = ValueType::kFuncRef;
  Limits limits;
};

struct GlobalType {
  ValueType type = ValueType::kI32;
  bool is_mutable = false;
};

// One instruction of a constant expression. Operands of kV128 are both words; of the others `low`.
struct ConstOp {
  enum class Kind : uint8_t { kConst, kGlobalGet, kRefFunc, kRefNull, kAdd, kSub, kMul };
  Kind kind = Kind::kConst;
  ValueType type = ValueType::kI32;  // of the result
  uint64_t low = 0;                  // bits of the constant, or the index of the global or function
  uint64_t high = 0;
};
using ConstExpr = std::vector<ConstOp>;  // in postfix order

enum class ExternalKind : uint8_t { kFunction, kTable, kMemory, kGlobal, kTag };

struct Import {
  std::string module;
  std::string name;
  ExternalKind kind = ExternalKind::kFunction;
  uint32_t index = 0;  // in the index space of its kind
};

struct Export {
  std::string name;
  ExternalKind kind = ExternalKind::kFunction;
  uint32_t index = 0;
};

struct Global {
  GlobalType type;
  ConstExpr init;  // empty for imports
};

enum class SegmentMode : uint8_t { kActive, kPassive, kDeclared };

struct ElementSegment {
  SegmentMode mode = SegmentMode::kPassive;
  ValueType type = ValueType::kFuncRef;
  uint32_t table = 0;
  ConstExpr offset;
  std::vector<ConstExpr> elements;
};

struct DataSegment {
  SegmentMode mode = SegmentMode::kPassive;
  uint32_t memory = 0;
  ConstExpr offset;
  Bytes bytes;
};

struct ModuleInfo {
  std::vector<Signature> types;
  std::vector<uint32_t> functions;  // type index of each function, imports first
  std::vector<TableType> tables;
  std::vector<MemoryType> memories;
  std::vector<Global> globals;
  std::vector<uint32_t> tags;  // type index of each exception tag
  uint32_t imported_functions = 0;
  uint32_t imported_tables = 0;
  uint32_t imported_memories = 0;
  uint32_t imported_globals = 0;
  uint32_t imported_tags = 0;
  std::vector<Import> imports;
  std::vector<Export> exports;
  std::vector<ElementSegment> element_segments;
  std::vector<DataSegment> data_segments;
  std::optional<uint32_t> start;
  std::vector<std::string> function_names;  // from the name section; "" where it has none

  const Signature& signature_of(uint32_t function) const { return types[functions[function]]; }
  const Export* find_export(std::string_view name, ExternalKind kind) const;
  // For messages and stack traces: an import's module.name, the name section's name, else an export's, else "func[12]".
  std::string function_name(uint32_t function) const;
};

void write_module_info(const ModuleInfo& info, ByteWriter& out);
// The bytes come from our own store, but are checked all the same: every index in range, every count bounded.
Result<ModuleInfo> read_module_info(ByteReader& in);

}  // namespace spore::wasm

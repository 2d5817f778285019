#include "wasm/abi.h"

#include <algorithm>

namespace spore::wasm {

std::vector<uint32_t> register_parameters(const Signature& signature) {
  std::vector<uint32_t> indices;
  unsigned integers = 6, vectors = 8;
  for (uint32_t i = 0; i < signature.params.size(); ++i) {
    const ValueType type = signature.params[i];
    const bool vector = type == ValueType::kF32 || type == ValueType::kF64 || type == ValueType::kV128;
    unsigned& left = vector ? vectors : integers;
    if (left == 0) continue;
    --left;
    indices.push_back(i);
  }
  return indices;
}

uint64_t memory_pages_limit(const ModuleInfo& info, size_t memory) {
  const Limits& pages = info.memories[memory].pages;
  const uint64_t most = memory == 0 ? kMemory32PagesMax : kExtraMemoryPagesMax;
  return std::max(pages.min, std::min(pages.max.value_or(most), most));
}

Result<InstanceLayout> instance_layout(const ModuleInfo& info) {
  InstanceLayout layout;
  int64_t at = kCellsOffset;
  auto take = [&at](int64_t size, int64_t alignment) { return at = (at - size) & -alignment; };
  auto too_large = [](const std::string& what) {
    return fail(ErrorCode::kResourceExhausted, "the module needs too much room for " + what + ": more than " +
                                                   std::to_string(kSlotBelowBytes >> 20) + " MiB in all");
  };

  for (size_t i = 0; i < info.globals.size(); ++i) {
    const bool wide = info.globals[i].type.type == ValueType::kV128;
    layout.globals.push_back(take(wide ? 16 : 8, wide ? 16 : 8));
    if (-at > kSlotBelowBytes) return too_large("globals");
  }
  layout.data_dropped = take(static_cast<int64_t>(info.data_segments.size()), 1);
  layout.elements_dropped = take(static_cast<int64_t>(info.element_segments.size()), 1);
  layout.tags = take(static_cast<int64_t>(info.tags.size() * 8), 8);
  layout.memory_descriptors = take(static_cast<int64_t>(info.memories.size() * sizeof(MemoryDescriptor)), 32);
  layout.table_descriptors = take(static_cast<int64_t>(info.tables.size() * sizeof(TableDescriptor)), 32);
  if (-at > kSlotBelowBytes) return too_large("tables and segments");

  for (size_t i = 0; i < info.tables.size(); ++i) {
    const Limits& limits = info.tables[i].limits;
    const uint64_t max = std::max(limits.min, std::min(limits.max.value_or(kTableElementsMax), kTableElementsMax));
    layout.table_max.push_back(max);
    if (i < info.imported_tables) {
      layout.tables.push_back(0);
      continue;
    }
    if (max > static_cast<uint64_t>(kSlotBelowBytes) / sizeof(TableEntry)) return too_large("a table");
    layout.tables.push_back(take(static_cast<int64_t>(max * sizeof(TableEntry)), sizeof(TableEntry)));
    if (-at > kSlotBelowBytes) return too_large("tables");
  }

  size_t cells = kNearCells;
  for (const Signature& signature : info.types)
    cells = std::max({cells, signature.params.size(), signature.results.size()});
  layout.spare_cells = take(static_cast<int64_t>((cells - kNearCells) * sizeof(Cell)), 16);
  layout.stack_top = at & -16;
  layout.stack_bottom = (layout.stack_top - static_cast<int64_t>(kNativeStackBytes)) & -4096;
  // At least a mebibyte of guard below the stack.
  if (-layout.stack_bottom > kSlotBelowBytes - (1 << 20)) return too_large("tables, globals and stack");
  return layout;
}

}  // namespace spore::wasm

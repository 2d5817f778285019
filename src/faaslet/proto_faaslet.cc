#include "faaslet/proto_faaslet.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/mapping.h"
#include "faaslet/const_expr.h"

namespace spore::faaslet {

using wasm::Cell;
using wasm::SegmentMode;

namespace {

constexpr uint64_t kExtraMemoryPagesMax = 4096;  // a memory other than 0 may grow to 256 MiB, or its initial size

std::unexpected<Error> segment_out_of_bounds(const char* kind, size_t index) {
  return fail(ErrorCode::kInvalidModule,
              fmt::format("instantiation traps: {} segment {} is out of bounds", kind, index));
}

}  // namespace

Result<std::shared_ptr<const ProtoFaaslet>> ProtoFaaslet::make(std::shared_ptr<const LoadedObject> object,
                                                               uint64_t memory_pages_max) {
  const wasm::ModuleInfo& info = object->module();
  const wasm::InstanceLayout& layout = object->layout();
  if (info.imported_memories || info.imported_tables || info.imported_globals || info.imported_tags)
    return fail(ErrorCode::kInvalidModule, "memories, tables, globals and tags cannot be imported");

  std::shared_ptr<ProtoFaaslet> proto(new ProtoFaaslet);
  proto->object_ = object;
  wasm::InstanceHeader header;
  if (!info.memories.empty()) {
    const wasm::Limits& pages = info.memories[0].pages;
    if (pages.min > memory_pages_max)
      return fail(ErrorCode::kResourceExhausted,
                  fmt::format("the module starts with {} MiB of memory, more than its limit of {} MiB", pages.min / 16,
                              memory_pages_max / 16));
    header.memory_size_bytes = pages.min * wasm::kPageBytes;
    header.memory_pages_max =
        std::min({pages.max.value_or(wasm::kMemory32PagesMax), memory_pages_max, wasm::kMemory32PagesMax});
  }
  proto->memory_bytes_ = header.memory_size_bytes;
  proto->memory_pages_max_ = header.memory_pages_max;

  ASSIGN_OR_RETURN(proto->fd_, make_memfd("spore-proto-faaslet"));
  const uint64_t size = static_cast<uint64_t>(-layout.stack_bottom) + header.memory_size_bytes;
  if (::ftruncate(proto->fd_.get(), static_cast<off_t>(size)) != 0) return fail_errno("size a Proto-Faaslet");
  Mapping mapping;
  {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, proto->fd_.get(), 0);
    if (at == MAP_FAILED) return fail_errno("map a Proto-Faaslet");
    mapping = Mapping(at, size);
  }
  uint8_t* const memory = mapping.data() - layout.stack_bottom;  // plays M
  auto put = [&](int64_t offset, const auto& value, size_t bytes) { std::memcpy(memory + offset, &value, bytes); };
  put(wasm::kHeaderOffset, header, sizeof(header));

  auto global = [&](uint32_t index) {
    Cell value;
    const bool wide = info.globals[index].type.type == wasm::ValueType::kV128;
    std::memcpy(&value, memory + layout.globals[index], wide ? 16 : 8);
    return value;
  };
  auto function = [&](uint32_t index) { return object->reference(index); };
  for (size_t i = 0; i < info.globals.size(); ++i) {
    const bool wide = info.globals[i].type.type == wasm::ValueType::kV128;
    put(layout.globals[i], evaluate(info.globals[i].init, global, function), wide ? 16 : 8);
  }

  for (size_t i = 0; i < info.tags.size(); ++i) put(layout.tags + static_cast<int64_t>(8 * i), uint64_t{i + 1}, 8);
  for (size_t i = 0; i < info.tables.size(); ++i)
    put(layout.table_descriptors + static_cast<int64_t>(i * sizeof(wasm::TableDescriptor)),
        wasm::TableDescriptor{layout.tables[i], info.tables[i].limits.min, layout.table_max[i], 0},
        sizeof(wasm::TableDescriptor));
  int64_t window = static_cast<int64_t>(wasm::kWindowsEndBytes);
  for (size_t i = 1; i < info.memories.size(); ++i) {
    const wasm::Limits& pages = info.memories[i].pages;
    const uint64_t max = std::max(pages.min, std::min(pages.max.value_or(kExtraMemoryPagesMax), kExtraMemoryPagesMax));
    window -= static_cast<int64_t>(max * wasm::kPageBytes);
    if (window < static_cast<int64_t>(header.memory_size_bytes))
      return fail(ErrorCode::kResourceExhausted, "the module's memories do not fit into 4 GiB together");
    put(layout.memory_descriptors + static_cast<int64_t>(i * sizeof(wasm::MemoryDescriptor)),
        wasm::MemoryDescriptor{window, pages.min * wasm::kPageBytes, max, 0}, sizeof(wasm::MemoryDescriptor));
  }
  proto->window_floor_ = window;

  for (size_t i = 0; i < info.element_segments.size(); ++i) {
    const wasm::ElementSegment& segment = info.element_segments[i];
    if (segment.mode == SegmentMode::kPassive) continue;
    if (segment.mode == SegmentMode::kActive) {
      const uint64_t offset = evaluate(segment.offset, global, function).low;
      const uint64_t table_size = info.tables[segment.table].limits.min;
      if (offset > table_size || segment.elements.size() > table_size - offset)
        return segment_out_of_bounds("element", i);
      for (size_t j = 0; j < segment.elements.size(); ++j) {
        const uint64_t reference = evaluate(segment.elements[j], global, function).low;
        wasm::TableEntry entry;
        if (segment.type == wasm::ValueType::kFuncRef && reference) entry = descriptor_of(reference);
        entry.reference = reference;
        put(layout.tables[segment.table] + static_cast<int64_t>((offset + j) * sizeof(entry)), entry, sizeof(entry));
      }
    }
    memory[layout.elements_dropped + static_cast<int64_t>(i)] = 1;
  }
  for (size_t i = 0; i < info.data_segments.size(); ++i) {
    const wasm::DataSegment& segment = info.data_segments[i];
    if (segment.mode != SegmentMode::kActive) continue;
    const uint64_t offset = evaluate(segment.offset, global, function).low;
    const uint64_t memory_size = info.memories[segment.memory].pages.min * wasm::kPageBytes;
    if (offset > memory_size || segment.bytes.size() > memory_size - offset) return segment_out_of_bounds("data", i);
    if (!segment.bytes.empty()) {
      if (segment.memory == 0)
        std::memcpy(memory + offset, segment.bytes.data(), segment.bytes.size());
      else
        proto->extra_data_.push_back({segment.memory, offset, static_cast<uint32_t>(i)});
    }
    memory[layout.data_dropped + static_cast<int64_t>(i)] = 1;
  }

  mapping = {};
  if (::fcntl(proto->fd_.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return fail_errno("seal a Proto-Faaslet");
  void* image = ::mmap(nullptr, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, proto->fd_.get(), 0);
  if (image == MAP_FAILED) return fail_errno("map a Proto-Faaslet");
  proto->image_ = Mapping(image, size);
  return proto;
}

Result<void> ProtoFaaslet::map_into(uint8_t* memory) const {
  const wasm::ModuleInfo& info = module();
  const wasm::InstanceLayout& layout = object_->layout();
  const uint64_t size = static_cast<uint64_t>(-layout.stack_bottom) + memory_bytes_;
  if (::mmap(memory + layout.stack_bottom, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
             fd_.get(), 0) == MAP_FAILED)
    return fail_errno("map a Faaslet");
  for (size_t i = 1; i < info.memories.size(); ++i) {
    const auto& descriptor = *reinterpret_cast<const wasm::MemoryDescriptor*>(
        memory + layout.memory_descriptors + static_cast<int64_t>(i * sizeof(wasm::MemoryDescriptor)));
    if (descriptor.size_bytes && ::mprotect(memory + descriptor.base, descriptor.size_bytes, PROT_READ | PROT_WRITE))
      return fail_errno("map a Faaslet's memory");
  }
  for (const ExtraData& data : extra_data_) {
    const auto& descriptor = *reinterpret_cast<const wasm::MemoryDescriptor*>(
        memory + layout.memory_descriptors + int64_t{data.memory} * int64_t{sizeof(wasm::MemoryDescriptor)});
    const Bytes& bytes = info.data_segments[data.segment].bytes;
    std::memcpy(memory + descriptor.base + data.offset, bytes.data(), bytes.size());
  }
  return {};
}

}  // namespace spore::faaslet

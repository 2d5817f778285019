#include "faaslet/proto_faaslet.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace spore::faaslet {

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace {

bool is_wide(const wasm::Global& global) { return global.type.type == wasm::ValueType::kV128; }

}  // namespace

Result<std::shared_ptr<const ProtoFaaslet>> ProtoFaaslet::make_instantiated(std::shared_ptr<const LoadedObject> object,
                                                                            uint64_t memory_pages_max) {
  ASSIGN_OR_RETURN(const InstanceState state, instantiate(object->module()));
  return make(std::move(object), state, memory_pages_max);
}

Result<std::shared_ptr<const ProtoFaaslet>> ProtoFaaslet::make(std::shared_ptr<const LoadedObject> object,
                                                               const InstanceState& state, uint64_t memory_pages_max) {
  const wasm::ModuleInfo& info = object->module();
  const wasm::InstanceLayout& layout = object->layout();
  std::shared_ptr<ProtoFaaslet> proto(new ProtoFaaslet);
  proto->object_ = object;
  proto->initialised_ = state.initialised;
  proto->uninitialised_because_ = state.uninitialised_because;

  wasm::InstanceHeader header;
  if (!info.memories.empty()) {
    header.memory_size_bytes = state.memories[0].size_bytes;
    header.memory_pages_max = std::min(wasm::memory_pages_limit(info, 0), memory_pages_max);
    if (header.memory_size_bytes > memory_pages_max * wasm::kPageBytes)
      return fail(ErrorCode::kResourceExhausted,
                  fmt::format("the module starts with {} MiB of memory, more than its limit of {} MiB",
                              header.memory_size_bytes >> 20, memory_pages_max / 16));
  }
  proto->memory_bytes_ = header.memory_size_bytes;
  proto->memory_pages_max_ = header.memory_pages_max;

  uint64_t file_bytes = static_cast<uint64_t>(-layout.stack_bottom) + header.memory_size_bytes;
  proto->regions_.push_back({layout.stack_bottom, file_bytes, 0});
  int64_t window = static_cast<int64_t>(wasm::kWindowsEndBytes);
  for (size_t i = 1; i < info.memories.size(); ++i) {
    window -= static_cast<int64_t>(wasm::memory_pages_limit(info, i) * wasm::kPageBytes);
    if (window < static_cast<int64_t>(header.memory_size_bytes))
      return fail(ErrorCode::kResourceExhausted, "the module's memories do not fit into 4 GiB together");
    proto->regions_.push_back({window, state.memories[i].size_bytes, file_bytes});
    file_bytes += state.memories[i].size_bytes;
  }
  proto->window_floor_ = window;

  ASSIGN_OR_RETURN(proto->fd_, make_memfd("spore-proto-faaslet"));
  if (::ftruncate(proto->fd_.get(), static_cast<off_t>(file_bytes)) != 0) return fail_errno("size a Proto-Faaslet");
  {
    void* at = ::mmap(nullptr, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, proto->fd_.get(), 0);
    if (at == MAP_FAILED) return fail_errno("map a Proto-Faaslet");
    const Mapping mapping(at, file_bytes);
    uint8_t* const memory = mapping.data() - layout.stack_bottom;  // plays M
    const auto put = [&](int64_t offset, const auto& value, size_t bytes = sizeof(uint64_t)) {
      std::memcpy(memory + offset, &value, bytes);
    };
    const auto live = [&](uint32_t reference) { return reference ? object->reference(reference - 1) : 0; };
    put(wasm::kHeaderOffset, header, sizeof(header));
    for (size_t i = 0; i < info.globals.size(); ++i) {
      wasm::Cell value = state.globals[i];
      if (info.globals[i].type.type == wasm::ValueType::kFuncRef) value.low = live(static_cast<uint32_t>(value.low));
      put(layout.globals[i], value, is_wide(info.globals[i]) ? 16 : 8);
    }
    for (size_t i = 0; i < info.tags.size(); ++i) put(layout.tags + static_cast<int64_t>(8 * i), uint64_t{i + 1});
    std::ranges::copy(state.data_dropped, memory + layout.data_dropped);
    std::ranges::copy(state.elements_dropped, memory + layout.elements_dropped);
    for (size_t i = 0; i < info.tables.size(); ++i) {
      const wasm::TableDescriptor table{layout.tables[i], state.tables[i].size(), layout.table_max[i], 0};
      put(layout.table_descriptors + static_cast<int64_t>(i * sizeof(table)), table, sizeof(table));
      for (size_t j = 0; j < state.tables[i].size(); ++j)
        if (const uint64_t reference = live(state.tables[i][j]))
          put(layout.tables[i] + static_cast<int64_t>(j * sizeof(wasm::TableEntry)), descriptor_of(reference),
              sizeof(wasm::TableEntry));
    }
    for (size_t i = 0; i < info.memories.size(); ++i) {
      const ImageRegion& region = proto->regions_[i];
      uint8_t* const base = i == 0 ? memory : mapping.data() + region.file_offset;
      for (const MemoryRun& run : state.memories[i].runs)
        std::memcpy(base + run.offset, run.bytes.data(), run.bytes.size());
      if (i == 0) continue;
      const wasm::MemoryDescriptor descriptor{region.offset, region.image_bytes, wasm::memory_pages_limit(info, i), 0};
      put(layout.memory_descriptors + static_cast<int64_t>(i * sizeof(descriptor)), descriptor, sizeof(descriptor));
    }
  }

  if (::fcntl(proto->fd_.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return fail_errno("seal a Proto-Faaslet");
  void* image = ::mmap(nullptr, file_bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, proto->fd_.get(), 0);
  if (image == MAP_FAILED) return fail_errno("map a Proto-Faaslet");
  proto->image_ = Mapping(image, file_bytes);
  return proto;
}

Result<void> ProtoFaaslet::map_into(uint8_t* memory) const {
  for (const ImageRegion& region : regions_) {
    if (region.image_bytes == 0) continue;
    if (::mmap(memory + region.offset, region.image_bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd_.get(),
               static_cast<off_t>(region.file_offset)) == MAP_FAILED)
      return fail_errno("map a Faaslet");
  }
  if (const auto* runs = working_set_.load(std::memory_order_acquire)) {
    uint8_t* const begin = memory + regions_[0].offset;
    for (const PageRange& run : *runs)  // what this does not do, faults will
      if (::madvise(begin + run.begin, run.end - run.begin, MADV_POPULATE_WRITE) != 0) break;
  }
  return {};
}

void ProtoFaaslet::observe(std::span<const PageRange> written) const {
  auto common = common_.lock();
  if (!wants_observation()) return;
  if (observed_ == 0) {
    common->assign(written.begin(), written.end());
  } else {
    std::vector<PageRange> both;
    for (auto a = common->begin(), end = common->end(); a != end; ++a)
      for (const PageRange& b : written)
        if (const PageRange part{std::max(a->begin, b.begin), std::min(a->end, b.end)}; part.begin < part.end)
          both.push_back(part);
    *common = std::move(both);
  }
  if (++observed_ < kObservedCalls) return;
  std::erase_if(*common, [](const PageRange& run) { return run.end - run.begin < kRunPagesMin * 4096; });
  if (common->size() > kRunsMax) common->resize(kRunsMax);
  if (!common->empty()) working_set_.store(&*common, std::memory_order_release);
}

uint64_t ProtoFaaslet::resident_bytes() const {
  struct stat status{};
  return ::fstat(fd_.get(), &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
}

std::vector<std::pair<uint64_t, uint64_t>> ProtoFaaslet::data_extents(size_t index) const {
  const ImageRegion& region = regions_[index];
  std::vector<std::pair<uint64_t, uint64_t>> extents;
  const auto begin = static_cast<off_t>(region.file_offset);
  const auto end = static_cast<off_t>(region.file_offset + region.image_bytes);
  for (off_t at = begin; at < end;) {
    const off_t data = ::lseek(fd_.get(), at, SEEK_DATA);
    if (data < 0 || data >= end) break;
    at = std::min(::lseek(fd_.get(), data, SEEK_HOLE), end);
    extents.emplace_back(data - begin, at - begin);
  }
  return extents;
}

InstanceState ProtoFaaslet::state() const {
  const uint64_t below = static_cast<uint64_t>(-regions_[0].offset);
  InstanceState state = state_without_memories(*object_, image() + below);
  state.initialised = initialised_;
  state.uninitialised_because = uninitialised_because_;
  for (size_t i = 0; i < module().memories.size(); ++i) {
    const uint64_t skip = i == 0 ? below : 0;
    MemoryState& memory = state.memories.emplace_back();
    memory.size_bytes = regions_[i].image_bytes - skip;
    for (auto [begin, end] : data_extents(i)) {
      begin = std::max(begin, skip);
      if (begin < end) append_nonzero_pages(memory.runs, begin - skip, {image(i) + begin, end - begin});
    }
  }
  return state;
}

InstanceState state_without_memories(const LoadedObject& object, const uint8_t* memory) {
  const wasm::ModuleInfo& info = object.module();
  const wasm::InstanceLayout& layout = object.layout();
  InstanceState state;
  for (size_t i = 0; i < info.globals.size(); ++i) {
    wasm::Cell& value = state.globals.emplace_back();
    std::memcpy(&value, memory + layout.globals[i], is_wide(info.globals[i]) ? 16 : 8);
    if (info.globals[i].type.type == wasm::ValueType::kFuncRef) value.low = object.function_of(value.low);
  }
  state.data_dropped.assign(memory + layout.data_dropped, memory + layout.data_dropped + info.data_segments.size());
  state.elements_dropped.assign(memory + layout.elements_dropped,
                                memory + layout.elements_dropped + info.element_segments.size());
  for (size_t i = 0; i < info.tables.size(); ++i) {
    wasm::TableDescriptor table;
    std::memcpy(&table, memory + layout.table_descriptors + static_cast<int64_t>(i * sizeof(table)), sizeof(table));
    auto& references = state.tables.emplace_back(table.size);
    const auto* entries = reinterpret_cast<const wasm::TableEntry*>(memory + table.base);
    if (info.tables[i].element == wasm::ValueType::kFuncRef)
      std::transform(entries, entries + table.size, references.begin(),
                     [&](const wasm::TableEntry& entry) { return object.function_of(entry.reference); });
  }
  return state;
}

std::optional<uint32_t> ProtoFaaslet::function_in_table(uint32_t entry) const {
  const wasm::ModuleInfo& info = module();
  if (info.tables.empty() || info.tables[0].element != wasm::ValueType::kFuncRef) return std::nullopt;
  const uint8_t* const memory = image() - regions_[0].offset;
  wasm::TableDescriptor table;
  std::memcpy(&table, memory + object_->layout().table_descriptors, sizeof(table));
  if (entry >= table.size) return std::nullopt;
  wasm::TableEntry found;
  std::memcpy(&found, memory + table.base + static_cast<int64_t>(entry * sizeof(found)), sizeof(found));
  const uint32_t function = object_->function_of(found.reference);
  if (function <= info.imported_functions) return std::nullopt;
  return function - 1;
}

}  // namespace spore::faaslet

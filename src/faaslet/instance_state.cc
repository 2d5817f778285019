#include "faaslet/instance_state.h"

#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "faaslet/const_expr.h"

namespace spore::faaslet {

using wasm::Cell;
using wasm::SegmentMode;

namespace {

constexpr uint64_t kMagic = 0x676d6965726f7073;  // "sporeimg"
constexpr uint64_t kPageBytes = 4096;
constexpr int kCompressionLevel = 3;
constexpr size_t kReasonBytesMax = 4096;

std::unexpected<Error> segment_out_of_bounds(const char* kind, size_t index) {
  return fail(ErrorCode::kInvalidModule,
              std::string("instantiation traps: ") + kind + " segment " + std::to_string(index) + " is out of bounds");
}

std::unexpected<Error> damaged(const std::string& what) { return fail(ErrorCode::kInvalidArgument, "image: " + what); }

}  // namespace

void append_nonzero_pages(std::vector<MemoryRun>& runs, uint64_t offset, ByteSpan bytes) {
  static constexpr uint8_t kZeros[kPageBytes] = {};
  for (uint64_t at = 0; at < bytes.size(); at += kPageBytes) {
    const ByteSpan page = bytes.subspan(at, std::min<uint64_t>(kPageBytes, bytes.size() - at));
    if (std::memcmp(page.data(), kZeros, page.size()) == 0) continue;
    MemoryRun* const last = runs.empty() ? nullptr : &runs.back();
    if (last && last->offset + last->bytes.size() == offset + at &&
        last->bytes.data() + last->bytes.size() == page.data())
      last->bytes = {last->bytes.data(), last->bytes.size() + page.size()};
    else
      runs.push_back({offset + at, page});
  }
}

// ---- from a module --------------------------------------------------------------------------------------------------

Result<InstanceState> instantiate(const wasm::ModuleInfo& info) {
  if (info.imported_memories || info.imported_tables || info.imported_globals || info.imported_tags)
    return fail(ErrorCode::kInvalidModule, "memories, tables, globals and tags cannot be imported");
  InstanceState state;
  const auto global = [&](uint32_t index) { return state.globals[index]; };
  const auto function = [](uint32_t index) { return uint64_t{index} + 1; };
  for (const auto& definition : info.globals) state.globals.push_back(evaluate(definition.init, global, function));
  for (const auto& memory : info.memories) {
    if (memory.pages.min > wasm::kMemory32PagesMax)
      return fail(ErrorCode::kResourceExhausted, "the module starts with " + std::to_string(memory.pages.min / 16) +
                                                     " MiB of memory, more than the 4096 MiB there can be");
    state.memories.push_back({memory.pages.min * wasm::kPageBytes, {}});
  }
  for (const auto& table : info.tables) state.tables.emplace_back(table.limits.min);

  state.elements_dropped.resize(info.element_segments.size());
  for (size_t i = 0; i < info.element_segments.size(); ++i) {
    const wasm::ElementSegment& segment = info.element_segments[i];
    if (segment.mode == SegmentMode::kPassive) continue;
    state.elements_dropped[i] = 1;
    if (segment.mode != SegmentMode::kActive) continue;
    const uint64_t offset = evaluate(segment.offset, global, function).low;
    auto& table = state.tables[segment.table];
    if (offset > table.size() || segment.elements.size() > table.size() - offset)
      return segment_out_of_bounds("element", i);
    for (size_t j = 0; j < segment.elements.size(); ++j)
      table[offset + j] = static_cast<uint32_t>(evaluate(segment.elements[j], global, function).low);
  }
  state.data_dropped.resize(info.data_segments.size());
  for (size_t i = 0; i < info.data_segments.size(); ++i) {
    const wasm::DataSegment& segment = info.data_segments[i];
    if (segment.mode != SegmentMode::kActive) continue;
    state.data_dropped[i] = 1;
    const uint64_t offset = evaluate(segment.offset, global, function).low;
    auto& memory = state.memories[segment.memory];
    if (offset > memory.size_bytes || segment.bytes.size() > memory.size_bytes - offset)
      return segment_out_of_bounds("data", i);
    if (!segment.bytes.empty()) memory.runs.push_back({offset, segment.bytes});
  }
  return state;
}

// ---- image files ----------------------------------------------------------------------------------------------------

Bytes serialize(const InstanceState& state, const Digest& module_digest) {
  ByteWriter body;
  body.write<uint8_t>(state.initialised);
  body.write_text(std::string_view(state.uninitialised_because).substr(0, kReasonBytesMax));
  body.write<uint64_t>(state.globals.size());
  for (const Cell& global : state.globals) {
    body.write(global.low);
    body.write(global.high);
  }
  body.write_bytes(state.data_dropped);
  body.write_bytes(state.elements_dropped);
  body.write<uint64_t>(state.tables.size());
  for (const auto& table : state.tables)
    body.write_bytes({reinterpret_cast<const uint8_t*>(table.data()), table.size() * sizeof(uint32_t)});
  body.write<uint64_t>(state.memories.size());
  for (const MemoryState& memory : state.memories) {
    body.write(memory.size_bytes);
    body.write<uint64_t>(memory.runs.size());
    for (const MemoryRun& run : memory.runs) {
      body.write(run.offset);
      body.write_bytes(run.bytes);
    }
  }

  ByteWriter out;
  out.write(kMagic);
  out.write(kImageFormatVersion);
  out.write(wasm::kAbiVersion);
  out.write_bytes(module_digest);
  out.write<uint64_t>(body.bytes().size());
  Bytes file = out.take();
  const size_t header_bytes = file.size();
  file.resize(header_bytes + ZSTD_compressBound(body.bytes().size()));
  const size_t size = ZSTD_compress(file.data() + header_bytes, file.size() - header_bytes, body.bytes().data(),
                                    body.bytes().size(), kCompressionLevel);
  file.resize(header_bytes + size);  // it cannot fail: the room is the bound
  return file;
}

Result<InstanceState> parse_instance_state(ByteSpan bytes, const wasm::ModuleInfo& info, const Digest& module_digest,
                                           uint64_t memory_pages_max) {
  ByteReader header(bytes);
  if (header.read<uint64_t>() != kMagic) return damaged("it is no image");
  if (const auto version = header.read<uint32_t>(); version != kImageFormatVersion)
    return damaged("its format is version " + std::to_string(version) + ", not " + std::to_string(kImageFormatVersion));
  if (const auto version = header.read<uint32_t>(); version != wasm::kAbiVersion)
    return damaged("its layout is version " + std::to_string(version) + ", not " + std::to_string(wasm::kAbiVersion));
  if (const ByteSpan digest = header.read_bytes(); !std::ranges::equal(digest, module_digest))
    return damaged("it is of another module");
  const auto body_bytes = header.read<uint64_t>();
  if (!header.ok()) return damaged("it is cut short");

  // What memories may hold, and below 512 MiB everything else.
  uint64_t body_bytes_max = (512ull << 20) + memory_pages_max * wasm::kPageBytes;
  for (size_t i = 1; i < info.memories.size(); ++i) body_bytes_max += memory_pages_limit(info, i) * wasm::kPageBytes;
  if (body_bytes > body_bytes_max) return damaged("it holds more than the module may have");
  InstanceState state;
  state.storage.resize(body_bytes);
  const ByteSpan compressed = header.rest();
  const size_t size = ZSTD_decompress(state.storage.data(), body_bytes, compressed.data(), compressed.size());
  if (ZSTD_isError(size) || size != body_bytes) return damaged("it does not decompress");

  ByteReader body(state.storage);
  state.initialised = body.read<uint8_t>() != 0;
  state.uninitialised_because = body.read_text();
  if (body.read_count(2 * sizeof(uint64_t)) != info.globals.size()) return damaged("its globals are not the module's");
  const auto is_function = [&](uint64_t reference) { return reference <= info.functions.size(); };
  for (const auto& definition : info.globals) {
    Cell value;
    value.low = body.read<uint64_t>();
    value.high = body.read<uint64_t>();
    const wasm::ValueType type = definition.type.type;
    if (type == wasm::ValueType::kFuncRef ? !is_function(value.low) : wasm::is_reference(type) && value.low != 0)
      return damaged("a global refers to no function");
    state.globals.push_back(value);
  }
  const auto read_flags = [&](std::vector<uint8_t>& flags, size_t count) {
    const ByteSpan read = body.read_bytes();
    flags.assign(read.begin(), read.end());
    return flags.size() == count && std::ranges::all_of(flags, [](uint8_t flag) { return flag <= 1; });
  };
  if (!read_flags(state.data_dropped, info.data_segments.size()) ||
      !read_flags(state.elements_dropped, info.element_segments.size()))
    return damaged("its segments are not the module's");

  ASSIGN_OR_RETURN(const wasm::InstanceLayout layout, wasm::instance_layout(info));
  if (body.read<uint64_t>() != info.tables.size()) return damaged("its tables are not the module's");
  for (size_t i = 0; i < info.tables.size(); ++i) {
    const ByteSpan read = body.read_bytes();
    const size_t count = read.size() / sizeof(uint32_t);
    if (read.size() % sizeof(uint32_t) || count < info.tables[i].limits.min || count > layout.table_max[i])
      return damaged("a table has an impossible size");
    auto& table = state.tables.emplace_back(count);
    std::memcpy(table.data(), read.data(), read.size());
    const bool functions = info.tables[i].element == wasm::ValueType::kFuncRef;
    if (!std::ranges::all_of(table, [&](uint32_t entry) { return functions ? is_function(entry) : entry == 0; }))
      return damaged("a table refers to no function");
  }

  if (body.read<uint64_t>() != info.memories.size()) return damaged("its memories are not the module's");
  for (size_t i = 0; i < info.memories.size(); ++i) {
    MemoryState memory{body.read<uint64_t>(), {}};
    const uint64_t pages = memory.size_bytes / wasm::kPageBytes;
    const uint64_t pages_max =
        i == 0 ? std::min(memory_pages_max, memory_pages_limit(info, 0)) : memory_pages_limit(info, i);
    if (memory.size_bytes % wasm::kPageBytes || pages < info.memories[i].pages.min || pages > pages_max)
      return damaged("a memory has an impossible size");
    const uint64_t runs = body.read_count(2 * sizeof(uint64_t));
    uint64_t last_end = 0;
    for (uint64_t j = 0; j < runs; ++j) {
      const auto offset = body.read<uint64_t>();
      const ByteSpan content = body.read_bytes();
      if (offset < last_end || offset % kPageBytes || content.size() % kPageBytes || offset > memory.size_bytes ||
          content.size() > memory.size_bytes - offset)
        return damaged("a page lies outside of its memory");
      last_end = offset + content.size();
      memory.runs.push_back({offset, content});
    }
    state.memories.push_back(std::move(memory));
  }
  if (!body.ok() || !body.at_end()) return damaged("it is cut short, or longer than what it holds");
  return state;
}

}  // namespace spore::faaslet

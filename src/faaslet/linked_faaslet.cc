#include "faaslet/linked_faaslet.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/fd.h"
#include "base/mapping.h"
#include "faaslet/const_expr.h"

namespace spore::faaslet {

using wasm::Cell;
using wasm::ExternalKind;
using wasm::TrapKind;
using wasm::ValueType;

namespace {

bool limits_match(uint64_t size, const std::optional<uint64_t>& max, const wasm::Limits& wanted) {
  return size >= wanted.min && (!wanted.max || (max && *max <= *wanted.max));
}

Outcome trapped(TrapKind kind) {
  Outcome outcome;
  outcome.kind = Outcome::Kind::kTrapped;
  outcome.trap = {.kind = kind, .message = std::string(message_of(kind)), .stack = {}};
  return outcome;
}

std::string_view name_of_kind(ExternalKind kind) {
  switch (kind) {
    case ExternalKind::kFunction: return "function";
    case ExternalKind::kTable: return "table";
    case ExternalKind::kMemory: return "memory";
    case ExternalKind::kGlobal: return "global";
    case ExternalKind::kTag: return "tag";
  }
  return "?";
}

}  // namespace

// A memory, and the instances that have it.
class LinkedMemory {
 public:
  static Result<std::shared_ptr<LinkedMemory>> make(const wasm::MemoryType& type) {
    auto memory = std::make_shared<LinkedMemory>();
    memory->type_ = type;
    memory->pages_max_ = std::min(type.pages.max.value_or(wasm::kMemory32PagesMax), wasm::kMemory32PagesMax);
    if (type.pages.min > wasm::kMemory32PagesMax)
      return fail(ErrorCode::kResourceExhausted,
                  "a memory of more than " + std::to_string(wasm::kMemory32PagesMax) + " pages");
    ASSIGN_OR_RETURN(memory->fd_, make_memfd("spore-linked-memory"));
    const size_t reserved = std::max<uint64_t>(memory->pages_max_, 1) * wasm::kPageBytes;
    void* at = ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return fail_errno("reserve a memory");
    memory->window_ = Mapping(at, reserved);
    if (!memory->grow(type.pages.min)) return fail_errno("map a memory");
    return memory;
  }

  const wasm::MemoryType& type() const { return type_; }
  uint64_t pages() const { return size_bytes_ / wasm::kPageBytes; }

  // From now on this is memory `index` of the instance.
  bool attach(LinkedFaaslet& instance, uint32_t index) {
    instances_.push_back({&instance, index});
    if (index == 0 && !map(instance.memory(), 0, size_bytes_)) return false;
    update(instances_.back());
    return true;
  }

  std::optional<uint64_t> grow(uint64_t delta_pages) {
    const uint64_t old_pages = pages();
    if (delta_pages > pages_max_ - old_pages) return std::nullopt;
    if (delta_pages == 0) return old_pages;
    const uint64_t old_bytes = size_bytes_;
    const uint64_t new_bytes = old_bytes + delta_pages * wasm::kPageBytes;
    if (::ftruncate(fd_.get(), static_cast<off_t>(new_bytes)) != 0) return std::nullopt;
    if (!map(window_.data(), old_bytes, new_bytes)) return std::nullopt;
    for (const Attached& attached : instances_)
      if (attached.index == 0 && !map(attached.instance->memory(), old_bytes, new_bytes)) return std::nullopt;
    size_bytes_ = new_bytes;
    for (const Attached& attached : instances_) update(attached);
    return old_pages;
  }

 private:
  struct Attached {
    LinkedFaaslet* instance = nullptr;
    uint32_t index = 0;
  };

  bool map(uint8_t* base, uint64_t begin, uint64_t end) const {
    if (begin == end) return true;
    return ::mmap(base + begin, end - begin, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd_.get(),
                  static_cast<off_t>(begin)) != MAP_FAILED;
  }

  void update(const Attached& attached) const {
    LinkedFaaslet& instance = *attached.instance;
    if (attached.index == 0) {
      instance.header().memory_size_bytes = size_bytes_;
      instance.header().memory_pages_max = pages_max_;
    } else {
      instance.memory_descriptor(attached.index) = {
          .base = window_.data() - instance.memory(), .size_bytes = size_bytes_, .pages_max = pages_max_};
    }
  }

  wasm::MemoryType type_;
  UniqueFd fd_;
  Mapping window_;  // all of it, for instances that have it at another index than 0
  uint64_t size_bytes_ = 0;
  uint64_t pages_max_ = 0;
  std::vector<Attached> instances_;
};

// A table, in the slot of the instance that defines it.
class LinkedTable {
 public:
  LinkedTable(LinkedFaaslet& instance, uint32_t index, const wasm::TableType& type)
      : type_(type),
        size_(type.limits.min),
        max_(instance.object().layout().table_max[index]),
        entries_(reinterpret_cast<wasm::TableEntry*>(instance.memory() + instance.object().layout().tables[index])) {}

  const wasm::TableType& type() const { return type_; }
  uint64_t size() const { return size_; }

  void attach(LinkedFaaslet& instance, uint32_t index) {
    instances_.push_back({&instance, index});
    update(instances_.back());
  }

  void set(uint64_t index, uint64_t reference) {
    wasm::TableEntry& entry = entries_[index];
    entry = {};
    if (type_.element == ValueType::kFuncRef && reference != 0) entry = descriptor_of(reference);
    entry.reference = reference;
  }

  std::optional<uint64_t> grow(uint64_t delta, uint64_t reference) {
    if (delta > max_ - size_) return std::nullopt;
    const uint64_t old_size = size_;
    size_ += delta;
    for (uint64_t i = old_size; i < size_; ++i) set(i, reference);
    for (const Attached& attached : instances_) update(attached);
    return old_size;
  }

 private:
  struct Attached {
    LinkedFaaslet* instance = nullptr;
    uint32_t index = 0;
  };

  void update(const Attached& attached) const {
    attached.instance->table_descriptor(attached.index) = {
        .base = reinterpret_cast<uint8_t*>(entries_) - attached.instance->memory(), .size = size_, .max = max_};
  }

  wasm::TableType type_;
  uint64_t size_ = 0;
  uint64_t max_ = 0;
  wasm::TableEntry* entries_ = nullptr;
  std::vector<Attached> instances_;
};

// ---- one instance ---------------------------------------------------------------------------------------------------

LinkedFaaslet::LinkedFaaslet(LinkedWorld& world, Slot slot, std::shared_ptr<const LoadedObject> object,
                             std::span<const HostFunction> links)
    : Faaslet(std::move(slot), std::move(object), links, nullptr), world_(world) {
  this->object().bind(this);
}

LinkedFaaslet::~LinkedFaaslet() { object().bind(nullptr); }

wasm::TableDescriptor& LinkedFaaslet::table_descriptor(uint32_t index) const {
  return reinterpret_cast<wasm::TableDescriptor*>(memory() + object().layout().table_descriptors)[index];
}

wasm::MemoryDescriptor& LinkedFaaslet::memory_descriptor(uint32_t index) const {
  return reinterpret_cast<wasm::MemoryDescriptor*>(memory() + object().layout().memory_descriptors)[index];
}

uint8_t* LinkedFaaslet::global_address(uint32_t index) const {
  const External& global = globals_[index];
  return global.instance->memory() + global.instance->object().layout().globals[global.index];
}

uint8_t* LinkedFaaslet::memory_address(uint32_t index) const {
  return index == 0 ? memory() : memory() + memory_descriptor(index).base;
}

Cell LinkedFaaslet::global(uint32_t index) const {
  Cell value;
  const size_t size = module().globals[index].type.type == ValueType::kV128 ? 16 : 8;
  std::memcpy(&value, global_address(index), size);
  return value;
}

Cell LinkedFaaslet::value_of(const wasm::ConstExpr& expression) const {
  return evaluate(
      expression, [this](uint32_t index) { return global(index); },
      [this](uint32_t index) { return object().reference(index); });
}

std::optional<uint64_t> LinkedFaaslet::grow_memory(uint32_t memory, uint64_t delta_pages) {
  return memories_[memory]->grow(delta_pages);
}

std::optional<uint64_t> LinkedFaaslet::grow_table(uint32_t table, uint64_t delta, uint64_t reference) {
  return tables_[table]->grow(delta, reference);
}

// All that lies below M: zeroed, with the header of an instance without memory.
Result<void> LinkedFaaslet::map_own_part() {
  const int64_t bottom = object().layout().stack_bottom;
  if (::mmap(memory() + bottom, static_cast<size_t>(-bottom), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
    return fail_errno("map an instance");
  return {};
}

Result<void> LinkedFaaslet::make_memories(std::span<const External> imports) {
  for (const External& import : imports)
    if (import.kind == ExternalKind::kMemory) memories_.push_back(import.instance->memories_[import.index]);
  for (size_t i = memories_.size(); i < module().memories.size(); ++i) {
    ASSIGN_OR_RETURN(auto memory, LinkedMemory::make(module().memories[i]));
    memories_.push_back(std::move(memory));
  }
  for (uint32_t i = 0; i < memories_.size(); ++i)
    if (!memories_[i]->attach(*this, i)) return fail_errno("map a memory");
  return {};
}

void LinkedFaaslet::make_tables(std::span<const External> imports) {
  for (const External& import : imports)
    if (import.kind == ExternalKind::kTable) tables_.push_back(import.instance->tables_[import.index]);
  for (auto i = static_cast<uint32_t>(tables_.size()); i < module().tables.size(); ++i)
    tables_.push_back(std::make_shared<LinkedTable>(*this, i, module().tables[i]));
  for (uint32_t i = 0; i < tables_.size(); ++i) tables_[i]->attach(*this, i);
}

void LinkedFaaslet::make_globals(std::span<const External> imports) {
  for (const External& import : imports)
    if (import.kind == ExternalKind::kGlobal) globals_.push_back(import);
  for (auto i = static_cast<uint32_t>(globals_.size()); i < module().globals.size(); ++i)
    globals_.push_back({ExternalKind::kGlobal, this, i});
  for (uint32_t i = 0; i < globals_.size(); ++i) {
    uint8_t* own = memory() + object().layout().globals[i];
    const wasm::Global& global = module().globals[i];
    const size_t size = global.type.type == ValueType::kV128 ? 16 : 8;
    if (i >= module().imported_globals) {
      const Cell value = value_of(global.init);
      std::memcpy(own, &value, size);
    } else if (global.type.is_mutable) {
      const int64_t distance = global_address(i) - memory();
      std::memcpy(own, &distance, sizeof(distance));
    } else {
      std::memcpy(own, global_address(i), size);
    }
  }
}

// A tag is which it is in the instance that defines it, and where that instance lies.
void LinkedFaaslet::set_tag(uint32_t index) {
  const External& tag = tags_[index];
  const uint64_t identity = reinterpret_cast<uint64_t>(tag.instance->memory()) + tag.index;
  std::memcpy(memory() + object().layout().tags + 8 * int64_t{index}, &identity, sizeof(identity));
}

TrapKind LinkedFaaslet::apply_segments() {
  const wasm::InstanceLayout& layout = object().layout();
  for (size_t i = 0; i < module().element_segments.size(); ++i) {
    const wasm::ElementSegment& segment = module().element_segments[i];
    if (segment.mode == wasm::SegmentMode::kPassive) continue;
    if (segment.mode == wasm::SegmentMode::kActive) {
      LinkedTable& table = *tables_[segment.table];
      const uint64_t offset = value_of(segment.offset).low;
      if (offset > table.size() || segment.elements.size() > table.size() - offset) return TrapKind::kTableOutOfBounds;
      for (size_t j = 0; j < segment.elements.size(); ++j) table.set(offset + j, value_of(segment.elements[j]).low);
    }
    memory()[layout.elements_dropped + static_cast<int64_t>(i)] = 1;
  }
  for (size_t i = 0; i < module().data_segments.size(); ++i) {
    const wasm::DataSegment& segment = module().data_segments[i];
    if (segment.mode != wasm::SegmentMode::kActive) continue;
    const uint64_t size = memories_[segment.memory]->pages() * wasm::kPageBytes;
    const uint64_t offset = value_of(segment.offset).low;
    if (offset > size || segment.bytes.size() > size - offset) return TrapKind::kMemoryOutOfBounds;
    if (!segment.bytes.empty())
      std::memcpy(memory_address(segment.memory) + offset, segment.bytes.data(), segment.bytes.size());
    memory()[layout.data_dropped + static_cast<int64_t>(i)] = 1;
  }
  return TrapKind::kNone;
}

// The host function behind every function import: which one, the header says.
HostResult LinkedFaaslet::enter_import(HostCall& call) {
  auto& self = static_cast<LinkedFaaslet&>(call.faaslet());
  const auto import = static_cast<uint32_t>(self.header().pending_call);
  CHECK(import < self.module().imported_functions, import);
  const wasm::Signature& signature = self.module().signature_of(import);
  std::vector<Cell> arguments;
  for (uint32_t i = 0; i < signature.params.size(); ++i) arguments.push_back(call.argument<Cell>(i));
  std::vector<Cell> results(signature.results.size());
  const Outcome outcome = self.world_.call(self.functions_[import], arguments, results);
  if (outcome.kind == Outcome::Kind::kTrapped && self.take_exception_of(*self.functions_[import].instance))
    return HostResult::kDone;
  if (outcome.kind != Outcome::Kind::kReturned) return call.trap(outcome.trap.kind, outcome.trap.message);
  for (uint32_t i = 0; i < results.size(); ++i) call.set_result(i, results[i]);
  return HostResult::kDone;
}

// ---- the world ------------------------------------------------------------------------------------------------------

LinkedWorld::LinkedWorld(Seat& seat) : seat_(seat) {}
LinkedWorld::~LinkedWorld() = default;

void LinkedWorld::register_instance(const std::string& module, LinkedFaaslet& instance) {
  auto& exports = modules_[module];
  for (const wasm::Export& entry : instance.module().exports) {
    External external{entry.kind, &instance, entry.index};
    if (entry.kind == ExternalKind::kFunction) external = instance.functions_[entry.index];
    if (entry.kind == ExternalKind::kGlobal) external = instance.globals_[entry.index];
    if (entry.kind == ExternalKind::kTag) external = instance.tags_[entry.index];
    exports.insert_or_assign(entry.name, external);
  }
}

namespace {

bool same_function(const wasm::ModuleInfo& a, uint32_t a_type, const wasm::ModuleInfo& b, uint32_t b_type) {
  return a.types[a_type] == b.types[b_type];
}

}  // namespace

bool LinkedWorld::fits(const External& external, const wasm::ModuleInfo& importer, const wasm::Import& import) const {
  if (external.kind != import.kind) return false;
  const LinkedFaaslet& from = *external.instance;
  const wasm::ModuleInfo& exporter = from.module();
  switch (import.kind) {
    case ExternalKind::kFunction:
      return same_function(exporter, exporter.functions[external.index], importer, importer.functions[import.index]);
    case ExternalKind::kTag:
      return same_function(exporter, exporter.tags[external.index], importer, importer.tags[import.index]);
    case ExternalKind::kGlobal: {
      const wasm::GlobalType& has = exporter.globals[external.index].type;
      const wasm::GlobalType& wants = importer.globals[import.index].type;
      return has.type == wants.type && has.is_mutable == wants.is_mutable;
    }
    case ExternalKind::kTable: {
      const LinkedTable& has = *from.tables_[external.index];
      const wasm::TableType& wants = importer.tables[import.index];
      return has.type().element == wants.element && limits_match(has.size(), has.type().limits.max, wants.limits);
    }
    case ExternalKind::kMemory: {
      const LinkedMemory& has = *from.memories_[external.index];
      const wasm::MemoryType& wants = importer.memories[import.index];
      return has.type().shared == wants.shared && has.type().is_64 == wants.is_64 &&
             limits_match(has.pages(), has.type().pages.max, wants.pages);
    }
  }
  return false;
}

Result<std::vector<External>> LinkedWorld::resolve(const wasm::ModuleInfo& module) const {
  std::vector<External> externals;
  for (const wasm::Import& import : module.imports) {
    const std::string name = "\"" + import.module + "\" \"" + import.name + "\"";
    const auto from = modules_.find(import.module);
    if (from == modules_.end()) return fail(ErrorCode::kNotFound, "unknown import: " + name + ": no such module");
    const auto found = from->second.find(import.name);
    if (found == from->second.end()) return fail(ErrorCode::kNotFound, "unknown import: " + name);
    if (!fits(found->second, module, import))
      return fail(ErrorCode::kInvalidArgument,
                  "incompatible import type: " + name + " is no such " + std::string(name_of_kind(import.kind)));
    externals.push_back(found->second);
  }
  return externals;
}

Result<LinkedWorld::Instantiation> LinkedWorld::instantiate(std::shared_ptr<const LoadedObject> object) {
  const wasm::ModuleInfo& module = object->module();
  CHECK(object->object().cross_instance && !object->instance(), "an object for one linked instance");
  ASSIGN_OR_RETURN(const std::vector<External> imports, resolve(module));
  ASSIGN_OR_RETURN(Slot slot, Slot::reserve());
  links_.emplace_back(module.imported_functions, &LinkedFaaslet::enter_import);
  instances_.push_back(
      std::unique_ptr<LinkedFaaslet>(new LinkedFaaslet(*this, std::move(slot), object, links_.back())));
  LinkedFaaslet& instance = *instances_.back();

  for (const External& import : imports) {
    if (import.kind == ExternalKind::kFunction) instance.functions_.push_back(import);
    if (import.kind == ExternalKind::kTag) instance.tags_.push_back(import);
  }
  for (auto i = module.imported_functions; i < module.functions.size(); ++i)
    instance.functions_.push_back({ExternalKind::kFunction, &instance, i});
  for (auto i = module.imported_tags; i < module.tags.size(); ++i)
    instance.tags_.push_back({ExternalKind::kTag, &instance, i});
  TRY(instance.map_own_part());
  for (uint32_t i = 0; i < instance.tags_.size(); ++i) instance.set_tag(i);
  TRY(instance.make_memories(imports));
  instance.make_globals(imports);
  instance.make_tables(imports);

  Instantiation result{.instance = &instance, .outcome = {}};
  const TrapKind trap = instance.apply_segments();
  if (trap != TrapKind::kNone) {
    result.outcome = trapped(trap);
  } else if (module.start) {
    result.outcome = call(instance.functions_[*module.start], {}, {});
  }
  return result;
}

Outcome LinkedWorld::call(const External& function, std::span<const Cell> arguments, std::span<Cell> results) {
  LinkedFaaslet& instance = *function.instance;
  Outcome outcome = instance.start(seat_, function.index, arguments);
  if (outcome.kind == Outcome::Kind::kParked) {
    // Nobody could wait for it here without holding the callers up.
    outcome = trapped(TrapKind::kHostCall);
    outcome.trap.message = "a call between instances cannot wait";
  }
  if (outcome.kind == Outcome::Kind::kReturned)
    for (uint32_t i = 0; i < results.size(); ++i) results[i] = instance.result(i);
  return outcome;
}

}  // namespace spore::faaslet

// What Faaslets of a function are restored from: the whole of an instance just after instantiation (globals, tables,
// memory with its data segments; the start function has not run), in one sealed memory file that is mapped
// copy-on-write. Immutable; any number of Faaslets on any threads share it.
#pragma once

#include <memory>

#include "base/fd.h"
#include "base/mapping.h"
#include "faaslet/code_arena.h"

namespace spore::faaslet {

class ProtoFaaslet {
 public:
  // For modules whose only imports are functions (and what the host links by name). Errors: a segment that is out of
  // bounds (kInvalidModule), memory larger than `memory_pages_max` (kResourceExhausted).
  static Result<std::shared_ptr<const ProtoFaaslet>> make(std::shared_ptr<const LoadedObject> object,
                                                          uint64_t memory_pages_max = wasm::kMemory32PagesMax);

  const std::shared_ptr<const LoadedObject>& object() const { return object_; }
  const wasm::ModuleInfo& module() const { return object_->module(); }
  uint64_t memory_bytes() const { return memory_bytes_; }
  uint64_t memory_pages_max() const { return memory_pages_max_; }
  // How far memory 0 may grow before it meets the windows, in bytes from M.
  int64_t window_floor() const { return window_floor_; }

  // The image again, to read from: from layout().stack_bottom to the end of memory 0.
  const uint8_t* image() const { return image_.data(); }

  // Makes an empty slot, by its M, a fresh copy. One mapping, whatever the size.
  Result<void> map_into(uint8_t* memory) const;

 private:
  ProtoFaaslet() = default;
  struct ExtraData {  // a data segment of a memory other than 0
    uint32_t memory = 0;
    uint64_t offset = 0;
    uint32_t segment = 0;
  };
  std::shared_ptr<const LoadedObject> object_;
  Mapping image_;
  UniqueFd fd_;  // from layout().stack_bottom to the end of memory 0
  uint64_t memory_bytes_ = 0;
  uint64_t memory_pages_max_ = 0;
  int64_t window_floor_ = 0;
  std::vector<ExtraData> extra_data_;
};

}  // namespace spore::faaslet

// Where native code lives: one range of address space, at the same place in every process (wasm::kArenaBase), so that
// a code address means the same everywhere and a table entry is an offset into it.
//
// An object is mapped at an address drawn from a keyed pseudo-random function of its bytes, the same in every process
// with that key; where something lies there already, at the next probe of the same function. It is mapped from a
// write-sealed memory file, never writable and executable at once, and stays mapped while anybody holds it.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "faaslet/trap.h"
#include "wasm/object.h"

namespace spore::faaslet {

class CodeArena;
class Faaslet;
class LoadedObject;

// The loaded object that holds this code address, or null. Takes the arena's lock; not for signal handlers.
const LoadedObject* object_at(uint64_t address);

// A compiled module, mapped. Immutable; shared by all its Faaslets.
class LoadedObject {
 public:
  ~LoadedObject();
  LoadedObject(const LoadedObject&) = delete;
  LoadedObject& operator=(const LoadedObject&) = delete;

  // Without code and rodata, which are mapped; everything else of the object.
  const wasm::Object& object() const { return object_; }
  const wasm::ModuleInfo& module() const { return object_.module; }
  const wasm::InstanceLayout& layout() const { return layout_; }

  uint64_t base() const { return base_; }
  uint64_t function_address(uint32_t function) const { return base_ + object_.functions[function]; }
  uint64_t trampoline_address(uint32_t type) const { return base_ + object_.trampolines[type]; }
  uint64_t enter_return_address() const;
  // The funcref of a function: arena offset of its descriptor.
  uint64_t reference(uint32_t function) const;
  // The other way: function index + 1, and 0 for the null reference.
  uint32_t function_of(uint64_t reference) const;

  // Walks native frames from (pc, sp), where pc lies in the instruction that runs, until the frame returns to the
  // runtime. Reads only [sp, stack_top).
  std::vector<Frame> walk(uint64_t pc, uint64_t sp, uint64_t stack_top) const;

  // Objects compiled with cross_instance belong to one instance; others have none.
  void bind(Faaslet* instance) const { instance_ = instance; }
  Faaslet* instance() const { return instance_; }

 private:
  friend class CodeArena;
  LoadedObject() = default;

  CodeArena* arena_ = nullptr;
  wasm::Object object_;
  wasm::InstanceLayout layout_;
  uint64_t base_ = 0;
  uint64_t mapped_bytes_ = 0;
  uint64_t descriptors_offset_ = 0;
  std::vector<std::pair<uint32_t, int32_t>> starts_;  // of every function, by offset; -1: not one of the module's
  mutable Faaslet* instance_ = nullptr;
};

class CodeArena {
 public:
  // Reserves the range; fails where something is mapped there (call it first in main). At most one a process at a time.
  static Result<std::unique_ptr<CodeArena>> reserve(ByteSpan placement_key);
  ~CodeArena();

  // kResourceExhausted when no probe finds room. Any thread.
  Result<std::shared_ptr<const LoadedObject>> load(wasm::Object object);

  // From now on, tells perf the names of the functions that are loaded: a line each in this file (perf looks for
  // /tmp/perf-PID.map).
  Result<void> write_perf_map(const std::filesystem::path& path);

  uint64_t used_bytes() const;
  size_t objects() const;

 private:
  friend class LoadedObject;
  friend const LoadedObject* object_at(uint64_t address);
  CodeArena() = default;
  void unload(LoadedObject& object);
  const LoadedObject* find(uint64_t address) const;
  static std::string perf_lines(const LoadedObject& object);

  struct State;
  std::unique_ptr<State> state_;
};

// A descriptor by its reference (a non-zero arena offset that came from generated code).
const wasm::FunctionDescriptor& descriptor_of(uint64_t reference);

}  // namespace spore::faaslet

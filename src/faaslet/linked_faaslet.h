// Instances that import memories, tables, globals, functions and tags from each other, each in a slot of its own.
//
// Functions that are published import functions of the host only, so they never come here: this is what the WebAssembly
// specification says about linking, for its test suite. Modules must be compiled with Options::cross_instance, and
// each instance needs an object loaded for it alone (a reference names one object, and so one instance).
//
//   memory     a memory file of its own, mapped shared: at M of each instance whose memory 0 it is, and once more
//              outside the slots for instances that reach it through a MemoryDescriptor
//   table      stays in the slot of the instance that defines it; an importer's TableDescriptor.base leads there
//   global     a mutable one stays in the defining slot, the importer's cell holds the distance; others are copied
//   function   a call enters the instance that defines it, nested on the same seat
//
// The world owns the instances and keeps them as long as it lives, also those whose instantiation failed: their
// functions may be in tables of others. One thread, that of its seat.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "faaslet/faaslet.h"

namespace spore::faaslet {

class LinkedFaaslet;
class LinkedWorld;
class LinkedMemory;
class LinkedTable;

// Something that an instance defines.
struct External {
  wasm::ExternalKind kind = wasm::ExternalKind::kFunction;
  LinkedFaaslet* instance = nullptr;  // that defines it, not one that passes on what it imports
  uint32_t index = 0;
};

class LinkedFaaslet final : public Faaslet {
 public:
  ~LinkedFaaslet() override;

  // Of a global of any kind; references as in Faaslet::start().
  wasm::Cell global(uint32_t index) const;

 private:
  friend class LinkedWorld;
  friend class LinkedMemory;
  friend class LinkedTable;
  LinkedFaaslet(LinkedWorld& world, Slot slot, std::shared_ptr<const LoadedObject> object,
                std::span<const HostFunction> links);

  std::optional<uint64_t> grow_memory(uint32_t memory, uint64_t delta_pages) override;
  std::optional<uint64_t> grow_table(uint32_t table, uint64_t delta, uint64_t reference) override;

  static HostResult enter_import(HostCall& call);
  Result<void> map_own_part();
  Result<void> make_memories(std::span<const External> imports);
  void make_tables(std::span<const External> imports);
  void make_globals(std::span<const External> imports);
  void set_tag(uint32_t index);
  // The first trap of the active segments, or kNone.
  wasm::TrapKind apply_segments();
  wasm::Cell value_of(const wasm::ConstExpr& expression) const;
  uint8_t* global_address(uint32_t index) const;
  uint8_t* memory_address(uint32_t index) const;
  wasm::TableDescriptor& table_descriptor(uint32_t index) const;
  wasm::MemoryDescriptor& memory_descriptor(uint32_t index) const;

  LinkedWorld& world_;
  std::vector<External> functions_;  // what stands behind each index, imports resolved
  std::vector<External> globals_;
  std::vector<External> tags_;
  std::vector<std::shared_ptr<LinkedTable>> tables_;
  std::vector<std::shared_ptr<LinkedMemory>> memories_;
};

class LinkedWorld {
 public:
  explicit LinkedWorld(Seat& seat);
  ~LinkedWorld();
  LinkedWorld(const LinkedWorld&) = delete;
  LinkedWorld& operator=(const LinkedWorld&) = delete;

  // Makes the exports of an instance importable from `module`, beside what is there already (a name is replaced).
  void register_instance(const std::string& module, LinkedFaaslet& instance);

  // What the module's imports mean. kNotFound: "unknown import: ..."; kInvalidArgument: "incompatible import type:
  // ...".
  Result<std::vector<External>> resolve(const wasm::ModuleInfo& module) const;

  struct Instantiation {
    LinkedFaaslet* instance = nullptr;
    Outcome outcome;  // of the segments and the start function: kReturned or kTrapped
  };
  // Errors: those of resolve(), and of the operating system.
  Result<Instantiation> instantiate(std::shared_ptr<const LoadedObject> object);

  // Calls a function of an instance, as a guest of another instance would.
  Outcome call(const External& function, std::span<const wasm::Cell> arguments, std::span<wasm::Cell> results);

 private:
  friend class LinkedFaaslet;
  bool fits(const External& external, const wasm::ModuleInfo& importer, const wasm::Import& import) const;

  Seat& seat_;
  std::deque<std::vector<HostFunction>> links_;  // of each instance
  std::vector<std::unique_ptr<LinkedFaaslet>> instances_;
  std::map<std::string, std::map<std::string, External, std::less<>>, std::less<>> modules_;
};

}  // namespace spore::faaslet

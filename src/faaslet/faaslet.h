// A Faaslet: one isolated instance of a function, in a slot of its own.
//
//   CodeArena --load--> LoadedObject --instantiate--> ProtoFaaslet --restore into a Slot--> Faaslet --run on a Seat-->
//
// start() runs one function of the module until it returns, traps, exits or parks; resume() goes on after a park. All
// methods are called by one thread at a time; start() and resume() by the thread of the seat they are given.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "faaslet/host_call.h"
#include "faaslet/proto_faaslet.h"
#include "faaslet/seat.h"
#include "faaslet/slot.h"

namespace spore::faaslet {

struct Outcome {
  enum class Kind { kReturned, kTrapped, kExited, kParked };
  Kind kind = Kind::kReturned;
  Trap trap;              // kTrapped
  int32_t exit_code = 0;  // kExited
  Wait wait;              // kParked
};

class Faaslet {
 public:
  // `slot` is empty (as reserved, or cleared). `links`: one host function for each function import, in order.
  // `host_state`: handed to them; outlives the Faaslet, as `links` does.
  static Result<std::unique_ptr<Faaslet>> restore(Slot slot, std::shared_ptr<const ProtoFaaslet> proto,
                                                  std::span<const HostFunction> links, void* host_state);
  virtual ~Faaslet();
  Faaslet(const Faaslet&) = delete;
  Faaslet& operator=(const Faaslet&) = delete;

  const LoadedObject& object() const { return *object_; }
  const wasm::ModuleInfo& module() const { return object_->module(); }

  // Arguments as the function's signature says; references are funcref offsets or the host's own externref numbers.
  // From a host function this enters the guest again, on the stack above the frames that wait for it.
  Outcome start(Seat& seat, uint32_t function, std::span<const wasm::Cell> arguments = {});
  Outcome resume(Seat& seat);
  // Of the last start() or resume() that ended kReturned.
  wasm::Cell result(uint32_t index) const;

  // Linear memory 0: its base, and its size now. Other threads must not rely on the content while the guest runs.
  uint8_t* memory() const { return slot_.memory(); }
  uint64_t memory_bytes() const { return header().memory_size_bytes; }

  // Makes this again what it was when restored, for another call: whatever the guest wrote is undone, and the mappings
  // stay. False where it cannot (further memories, a system call that failed): the slot must be cleared then.
  bool reset();

  // The slot, still full of the guest's pages; the Faaslet can only be destroyed then.
  Slot take_slot() { return std::move(slot_); }

 protected:
  Faaslet(Slot slot, std::shared_ptr<const LoadedObject> object, std::span<const HostFunction> links, void* host_state);

  // memory.grow, table.grow: the old size, or nothing where a maximum or the host's limit forbids it.
  virtual std::optional<uint64_t> grow_memory(uint32_t memory, uint64_t delta_pages);
  virtual std::optional<uint64_t> grow_table(uint32_t table, uint64_t delta, uint64_t reference);

  // After a call into another instance: whether that ended with an exception, which is then on its way here.
  bool take_exception_of(Faaslet& callee);

  template <class T>
  T& in_slot(int64_t offset) const {
    return *reinterpret_cast<T*>(slot_.memory() + offset);
  }
  wasm::InstanceHeader& header() const { return in_slot<wasm::InstanceHeader>(wasm::kHeaderOffset); }
  wasm::Cell& cell(uint32_t index) const { return in_slot<wasm::Cell>(object_->layout().cell(index)); }

 private:
  friend class HostCall;
  friend class Builtins;
  friend struct Dispatcher;

  HostResult dispatch(uint32_t call);
  HostResult call_thunk(Faaslet& target, uint32_t function);
  // What an entry ended with; `stack_top`, from M, is where its frames began.
  Outcome finish(uint32_t exit, uint64_t stack_top);
  wasm::Cell constant_global(uint32_t index) const;

  Slot slot_;
  std::shared_ptr<const LoadedObject> object_;
  std::shared_ptr<const ProtoFaaslet> proto_;  // keeps the image while it is mapped
  std::span<const HostFunction> links_;
  void* host_state_ = nullptr;
  int64_t window_floor_ = static_cast<int64_t>(wasm::kWindowsEndBytes);  // memory 0 grows up to here
  // What the last host call left for start() and resume() to report.
  Trap pending_trap_;
  Wait pending_wait_;
  int32_t pending_exit_code_ = 0;
  std::optional<Clock::time_point> atomic_wait_deadline_;
};

}  // namespace spore::faaslet

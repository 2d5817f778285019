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
  // `links`: one host function for each function import, in order. `host_state`: handed to them; outlives the Faaslet.
  static Result<std::unique_ptr<Faaslet>> restore(Slot slot, std::shared_ptr<const ProtoFaaslet> proto,
                                                  std::span<const HostFunction> links, void* host_state);
  virtual ~Faaslet();
  Faaslet(const Faaslet&) = delete;
  Faaslet& operator=(const Faaslet&) = delete;

  const LoadedObject& object() const { return *object_; }
  const wasm::ModuleInfo& module() const { return object_->module(); }

  // Arguments as the function's signature says; references are funcref offsets or the host's own externref numbers.
  Outcome start(Seat& seat, uint32_t function, std::span<const wasm::Cell> arguments = {});
  Outcome resume(Seat& seat);
  // Of the last start() or resume() that ended kReturned.
  wasm::Cell result(uint32_t index) const;

  // Linear memory 0: its base, and its size now. Other threads must not rely on the content while the guest runs.
  uint8_t* memory() const { return slot_.memory(); }
  uint64_t memory_bytes() const { return header().memory_size_bytes; }
  // Grows memory 0; the old size in pages, or nothing where the maximum or the function's limit forbids it.
  std::optional<uint64_t> grow_memory(uint64_t delta_pages);

  // The slot, for reuse; this Faaslet can only be destroyed then.
  Slot take_slot();

 protected:
  friend class Runner;
  friend class HostCall;
  Faaslet() = default;
  wasm::InstanceHeader& header() const;

  Slot slot_{std::move(*Slot::reserve())};
};

}  // namespace spore::faaslet

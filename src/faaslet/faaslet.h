// A Faaslet: one isolated instance of a function, in a slot of its own.
//
//   CodeArena --load--> LoadedObject --make--> ProtoFaaslet --restore into a Slot--> Faaslet --run on a Seat-->
//
// start() runs one function of the module until it returns, traps, exits or parks; resume() goes on after a park. All
// methods are called by one thread at a time; start() and resume() by the thread of the seat they are given. Nobody but
// that thread writes into the slot: reset() relies on it (faaslet_pages.cc).
//
// One that does not run can give its slot away: it then holds only how it differs from its ProtoFaaslet, which is
// nothing after a reset, and goes on in whatever slot it is given later, on any thread.
//
// What it takes counts at an account, where it has one: while a call is inside, all that the guest can touch, so that
// nothing is asked on its way but at memory.grow; otherwise what it holds, once somebody has looked (settle_memory).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/memory_account.h"
#include "faaslet/host_call.h"
#include "faaslet/proto_faaslet.h"
#include "faaslet/seat.h"
#include "faaslet/slot.h"
#include "faaslet/window.h"

namespace spore::faaslet {

struct Outcome {
  enum class Kind { kReturned, kTrapped, kExited, kParked };
  Kind kind = Kind::kReturned;
  Trap trap;              // kTrapped
  int32_t exit_code = 0;  // kExited
  Wait wait;              // kParked
};

class InterruptedGuest;

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
  // Where a parked guest is, innermost first; empty without a slot.
  std::vector<Frame> stack() const;
  // start() for a host function, on the seat that it runs on. One that parks is not resumed.
  Outcome enter(uint32_t function, std::span<const wasm::Cell> arguments);
  // Of the last start() or resume() that ended kReturned.
  wasm::Cell result(uint32_t index) const;

  // Linear memory 0: its base, and its size now. Other threads must not rely on the content while the guest runs.
  uint8_t* memory() const { return slot_.memory(); }
  uint64_t memory_bytes() const { return header().memory_size_bytes; }

  // Whether guest addresses [address, address + size_bytes) lie in memory 0 or in one window. Whether they can be read
  // and written is only known when it is tried.
  bool holds(uint64_t address, uint64_t size_bytes) const {
    const uint64_t memory = memory_bytes();
    return (address <= memory && size_bytes <= memory - address) || window_holds(address, size_bytes);
  }
  bool window_holds(uint64_t address, uint64_t size_bytes) const { return window_at(address, size_bytes) != nullptr; }
  // The window that these bytes lie in, or null.
  const Window* window_at(uint64_t address, uint64_t size_bytes) const;

  // Maps `size_bytes` (not 0, rounded up to whole pages) of the source's file, from its beginning. The guest's address.
  // kResourceExhausted: no room between memory and the windows, or too many of them.
  Result<uint32_t> map_window(std::shared_ptr<WindowSource> source, uint64_t size_bytes, bool writable);
  void unmap_window(uint32_t address);
  std::span<const Window> windows() const { return windows_; }
  // The call that runs relies on it: it stays until that ends.
  void use_window(size_t index) { windows_[index].in_use = true; }
  // All of them, between calls.
  void unmap_windows();

  // Makes this again what it was when restored, for another call: whatever the guest wrote is undone. Pages that it has
  // written to stay mapped, up to kKeptPagesMax, so that the next call takes no fault for them. False where a system
  // call failed: the slot must be cleared then. Windows stay, for a call that wants the same, if their source agrees.
  bool reset();
  // What it holds in memory of its own, at the last reset().
  uint64_t kept_bytes() const;

  // Once, before anything else is asked of it.
  void charge_to(const MemoryAccountPtr& account);
  // Before each start() and resume(): all that the guest can touch is charged then. Where that is refused nothing is.
  MemoryAccount::Refusal cover_memory() { return cover_memory(accessible_bytes()); }
  // While it does not run: only what it holds is charged from now on. Between calls that is known, within one the
  // kernel is asked.
  void settle_memory();
  uint64_t charged_bytes() const { return memory_charge_.bytes() + tables_charge_.bytes(); }

  // The instance as it is now, between calls. It borrows from the slot.
  Result<InstanceState> capture() const;

  // Whether it may go on in another slot: between calls always; inside a host call if its code is of the optimised
  // tier, which keeps no address of the slot on the stack; never between two of its instructions.
  bool can_move() const;
  // Writes down how this differs from its ProtoFaaslet and gives the slot, still full of the guest's pages. memory() is
  // null and nothing but move_into(), destruction and the const methods above is allowed then.
  Result<Slot> move_out();
  // `slot` is empty. On failure the slot is lost, and this stays without one.
  Result<void> move_into(Slot slot);
  bool has_slot() const { return slot_.memory() != nullptr; }
  // Of the written-down difference; 0 with a slot.
  uint64_t parked_bytes() const { return parked_ ? parked_->bytes.size() : 0; }

  // The slot, still full of the guest's pages; the Faaslet can only be destroyed then.
  Slot take_slot() {
    forget_windows();
    return std::move(slot_);
  }

  // A page that is kept costs a tenth of a microsecond at each reset, one that is not costs two when it is touched.
  static constexpr uint64_t kKeptPagesMax = 4096;
  // What is charged beside its pages: objects, mappings, and the first bytes of a call's buffers.
  static constexpr uint64_t kOverheadBytes = 16 << 10;

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

  // Pages that this process holds copies of, and what they are reset to: a part of the image, or zeros (null).
  struct CopiedRange {
    uint64_t begin = 0;  // addresses
    uint64_t end = 0;
    const uint8_t* image = nullptr;
    size_t region = 0;
  };
  struct Parked {
    std::vector<uint64_t> region_bytes;
    std::vector<MemoryRun> pages;  // by offset from M, modulo 2^64; in `bytes`
    Bytes bytes;
    std::vector<Window> windows;
  };

  void keep(std::vector<CopiedRange> copied);
  // Memories, stack and tables: what can be written to; and what is kept beyond, which may be counted twice.
  uint64_t accessible_bytes() const;
  MemoryAccount::Refusal cover_memory(uint64_t accessible) {
    return accessible + kOverheadBytes <= memory_charge_.bytes() || !memory_charge_.account()
               ? MemoryAccount::Refusal::kNone
               : raise_charges(accessible);
  }
  MemoryAccount::Refusal raise_charges(uint64_t accessible);
  uint64_t page_table_bytes(uint64_t accessible) const;

  uint64_t memory_bytes_of(size_t memory) const;
  // As addresses; the end is that of what is accessible now.
  uint64_t begin_of_region(size_t region) const;
  uint64_t end_of_region(size_t region) const;
  // `ends`: of each region, before its reset.
  bool find_copied_pages(std::span<const uint64_t> ends);
  void copy_back(std::span<const uint64_t> ends);
  void look_for_use(std::span<const uint64_t> ends);
  void release_unused();
  bool drop_pages(std::span<const uint64_t> ends);
  void show_working_set() const;

  // Finds `size_bytes` between memory and the lowest window, or between windows; 0: there is no room.
  uint64_t room_for_window(uint64_t size_bytes) const;
  Result<void> map_source(const Window& window);
  void unmap(size_t index);
  void unmap_unused_windows();
  // They are about to go with the slot.
  void forget_windows();
  // Where the lowest begins; memory may grow up to there.
  uint64_t windows_begin() const;

  HostResult dispatch(uint32_t call);
  HostResult call_thunk(Faaslet& target, uint32_t function);
  // What an entry ended with; `stack_top`, from M, is where its frames began.
  Outcome finish(uint32_t exit, uint64_t stack_top);
  uint64_t address_of(uint64_t offset) const;  // from M, modulo 2^64
  std::vector<Frame> stack_of_host_call(uint64_t stack_top) const;
  wasm::Cell constant_global(uint32_t index) const;

  Slot slot_;
  std::shared_ptr<const LoadedObject> object_;
  std::shared_ptr<const ProtoFaaslet> proto_;  // keeps the image while it is mapped
  std::span<const HostFunction> links_;
  void* host_state_ = nullptr;
  int64_t window_floor_ = static_cast<int64_t>(wasm::kWindowsEndBytes);  // other memories begin here; windows end
  std::vector<Window> windows_;                                          // by offset, highest first
  uint64_t kept_beyond_image_ = 0;                                       // bytes of copied_ that memories had grown by
  std::vector<CopiedRange> copied_;  // pages of grown memory beyond its end now are zero already
  uint64_t tracked_seat_ = 0;    // copied_ is complete as long as the guest has run on this seat only (0: it is not),
  uint64_t tracked_faults_ = 0;  // and its thread has taken this many page faults
  std::vector<uint64_t> used_pages_;  // of copied_, sorted: those that a call was seen to change lately
  uint32_t resets_ = 0;
  bool fresh_ = false;  // it was restored and not reset since
  bool clean_ = false;  // nothing has run since it was restored or reset
  std::unique_ptr<Parked> parked_;
  MemoryCharge memory_charge_, tables_charge_;
  // What the last host call left for start() and resume() to report.
  Trap pending_trap_;
  Wait pending_wait_;
  bool yielded_ = false;                           // parked behind a host call that is done
  std::unique_ptr<InterruptedGuest> interrupted_;  // parked between two instructions
  int32_t pending_exit_code_ = 0;
  std::optional<Clock::time_point> atomic_wait_deadline_;
  std::unique_ptr<WindowWait> window_wait_;
};

}  // namespace spore::faaslet

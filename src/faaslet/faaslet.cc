#include "faaslet/faaslet.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "faaslet/builtins.h"
#include "faaslet/interrupted_guest.h"
#include "faaslet/seat.h"
#include "faaslet/thread_state.h"

extern "C" {
uint32_t spore_enter(uint8_t* memory, uint64_t trampoline, uint64_t function, int64_t sp, uint64_t return_address);
uint32_t spore_resume(uint8_t* memory);
uint32_t spore_resume_interrupted(uint8_t* memory, const void* frame);
uint32_t spore_dispatch(uint32_t call, uint8_t* memory, uint64_t thunk_return_address);
}

namespace spore::faaslet {

using wasm::TrapKind;

namespace {

// Entries of guests within host functions within guests; each takes a part of the thread's own stack.
constexpr uint32_t kNestedEntriesMax = 400;

// Why spore_enter came back: EXIT_* in stubs.S, and what dispatch() returned.
constexpr uint32_t kReturned = 0;
static_assert(static_cast<uint32_t>(HostResult::kTrap) == 1, "EXIT_TRAPPED in stubs.S");
constexpr uint32_t kParked = static_cast<uint32_t>(HostResult::kPark);

}  // namespace

struct Dispatcher {
  static uint32_t dispatch(uint32_t call, uint64_t thunk_return_address) {
    Faaslet& faaslet = *spore_thread_state.faaslet;
    HostResult result;
    if (thunk_return_address) {
      const LoadedObject* object = object_at(thunk_return_address);
      CHECK(object && object->instance(), thunk_return_address);
      result = faaslet.call_thunk(*object->instance(), call);
    } else {
      result = faaslet.dispatch(call);
    }
    if (result == HostResult::kTrap) {
      spore_thread_state.trap_kind = static_cast<uint32_t>(TrapKind::kHostCall);
      spore_thread_state.trap_pc = 0;
    }
    if (std::exchange(spore_thread_state.offers, false)) [[unlikely]]
      ::sched_yield();
    if (spore_thread_state.yields && result == HostResult::kDone && spore_thread_state.depth == 1) [[unlikely]] {
      spore_thread_state.yields = false;
      faaslet.pending_wait_ = spore_thread_state.yields_for;
      faaslet.yielded_ = true;
      return kParked;
    }
    return static_cast<uint32_t>(result);
  }
};

HostResult HostCall::trap(TrapKind kind, std::string message) {
  faaslet_.pending_trap_ = {
      .kind = kind, .message = message.empty() ? std::string(message_of(kind)) : std::move(message), .stack = {}};
  return HostResult::kTrap;
}

HostResult HostCall::park(Wait wait) {
  faaslet_.pending_wait_ = wait;
  return HostResult::kPark;
}

HostResult HostCall::exit(int32_t code) {
  faaslet_.pending_exit_code_ = code;
  return HostResult::kExit;
}

Faaslet::Faaslet(Slot slot, std::shared_ptr<const LoadedObject> object, std::span<const HostFunction> links,
                 void* host_state)
    : slot_(std::move(slot)), object_(std::move(object)), links_(links), host_state_(host_state) {
  CHECK(links_.size() == module().imported_functions, links_.size(), module().imported_functions);
}

Faaslet::~Faaslet() { forget_windows(); }

Result<std::unique_ptr<Faaslet>> Faaslet::restore(Slot slot, std::shared_ptr<const ProtoFaaslet> proto,
                                                  std::span<const HostFunction> links, void* host_state) {
  std::unique_ptr<Faaslet> faaslet(new Faaslet(std::move(slot), proto->object(), links, host_state));
  TRY(proto->map_into(faaslet->slot_.memory()));
  faaslet->window_floor_ = proto->window_floor();
  faaslet->proto_ = std::move(proto);
  faaslet->fresh_ = true;
  faaslet->clean_ = true;
  return faaslet;
}

Outcome Faaslet::start(Seat& seat, uint32_t function, std::span<const wasm::Cell> arguments) {
  CHECK(function < module().functions.size(), function);
  CHECK(arguments.size() == module().signature_of(function).params.size(), arguments.size());
  ThreadState& thread = spore_thread_state;
  CHECK(thread.seat == &seat, "start() belongs on the thread of its seat");
  if (thread.depth >= kNestedEntriesMax) {
    Outcome outcome;
    outcome.kind = Outcome::Kind::kTrapped;
    outcome.trap = {TrapKind::kStackOverflow, std::string(message_of(TrapKind::kStackOverflow)), {}};
    return outcome;
  }
  if (tracked_seat_ != thread.serial) tracked_seat_ = 0;
  clean_ = false;
  for (uint32_t i = 0; i < arguments.size(); ++i) cell(i) = arguments[i];

  // Below the frames that wait for this call, if there are any.
  header().exception_tag = 0;
  const int64_t outer_sp = header().guest_sp;
  const uint64_t outer_call = header().pending_call;
  const int64_t sp = outer_sp ? outer_sp & -16 : object_->layout().stack_top;
  header().guest_sp = 0;
  Faaslet* const outer = std::exchange(thread.faaslet, this);
  ++thread.depth;
  const uint32_t exit = spore_enter(memory(), object_->trampoline_address(module().functions[function]),
                                    object_->function_address(function), sp, object_->enter_return_address());
  --thread.depth;
  thread.faaslet = outer;
  Outcome outcome = finish(exit, static_cast<uint64_t>(sp));
  if (outer_sp) {
    header().guest_sp = outer_sp;
    header().pending_call = outer_call;
  }
  return outcome;
}

Outcome Faaslet::enter(uint32_t function, std::span<const wasm::Cell> arguments) {
  return start(*spore_thread_state.seat, function, arguments);
}

Outcome Faaslet::resume(Seat& seat) {
  ThreadState& thread = spore_thread_state;
  CHECK(thread.seat == &seat && (interrupted_ || header().guest_sp != 0),
        "resume() goes on with a parked Faaslet, on its seat");
  if (tracked_seat_ != thread.serial) tracked_seat_ = 0;
  Faaslet* const outer = std::exchange(thread.faaslet, this);
  ++thread.depth;
  uint32_t exit = kReturned;
  if (const auto interrupted = std::move(interrupted_)) {
    exit = spore_resume_interrupted(memory(), interrupted->frame_for_this_thread());
    // Ended before it could go on: it is where it was.
    if (exit == static_cast<uint32_t>(HostResult::kTrap) && thread.trap_pc == 0 && header().guest_sp == 0 &&
        thread.trap_kind == static_cast<uint32_t>(TrapKind::kInterrupted)) {
      thread.trap_pc = interrupted->pc();
      thread.trap_sp = interrupted->sp();
    }
  } else {
    if (!std::exchange(yielded_, false)) exit = Dispatcher::dispatch(static_cast<uint32_t>(header().pending_call), 0);
    if (exit == kReturned) exit = spore_resume(memory());
  }
  --thread.depth;
  thread.faaslet = outer;
  return finish(exit, static_cast<uint64_t>(object_->layout().stack_top));
}

wasm::Cell Faaslet::result(uint32_t index) const { return cell(index); }

Outcome Faaslet::finish(uint32_t exit, uint64_t stack_top) {
  Outcome outcome;
  switch (static_cast<HostResult>(exit)) {
    case HostResult::kDone:
      if (header().exception_tag == 0) return outcome;
      outcome.kind = Outcome::Kind::kTrapped;
      outcome.trap.kind = TrapKind::kUncaughtException;
      outcome.trap.message = message_of(outcome.trap.kind);
      return outcome;
    case HostResult::kPark:
      outcome.kind = Outcome::Kind::kParked;
      if (header().guest_sp == 0) {  // between two of its instructions
        interrupted_ = std::exchange(*spore_thread_state.interrupted, std::make_unique<InterruptedGuest>());
        pending_wait_ = spore_thread_state.yields_for;
      }
      outcome.wait = pending_wait_;
      return outcome;
    case HostResult::kExit:
      outcome.kind = Outcome::Kind::kExited;
      outcome.exit_code = pending_exit_code_;
      return outcome;
    case HostResult::kTrap: break;
  }
  outcome.kind = Outcome::Kind::kTrapped;
  const auto kind = static_cast<TrapKind>(spore_thread_state.trap_kind);
  if (kind == TrapKind::kHostCall) {
    outcome.trap = std::move(pending_trap_);
  } else {
    outcome.trap = {.kind = kind, .message = std::string(message_of(kind)), .stack = {}};
  }
  // Where the guest was: at the trapping instruction, or in a host call.
  const uint64_t pc = std::exchange(spore_thread_state.trap_pc, 0);
  if (outcome.trap.stack.empty())
    outcome.trap.stack =
        pc ? object_->walk(pc, spore_thread_state.trap_sp, address_of(stack_top)) : stack_of_host_call(stack_top);
  header().guest_sp = 0;
  return outcome;
}

uint64_t Faaslet::address_of(uint64_t stack_top) const { return reinterpret_cast<uint64_t>(memory()) + stack_top; }

// From behind the call of the stub that entered the host.
std::vector<Frame> Faaslet::stack_of_host_call(uint64_t stack_top) const {
  constexpr uint64_t kSavedRegistersBytes = 6 * 8;
  if (header().guest_sp == 0) return {};
  const uint64_t sp = address_of(static_cast<uint64_t>(header().guest_sp)) + kSavedRegistersBytes;
  const uint64_t top = address_of(stack_top);
  if (sp < address_of(static_cast<uint64_t>(object_->layout().stack_bottom)) || sp + 8 > top) return {};
  uint64_t pc;
  std::memcpy(&pc, reinterpret_cast<const void*>(sp), sizeof(pc));
  return object_->walk(pc - 1, sp + 8, top);
}

std::vector<Frame> Faaslet::stack() const {
  const auto top = static_cast<uint64_t>(object_->layout().stack_top);
  if (interrupted_) return object_->walk(interrupted_->pc(), interrupted_->sp(), address_of(top));
  return has_slot() ? stack_of_host_call(top) : std::vector<Frame>{};
}

HostResult Faaslet::dispatch(uint32_t call) {
  if (call >= static_cast<uint32_t>(wasm::Builtin::kFirst))
    return Builtins(*this).run(static_cast<wasm::Builtin>(call));
  CHECK(call < links_.size(), call);
  HostCall host_call(*this, host_state_, reinterpret_cast<uint8_t*>(&cell(0)),
                     slot_.memory() + object_->layout().spare_cells);
  return links_[call](host_call);
}

// A function of another instance, called through a reference: arguments and results cross from cells to cells.
HostResult Faaslet::call_thunk(Faaslet& target, uint32_t function) {
  const wasm::Signature& signature = target.module().signature_of(function);
  std::vector<wasm::Cell> values;
  for (uint32_t i = 0; i < signature.params.size(); ++i) values.push_back(cell(i));
  Outcome outcome = target.start(*spore_thread_state.seat, function, values);
  switch (outcome.kind) {
    case Outcome::Kind::kReturned:
      for (uint32_t i = 0; i < signature.results.size(); ++i) cell(i) = target.result(i);
      return HostResult::kDone;
    case Outcome::Kind::kExited: pending_exit_code_ = outcome.exit_code; return HostResult::kExit;
    case Outcome::Kind::kTrapped:
      if (take_exception_of(target)) return HostResult::kDone;
      pending_trap_ = std::move(outcome.trap);
      return HostResult::kTrap;
    case Outcome::Kind::kParked:
      pending_trap_ = {TrapKind::kHostCall, "a call between instances cannot wait", {}};
      return HostResult::kTrap;
  }
  return HostResult::kTrap;
}

bool Faaslet::take_exception_of(Faaslet& callee) {
  const uint64_t tag = std::exchange(callee.header().exception_tag, 0);
  if (tag == 0) return false;
  for (uint32_t i = 0; i < wasm::kNearCells; ++i) cell(i) = callee.cell(i);
  header().exception_tag = tag;
  return true;
}

wasm::Cell Faaslet::constant_global(uint32_t index) const {
  wasm::Cell value;
  const bool wide = module().globals[index].type.type == wasm::ValueType::kV128;
  std::memcpy(&value, slot_.memory() + object_->layout().globals[index], wide ? 16 : 8);
  return value;
}

std::optional<uint64_t> Faaslet::grow_memory(uint32_t index, uint64_t delta_pages) {
  uint64_t* size_bytes = &header().memory_size_bytes;
  uint64_t pages_max = header().memory_pages_max;
  uint8_t* base = memory();
  if (index == 0) {
    const uint64_t wanted = *size_bytes + std::min(delta_pages, wasm::kMemory32PagesMax) * wasm::kPageBytes;
    if (wanted > windows_begin()) unmap_unused_windows();
    pages_max = std::min(pages_max, windows_begin() / wasm::kPageBytes);
  } else {
    auto& descriptor = in_slot<wasm::MemoryDescriptor>(object_->layout().memory_descriptors +
                                                       int64_t{index} * int64_t{sizeof(wasm::MemoryDescriptor)});
    size_bytes = &descriptor.size_bytes;
    pages_max = descriptor.pages_max;
    base += descriptor.base;
  }
  const uint64_t pages = *size_bytes / wasm::kPageBytes;
  if (pages > pages_max || delta_pages > pages_max - pages) return std::nullopt;
  if (delta_pages == 0) return pages;
  if (cover_memory(accessible_bytes() + delta_pages * wasm::kPageBytes) != MemoryAccount::Refusal::kNone)
    return std::nullopt;
  if (::mprotect(base + *size_bytes, delta_pages * wasm::kPageBytes, PROT_READ | PROT_WRITE) != 0) return std::nullopt;
  *size_bytes += delta_pages * wasm::kPageBytes;
  return pages;
}

std::optional<uint64_t> Faaslet::grow_table(uint32_t index, uint64_t delta, uint64_t reference) {
  auto& table = in_slot<wasm::TableDescriptor>(object_->layout().table_descriptors +
                                               int64_t{index} * int64_t{sizeof(wasm::TableDescriptor)});
  const uint64_t size = table.size;
  if (size > table.max || delta > table.max - size) return std::nullopt;
  wasm::TableEntry entry;
  if (reference && module().tables[index].element == wasm::ValueType::kFuncRef) entry = descriptor_of(reference);
  entry.reference = reference;
  std::fill_n(&in_slot<wasm::TableEntry>(table.base) + size, delta, entry);
  table.size += delta;
  return size;
}

}  // namespace spore::faaslet

extern "C" uint32_t spore_dispatch(uint32_t call, uint8_t*, uint64_t thunk_return_address) {
  return spore::faaslet::Dispatcher::dispatch(call, thunk_return_address);
}

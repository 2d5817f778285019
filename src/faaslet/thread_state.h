// What the stubs, the signal handlers and Faaslet share about the thread they run on. Private to src/faaslet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "faaslet/host_call.h"

namespace spore::faaslet {

class Faaslet;
class InterruptedGuest;
class Seat;

struct ThreadState {
  uint64_t host_sp = 0;    // where the host's stack goes on when a guest leaves
  uint32_t pending = 0;    // an interrupt for the current call has come and was not yet acted on
  uint32_t trap_kind = 0;  // wasm::TrapKind of the trap that ended the guest
  uint64_t trap_pc = 0;    // where it was, for the stack trace; 0: in a host call
  uint64_t trap_sp = 0;
  Faaslet* faaslet = nullptr;  // that runs, the innermost
  Seat* seat = nullptr;
  uint32_t depth = 0;   // of entries within each other
  uint64_t serial = 0;  // of the seat: no other seat of this process ever has it; 0: none
  bool offers = false;  // its core is to be offered to others, when the host function is done
  bool yields = false;  // the guest is to park, for `yields_for`, then
  Wait yields_for;
  std::unique_ptr<InterruptedGuest>* interrupted = nullptr;  // the seat's: room for the next one, or the last one
};
static_assert(offsetof(ThreadState, host_sp) == 0, "stubs.S");
static_assert(offsetof(ThreadState, pending) == 8, "stubs.S");
static_assert(offsetof(ThreadState, trap_kind) == 12, "stubs.S");
static_assert(offsetof(ThreadState, trap_pc) == 16, "stubs.S");
static_assert(offsetof(ThreadState, trap_sp) == 24, "stubs.S");

}  // namespace spore::faaslet

extern "C" {
extern constinit thread_local
    __attribute__((tls_model("local-exec"), visibility("hidden"))) spore::faaslet::ThreadState spore_thread_state;
extern uint8_t spore_cpu_features;  // bit 0: AVX, bit 1: AVX-512VL
}

// A guest that was stopped between two of its instructions: all of its registers, as the kernel's signal frame has
// them, so that a sigreturn goes on there, on any thread. (Linux, arch/x86/include/uapi/asm/sigcontext.h.)
//
// Valid for the slot that it was stopped in: registers hold addresses there.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace spore::faaslet {

class InterruptedGuest {
 public:
  // With room for what this machine's frames hold.
  InterruptedGuest();

  // Takes the registers of a signal frame. Callable in a signal handler. False: the frame is not one that it knows.
  bool take(const ucontext_t& frame);
  // What rt_sigreturn wants at the stack pointer to go on here on the calling thread, which keeps its signal stack and
  // its mask. Overwrites what an earlier one gave.
  const void* frame_for_this_thread();

  uint64_t pc() const { return frame_.registers.gregs[REG_RIP]; }
  uint64_t sp() const { return frame_.registers.gregs[REG_RSP]; }

 private:
  // The kernel's; glibc's ucontext_t begins like it and has more behind.
  struct Frame {
    unsigned long flags;
    void* link;
    stack_t signal_stack;
    mcontext_t registers;
    uint64_t mask;
  };
  struct FreeAligned {
    void operator()(uint8_t* bytes) const;
  };

  Frame frame_{};
  size_t capacity_;                                // of vectors_
  std::unique_ptr<uint8_t, FreeAligned> vectors_;  // and the other registers of the FPU
};

}  // namespace spore::faaslet

// Signals: what a fault or an interrupt means depends on where the program counter is.
//
//   where                          fault                                interrupt
//   code arena                     trap, by the address                 trap kInterrupted, at once
//   a stub, still with the guest   stack overflow                       noted; seen when the host function is done
//   a stub's armed range           trap, by the address                 trap kInterrupted, at once
//   guarded copy                   the copy returns false               noted
//   anywhere else                  ours: the previous handler, or death noted
//
// A handler only edits the interrupted context; it never jumps and takes no lock.
#include "faaslet/seat.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <unistd.h>

#include <cstring>

#include "base/check.h"
#include "faaslet/thread_state.h"
#include "wasm/abi.h"

using spore::wasm::TrapKind;

extern "C" {
constinit thread_local spore::faaslet::ThreadState spore_thread_state;
uint8_t spore_cpu_features = 0;

#define SPORE_LABEL(name) extern __attribute__((visibility("hidden"))) const char name[]
SPORE_LABEL(spore_enter_armed);
SPORE_LABEL(spore_enter_armed_end);
SPORE_LABEL(spore_landing);
SPORE_LABEL(spore_host_call);
SPORE_LABEL(spore_host_call_pushes);
SPORE_LABEL(spore_host_call_switched);
SPORE_LABEL(spore_host_return_armed);
SPORE_LABEL(spore_host_return_armed_end);
SPORE_LABEL(spore_guarded_begin);
SPORE_LABEL(spore_guarded_end);
SPORE_LABEL(spore_guarded_failed);
SPORE_LABEL(spore_sigreturn);
#undef SPORE_LABEL
}

namespace spore::faaslet {

// Ignored by default, so one that arrives after its thread's seat is gone does nothing.
constexpr int kInterruptSignal = SIGURG;
constexpr size_t kSignalStackBytes = 64 << 10;
static_assert(static_cast<uint32_t>(TrapKind::kInterrupted) == 16, "stubs.S");

struct Seat::State {
  pid_t thread = 0;
  std::atomic<uint64_t> current{0};    // generation that runs now, 0: none
  std::atomic<uint64_t> requested{0};  // generation that is to stop
  uint64_t last = 0;
  uint64_t serial = 0;
  void* signal_stack = nullptr;
  stack_t previous_stack{};
};

namespace {

// As the kernel wants it. The handlers are installed by the system call itself, because sanitizers put themselves
// between sigaction() and the kernel and hold back signals until the program makes a call, which a loop never does.
struct KernelSigaction {
  void (*handler)(int, siginfo_t*, void*);
  unsigned long flags;
  const char* restorer;
  uint64_t mask;
};
constexpr unsigned long kSaRestorer = 0x04000000;

constexpr int kFaultSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
KernelSigaction g_previous[64];  // by signal; written once, before any guest runs

// The generations of this thread's seat, for the handler.
constinit thread_local const std::atomic<uint64_t>* g_current = nullptr;
constinit thread_local const std::atomic<uint64_t>* g_requested = nullptr;

bool within(uint64_t pc, const char* begin, const char* end) {
  return pc >= reinterpret_cast<uint64_t>(begin) && pc < reinterpret_cast<uint64_t>(end);
}
bool in_arena(uint64_t pc) { return pc >= wasm::kArenaBase && pc < wasm::kArenaBase + wasm::kArenaBytes; }
bool in_armed_stub(uint64_t pc) {
  return within(pc, spore_enter_armed, spore_enter_armed_end) ||
         within(pc, spore_host_return_armed, spore_host_return_armed_end);
}

void stop_guest(ucontext_t* context, TrapKind kind) {
  greg_t* registers = context->uc_mcontext.gregs;
  const auto pc = static_cast<uint64_t>(registers[REG_RIP]);
  spore_thread_state.trap_kind = static_cast<uint32_t>(kind);
  spore_thread_state.trap_pc = in_arena(pc) ? pc : 0;
  spore_thread_state.trap_sp = static_cast<uint64_t>(registers[REG_RSP]);
  registers[REG_RAX] = 1;  // EXIT_TRAPPED
  registers[REG_RIP] = reinterpret_cast<greg_t>(spore_landing);
  registers[REG_EFL] &= ~0x400;  // DF
}

// A host call's stub faulted while it saved registers. The guest was at the call, whose return address lies above what
// has been pushed so far.
void find_caller_of_stub(const ucontext_t* context) {
  constexpr uint64_t kPushes[] = {0, 1, 2, 4, 6, 8};  // offsets of the six pushes
  const auto pc = static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP]);
  const uint64_t offset = pc - reinterpret_cast<uint64_t>(spore_host_call_pushes);
  uint64_t sp = static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RSP]);
  for (uint64_t push : kPushes)
    if (push < offset) sp += 8;
  uint64_t return_address;
  std::memcpy(&return_address, reinterpret_cast<const void*>(sp), sizeof(return_address));
  spore_thread_state.trap_pc = return_address - 1;
  spore_thread_state.trap_sp = sp + 8;
}

TrapKind kind_of_fault(int signal, const siginfo_t* info, bool in_stub) {
  if (signal == SIGFPE) return TrapKind::kIntegerOverflow;
  if (signal == SIGILL) return TrapKind::kUnreachable;
  uint64_t memory;
  asm volatile("rdgsbase %0" : "=r"(memory));
  const auto address = reinterpret_cast<uint64_t>(info->si_addr);
  if (in_stub || (address < memory && address >= memory - wasm::kSlotBelowBytes)) return TrapKind::kStackOverflow;
  return TrapKind::kMemoryOutOfBounds;
}

__attribute__((no_sanitize("thread", "address", "undefined"))) void on_fault(int signal, siginfo_t* info,
                                                                             void* context_pointer) {
  auto* context = static_cast<ucontext_t*>(context_pointer);
  const auto pc = static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP]);
  const bool in_stub = within(pc, spore_host_call, spore_host_call_switched);
  if (in_arena(pc) || in_armed_stub(pc) || in_stub) {
    const bool while_saving = in_stub && within(pc, spore_host_call_pushes, spore_host_call_switched);
    const ucontext_t before = *context;
    stop_guest(context, kind_of_fault(signal, info, in_stub));
    if (while_saving) find_caller_of_stub(&before);
    return;
  }
  if (within(pc, spore_guarded_begin, spore_guarded_end)) {
    context->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(spore_guarded_failed);
    return;
  }
  const KernelSigaction& previous = g_previous[signal];
  if (previous.flags & SA_SIGINFO) {
    previous.handler(signal, info, context_pointer);
    return;
  }
  // The default action, at the same instruction: the process ends with the right signal.
  const KernelSigaction fallback{nullptr, kSaRestorer, spore_sigreturn, 0};
  ::syscall(SYS_rt_sigaction, signal, &fallback, nullptr, sizeof(fallback.mask));
}

__attribute__((no_sanitize("thread", "address", "undefined"))) void on_interrupt(int, siginfo_t*,
                                                                                 void* context_pointer) {
  if (!g_current) return;
  const uint64_t current = g_current->load(std::memory_order_relaxed);
  if (current == 0 || g_requested->load(std::memory_order_relaxed) != current) return;  // too late: another call
  auto* context = static_cast<ucontext_t*>(context_pointer);
  const auto pc = static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP]);
  if (in_arena(pc) || in_armed_stub(pc)) {
    stop_guest(context, TrapKind::kInterrupted);
  } else {
    spore_thread_state.pending = 1;
  }
}

Result<void> install(int signal, void (*handler)(int, siginfo_t*, void*), unsigned long flags) {
  const KernelSigaction action{handler, SA_SIGINFO | SA_ONSTACK | flags | kSaRestorer, spore_sigreturn, 0};
  if (::syscall(SYS_rt_sigaction, signal, &action, &g_previous[signal], sizeof(action.mask)) != 0)
    return fail_errno("install a signal handler");
  return {};
}

}  // namespace

Result<void> install_signal_handlers() {
  __builtin_cpu_init();
  spore_cpu_features =
      static_cast<uint8_t>((__builtin_cpu_supports("avx") ? 1 : 0) | (__builtin_cpu_supports("avx512vl") ? 2 : 0));
  for (int signal : kFaultSignals) TRY(install(signal, on_fault, 0));
  return install(kInterruptSignal, on_interrupt, SA_RESTART);
}

Seat::Seat() : state_(std::make_unique<State>()) {
  CHECK(!spore_thread_state.seat, "a thread has one seat");
  state_->thread = ::gettid();
  state_->signal_stack =
      ::mmap(nullptr, kSignalStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  CHECK(state_->signal_stack != MAP_FAILED, errno);
  const stack_t stack{state_->signal_stack, 0, kSignalStackBytes};
  CHECK(::sigaltstack(&stack, &state_->previous_stack) == 0, errno);
  g_current = &state_->current;
  g_requested = &state_->requested;
  spore_thread_state.seat = this;
  static std::atomic<uint64_t> seats{0};
  spore_thread_state.serial = state_->serial = ++seats;
}

Seat::~Seat() {
  CHECK(::gettid() == state_->thread);
  spore_thread_state.seat = nullptr;
  spore_thread_state.serial = 0;
  g_current = nullptr;
  g_requested = nullptr;
  ::sigaltstack(&state_->previous_stack, nullptr);
  ::munmap(state_->signal_stack, kSignalStackBytes);
}

uint64_t Seat::serial() const { return state_->serial; }

uint64_t Seat::begin_call() {
  spore_thread_state.pending = 0;
  state_->current.store(++state_->last, std::memory_order_release);
  return state_->last;
}

void Seat::end_call() {
  state_->current.store(0, std::memory_order_release);
  spore_thread_state.pending = 0;
}

void Seat::interrupt(uint64_t generation) {
  if (state_->current.load(std::memory_order_acquire) != generation) return;
  state_->requested.store(generation, std::memory_order_release);
  ::syscall(SYS_tgkill, ::getpid(), state_->thread, kInterruptSignal);
}

bool Seat::interrupted() const {
  const uint64_t current = state_->current.load(std::memory_order_relaxed);
  return current != 0 && state_->requested.load(std::memory_order_acquire) == current;
}

}  // namespace spore::faaslet

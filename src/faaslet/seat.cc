// Signals: what a fault or an interrupt means depends on where the program counter is.
//
//   where                          fault                                interrupt                 preemption
//   code arena                     trap, by the address                 trap kInterrupted         parks
//   a stub, still with the guest   stack overflow                       noted                     noted
//   a stub's armed range           trap, by the address                 trap kInterrupted         noted
//   guarded copy                   the copy returns false               noted                     noted
//   anywhere else                  ours: the previous handler, or death noted                     noted
//
// What is noted is seen when the host function is done. The timer of a seat's CPU limit comes as the same signal. It
// counts what the guest has used; that is an interrupt where nothing is left, a preemption where the quota is in debt.
// Another timer is there for guests that offer their core (Seat::offer_core): in the code arena the thread yields it.
//
// A handler only edits the interrupted context, and keeps a copy of it of a guest that parks; it never jumps and takes
// no lock.
#include "faaslet/seat.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <optional>

#include "base/check.h"
#include "faaslet/interrupted_guest.h"
#include "faaslet/thread_state.h"
#include "wasm/abi.h"

using spore::wasm::TrapKind;

extern "C" {
constinit thread_local spore::faaslet::ThreadState spore_thread_state;
uint8_t spore_cpu_features = 0;

#define SPORE_LABEL(name) extern __attribute__((visibility("hidden"))) const char name[]
SPORE_LABEL(spore_enter_armed);
SPORE_LABEL(spore_enter_armed_end);
SPORE_LABEL(spore_resume_armed);
SPORE_LABEL(spore_resume_armed_end);
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
constexpr std::chrono::nanoseconds kOfferEvery = std::chrono::microseconds(200);
constexpr int kOfferTimer = 1;  // what its signals say; those of CPU limits say 0
constexpr std::chrono::nanoseconds kCpuTick = std::chrono::milliseconds(1);  // how often a quota is looked at
static_assert(static_cast<uint32_t>(TrapKind::kInterrupted) == 16, "stubs.S");

struct Seat::State {
  pid_t thread = 0;
  std::atomic<uint64_t> current{0};    // generation that runs now, 0: none
  std::atomic<uint64_t> requested{0};  // generation that is to stop
  std::atomic<uint64_t> preempted{0};  // generation that is to give up the seat
  uint64_t last = 0;
  uint64_t serial = 0;
  void* signal_stack = nullptr;
  stack_t previous_stack{};
  std::unique_ptr<InterruptedGuest> interrupted = std::make_unique<InterruptedGuest>();
  std::optional<timer_t> offer_timer;  // none: the kernel had none left

  // The limit of CPU time; this thread's and its handler's alone.
  std::optional<timer_t> cpu_timer;  // made for the first limit
  bool cpu_limited = false;
  bool cpu_used_up = false;
  CpuLimit cpu_limit;
  std::chrono::nanoseconds cpu_counted{0};  // on the thread's CPU clock: until when the limit knows of it
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

// Of this thread, for the handler.
constinit thread_local Seat::State* g_seat = nullptr;

bool within(uint64_t pc, const char* begin, const char* end) {
  return pc >= reinterpret_cast<uint64_t>(begin) && pc < reinterpret_cast<uint64_t>(end);
}
bool in_arena(uint64_t pc) { return pc >= wasm::kArenaBase && pc < wasm::kArenaBase + wasm::kArenaBytes; }
bool in_armed_stub(uint64_t pc) {
  return within(pc, spore_enter_armed, spore_enter_armed_end) ||
         within(pc, spore_resume_armed, spore_resume_armed_end) ||
         within(pc, spore_host_return_armed, spore_host_return_armed_end);
}

void leave_guest(ucontext_t* context, HostResult why) {
  greg_t* registers = context->uc_mcontext.gregs;
  registers[REG_RAX] = static_cast<greg_t>(why);
  registers[REG_RIP] = reinterpret_cast<greg_t>(spore_landing);
  registers[REG_EFL] &= ~0x400;  // DF
}

void stop_guest(ucontext_t* context, TrapKind kind) {
  greg_t* registers = context->uc_mcontext.gregs;
  const auto pc = static_cast<uint64_t>(registers[REG_RIP]);
  spore_thread_state.trap_kind = static_cast<uint32_t>(kind);
  spore_thread_state.trap_pc = in_arena(pc) ? pc : 0;
  spore_thread_state.trap_sp = static_cast<uint64_t>(registers[REG_RSP]);
  leave_guest(context, HostResult::kTrap);
}

// The guest parks right here, or when its host function is done.
void park_guest(ucontext_t* context, const Wait& wait) {
  ThreadState& thread = spore_thread_state;
  const bool here = in_arena(static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP])) && thread.depth == 1;
  thread.yields_for = wait;
  thread.yields = !(here && *thread.interrupted && (*thread.interrupted)->take(*context));
  if (!thread.yields) leave_guest(context, HostResult::kPark);
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

// By the system calls themselves: sanitizers would look at the library's functions, here and in the midst of their own.
std::chrono::nanoseconds read_clock(clockid_t clock) {
  timespec now{};
  ::syscall(SYS_clock_gettime, clock, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}
Clock::time_point clock_now() { return Clock::time_point(read_clock(CLOCK_MONOTONIC)); }

// Counts what was used since it last did. When the guest may go on, if not now.
std::optional<Clock::time_point> count_cpu(Seat::State& seat) {
  const auto used_until = read_clock(CLOCK_THREAD_CPUTIME_ID);
  const auto used = used_until - seat.cpu_counted;
  seat.cpu_counted = used_until;
  if (seat.cpu_limit.left != std::chrono::nanoseconds::max()) seat.cpu_limit.left -= used;
  if (!seat.cpu_limit.quota) return std::nullopt;
  const auto now = clock_now();
  seat.cpu_limit.quota->charge(used, now);
  const auto runs_again = seat.cpu_limit.quota->runs_again(now);
  return runs_again > now ? std::optional(runs_again) : std::nullopt;
}

__attribute__((no_sanitize("thread", "address", "undefined"))) void on_interrupt(int, siginfo_t* info,
                                                                                 void* context_pointer) {
  if (!g_seat) return;
  const int error = errno;
  auto* context = static_cast<ucontext_t*>(context_pointer);
  const auto pc = static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP]);
  // One signal may stand for several of different senders, so whatever it says, all that can be wanted is looked at.
  const bool offers = info->si_code == SI_TIMER && info->si_value.sival_int == kOfferTimer;
  if (offers && in_arena(pc))
    ::syscall(SYS_sched_yield);
  else if (offers)
    spore_thread_state.offers = true;
  std::optional<Clock::time_point> runs_again;
  const uint64_t current = g_seat->current.load(std::memory_order_relaxed);
  if (info->si_code == SI_TIMER && g_seat->cpu_limited) {
    runs_again = count_cpu(*g_seat);
    if (g_seat->cpu_limit.left.count() <= 0) {
      g_seat->cpu_used_up = true;
      g_seat->requested.store(current, std::memory_order_relaxed);
    }
  }
  errno = error;
  if (current == 0) return;
  if (g_seat->requested.load(std::memory_order_relaxed) == current) {  // else too late: that was another call
    if (in_arena(pc) || in_armed_stub(pc))
      stop_guest(context, TrapKind::kInterrupted);
    else
      spore_thread_state.pending = 1;
  } else if (runs_again) {
    park_guest(context, {.deadline = runs_again});
  } else if (g_seat->preempted.load(std::memory_order_relaxed) == current) {
    g_seat->preempted.store(0, std::memory_order_relaxed);
    park_guest(context, {.preempted = true});
  }
}

Result<void> install(int signal, void (*handler)(int, siginfo_t*, void*), unsigned long flags) {
  const KernelSigaction action{handler, SA_SIGINFO | SA_ONSTACK | flags | kSaRestorer, spore_sigreturn, 0};
  if (::syscall(SYS_rt_sigaction, signal, &action, &g_previous[signal], sizeof(action.mask)) != 0)
    return fail_errno("install a signal handler");
  return {};
}

// Its signals go to that thread.
bool make_timer(clockid_t clock, pid_t thread, int says, timer_t& timer) {
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = kInterruptSignal;
  event.sigev_value.sival_int = says;
  event._sigev_un._tid = thread;
  return ::timer_create(clock, &event, &timer) == 0;
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
  g_seat = state_.get();
  spore_thread_state.seat = this;
  spore_thread_state.interrupted = &state_->interrupted;
  timer_t timer;
  if (make_timer(CLOCK_MONOTONIC, state_->thread, kOfferTimer, timer)) state_->offer_timer = timer;
  static std::atomic<uint64_t> seats{0};
  spore_thread_state.serial = state_->serial = ++seats;
}

Seat::~Seat() {
  CHECK(::gettid() == state_->thread);
  spore_thread_state.seat = nullptr;
  spore_thread_state.interrupted = nullptr;
  spore_thread_state.serial = 0;
  g_seat = nullptr;
  for (const auto& timer : {state_->cpu_timer, state_->offer_timer})
    if (timer) ::timer_delete(*timer);
  ::sigaltstack(&state_->previous_stack, nullptr);
  ::munmap(state_->signal_stack, kSignalStackBytes);
}

uint64_t Seat::serial() const { return state_->serial; }

uint64_t Seat::begin_call() {
  spore_thread_state.pending = 0;
  spore_thread_state.yields = false;
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

void Seat::preempt(uint64_t generation) {
  if (state_->current.load(std::memory_order_acquire) != generation) return;
  state_->preempted.store(generation, std::memory_order_release);
  ::syscall(SYS_tgkill, ::getpid(), state_->thread, kInterruptSignal);
}

void Seat::offer_core(bool offers) {
  if (!state_->offer_timer) return;
  const timespec every{.tv_sec = 0, .tv_nsec = offers ? kOfferEvery.count() : 0};
  const itimerspec times{.it_interval = every, .it_value = every};
  ::timer_settime(*state_->offer_timer, 0, &times, nullptr);
  if (!offers) ask_again();
}

// Signals merge, and the kernel (from Linux 6.13 on) drops that of a timer which was stopped before it was handled,
// with all that it stood for.
void Seat::ask_again() const {
  const uint64_t current = state_->current.load(std::memory_order_relaxed);
  if (current == 0) return;
  if (state_->requested.load(std::memory_order_acquire) == current ||
      state_->preempted.load(std::memory_order_acquire) == current)
    ::syscall(SYS_tgkill, ::getpid(), state_->thread, kInterruptSignal);
}

bool Seat::interrupted() const {
  const uint64_t current = state_->current.load(std::memory_order_relaxed);
  return current != 0 && state_->requested.load(std::memory_order_acquire) == current;
}

Result<void> Seat::limit_cpu(const CpuLimit& limit) {
  if (!state_->cpu_timer) {
    timer_t timer;
    if (!make_timer(CLOCK_THREAD_CPUTIME_ID, state_->thread, 0, timer))
      return fail_errno("make a timer for the limit of CPU time");
    state_->cpu_timer = timer;
  }
  state_->cpu_limit = limit;
  state_->cpu_used_up = false;
  state_->cpu_counted = read_clock(CLOCK_THREAD_CPUTIME_ID);
  state_->cpu_limited = true;
  const auto first = std::max(std::chrono::nanoseconds(1), limit.quota ? std::min(kCpuTick, limit.left) : limit.left);
  const itimerspec times{
      .it_interval = {.tv_sec = 0, .tv_nsec = kCpuTick.count()},
      .it_value = {.tv_sec = first.count() / 1'000'000'000, .tv_nsec = first.count() % 1'000'000'000}};
  ::timer_settime(*state_->cpu_timer, 0, &times, nullptr);
  return {};
}

bool Seat::end_cpu_limit() {
  state_->cpu_limited = false;
  const itimerspec none{};
  ::timer_settime(*state_->cpu_timer, 0, &none, nullptr);
  ask_again();
  if (state_->cpu_limit.quota) count_cpu(*state_);
  return state_->cpu_used_up;
}

}  // namespace spore::faaslet

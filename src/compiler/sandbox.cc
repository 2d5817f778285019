#include "compiler/sandbox.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/fd.h"

namespace spore::compiler {
namespace {

// Beyond the limit of private writable memory: libraries, reservations of malloc that are not writable yet, the wasm.
constexpr uint64_t kAddressSpaceSlackBytes = 4ull << 30;
constexpr uint64_t kDescriptorsMax = 16;
constexpr int kNice = 10;

Result<void> limit(int resource, const char* name, uint64_t soft, uint64_t hard) {
  const rlimit value{soft, hard};
  if (::setrlimit(resource, &value) != 0) return fail_errno(std::string("setrlimit ") + name);
  return {};
}

// Best effort: a host without /proc, or one that forbids it, still compiles.
void be_considerate() {
  const UniqueFd fd(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (fd.valid()) (void)write_all(fd.get(), as_bytes("1000"));
  (void)::setpriority(PRIO_PROCESS, 0, kNice);
  const sched_param parameters{};
  (void)::sched_setscheduler(0, SCHED_BATCH, &parameters);
}

class Filter {
 public:
  Filter() : context_(::seccomp_init(SCMP_ACT_ERRNO(EPERM))) {}
  ~Filter() {
    if (context_) ::seccomp_release(context_);
  }
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;

  template <class... Conditions>
  void add(uint32_t action, int call, Conditions... conditions) {
    if (error_ == 0 && context_)
      error_ = -::seccomp_rule_add(context_, action, call, sizeof...(conditions), conditions...);
  }
  Result<void> load() {
    if (!context_) return fail(ErrorCode::kInternal, "seccomp_init failed");
    if (error_ == 0) error_ = -::seccomp_load(context_);
    if (error_ != 0) return fail_errno("system call filter", error_);
    return {};
  }

 private:
  scmp_filter_ctx context_;
  int error_ = 0;
};

Result<void> filter_system_calls() {
  Filter filter;
  const auto self = static_cast<scmp_datum_t>(::getpid());
  for (const int call : {SCMP_SYS(read),
                         SCMP_SYS(write),
                         SCMP_SYS(readv),
                         SCMP_SYS(writev),
                         SCMP_SYS(pread64),
                         SCMP_SYS(pwrite64),
                         SCMP_SYS(lseek),
                         SCMP_SYS(close),
                         SCMP_SYS(fstat),
                         SCMP_SYS(ftruncate),
                         SCMP_SYS(munmap),
                         SCMP_SYS(mremap),
                         SCMP_SYS(madvise),
                         SCMP_SYS(brk),
                         SCMP_SYS(futex),
                         SCMP_SYS(set_robust_list),
                         SCMP_SYS(rseq),
                         SCMP_SYS(rt_sigprocmask),
                         SCMP_SYS(rt_sigaction),
                         SCMP_SYS(rt_sigreturn),
                         SCMP_SYS(sigaltstack),
                         SCMP_SYS(gettid),
                         SCMP_SYS(getpid),
                         SCMP_SYS(exit),
                         SCMP_SYS(exit_group),
                         SCMP_SYS(clock_gettime),
                         SCMP_SYS(clock_getres),
                         SCMP_SYS(gettimeofday),
                         SCMP_SYS(nanosleep),
                         SCMP_SYS(clock_nanosleep),
                         SCMP_SYS(getrandom),
                         SCMP_SYS(sched_yield),
                         SCMP_SYS(sched_getaffinity),
                         SCMP_SYS(getrusage),
                         SCMP_SYS(sysinfo),
                         SCMP_SYS(uname),
                         SCMP_SYS(getpriority),
                         SCMP_SYS(getcpu),
                         SCMP_SYS(restart_syscall)})
    filter.add(SCMP_ACT_ALLOW, call);

  // Memory, but none that can be executed: the compiler writes code, it never runs it.
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)}) {
    filter.add(SCMP_ACT_ALLOW, call, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    filter.add(SCMP_ACT_KILL_PROCESS, call, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
  }
  // Threads of this process only. clone3, whose flags a filter cannot see, does not exist: libc then uses clone.
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
  filter.add(SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3));
  // abort()
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, self));
  // Reading its own limits (the size of a thread's stack), not setting them.
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), SCMP_A2(SCMP_CMP_EQ, 0));
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(getrlimit));
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));

  for (const int call : {SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(fork), SCMP_SYS(vfork), SCMP_SYS(socket),
                         SCMP_SYS(socketpair), SCMP_SYS(connect), SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv),
                         SCMP_SYS(process_vm_writev), SCMP_SYS(pidfd_getfd), SCMP_SYS(kill), SCMP_SYS(tkill),
                         SCMP_SYS(bpf), SCMP_SYS(mount), SCMP_SYS(unshare), SCMP_SYS(setns), SCMP_SYS(io_uring_setup)})
    filter.add(SCMP_ACT_KILL_PROCESS, call);
  return filter.load();
}

}  // namespace

Result<void> enter_sandbox(const SandboxLimits& limits) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return fail_errno("prctl PR_SET_PDEATHSIG");
  if (::getppid() != limits.parent_pid) return fail(ErrorCode::kUnavailable, "the host has gone away");
  be_considerate();
  TRY(limit(RLIMIT_CORE, "CORE", 0, 0));
  TRY(limit(RLIMIT_FSIZE, "FSIZE", limits.file_bytes_max, limits.file_bytes_max));
  TRY(limit(RLIMIT_NOFILE, "NOFILE", kDescriptorsMax, kDescriptorsMax));
  // SIGXCPU at the soft limit says what happened; SIGKILL at the hard one cannot be ignored.
  TRY(limit(RLIMIT_CPU, "CPU", limits.cpu_seconds_max, limits.cpu_seconds_max + 1));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("prctl PR_SET_NO_NEW_PRIVS");
  if (!kSandboxComplete) return {};
  const uint64_t address_space = limits.memory_bytes_max + kAddressSpaceSlackBytes;
  TRY(limit(RLIMIT_AS, "AS", address_space, address_space));
  TRY(limit(RLIMIT_DATA, "DATA", limits.memory_bytes_max, limits.memory_bytes_max));
  return filter_system_calls();
}

}  // namespace spore::compiler

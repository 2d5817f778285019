#include "isolation/lockdown.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <span>

#include "base/fd.h"
#include "isolation/single_thread.h"

namespace spore::isolation {

namespace {

struct Forbidden {
  int call;
  const char* why;
};

// By threads of all kinds. The host's own code and its libraries make none of these.
const Forbidden kForbidden[] = {
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)  // theirs: leaks, names in reports
    {SCMP_SYS(ptrace), "reads and writes other processes"},
    {SCMP_SYS(execve), "starts a program; compilers and processes of tenants are started by the broker"},
    {SCMP_SYS(execveat), "the same"},
#endif
    {SCMP_SYS(process_vm_readv), "the same"},
    {SCMP_SYS(process_vm_writev), "the same"},
    {SCMP_SYS(pidfd_getfd), "takes descriptors of other processes"},
    {SCMP_SYS(kcmp), "tells how other processes look inside"},
    {SCMP_SYS(mount), "changes what files there are"},
    {SCMP_SYS(umount2), "the same"},
    {SCMP_SYS(pivot_root), "the same"},
    {SCMP_SYS(chroot), "the same"},
    {SCMP_SYS(open_tree), "the same"},
    {SCMP_SYS(move_mount), "the same"},
    {SCMP_SYS(fsopen), "the same"},
    {SCMP_SYS(fsmount), "the same"},
    {SCMP_SYS(setns), "leaves the namespaces the host was started in"},
    {SCMP_SYS(unshare), "a user namespace would give capabilities again"},
    {SCMP_SYS(open_by_handle_at), "opens files around the directories in between"},
    {SCMP_SYS(bpf), "runs code in the kernel"},
    {SCMP_SYS(init_module), "the same"},
    {SCMP_SYS(finit_module), "the same"},
    {SCMP_SYS(delete_module), "the same"},
    {SCMP_SYS(kexec_load), "the same"},
    {SCMP_SYS(kexec_file_load), "the same"},
    {SCMP_SYS(perf_event_open), "measures what others do"},
    {SCMP_SYS(io_uring_setup), "makes system calls that no filter sees"},
    {SCMP_SYS(userfaultfd), "holds up the kernel in the midst of a copy; the host has opened the one it needs"},
    {SCMP_SYS(add_key), "the kernel's keys are of the whole user"},
    {SCMP_SYS(request_key), "the same"},
    {SCMP_SYS(keyctl), "the same"},
    {SCMP_SYS(reboot), "stops the machine"},
    {SCMP_SYS(swapon), "changes the machine's memory"},
    {SCMP_SYS(swapoff), "the same"},
    {SCMP_SYS(settimeofday), "sets the clock of everybody"},
    {SCMP_SYS(clock_settime), "the same"},
    {SCMP_SYS(adjtimex), "the same"},
    {SCMP_SYS(clock_adjtime), "the same"},
    {SCMP_SYS(sethostname), "renames the machine"},
    {SCMP_SYS(setdomainname), "the same"},
    {SCMP_SYS(acct), "writes a file of the kernel's"},
    {SCMP_SYS(quotactl), "changes what others may store"},
    {SCMP_SYS(personality), "turns off the randomisation of addresses"},
    {SCMP_SYS(syslog), "tells addresses of the kernel"},
    {SCMP_SYS(iopl), "reaches devices"},
    {SCMP_SYS(ioperm), "the same"},
};

// What clone() must not be asked for: namespaces, as with unshare().
constexpr unsigned kForbiddenToClone[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID,   CLONE_NEWNET,
                                          CLONE_NEWIPC,  CLONE_NEWUTS, CLONE_NEWCGROUP};

// By threads that run guests, which also serve connections: what is not here fails on them. A compiler is started, a
// socket made, a namespace entered by others.
struct Allowed {
  std::initializer_list<int> calls;
  const char* why;
};

const Allowed kAllowedOnSeats[] = {
    {{SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mprotect), SCMP_SYS(madvise), SCMP_SYS(mremap), SCMP_SYS(brk),
      SCMP_SYS(mincore)},
     "slots of Faaslets: restored, reset, grown; the heap"},
    {{SCMP_SYS(memfd_create), SCMP_SYS(ftruncate), SCMP_SYS(fallocate)}, "images and values of state"},
    {{SCMP_SYS(futex), SCMP_SYS(futex_waitv), SCMP_SYS(membarrier), SCMP_SYS(sched_yield), SCMP_SYS(set_robust_list),
      SCMP_SYS(rseq)},
     "locks"},
    {{SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(set_tid_address)}, "the end of threads"},
    {{SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack), SCMP_SYS(tgkill),
      SCMP_SYS(restart_syscall)},
     "faults of guests, interrupts and preemptions of others, going on where one was preempted"},
    {{SCMP_SYS(timer_create), SCMP_SYS(timer_settime), SCMP_SYS(timer_gettime), SCMP_SYS(timer_delete),
      SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime)},
     "limits of CPU time, deadlines of connections"},
    {{SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
      SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(getrusage), SCMP_SYS(times)},
     "clocks"},
    {{SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getppid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
      SCMP_SYS(getegid), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getcpu), SCMP_SYS(sched_getaffinity),
      SCMP_SYS(getrandom)},
     "who and where it is, random bytes"},
    {{SCMP_SYS(sched_getattr), SCMP_SYS(sched_setattr)}, "its own time slices"},
    {{SCMP_SYS(prlimit64), SCMP_SYS(getrlimit)}, "how many descriptors there may be"},
    {{SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(close), SCMP_SYS(close_range), SCMP_SYS(dup),
      SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(fcntl)},
     "files of guests, stores and /proc of its own"},
    {{SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
      SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(lseek), SCMP_SYS(sendfile),
      SCMP_SYS(copy_file_range), SCMP_SYS(splice)},
     "the same, and connections"},
    {{SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(sync_file_range), SCMP_SYS(fadvise64), SCMP_SYS(readahead),
      SCMP_SYS(flock)},
     "what must be kept"},
    {{SCMP_SYS(stat), SCMP_SYS(fstat), SCMP_SYS(lstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(statfs),
      SCMP_SYS(fstatfs), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink),
      SCMP_SYS(readlinkat), SCMP_SYS(getdents64), SCMP_SYS(getcwd)},
     "what files there are"},
    {{SCMP_SYS(mkdir), SCMP_SYS(mkdirat), SCMP_SYS(rmdir), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(rename),
      SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(link), SCMP_SYS(linkat), SCMP_SYS(symlink), SCMP_SYS(symlinkat),
      SCMP_SYS(utimensat), SCMP_SYS(fchmod), SCMP_SYS(umask)},
     "the local layer of a call, uploads"},
    {{SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2),
      SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6), SCMP_SYS(eventfd2), SCMP_SYS(pipe2),
      SCMP_SYS(socketpair)},
     "waiting, and waking others"},
    {{SCMP_SYS(accept4), SCMP_SYS(accept), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendto), SCMP_SYS(sendmsg),
      SCMP_SYS(recvmmsg), SCMP_SYS(sendmmsg), SCMP_SYS(shutdown), SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(listen),
      SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(setsockopt), SCMP_SYS(getsockopt)},
     "connections to the host; a guest's sockets, which the broker has made in its namespace"},
};

// Of one call, with this argument, of which these bits are looked at.
struct AllowedForm {
  int call;
  unsigned argument;
  uint64_t bits;
  uint64_t value;
  const char* why;
};

constexpr uint64_t kAllBits = ~0ull;
constexpr uint64_t kIoctlGroup = 0xff00;
constexpr uint64_t kPageMapScan = 0x6610;  // PAGEMAP_SCAN, without its direction and size
const AllowedForm kAllowedFormsOnSeats[] = {
    {SCMP_SYS(ioctl), 1, 0xffff, kPageMapScan, "which pages a guest has changed"},
    {SCMP_SYS(ioctl), 1, kIoctlGroup, UFFDIO << 8, "the same of state that is mapped, and pages for it"},
    {SCMP_SYS(ioctl), 1, kAllBits, FIONREAD, "what a stream holds"},
    {SCMP_SYS(ioctl), 1, kAllBits, FIONBIO, "streams that do not wait"},
    {SCMP_SYS(ioctl), 1, kAllBits, TCGETS, "whether a file is a terminal"},
    {SCMP_SYS(clone), 0, CLONE_THREAD, CLONE_THREAD, "threads, no processes"},
    {SCMP_SYS(prctl), 0, kAllBits, PR_SET_NAME, "names of threads"},
    {SCMP_SYS(prctl), 0, kAllBits, PR_SET_VMA, "names of mappings"},
};

Result<void> load(scmp_filter_ctx filter, int error) {
  // no_new_privs is set before, where it can be; a filter must not fail for want of a right to set it itself.
  if (error == 0) error = -::seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 1);
  if (error == 0) error = -::seccomp_load(filter);
  if (error != 0) return fail(ErrorCode::kUnavailable, fail_errno("filter system calls", error).error().message);
  return {};
}

using Filter = std::unique_ptr<void, decltype(&::seccomp_release)>;

}  // namespace

Result<void> drop_privileges(const std::vector<int>& kept) {
  TRY(check_single_threaded("privileges are dropped"));
  // The header is there with the memory of none: what a dump of this process may hold.
  if (const UniqueFd filter(::open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC)); filter.valid())
    TRY(write_all(filter.get(), as_bytes("0")));
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);

  uint64_t keep = 0;
  for (const int capability : kept) keep |= 1ull << capability;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::syscall(SYS_capget, &header, data) != 0) return fail_errno("read the capabilities of this process");
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability)
    if (!(keep >> capability & 1)) ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);  // without the right: it has none
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (int half = 0; half < 2; ++half) {
    const auto mask = static_cast<uint32_t>(keep >> (32 * half));
    data[half].permitted &= mask;
    data[half].effective = data[half].permitted;
    data[half].inheritable = 0;
  }
  if (::syscall(SYS_capset, &header, data) != 0) return fail_errno("drop the capabilities of this process");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("set no_new_privs");
  return {};
}

Result<void> forbid_system_calls() {
  const Filter filter(::seccomp_init(SCMP_ACT_ALLOW), &::seccomp_release);
  if (!filter) return fail(ErrorCode::kUnavailable, "make a filter of system calls");
  int error = 0;
  for (const Forbidden& forbidden : kForbidden)
    if (error == 0) error = -::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), forbidden.call, 0);
  for (const unsigned flag : kForbiddenToClone)
    if (error == 0)
      error = -::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag));
  // Its flags are where no filter can look; the C library takes clone() then.
  if (error == 0) error = -::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  return load(filter.get(), error);
}

Result<void> allow_system_calls_of_a_seat() {
  const Filter filter(::seccomp_init(SCMP_ACT_ERRNO(EPERM)), &::seccomp_release);
  if (!filter) return fail(ErrorCode::kUnavailable, "make a filter of system calls");
  int error = 0;
  for (const Allowed& allowed : kAllowedOnSeats)
    for (const int call : allowed.calls)
      if (error == 0) error = -::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0);
  for (const AllowedForm& form : kAllowedFormsOnSeats)
    if (error == 0)
      error = -::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, form.call, 1,
                                  SCMP_CMP(form.argument, SCMP_CMP_MASKED_EQ, form.bits, form.value));
  // Its flags are where no filter can look; the C library takes clone() then.
  if (error == 0) error = -::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  return load(filter.get(), error);
}

}  // namespace spore::isolation

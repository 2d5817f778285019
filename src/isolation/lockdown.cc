#include "isolation/lockdown.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
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
    {SCMP_SYS(ptrace), "reads and writes other processes"},
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

// By threads that run guests. Compilers are started by those that publish.
const Forbidden kForbiddenOnSeats[] = {
    {SCMP_SYS(execve), "becomes another program"},
    {SCMP_SYS(execveat), "the same"},
    {SCMP_SYS(vfork), "begins a process"},
    {SCMP_SYS(fork), "the same"},
    {SCMP_SYS(setuid), "the host stays who it is"},
    {SCMP_SYS(setgid), "the same"},
    {SCMP_SYS(setresuid), "the same"},
    {SCMP_SYS(setresgid), "the same"},
    {SCMP_SYS(chmod), "shared files and the stores are changed by others"},
    {SCMP_SYS(chown), "the same"},
    {SCMP_SYS(lchown), "the same"},
    {SCMP_SYS(mknod), "makes devices"},
    {SCMP_SYS(mknodat), "the same"},
};

// What clone() must not be asked for: namespaces, as with unshare().
constexpr unsigned kForbiddenToClone[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID,   CLONE_NEWNET,
                                          CLONE_NEWIPC,  CLONE_NEWUTS, CLONE_NEWCGROUP};

enum class Clones : uint8_t { kProcesses, kThreadsAlone };

Result<void> forbid(std::initializer_list<std::span<const Forbidden>> lists, Clones clones) {
  const std::unique_ptr<void, decltype(&::seccomp_release)> filter(::seccomp_init(SCMP_ACT_ALLOW), &::seccomp_release);
  if (!filter) return fail(ErrorCode::kUnavailable, "make a filter of system calls");
  // no_new_privs is set before, where it can be; a filter must not fail for want of a right to set it itself.
  int error = -::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_NNP, 1);
  for (const auto list : lists)
    for (const Forbidden& forbidden : list)
      if (error == 0) error = -::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), forbidden.call, 0);
  const auto forbid_clone = [&](scmp_datum_t mask, scmp_datum_t value) {
    if (error == 0)
      error = -::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, mask, value));
  };
  for (const unsigned flag : kForbiddenToClone) forbid_clone(flag, flag);
  if (clones == Clones::kThreadsAlone) forbid_clone(CLONE_THREAD, 0);
  // A filter cannot see what clone3() is asked for. Where there is none, the libc uses clone().
  if (error == 0) error = -::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  if (error == 0) error = -::seccomp_load(filter.get());
  if (error != 0) return fail(ErrorCode::kUnavailable, fail_errno("filter system calls", error).error().message);
  return {};
}

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

Result<void> forbid_system_calls() { return forbid({kForbidden}, Clones::kProcesses); }

Result<void> forbid_system_calls_on_seat() {
  return forbid({kForbidden, kForbiddenOnSeats}, Clones::kThreadsAlone);
}

}  // namespace spore::isolation

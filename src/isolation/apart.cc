#include "isolation/apart.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <memory>

#include "isolation/started.h"

namespace spore::isolation {

namespace {

constexpr unsigned long kNamespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;

constexpr int kSocketBytes = 4 << 20;

Result<BrokerReply> start_one(const ApartProgram& program, Started& started) {
  if (started.count() >= program.processes_max)
    return fail(ErrorCode::kResourceExhausted,
                "there are " + std::to_string(started.count()) + " processes of tenants, as many as there may be");
  const UniqueFd file(::open(program.path.c_str(), O_PATH | O_CLOEXEC));
  if (!file.valid()) return fail_errno("open " + program.path);
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno("socketpair");
  UniqueFd ours(ends[0]), its(ends[1]);
  // Beyond what a process may ask for itself: a large input then takes fewer turns.
  for (const UniqueFd* end : {&ours, &its})
    ::setsockopt(end->get(), SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBytes, sizeof(kSocketBytes));
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("pipe");
  UniqueFd said(ends[0]), says(ends[1]);
  const long pid = ::syscall(SYS_clone, kNamespaces | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (pid == 0) {
    ::setsid();
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // What others taught the branch predictor is forgotten before this process runs, and the other way round; loads do
    // not pass stores. Where neither the processor nor the kernel knows that, it is done without.
    for (const unsigned long what : {PR_SPEC_INDIRECT_BRANCH, PR_SPEC_STORE_BYPASS})
      ::prctl(PR_SET_SPECULATION_CTRL, what, PR_SPEC_FORCE_DISABLE, 0, 0);
    char* environment[] = {nullptr};
    become(file.get(), std::array{0, 1, says.get(), its.get()}, std::array{0, 1, STDERR_FILENO, kApartSocket},
           program.arguments, environment);
  }
  if (pid < 0) return fail(ErrorCode::kUnavailable, fail_errno("start a process in namespaces").error().message);
  ASSIGN_OR_RETURN(auto pid_descriptor, started.add(static_cast<pid_t>(pid)));
  ByteWriter out;
  out.write(static_cast<int32_t>(pid));
  BrokerReply reply{.bytes = out.take()};
  reply.descriptors.push_back(std::move(pid_descriptor));
  reply.descriptors.push_back(std::move(ours));
  reply.descriptors.push_back(std::move(said));
  return reply;
}

Result<void> mount_or_fail(const char* what, const char* type, const std::string& at, unsigned long flags,
                           const char* options = nullptr) {
  if (::mount(what, at.c_str(), type, flags, options) != 0) return fail_errno("mount " + at);
  return {};
}

// With all that is mounted below it.
Result<void> set_attributes(const std::string& at, bool writable) {
  mount_attr attributes{.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
  if (!writable) attributes.attr_set |= MOUNT_ATTR_RDONLY;
  if (::syscall(SYS_mount_setattr, AT_FDCWD, at.c_str(), AT_RECURSIVE, &attributes, sizeof(attributes)) != 0)
    return fail_errno("protect " + at);
  return {};
}

}  // namespace

std::vector<BrokerOperation> apart_operations(ApartProgram program) {
  const auto started = std::make_shared<Started>();
  std::vector<BrokerOperation> out;
  out.push_back({.name = "apart", .run = [program = std::move(program), started](ByteSpan request) {
                   return request.empty() ? start_one(program, *started)
                                          : fail(ErrorCode::kInvalidArgument, "a process starts without a request");
                 }});
  out.push_back({.name = "apart_kill", .run = [started](ByteSpan request) { return started->kill(request); }});
  out.push_back({.name = "apart_ended", .run = [started](ByteSpan request) { return started->end(request); }});
  return out;
}

Result<ApartProcess> start_apart(Broker& broker, Broker::Clock::time_point deadline) {
  ASSIGN_OR_RETURN(auto reply, broker.call("apart", {}, deadline));
  ByteReader in(reply.bytes);
  ApartProcess out{.pid = in.read<int32_t>()};
  if (!in.ok() || reply.descriptors.size() != 3) return fail(ErrorCode::kInternal, "the broker gave no process");
  out.pid_descriptor = std::move(reply.descriptors[0]);
  out.socket = std::move(reply.descriptors[1]);
  out.standard_error = std::move(reply.descriptors[2]);
  return out;
}

Result<void> kill_apart(Broker& broker, pid_t pid, Broker::Clock::time_point deadline) {
  ByteWriter request;
  request.write(static_cast<int32_t>(pid));
  return broker.post("apart_kill", request.bytes(), deadline);
}

Result<std::string> end_of_apart(Broker& broker, pid_t pid, Broker::Clock::time_point deadline) {
  ByteWriter request;
  request.write(static_cast<int32_t>(pid));
  ASSIGN_OR_RETURN(auto reply, broker.call("apart_ended", request.bytes(), deadline));
  ByteReader in(reply.bytes);
  const int status = in.read<int32_t>();
  if (!in.ok()) return fail(ErrorCode::kInternal, "the broker said nothing of how a process ended");
  if (WIFSIGNALED(status)) return "was killed by signal " + std::to_string(WTERMSIG(status));
  return "exited with code " + std::to_string(WEXITSTATUS(status));
}

Result<void> check_apart_rights() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::syscall(SYS_capget, &header, data) != 0) return fail_errno("read the capabilities of this process");
  if (data[CAP_SYS_ADMIN / 32].effective >> (CAP_SYS_ADMIN % 32) & 1) return {};
  return fail(ErrorCode::kUnavailable, "it takes root (CAP_SYS_ADMIN) to make namespaces");
}

// The new tree is made on top of /proc, which every machine has, and then becomes the root.
Result<void> confine(const std::vector<ShownDirectory>& shown) {
  if (const UniqueFd filter(::open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC)); filter.valid())
    TRY(write_all(filter.get(), as_bytes("0")));  // nobody can write there any more afterwards
  const std::string root = "/proc";
  TRY(mount_or_fail(nullptr, nullptr, "/", MS_REC | MS_PRIVATE));
  TRY(mount_or_fail("tmpfs", "tmpfs", root, MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,nr_inodes=4k,mode=0700"));
  std::error_code error;
  for (const ShownDirectory& directory : shown) {
    const std::string at = root + directory.at;
    std::filesystem::create_directories(at, error);
    if (error) return fail(ErrorCode::kInternal, "make " + at + ": " + error.message());
    TRY(mount_or_fail(directory.from.c_str(), nullptr, at, MS_BIND | MS_REC));
    TRY(set_attributes(at, directory.writable));
  }
  std::filesystem::create_directories(root + "/proc", error);
  TRY(mount_or_fail("proc", "proc", root + "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY));
  if (::chdir(root.c_str()) != 0) return fail_errno("enter the new root");
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return fail_errno("pivot_root");
  if (::umount2(".", MNT_DETACH) != 0) return fail_errno("leave the old root");
  if (::chdir("/") != 0) return fail_errno("enter the new root");
  return mount_or_fail(nullptr, nullptr, "/", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
}

}  // namespace spore::isolation

// Each in a process of its own: there is no way back.
#include "isolation/lockdown.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

namespace spore::isolation {
namespace {

// What it says where something is wrong; "" where nothing is.
std::string in_a_child(const std::function<std::string()>& work) {
  int pipe[2];
  if (::pipe(pipe) != 0) return "pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string wrong = work();
    (void)!::write(pipe[1], wrong.data(), wrong.size());
    ::_exit(0);
  }
  ::close(pipe[1]);
  std::string out;
  char buffer[512];
  for (ssize_t got; (got = ::read(pipe[0], buffer, sizeof(buffer))) > 0;) out.append(buffer, static_cast<size_t>(got));
  ::close(pipe[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status == 0 ? out : out + " ended with " + std::to_string(status);
}

std::string status_field(const std::string& name) {
  std::ifstream status("/proc/thread-self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(name + ":")) return line.substr(line.find_last_of(" \t") + 1);
  return "no " + name;
}

TEST(Lockdown, NoCapabilityIsLeftNorCanBeHadAgain) {
  EXPECT_EQ(in_a_child([]() -> std::string {
              if (const auto dropped = drop_privileges(); !dropped) return dropped.error().message;
              std::string wrong;
              std::jthread([&] {  // as every thread that is begun later
                for (const char* set : {"CapEff", "CapPrm", "CapInh", "CapAmb"})
                  if (status_field(set) != "0000000000000000") wrong += set + (" " + status_field(set));
              })
                  .join();
              if (::geteuid() == 0 && status_field("CapBnd") != "0000000000000000") wrong += " CapBnd";
              if (status_field("NoNewPrivs") != "1") wrong += " NoNewPrivs";
              rlimit core{};
              ::getrlimit(RLIMIT_CORE, &core);
              if (core.rlim_max != 0) wrong += " core";
              if (::mount("none", "/tmp", "tmpfs", 0, nullptr) == 0) wrong += " mounts";
              return wrong;
            }),
            "");
}

TEST(Lockdown, WhatIsKeptIsKept) {
  if (::geteuid() != 0) GTEST_SKIP() << "takes root";
  EXPECT_EQ(in_a_child([]() -> std::string {
              if (const auto dropped = drop_privileges({CAP_NET_BIND_SERVICE}); !dropped)
                return dropped.error().message;
              return status_field("CapEff") == "0000000000000400" ? "" : status_field("CapEff");
            }),
            "");
}

TEST(Lockdown, AProcessWithThreadsIsRefused) {
  EXPECT_EQ(in_a_child([]() -> std::string {
              std::atomic<bool> stop{false};
              std::jthread other([&] { stop.wait(false); });
              const auto dropped = drop_privileges();
              stop = true;
              stop.notify_all();
              return !dropped && dropped.error().code == ErrorCode::kFailedPrecondition ? "" : "dropped";
            }),
            "");
}

TEST(Lockdown, ForbiddenCallsFailOnThisThreadAndThoseItBegins) {
  EXPECT_EQ(in_a_child([]() -> std::string {
              if (const auto forbidden = forbid_system_calls(); !forbidden) return forbidden.error().message;
              std::string wrong;
              const auto refused = [&](const char* what, long result) {
                if (result != -1 || errno != EPERM) wrong += what + (" " + std::to_string(result) + ", ");
              };
              std::jthread([&] {
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
                refused("ptrace", ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr));
#endif
                refused("unshare", ::unshare(CLONE_NEWUSER));
                for (const unsigned long flag : {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET})
                  refused("clone", ::syscall(SYS_clone, flag | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
                if (::syscall(SYS_clone3, nullptr, 0) != -1 || errno != ENOSYS) wrong += "clone3, ";
                refused("process_vm_readv", ::syscall(SYS_process_vm_readv, ::getpid(), nullptr, 0, nullptr, 0, 0));
                refused("userfaultfd", ::syscall(SYS_userfaultfd, 0));
                refused("io_uring_setup", ::syscall(425, 1, nullptr));
                refused("open_by_handle_at", ::syscall(SYS_open_by_handle_at, -1, nullptr, 0));
              }).join();
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
              char* const nothing[] = {nullptr};
              refused("execve", ::execve("/bin/true", nothing, nothing));
              refused("execveat", ::syscall(SYS_execveat, AT_FDCWD, "/bin/true", nothing, nothing, 0));
#endif
              const pid_t child = ::fork();  // only seats do not
              if (child == 0) ::_exit(7);
              int status = 0;
              ::waitpid(child, &status, 0);
              if (WEXITSTATUS(status) != 7) wrong += "no processes";
              return wrong;
            }),
            "");
}

TEST(Lockdown, SeatsCanDoWhatTheyNeedAlone) {
  EXPECT_EQ(in_a_child([]() -> std::string {
              std::string wrong;
              std::jthread([&] {
                if (const auto filtered = allow_system_calls_of_a_seat(); !filtered) {
                  wrong = filtered.error().message;
                  return;
                }
                const auto refused = [&](const char* what, long result) {
                  if (result != -1 || errno != EPERM) wrong += what + (" " + std::to_string(result) + ", ");
                };
                char* const arguments[] = {nullptr};
                refused("execve", ::execve("/bin/true", arguments, arguments));
                refused("fork", ::syscall(SYS_fork));
                refused("vfork", ::syscall(SYS_vfork));
                refused("clone", ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr));
                refused("socket", ::socket(AF_INET, SOCK_STREAM, 0));
                refused("ptrace", ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr));
                refused("userfaultfd", ::syscall(SYS_userfaultfd, 0));
                refused("ioctl", ::ioctl(0, TIOCSTI, "x"));
                refused("prctl", ::prctl(PR_SET_DUMPABLE, 1));
                refused("kill", ::kill(::getpid(), 0));
                std::atomic<bool> ran{false};
                std::jthread([&] { ran = true; }).join();
                if (!ran) wrong += "no threads";
              }).join();
              const pid_t child = ::fork();
              if (child == 0) ::execl("/bin/true", "true", nullptr), ::_exit(1);
              int status = 1;
              ::waitpid(child, &status, 0);
              return status != 0 ? wrong + " others start nothing either" : wrong;
            }),
            "");
}

}  // namespace
}  // namespace spore::isolation

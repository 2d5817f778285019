#include "isolation/started.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

namespace spore::isolation {

Started::~Started() {
  for (const pid_t pid : pids_) ::kill(pid, SIGKILL);
  for (const pid_t pid : pids_)
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
}

Result<UniqueFd> Started::add(pid_t pid) {
  UniqueFd descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!descriptor.valid()) {
    auto error = fail_errno("pidfd_open");
    ::kill(pid, SIGKILL);
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return error;
  }
  pids_.insert(pid);
  return descriptor;
}

Result<pid_t> Started::one_of(ByteSpan request) const {
  ByteReader in(request);
  const pid_t pid = in.read<int32_t>();
  if (!in.ok() || !in.at_end() || !pids_.contains(pid))
    return fail(ErrorCode::kInvalidArgument, "no process that was started has that number");
  return pid;
}

Result<BrokerReply> Started::kill(ByteSpan request) const {
  ASSIGN_OR_RETURN(const pid_t pid, one_of(request));
  ::kill(pid, SIGKILL);
  return BrokerReply();
}

Result<BrokerReply> Started::end(ByteSpan request) {
  ASSIGN_OR_RETURN(const pid_t pid, one_of(request));
  int status = 0;
  const pid_t ended = ::waitpid(pid, &status, WNOHANG);
  if (ended == 0) return fail(ErrorCode::kFailedPrecondition, "the process still runs");
  if (ended < 0) return fail_errno("wait for a process");
  pids_.erase(pid);
  ByteWriter out;
  out.write(static_cast<int32_t>(status));
  return BrokerReply{.bytes = out.take()};
}

void become(int program, std::span<const int> descriptors, std::span<const int> numbers,
            const std::vector<std::string>& arguments, char** environment) {
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // First out of the way of where they go.
  const int last = *std::ranges::max_element(numbers);
  std::vector<int> sources;
  for (const int descriptor : descriptors) sources.push_back(::fcntl(descriptor, F_DUPFD, last + 2));
  program = ::fcntl(program, F_DUPFD, last + 2);
  for (size_t i = 0; i < numbers.size(); ++i)
    if (::dup2(sources[i], numbers[i]) < 0) ::_exit(127);
  if (::dup3(program, last + 1, O_CLOEXEC) < 0 || ::close_range(static_cast<unsigned>(last) + 2, ~0U, 0) != 0)
    ::_exit(127);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::syscall(SYS_execveat, last + 1, "", argv.data(), environment, AT_EMPTY_PATH);
  ::_exit(127);
}

}  // namespace spore::isolation

#include "leak/system_settings.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

namespace spore::leak {

namespace {

constexpr const char* kCompactMemory = "/proc/sys/vm/compact_memory";

std::unexpected<Error> refused(const std::string& what) {
  return fail(ErrorCode::kFailedPrecondition, fmt::format("{}: {}", what, std::strerror(errno)));
}

Result<void> write_setting(const std::string& path, const std::string& value) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return refused("open " + path);
  if (::write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size()))
    return refused(fmt::format("write {} into {}", value, path));
  return {};
}

// The chosen one, where the file shows all with the chosen in brackets.
Result<std::string> read_setting(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  if (!std::getline(file, text)) return refused("read " + path);
  const size_t begin = text.find('[');
  const size_t end = text.find(']');
  return begin < end && end != std::string::npos ? text.substr(begin + 1, end - begin - 1) : text;
}

// Runs in the process that restores.
class Guardian {
 public:
  Result<void> apply(const SystemSettings::Wanted& wanted) {
    for (const auto& [path, value] : wanted.values) {
      ASSIGN_OR_RETURN(std::string old, read_setting(path));
      old_values_.emplace_back(path, std::move(old));
      TRY(write_setting(path, value));
    }
    if (wanted.swap_bytes) TRY(make_swap(wanted.swap_bytes));
    if (wanted.compact) {
      if (::access(kCompactMemory, W_OK) != 0) return refused(kCompactMemory);
      compactor_ = ::fork();
      if (compactor_ == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (write_setting(kCompactMemory, "1")) {
        }
        ::_exit(0);
      }
    }
    return {};
  }

  void restore() {
    if (compactor_ > 0) {
      ::kill(compactor_, SIGKILL);
      ::waitpid(compactor_, nullptr, 0);
    }
    for (auto it = old_values_.rbegin(); it != old_values_.rend(); ++it)
      if (auto written = write_setting(it->first, it->second); !written)
        std::fprintf(stderr, "leak test: cannot restore a setting: %s\n", written.error().message.c_str());
    if (swap_on_ && ::swapoff(swap_file_.c_str()) != 0)
      std::fprintf(stderr, "leak test: swapoff %s: %s\n", swap_file_.c_str(), std::strerror(errno));
    if (!swap_file_.empty()) ::unlink(swap_file_.c_str());
  }

 private:
  Result<void> make_swap(uint64_t size_bytes) {
    // Not in /tmp, which may be memory.
    std::string path = "/var/tmp/spore-leak-swap-XXXXXX";
    const UniqueFd fd(::mkostemp(path.data(), O_CLOEXEC));
    if (!fd.valid()) return refused("make a swap file in /var/tmp");
    swap_file_ = path;
    if (const int error = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(size_bytes)); error != 0) {
      errno = error;
      return refused(fmt::format("a swap file of {} MiB", size_bytes >> 20));
    }
    const pid_t maker = ::fork();
    if (maker == 0) {
      const int null = ::open("/dev/null", O_WRONLY);
      ::dup2(null, STDOUT_FILENO);
      ::dup2(null, STDERR_FILENO);
      ::execl("/usr/sbin/mkswap", "mkswap", swap_file_.c_str(), nullptr);
      ::_exit(127);
    }
    int status = 0;
    if (maker < 0 || ::waitpid(maker, &status, 0) != maker || status != 0)
      return fail(ErrorCode::kFailedPrecondition, "mkswap failed");
    if (::swapon(swap_file_.c_str(), 0) != 0) return refused("swapon");
    swap_on_ = true;
    return {};
  }

  std::vector<std::pair<std::string, std::string>> old_values_;
  std::string swap_file_;
  bool swap_on_ = false;
  pid_t compactor_ = 0;
};

[[noreturn]] void guard(const SystemSettings::Wanted& wanted, UniqueFd alive, UniqueFd report) {
  // Out of reach of what is sent to the test's process group, and of who kills its children.
  ::setsid();
  if (::fork() != 0) ::_exit(0);
  for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGPIPE}) ::signal(signal, SIG_IGN);
  Guardian guardian;
  const auto applied = guardian.apply(wanted);
  const std::string message = applied ? std::string("+") : applied.error().message;
  ssize_t ignored = ::write(report.get(), message.data(), message.size());
  char byte = 0;
  if (applied) ignored = ::read(alive.get(), &byte, 1);
  guardian.restore();
  static_cast<void>(ignored);
  ::_exit(0);
}

}  // namespace

Result<SystemSettings> SystemSettings::apply(const Wanted& wanted) {
  int alive[2];
  int report[2];
  if (::pipe2(alive, O_CLOEXEC) != 0) return fail_errno("pipe");
  UniqueFd alive_read(alive[0]);
  SystemSettings settings;
  settings.alive_ = UniqueFd(alive[1]);
  if (::pipe2(report, O_CLOEXEC) != 0) return fail_errno("pipe");
  settings.restored_ = UniqueFd(report[0]);
  UniqueFd report_write(report[1]);

  const pid_t child = ::fork();
  if (child < 0) return fail_errno("fork");
  if (child == 0) {
    settings.alive_.reset();
    settings.restored_.reset();
    guard(wanted, std::move(alive_read), std::move(report_write));
  }
  report_write.reset();
  ::waitpid(child, nullptr, 0);
  char message[512];
  const ssize_t size = ::read(settings.restored_.get(), message, sizeof(message));
  if (size == 1 && message[0] == '+') return settings;
  return fail(ErrorCode::kFailedPrecondition,
              size > 0 ? std::string(message, static_cast<size_t>(size)) : "the process that restores has died");
}

SystemSettings::~SystemSettings() {
  if (!restored_.valid()) return;
  alive_.reset();
  char byte;
  while (::read(restored_.get(), &byte, 1) < 0 && errno == EINTR) {
  }
}

}  // namespace spore::leak

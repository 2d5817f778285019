#include "compiler/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "compiler/child_protocol.h"

extern char** environ;

namespace spore::compiler {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kOutputBytesMax = 1ull << 30;
constexpr uint64_t kMessageBytesMax = 64 << 10;
// The child's descriptors 0 to 5 are put in place by dup2; their sources lie above, so that none overwrites another.
constexpr int kSourceFdMin = 16;

std::string text_of_bytes(uint64_t bytes) {
  for (const auto& [unit, name] : {std::pair{1ull << 30, "GiB"}, {1ull << 20, "MiB"}, {1ull << 10, "KiB"}})
    if (bytes >= unit && bytes % unit == 0) return std::to_string(bytes / unit) + " " + name;
  return std::to_string(bytes) + " bytes";
}

Result<UniqueFd> lift(UniqueFd fd) {
  UniqueFd lifted(::fcntl(fd.get(), F_DUPFD_CLOEXEC, kSourceFdMin));
  if (!lifted.valid()) return fail_errno("duplicate a descriptor");
  return lifted;
}

Result<UniqueFd> lifted_memfd(const char* name, ByteSpan bytes = {}) {
  ASSIGN_OR_RETURN(auto fd, make_memfd(name, bytes));
  return lift(std::move(fd));
}

// From the start of the file, whatever its offset is.
Result<Bytes> read_memfd(int fd, uint64_t size_max_bytes) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return fail_errno("fstat of the compiler's output");
  Bytes out(std::min<uint64_t>(static_cast<uint64_t>(info.st_size), size_max_bytes));
  size_t used = 0;
  while (used < out.size()) {
    const ssize_t n = ::pread(fd, out.data() + used, out.size() - used, static_cast<off_t>(used));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read the compiler's output");
    if (n == 0) break;
    used += static_cast<size_t>(n);
  }
  out.resize(used);
  return out;
}

// One running child. It is killed and waited for at the latest when this ends, so there is never a zombie.
class Child {
 public:
  Child(ChildStarter& starter, ChildStarter::Started started) : starter_(starter), started_(std::move(started)) {}
  ~Child() {
    if (ended_) return;
    kill();
    pollfd end{fd(), POLLIN, 0};
    while (::poll(&end, 1, -1) < 0 && errno == EINTR) {
    }
    (void)wait();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int fd() const { return started_.pid_descriptor.get(); }
  void kill() const { ::syscall(SYS_pidfd_send_signal, fd(), SIGKILL, nullptr, 0); }
  // Of one that has ended.
  Result<int> wait() {
    ended_ = true;
    return starter_.end(started_);
  }

 private:
  ChildStarter& starter_;
  ChildStarter::Started started_;
  bool ended_ = false;
};

// Children of this process.
class OwnStarter final : public ChildStarter {
 public:
  int64_t parent() const override { return ::getpid(); }
  Result<Started> start(const std::filesystem::path& program, const std::vector<std::string>& arguments,
                        std::span<const int> descriptors) override;
  Result<int> end(const Started& child) override {
    int status = 0;
    pid_t ended = 0;
    do ended = ::waitpid(static_cast<pid_t>(child.pid), &status, 0);
    while (ended < 0 && errno == EINTR);
    if (ended < 0) return fail_errno("wait for the compiler");
    return status;
  }
};

Result<ChildStarter::Started> OwnStarter::start(const std::filesystem::path& program,
                                                const std::vector<std::string>& arguments,
                                                std::span<const int> descriptors) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (::posix_spawn_file_actions_init(&actions) != 0 || ::posix_spawnattr_init(&attributes) != 0)
    return fail(ErrorCode::kInternal, "posix_spawn cannot be prepared");
  int error = ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  int number = STDERR_FILENO;
  for (const int to : {STDOUT_FILENO, STDERR_FILENO})
    if (error == 0) error = ::posix_spawn_file_actions_adddup2(&actions, descriptors[0], to);
  for (const int from : descriptors.subspan(1))
    if (error == 0) error = ::posix_spawn_file_actions_adddup2(&actions, from, ++number);
  if (error == 0) error = ::posix_spawn_file_actions_addclosefrom_np(&actions, number + 1);

  // Whatever the host blocks or ignores, the child starts with none of it.
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  if (error == 0) error = ::posix_spawnattr_setsigmask(&attributes, &none);
  if (error == 0) error = ::posix_spawnattr_setsigdefault(&attributes, &all);
  if (error == 0) error = ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::string path = program.string();
  std::vector<std::string> strings = arguments;
  std::vector<char*> argv{path.data()};
  for (auto& string : strings) argv.push_back(string.data());
  argv.push_back(nullptr);
  char* no_environment[] = {nullptr};
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  char** const environment = environ;  // the sanitizers' options
#else
  char** const environment = no_environment;
#endif
  (void)no_environment;
  pid_t pid = -1;
  if (error == 0) error = ::posix_spawn(&pid, path.c_str(), &actions, &attributes, argv.data(), environment);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error == ENOENT || error == EACCES)
    return fail(ErrorCode::kFailedPrecondition,
                "cannot start the compiler " + path + ": " + std::string(std::strerror(error)));
  if (error != 0) {
    auto refused = fail_errno("start the compiler", error);
    if (error == EAGAIN || error == ENOMEM) refused.error().code = ErrorCode::kUnavailable;
    return refused;
  }
  // Nobody else waits for this pid, so it stays ours until waitpid.
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) {
    auto refused = fail_errno("pidfd_open of the compiler");
    ::kill(pid, SIGKILL);
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return refused;
  }
  return Started{.pid = pid, .pid_descriptor = std::move(pidfd)};
}

// Reads all progress that is there; false at the end of the stream.
bool drain_progress(int fd, const Progress& progress, uint8_t& last) {
  std::array<uint8_t, 256> steps;
  for (;;) {
    const ssize_t n = ::read(fd, steps.data(), steps.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 && errno == EAGAIN;
    const uint8_t step = *std::max_element(steps.begin(), steps.begin() + n);
    if (step > last && progress) progress(step / 255.0);
    last = std::max(last, step);
  }
}

// What the child said before it died.
std::string words_in(int fd) {
  const auto text = read_memfd(fd, kMessageBytesMax);
  return text ? std::string(as_text(*text)) : "";
}

// The last line of it, as far as it can be shown, after ": ".
std::string last_line(std::string out) {
  while (!out.empty() && (out.back() == '\n' || out.back() == ' ')) out.pop_back();
  if (const auto line = out.rfind('\n'); line != std::string::npos) out.erase(0, line + 1);
  if (out.size() > 300) out.resize(300);
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = ' ';
  return out.empty() ? "" : ": " + out;
}

std::unexpected<Error> out_of_memory(const ChildLimits& limits) {
  return fail(ErrorCode::kResourceExhausted,
              "the compiler ran out of memory (limit " + text_of_bytes(limits.memory_bytes_max) + ")");
}

std::unexpected<Error> killed_by(int signal, const std::string& words, const ChildLimits& limits) {
  switch (signal) {
    case SIGXCPU:
      return fail(ErrorCode::kResourceExhausted,
                  "the compiler ran out of CPU time (limit " + std::to_string(limits.cpu_seconds_max) + " s)");
    case SIGXFSZ:
      return fail(ErrorCode::kResourceExhausted,
                  "the compiled object is too large (limit " + text_of_bytes(kOutputBytesMax) + ")");
    case SIGKILL: return fail(ErrorCode::kResourceExhausted, "the compiler was killed; the machine is short of memory");
    case SIGSYS: return fail(ErrorCode::kInvalidModule, "the compiler tried a forbidden system call on this module");
    default: break;
  }
  for (const char* sign : {"out of memory", "bad_alloc", "Resource temporarily unavailable", "Cannot allocate memory"})
    if (words.find(sign) != std::string::npos) return out_of_memory(limits);
  return fail(ErrorCode::kInvalidModule,
              "the compiler crashed on this module (signal " + std::to_string(signal) + ")" + last_line(words));
}

}  // namespace

std::filesystem::path default_compiler() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (error ? std::filesystem::path(".") : self.parent_path()) / "spore-compiler";
}

ChildCompiler::ChildCompiler(ChildLimits limits, std::filesystem::path program, ChildStarter* starter)
    : limits_(limits), program_(std::move(program)), starter_(starter) {
  static OwnStarter own;
  if (!starter_) starter_ = &own;
}

Result<Bytes> ChildCompiler::compile(ByteSpan wasm, const Options& options, const Progress& progress,
                                     std::stop_token stop) const {
  if (stop.stop_requested()) return fail(ErrorCode::kUnavailable, "the compilation was given up");
  ASSIGN_OR_RETURN(auto module, lifted_memfd("spore-wasm", wasm));
  if (::fcntl(module.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
    return fail_errno("seal the module");
  ASSIGN_OR_RETURN(auto output, lifted_memfd("spore-object"));
  ASSIGN_OR_RETURN(auto messages, lifted_memfd("spore-compiler-messages"));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno("pipe");
  const UniqueFd read_end(ends[0]);
  ASSIGN_OR_RETURN(auto write_end, lift(UniqueFd(ends[1])));

  ChildRequest request{.options = options,
                       .memory_bytes_max = limits_.memory_bytes_max,
                       .cpu_seconds_max = limits_.cpu_seconds_max,
                       .output_bytes_max = kOutputBytesMax,
                       .parent_pid = starter_->parent()};
  request.options.threads = std::clamp(options.threads, 1u, kThreadsMax);
  const auto deadline = Clock::now() + std::chrono::seconds(limits_.wall_seconds_max);
  ASSIGN_OR_RETURN(auto started,
                   starter_->start(program_, to_arguments(request),
                                   std::array{messages.get(), module.get(), output.get(), write_end.get()}));
  Child child(*starter_, std::move(started));
  write_end.reset();
  module.reset();

  bool late = false;
  {
    const std::stop_callback kill_on_stop(stop, [&child] { child.kill(); });
    bool more_progress = true;
    uint8_t last_step = 0;
    for (;;) {
      pollfd waits[2] = {{child.fd(), POLLIN, 0}, {more_progress ? read_end.get() : -1, POLLIN, 0}};
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
      const int ready = ::poll(waits, 2, static_cast<int>(std::clamp<int64_t>(left.count(), 0, 60'000)));
      if (ready < 0 && errno != EINTR) return fail_errno("poll");
      if (waits[1].revents != 0) more_progress = drain_progress(read_end.get(), progress, last_step);
      if (waits[0].revents != 0) break;
      if (Clock::now() >= deadline && !late) {
        late = true;
        child.kill();
      }
    }
  }
  ASSIGN_OR_RETURN(const int status, child.wait());
  if (WIFEXITED(status)) {
    const int code = WEXITSTATUS(status);
    if (code == kExitObject) {
      if (progress) progress(1);
      return read_memfd(output.get(), kOutputBytesMax);
    }
    if (code == kExitError) {
      ASSIGN_OR_RETURN(const auto bytes, read_memfd(output.get(), kMessageBytesMax));
      return std::unexpected(parse_error(bytes));
    }
    if (code == kExitOutOfMemory) return out_of_memory(limits_);
    return fail(ErrorCode::kInternal,
                "the compiler ended with exit code " + std::to_string(code) + last_line(words_in(messages.get())));
  }
  if (stop.stop_requested()) return fail(ErrorCode::kUnavailable, "the compilation was given up");
  if (late)
    return fail(ErrorCode::kResourceExhausted,
                "the compiler took longer than " + std::to_string(limits_.wall_seconds_max) + " s");
  return killed_by(WTERMSIG(status), words_in(messages.get()), limits_);
}

}  // namespace spore::compiler

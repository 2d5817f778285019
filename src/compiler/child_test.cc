#include "compiler/child.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <thread>

#include "compiler/child_protocol.h"
#include "compiler/sandbox.h"

namespace spore::compiler {
namespace {

namespace fs = std::filesystem;

// ---- compilers that go wrong ----------------------------------------------------------------------------------------
// This test program starts itself, under a link named after what the child is to do. The child enters the sandbox as
// the real compiler does, and then misbehaves.

volatile unsigned sink = 0;  // keeps the loop

[[noreturn]] void answer(std::string_view text) {
  const auto written = write_all(kOutputFd, as_bytes(text));
  ::_exit(written ? kExitObject : 1);
}

void check_own_limits() {
  if (::getpriority(PRIO_PROCESS, 0) < 10) answer("it is not nice");
  for (const int fd : {6, 7, 20, 100, 1000})
    if (::fcntl(fd, F_GETFD) >= 0) answer("a descriptor of the host is open");
  rlimit limit{};
  if (::getrlimit(RLIMIT_CORE, &limit) != 0 || limit.rlim_max != 0) answer("it may dump core");
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max > 16) answer("it may open many files");
  if (::environ != nullptr && *::environ != nullptr && kSandboxComplete) answer("it sees the host's environment");
}

void check_refusals() {
  if (!kSandboxComplete) return;
  if (::open("/dev/null", O_RDONLY) >= 0 || errno != EPERM) answer("it can open files");
  if (::open("/spore-was-here", O_WRONLY | O_CREAT, 0600) >= 0 || errno != EPERM) answer("it can make files");
  if (::unlink("/spore-was-here") == 0 || errno != EPERM) answer("it can remove files");
  const rlimit more{1000, 1000};
  if (::setrlimit(RLIMIT_NOFILE, &more) == 0 || errno != EPERM) answer("it can change its limits");
  // What a compiler needs goes on working.
  std::atomic<int> count = 0;
  std::thread([&count] { ++count; }).join();
  if (count != 1 || Bytes(8 << 20, 1).back() != 1) answer("it has no threads or memory");
}

[[noreturn]] void misbehave(std::string_view how) {
  if (how == "echo") {
    const off_t size = ::lseek(kWasmFd, 0, SEEK_END);
    std::string bytes(static_cast<size_t>(size), 0);
    if (::pread(kWasmFd, bytes.data(), bytes.size(), 0) != size) ::_exit(1);
    answer(bytes);
  }
  if (how == "inspect") {
    check_own_limits();
    check_refusals();
    answer("all is well");
  }
  if (how == "write_wasm") answer(::pwrite(kWasmFd, "x", 1, 0) < 0 ? "refused" : "written");
  if (how == "spin")
    for (;;) sink = sink + 1;
  if (how == "hang")
    for (;;) ::pause();
  if (how == "report_and_hang") {
    (void)!::write(kProgressFd, "\x40\x80", 2);
    for (;;) ::pause();
  }
  if (how == "hoard") {
    (void)!::write(2, "first line\nLLVM ERROR: out of memory\nAllocation failed\n", 55);
    std::abort();
  }
  if (how == "flood") (void)!::ftruncate(kOutputFd, 1ll << 40);
  if (how == "crash") {
    (void)!::write(2, "bad thing\nassertion \x1bx failed\n", 29);
    ::signal(SIGSEGV, SIG_DFL);
    ::raise(SIGSEGV);
  }
  if (how == "exec") ::execl("/bin/true", "/bin/true", nullptr);
  if (how == "socket") ::socket(AF_INET, SOCK_STREAM, 0);
  if (how == "executable") ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (how == "exit_3") ::_exit(3);
  if (how == "cut_short") ::_exit(kExitError);
  if (how == "denied") {
    (void)write_all(kOutputFd, serialize_error({ErrorCode::kPermissionDenied, "not yours"}));
    ::_exit(kExitError);
  }
  ::_exit(99);
}

__attribute__((constructor)) void become_the_child(int argc, char** argv) {
  const std::string_view program = argc > 0 ? argv[0] : "";
  constexpr std::string_view kPrefix = "/child_that_does_";
  const size_t at = program.rfind(kPrefix);
  if (at == std::string_view::npos) return;
  const auto how = program.substr(at + kPrefix.size());
  const auto request = parse_arguments({argv + 1, static_cast<size_t>(argc - 1)});
  if (!request) ::_exit(98);
  const auto entered = enter_sandbox({.memory_bytes_max = request->memory_bytes_max,
                                      .cpu_seconds_max = request->cpu_seconds_max,
                                      .file_bytes_max = request->output_bytes_max,
                                      .parent_pid = request->parent_pid});
  if (!entered) {
    (void)write_all(kOutputFd, serialize_error(entered.error()));
    ::_exit(kExitError);
  }
  misbehave(how);
}

// ---- the tests ------------------------------------------------------------------------------------------------------

// (module (func (export "f") (result i32) i32.const 42))
const Bytes kModule = {0, 'a', 's', 'm', 1, 0, 0,   0, 1, 5,  1, 0x60, 0, 1, 0x7f, 3,  2,
                       1, 0,   7,   5,   1, 1, 'f', 0, 0, 10, 6, 1,    4, 0, 0x41, 42, 0x0b};

class ChildCompilerTest : public ::testing::Test {
 protected:
  ChildCompilerTest() {
    std::string name = (fs::temp_directory_path() / "spore-child-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~ChildCompilerTest() override { fs::remove_all(folder_); }

  ChildCompiler that_does(const std::string& how, ChildLimits limits = {}) {
    const auto program = folder_ / ("child_that_does_" + how);
    if (!fs::exists(program)) fs::create_symlink(fs::read_symlink("/proc/self/exe"), program);
    return ChildCompiler(limits, program);
  }
  Result<Bytes> run(const std::string& how, ChildLimits limits = {}) {
    return that_does(how, limits).compile(kModule, {});
  }
  static size_t descriptors() {
    return static_cast<size_t>(std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
  }

  fs::path folder_;
};

TEST_F(ChildCompilerTest, GivesTheModuleToTheChildAndItsAnswerBack) {
  const auto bytes = run("echo");
  ASSERT_TRUE(bytes) << bytes.error().message;
  EXPECT_EQ(*bytes, kModule);
}

TEST_F(ChildCompilerTest, TheChildIsTiedDown) {
  const auto bytes = run("inspect");
  ASSERT_TRUE(bytes) << bytes.error().message;
  EXPECT_EQ(as_text(*bytes), "all is well");
}

TEST_F(ChildCompilerTest, TheChildCannotChangeTheModule) { EXPECT_EQ(as_text(*run("write_wasm")), "refused"); }

TEST_F(ChildCompilerTest, ForbiddenSystemCallsEndTheChild) {
  if (!kSandboxComplete) GTEST_SKIP() << "no filter under this sanitizer";
  for (const char* how : {"exec", "socket", "executable"}) {
    const auto bytes = run(how);
    ASSERT_FALSE(bytes) << how;
    EXPECT_EQ(bytes.error().code, ErrorCode::kInvalidModule) << how;
    EXPECT_EQ(bytes.error().message, "the compiler tried a forbidden system call on this module") << how;
  }
}

TEST_F(ChildCompilerTest, NamesTheLimitThatTheChildRanInto) {
  auto error = run("spin", {.cpu_seconds_max = 1}).error();
  EXPECT_EQ(error.code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(error.message, "the compiler ran out of CPU time (limit 1 s)");
  error = run("hang", {.wall_seconds_max = 0}).error();
  EXPECT_EQ(error.code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(error.message, "the compiler took longer than 0 s");
  error = run("hoard", {.memory_bytes_max = 3ull << 30}).error();
  EXPECT_EQ(error.code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(error.message, "the compiler ran out of memory (limit 3 GiB)");
  error = run("flood").error();
  EXPECT_EQ(error.code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(error.message, "the compiled object is too large (limit 1 GiB)");
}

TEST_F(ChildCompilerTest, ACrashIsTheModulesFaultAndTellsTheLastWords) {
  const auto bytes = run("crash");
  ASSERT_FALSE(bytes);
  EXPECT_EQ(bytes.error().code, ErrorCode::kInvalidModule);
  EXPECT_EQ(bytes.error().message, "the compiler crashed on this module (signal 11): assertion  x failed");
}

TEST_F(ChildCompilerTest, UnexpectedEndsAreOurFault) {
  EXPECT_EQ(run("exit_3").error().code, ErrorCode::kInternal);
  EXPECT_EQ(run("cut_short").error().message, "the compiler's error message is cut short");
  EXPECT_EQ(run("denied").error().code, ErrorCode::kInternal);
}

TEST_F(ChildCompilerTest, SaysThatTheProgramIsMissing) {
  const auto bytes = ChildCompiler({}, folder_ / "nowhere").compile(kModule, {});
  ASSERT_FALSE(bytes);
  EXPECT_EQ(bytes.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_NE(bytes.error().message.find("nowhere: No such file"), std::string::npos) << bytes.error().message;
}

TEST_F(ChildCompilerTest, ReportsProgressAndStopsOnRequest) {
  std::stop_source stop;
  double last = 0;
  const auto bytes = that_does("report_and_hang")
                         .compile(
                             kModule, {},
                             [&](double share) {
                               last = share;
                               if (share > 0.5) stop.request_stop();
                             },
                             stop.get_token());
  ASSERT_FALSE(bytes);
  EXPECT_EQ(bytes.error().code, ErrorCode::kUnavailable);
  EXPECT_NEAR(last, 0x80 / 255.0, 1e-9);
  EXPECT_EQ(that_does("echo").compile(kModule, {}, {}, stop.get_token()).error().code, ErrorCode::kUnavailable);
}

TEST_F(ChildCompilerTest, LeavesNoDescriptorAndNoZombie) {
  (void)run("echo");
  const size_t before = descriptors();
  for (const char* how : {"echo", "crash", "hoard", "exit_3", "cut_short"}) (void)run(how);
  (void)run("hang", {.wall_seconds_max = 0});
  (void)ChildCompiler({}, folder_ / "nowhere").compile(kModule, {});
  EXPECT_EQ(descriptors(), before);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST_F(ChildCompilerTest, ManyThreadsCompileAtOnce) {
  const auto compiler = that_does("echo");
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (uint8_t id = 0; id < 8; ++id)
    threads.emplace_back([&, id] {
      for (int i = 0; i < 4; ++i) {
        const Bytes module(1000 + id, id);
        const auto bytes = compiler.compile(module, {});
        if (bytes && *bytes == module) ++good;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 32);
}

TEST_F(ChildCompilerTest, TheHostsBlockedAndIgnoredSignalsDoNotReachTheChild) {
  sigset_t all, old;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &old);
  const auto handler = ::signal(SIGXCPU, SIG_IGN);
  const auto error = run("spin", {.cpu_seconds_max = 1}).error();
  ::signal(SIGXCPU, handler);
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
  EXPECT_EQ(error.message, "the compiler ran out of CPU time (limit 1 s)");
}

TEST(ChildProtocol, ArgumentsComeThroughAndBadOnesAreRefused) {
  ChildRequest request{.options = {.tier = wasm::Tier::kFast, .cpu_level = wasm::CpuLevel::kV3, .threads = 7},
                       .memory_bytes_max = 1ull << 40,
                       .cpu_seconds_max = 5,
                       .output_bytes_max = 6,
                       .parent_pid = 7};
  request.options.cross_instance = true;
  request.options.hardened = true;
  request.options.proposals = kTailCalls | kThreads;
  const auto strings = to_arguments(request);
  std::vector<const char*> arguments;
  for (const auto& string : strings) arguments.push_back(string.c_str());
  const auto parsed = parse_arguments(arguments);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(to_arguments(*parsed), strings);
  for (size_t i = 0; i < arguments.size(); ++i)
    for (const char* bad : {"", "x", "-1", "1x", "99999999999999999999999"}) {
      auto changed = arguments;
      changed[i] = bad;
      EXPECT_FALSE(parse_arguments(changed)) << i << " " << bad;
    }
  arguments.pop_back();
  EXPECT_FALSE(parse_arguments(arguments));
  arguments.push_back("1");
  arguments[2] = "65";
  EXPECT_FALSE(parse_arguments(arguments));
}

// ---- with the real compiler -----------------------------------------------------------------------------------------

TEST(SporeCompiler, CompilesAModule) {
  double last = 0;
  const auto bytes = ChildCompiler().compile(kModule, {}, [&](double share) { last = share; });
  ASSERT_TRUE(bytes) << bytes.error().message;
  const auto object = wasm::parse_object(*bytes);
  ASSERT_TRUE(object) << object.error().message;
  EXPECT_EQ(object->module_digest, sha256(kModule));
  EXPECT_EQ(object->functions.size(), 1u);
  EXPECT_EQ(last, 1);
}

TEST(SporeCompiler, RefusesEveryTruncationOfAModule) {
  for (size_t size = 0; size < kModule.size(); ++size) {
    if (size == 8 || size == 15) continue;  // the header alone, or with the types, is a module
    const auto bytes = ChildCompiler().compile(ByteSpan(kModule).first(size), {});
    ASSERT_FALSE(bytes) << size;
    EXPECT_EQ(bytes.error().code, ErrorCode::kInvalidModule) << size << ": " << bytes.error().message;
  }
}

TEST(SporeCompiler, RefusesGarbage) {
  unsigned seed = 1;
  for (int i = 0; i < 8; ++i) {
    Bytes garbage(kModule.begin(), kModule.begin() + 8);
    for (int k = 0; k < 200; ++k) garbage.push_back(static_cast<uint8_t>((seed = seed * 1664525 + 1013904223) >> 24));
    const auto bytes = ChildCompiler().compile(garbage, {});
    ASSERT_FALSE(bytes);
    EXPECT_EQ(bytes.error().code, ErrorCode::kInvalidModule) << bytes.error().message;
  }
}

TEST(SporeCompiler, RunsOutOfMemoryWithAReason) {
  if (!kSandboxComplete) GTEST_SKIP() << "no memory limit under this sanitizer";
  // One function of 200,000 additions, over and over on the same local.
  Bytes body = {0};
  for (int i = 0; i < 200'000; ++i)
    for (const int byte : {0x20, 0, 0x41, 1, 0x6a, 0x21, 0}) body.push_back(static_cast<uint8_t>(byte));
  body.push_back(0x0b);
  const auto length = [](size_t n) {
    Bytes out;
    for (; n >= 128; n >>= 7) out.push_back(static_cast<uint8_t>(n | 128));
    out.push_back(static_cast<uint8_t>(n));
    return out;
  };
  const auto append = [](Bytes& to, const Bytes& more) { to.insert(to.end(), more.begin(), more.end()); };
  Bytes code = {1};
  append(code, length(body.size()));
  append(code, body);
  Bytes module = {0, 'a', 's', 'm', 1, 0, 0, 0, 1, 5, 1, 0x60, 1, 0x7f, 0, 3, 2, 1, 0, 10};
  append(module, length(code.size()));
  append(module, code);
  for (const auto tier : {wasm::Tier::kFast, wasm::Tier::kOptimised}) {
    const auto bytes = ChildCompiler({.memory_bytes_max = 48 << 20}).compile(module, {.tier = tier});
    ASSERT_FALSE(bytes);
    EXPECT_EQ(bytes.error().code, ErrorCode::kResourceExhausted);
    EXPECT_EQ(bytes.error().message, "the compiler ran out of memory (limit 48 MiB)");
  }
}

}  // namespace
}  // namespace spore::compiler

// spec-suite: runs the WebAssembly specification's test suite against the compiler and the runtime.
//
//   spec-suite [--tier fast|optimised|both] [--cpu v2|v3] [--jobs N] [--time-limit SECONDS] [--suite FOLDER] [FILE ...]
//
// Each script runs in a child process of its own, with a time limit, so that one that crashes or hangs costs only its
// own assertions. Without files, all of the suite: the core files, and those of the proposals that Spore supports. The
// last line is "N passed, N failed, N skipped", in assertions; what is skipped is listed with the reason before it.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <list>
#include <map>
#include <optional>

#include "base/fd.h"
#include "base/mapping.h"
#include "convert.h"
#include "executor.h"

namespace spore::spec {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kFailuresShownMax = 20;  // of one script
constexpr uint64_t kReportBytesMax = 64 << 20;
constexpr size_t kCoreFiles = 146;
constexpr size_t kProposalFiles = 46;

struct Proposal {
  std::string_view folder;
  std::vector<std::string> flags;
  uint32_t bits = 0;  // compiler::Proposal
};
const std::vector<Proposal>& proposals() {
  static const std::vector<Proposal> all = {
      {"tail-call", {"--enable-tail-call"}, compiler::kTailCalls},
      {"extended-const", {"--enable-extended-const"}, compiler::kExtendedConst},
      {"multi-memory", {"--enable-multi-memory"}, compiler::kMultiMemory},
      {"memory64", {"--enable-memory64"}, compiler::kMemory64},
      {"relaxed-simd", {"--enable-relaxed-simd"}, compiler::kRelaxedSimd},
      {"threads", {"--enable-threads"}, compiler::kThreads},
      {"exception-handling", {"--enable-exceptions"}, compiler::kExceptions},
  };
  return all;
}

struct Job {
  fs::path wast;
  std::string name;  // "linking", "threads/atomic"
  bool core = true;
  std::vector<std::string> flags;
  uint32_t proposals = 0;
  wasm::Tier tier = wasm::Tier::kOptimised;
  std::optional<wasm::CpuLevel> cpu_level;  // else the best of this machine
  bool hardened = false;
};

struct Files {
  size_t clean = 0;
  size_t all = 0;
};

struct Totals {
  uint64_t passed = 0;
  uint64_t failed = 0;
  uint64_t skipped_text = 0;
  uint64_t skipped_instruction = 0;
  uint64_t skipped_valid = 0;
  std::map<wasm::Tier, Files> core;
  std::map<wasm::Tier, Files> proposals;

  uint64_t skipped() const { return skipped_text + skipped_instruction + skipped_valid; }
};

Job job_of(const fs::path& wast) {
  Job job{.wast = wast, .name = wast.stem().string()};
  const fs::path folder = fs::absolute(wast).parent_path();
  if (folder.parent_path().filename() != "proposals") return job;
  job.core = false;
  job.name = folder.filename().string() + "/" + job.name;
  for (const Proposal& proposal : proposals())
    if (folder.filename() == proposal.folder) {
      job.flags = proposal.flags;
      job.proposals = proposal.bits;
    }
  return job;
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (entry.path().extension() == ".wast") files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

std::vector<fs::path> files_of_suite(const fs::path& suite) {
  std::vector<fs::path> files = files_in(suite);
  for (const Proposal& proposal : proposals())
    std::ranges::copy(files_in(suite / "proposals" / proposal.folder), std::back_inserter(files));
  return files;
}

// The child's part. Its folder is removed by the parent.
int run_script(const Job& job, const fs::path& folder, Tally& tally) {
  FILE* report = ::fopen((folder / "report").c_str(), "w");
  if (!report) return 1;
  ::setvbuf(report, nullptr, _IOLBF, 0);
  const auto fail_with = [&](const Error& error) {
    ++tally.failed;
    std::fprintf(report, "%s: %s\n", job.name.c_str(), error.message.c_str());
    return 1;
  };
  auto conversion = convert_script(job.wast, job.flags, folder);
  if (!conversion) return fail_with(conversion.error());
  auto commands = read_script(conversion->json);
  if (!commands) return fail_with(commands.error());
  tally.skipped_instruction += conversion->dropped_assertions;
  tally.assertions += conversion->dropped_assertions;

  ExecutorOptions options;
  auto level = wasm::cpu_level_of_this_machine();
  if (!level) return fail_with(level.error());
  options.compile.tier = job.tier;
  options.compile.hardened = job.hardened;
  if (job.cpu_level && *job.cpu_level > *level)
    return fail_with({ErrorCode::kFailedPrecondition, "this machine has no " + std::string(to_string(*job.cpu_level))});
  options.compile.cpu_level = job.cpu_level.value_or(*level);
  options.compile.proposals = job.proposals;
  options.wabt_flags = job.flags;
  options.folder = folder;
  auto executor = Executor::make(std::move(options), tally, [&](uint32_t line, const std::string& text) {
    std::fprintf(report, "%s.wast:%u: %s\n", job.name.c_str(), line, text.c_str());
  });
  if (!executor) return fail_with(executor.error());
  (*executor)->run(*commands);
  executor->reset();
  tally.finished = true;
  std::fclose(report);
  return 0;
}

// One running script.
class Child {
 public:
  static Result<std::unique_ptr<Child>> start(const Job& job, std::chrono::seconds time_limit, bool fork_it) {
    auto child = std::make_unique<Child>();
    child->job_ = job;
    std::string pattern = (fs::temp_directory_path() / "spore-spec-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) return fail_errno("mkdtemp " + pattern);
    child->folder_ = pattern;
    void* page = ::mmap(nullptr, sizeof(Tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return fail_errno("mmap");
    child->page_ = Mapping(page, sizeof(Tally));
    child->tally_ = new (page) Tally{};
    child->deadline_ = Clock::now() + time_limit;
    if (!fork_it) {
      run_script(job, child->folder_, *child->tally_);
      return child;
    }
    std::fflush(nullptr);
    child->pid_ = ::fork();
    if (child->pid_ < 0) return fail_errno("fork");
    if (child->pid_ == 0) {
      ::setpgid(0, 0);
      const rlimit none{0, 0};
      ::setrlimit(RLIMIT_CORE, &none);
      ::_exit(run_script(job, child->folder_, *child->tally_));
    }
    ::setpgid(child->pid_, child->pid_);
    return child;
  }

  ~Child() {
    stop();
    std::error_code error;
    fs::remove_all(folder_, error);
  }

  pid_t pid() const { return pid_; }
  bool late() const { return Clock::now() > deadline_; }
  // It and what it started (programs of wabt).
  void stop() {
    if (pid_ <= 0) return;
    ::kill(-pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
    how_it_ended_ = "stopped: over its time limit";
  }
  void ended(int status) {
    pid_ = 0;
    if (WIFSIGNALED(status))
      how_it_ended_ = fmt::format("died of signal {}", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
      how_it_ended_ = fmt::format("exited with {}", WEXITSTATUS(status));
  }

  void print_and_add(Totals& totals) const {
    const uint32_t passed = tally_->passed;
    const uint32_t skipped = tally_->skipped_text + tally_->skipped_instruction + tally_->skipped_valid;
    uint32_t failed = tally_->failed;
    if (!tally_->finished) {
      // What it did not come to counts as failed.
      const uint32_t rest = tally_->assertions - std::min<uint32_t>(tally_->assertions, passed + failed + skipped);
      failed += std::max<uint32_t>(rest, failed == 0 ? 1 : 0);
    }
    Files& files = (job_.core ? totals.core : totals.proposals)[job_.tier];
    files.all += 1;
    files.clean += failed == 0;
    totals.passed += passed;
    totals.failed += failed;
    totals.skipped_text += tally_->skipped_text;
    totals.skipped_instruction += tally_->skipped_instruction;
    totals.skipped_valid += tally_->skipped_valid;
    if (failed == 0) return;
    std::cout << fmt::format("{} ({}): {} passed, {} failed, {} skipped\n", job_.name, to_string(job_.tier), passed,
                             failed, skipped);
    if (!tally_->finished)
      std::cout << fmt::format("  {}.wast:{}: {}\n", job_.name, tally_->line.load(),
                               how_it_ended_.empty() ? "not finished" : how_it_ended_);
    const auto report = read_file(folder_ / "report", kReportBytesMax);
    if (!report) return;
    std::string_view rest = as_text(*report);
    for (uint32_t shown = 0; !rest.empty(); ++shown) {
      if (shown == kFailuresShownMax) {
        std::cout << "  and more\n";
        break;
      }
      const size_t end = std::min(rest.find('\n'), rest.size());
      std::cout << "  " << rest.substr(0, end) << '\n';
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    std::cout << std::flush;
  }

 private:
  Job job_;
  fs::path folder_;
  Mapping page_;
  Tally* tally_ = nullptr;
  pid_t pid_ = 0;
  Clock::time_point deadline_;
  std::string how_it_ended_;
};

Result<Totals> run_all(const std::vector<Job>& jobs, unsigned parallel, std::chrono::seconds time_limit, bool fork_it) {
  Totals totals;
  std::list<std::unique_ptr<Child>> running;
  size_t next = 0;
  while (next < jobs.size() || !running.empty()) {
    while (next < jobs.size() && running.size() < parallel) {
      ASSIGN_OR_RETURN(auto child, Child::start(jobs[next++], time_limit, fork_it));
      running.push_back(std::move(child));
    }
    bool progress = false;
    for (auto at = running.begin(); at != running.end();) {
      Child& child = **at;
      int status = 0;
      const bool over = child.pid() == 0 || ::waitpid(child.pid(), &status, WNOHANG) == child.pid();
      if (over)
        child.ended(status);
      else if (child.late())
        child.stop();
      else {
        ++at;
        continue;
      }
      child.print_and_add(totals);
      at = running.erase(at);
      progress = true;
    }
    if (!progress) ::usleep(5000);
  }
  return totals;
}

int main_of_suite(int argc, char** argv) {
  std::string tier = "both";
  unsigned jobs_at_once = std::max(1l, ::sysconf(_SC_NPROCESSORS_ONLN));
  unsigned time_limit_s = 300;
  std::string cpu;
  std::string suite;
  bool no_fork = false;
  bool hardened = false;
  std::vector<std::string> files;
  CLI::App app{"Runs the WebAssembly specification's test suite"};
  app.add_option("--tier", tier, "the compiler's tier")->check(CLI::IsMember({"fast", "optimised", "both"}));
  app.add_option("--cpu", cpu, "CPU level to compile for (default: the best of this machine)")
      ->check(CLI::IsMember({"v2", "v3"}));
  app.add_flag("--hardened", hardened, "with spectre_hardening");
  app.add_option("--jobs", jobs_at_once, "scripts that run at once")->check(CLI::Range(1, 256));
  app.add_option("--time-limit", time_limit_s, "seconds for one script")->check(CLI::Range(1, 86400));
  app.add_option("--suite", suite, "folder of the suite (else SPORE_SPEC_SUITE, else beside the repository)");
  app.add_flag("--no-fork", no_fork, "run one script in this process, for a debugger");
  app.add_option("files", files, "scripts to run (default: the whole suite)");
  CLI11_PARSE(app, argc, argv);

  if (suite.empty())
    if (const char* from_environment = std::getenv("SPORE_SPEC_SUITE")) suite = from_environment;
  if (suite.empty()) suite = SPORE_SPEC_SUITE_DEFAULT;
  std::vector<fs::path> paths(files.begin(), files.end());
  if (paths.empty()) paths = files_of_suite(suite);
  if (paths.empty()) {
    std::cout << fmt::format(
        "no spec suite in {}: {} files skipped ({} core, {} of proposals).\n"
        "Get it with `git clone https://github.com/WebAssembly/testsuite` at commit 3a04b2c and set SPORE_SPEC_SUITE "
        "to that folder.\n0 passed, 0 failed, {} skipped\n",
        suite, kCoreFiles + kProposalFiles, kCoreFiles, kProposalFiles, kCoreFiles + kProposalFiles);
    return 0;
  }
  std::vector<Job> jobs;
  for (wasm::Tier one : {wasm::Tier::kFast, wasm::Tier::kOptimised}) {
    if (tier != "both" && tier != (one == wasm::Tier::kFast ? "fast" : "optimised")) continue;
    for (const fs::path& path : paths) {
      jobs.push_back(job_of(path));
      jobs.back().tier = one;
      jobs.back().hardened = hardened;
      if (!cpu.empty()) jobs.back().cpu_level = cpu == "v2" ? wasm::CpuLevel::kV2 : wasm::CpuLevel::kV3;
    }
  }
  if (no_fork && jobs.size() != 1) {
    std::cerr << "--no-fork runs one script at one tier: name both\n";
    return 2;
  }
  const auto totals = run_all(jobs, jobs_at_once, std::chrono::seconds(time_limit_s), !no_fork);
  if (!totals) {
    std::cerr << totals.error().message << '\n';
    return 2;
  }
  for (const auto& [kind, by_tier] : {std::pair("core files", totals->core), {"files of proposals", totals->proposals}})
    for (const auto& [one, count] : by_tier)
      std::cout << fmt::format("{}, {} tier: {} of {} without a failure\n", kind, to_string(one), count.clean,
                               count.all);
  if (totals->skipped_text)
    std::cout << fmt::format("skipped: {} assertions about the syntax of the text format, which Spore does not read\n",
                             totals->skipped_text);
  if (totals->skipped_instruction)
    std::cout << fmt::format(
        "skipped: {} assertions about an instruction that wabt 1.0.32 does not know "
        "(f32x4.relaxed_dot_bf16x8_add_f32x4)\n",
        totals->skipped_instruction);
  if (totals->skipped_valid)
    std::cout << fmt::format(
        "skipped: {} assertions that a module with two tables is invalid, from before reference "
        "types were part of the specification\n",
        totals->skipped_valid);
  std::cout << fmt::format("{} passed, {} failed, {} skipped\n", totals->passed, totals->failed, totals->skipped());
  return totals->failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace spore::spec

int main(int argc, char** argv) { return spore::spec::main_of_suite(argc, argv); }

#include "contenders.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cstdio>
#include <ctime>

#include "base/bytes.h"
#include "base/fd.h"
#include "compiler/compiler.h"
#include "faaslet/faaslet.h"

extern char** environ;

namespace spore::bench {
namespace {

// Times one run on this thread, by both clocks.
class Stopwatch {
 public:
  Stopwatch() : cpu_begin_ms_(cpu_ms()), wall_begin_(std::chrono::steady_clock::now()) {}
  Sample stop(uint64_t checksum) const {
    const std::chrono::duration<double, std::milli> wall = std::chrono::steady_clock::now() - wall_begin_;
    return {.wall_ms = wall.count(), .cpu_ms = cpu_ms() - cpu_begin_ms_, .checksum = checksum};
  }

 private:
  static double cpu_ms() {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
  }
  double cpu_begin_ms_;
  std::chrono::steady_clock::time_point wall_begin_;
};

class Native : public Contender {
 public:
  static Result<std::unique_ptr<Contender>> make(const Kernels& kernels, const std::string& suffix) {
    auto native = std::unique_ptr<Native>(new Native());
    for (size_t kernel = 0; kernel < kernels.names.size(); ++kernel) {
      void* library = ::dlopen(kernels.file(kernel, suffix).c_str(), RTLD_NOW | RTLD_LOCAL);
      if (!library) return fail(ErrorCode::kNotFound, ::dlerror());
      native->libraries_.push_back(library);
      void* run = ::dlsym(library, "run");
      if (!run) return fail(ErrorCode::kNotFound, kernels.file(kernel, suffix) + " has no symbol run");
      native->runs_.push_back(reinterpret_cast<double (*)()>(run));
    }
    return native;
  }
  ~Native() override {
    for (void* library : libraries_) ::dlclose(library);
  }

  Result<Sample> run(size_t kernel) override {
    const Stopwatch stopwatch;
    const double checksum = runs_[kernel]();
    return stopwatch.stop(std::bit_cast<uint64_t>(checksum));
  }

 private:
  Native() = default;
  std::vector<void*> libraries_;
  std::vector<double (*)()> runs_;
};

class Spore : public Contender {
 public:
  static Result<std::unique_ptr<Contender>> make(faaslet::CodeArena& arena, faaslet::Seat& seat, const Kernels& kernels,
                                                 const std::string& suffix, bool hardened) {
    auto spore = std::unique_ptr<Spore>(new Spore(seat));
    ASSIGN_OR_RETURN(const auto level, wasm::cpu_level_of_this_machine());
    for (size_t kernel = 0; kernel < kernels.names.size(); ++kernel) {
      const std::string file = kernels.file(kernel, suffix);
      ASSIGN_OR_RETURN(const Bytes bytes, read_file(file));
      auto object =
          compiler::compile(bytes, {.tier = wasm::Tier::kOptimised, .cpu_level = level, .hardened = hardened});
      if (!object) return std::unexpected(std::move(object).error().within(file));
      ASSIGN_OR_RETURN(auto loaded, arena.load(std::move(*object)));
      const wasm::Export* run = loaded->module().find_export("run", wasm::ExternalKind::kFunction);
      if (!run) return fail(ErrorCode::kInvalidModule, file + " exports no function run");
      ASSIGN_OR_RETURN(auto proto, faaslet::ProtoFaaslet::make_instantiated(loaded));
      ASSIGN_OR_RETURN(auto slot, faaslet::Slot::reserve());
      ASSIGN_OR_RETURN(auto instance, faaslet::Faaslet::restore(std::move(slot), std::move(proto), {}, nullptr));
      spore->instances_.push_back(std::move(instance));
      spore->runs_.push_back(run->index);
    }
    return spore;
  }

  Result<Sample> run(size_t kernel) override {
    faaslet::Faaslet& instance = *instances_[kernel];
    seat_.begin_call();
    const Stopwatch stopwatch;
    const faaslet::Outcome outcome = instance.start(seat_, runs_[kernel]);
    const Sample sample = stopwatch.stop(instance.result(0).low);
    seat_.end_call();
    if (outcome.kind != faaslet::Outcome::Kind::kReturned) {
      return fail(ErrorCode::kInternal, "the kernel did not return: " + outcome.trap.message);
    }
    return sample;
  }

 private:
  explicit Spore(faaslet::Seat& seat) : seat_(seat) {}
  faaslet::Seat& seat_;
  std::vector<std::unique_ptr<faaslet::Faaslet>> instances_;
  std::vector<uint32_t> runs_;
};

class V8 : public Contender {
 public:
  static Result<std::unique_ptr<Contender>> make(const Kernels& kernels, const std::string& suffix,
                                                 const std::string& script) {
    auto v8 = std::unique_ptr<V8>(new V8());
    std::vector<std::string> arguments = {"node", "--no-liftoff", script};
    for (size_t kernel = 0; kernel < kernels.names.size(); ++kernel) arguments.push_back(kernels.file(kernel, suffix));
    TRY(v8->spawn(arguments));
    ASSIGN_OR_RETURN(const std::string line, v8->read_line());
    if (line != "ready\n") return fail(ErrorCode::kInternal, "node did not start: it said \"" + line + "\"");
    return v8;
  }
  ~V8() override {
    if (requests_) std::fclose(requests_);
    if (answers_) std::fclose(answers_);
    if (child_ > 0) ::waitpid(child_, nullptr, 0);
  }

  Result<Sample> run(size_t kernel) override {
    if (std::fprintf(requests_, "%zu\n", kernel) < 0 || std::fflush(requests_) != 0) {
      return fail_errno("write to node");
    }
    ASSIGN_OR_RETURN(const std::string line, read_line());
    Sample sample;
    unsigned long long checksum = 0;
    if (std::sscanf(line.c_str(), "%lf %lf %llu", &sample.wall_ms, &sample.cpu_ms, &checksum) != 3) {
      return fail(ErrorCode::kInternal, "node answered \"" + line + "\"");
    }
    sample.checksum = checksum;
    return sample;
  }

 private:
  V8() = default;

  Result<void> spawn(const std::vector<std::string>& arguments) {
    int to_child[2], from_child[2];
    if (::pipe2(to_child, O_CLOEXEC) != 0) return fail_errno("pipe2");
    UniqueFd child_stdin(to_child[0]);
    requests_ = ::fdopen(to_child[1], "w");
    if (::pipe2(from_child, O_CLOEXEC) != 0) return fail_errno("pipe2");
    UniqueFd child_stdout(from_child[1]);
    answers_ = ::fdopen(from_child[0], "r");
    std::vector<char*> argv;
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, child_stdin.get(), STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, child_stdout.get(), STDOUT_FILENO);
    const int error = ::posix_spawnp(&child_, argv[0], &actions, nullptr, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
      child_ = -1;
      return fail_errno("start node", error);
    }
    return {};
  }

  Result<std::string> read_line() {
    char line[256];
    if (!std::fgets(line, sizeof(line), answers_)) return fail(ErrorCode::kUnavailable, "node ended early");
    return std::string(line);
  }

  pid_t child_ = -1;
  FILE* requests_ = nullptr;
  FILE* answers_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<Contender>> make_native(const Kernels& kernels, const std::string& suffix) {
  return Native::make(kernels, suffix);
}

Result<std::unique_ptr<Contender>> make_spore(faaslet::CodeArena& arena, faaslet::Seat& seat, const Kernels& kernels,
                                              const std::string& suffix, bool hardened) {
  return Spore::make(arena, seat, kernels, suffix, hardened);
}

Result<std::unique_ptr<Contender>> make_v8(const Kernels& kernels, const std::string& suffix,
                                           const std::string& script) {
  return V8::make(kernels, suffix, script);
}

}  // namespace spore::bench

// What bench/table3/run measures with. It answers one line for each line that it reads, "error: ..." where something
// failed, and ends with its standard input. Times are in nanoseconds of CLOCK_MONOTONIC; CPU times count user and
// system.
//
//   bench_table3 spore FOLDER FUNCTION.wasm    publishes the function into FOLDER, says "ready", then:
//     cold      loads the function from the store (compiled object, sealed image), reserves a slot, restores, calls
//     proto     restores it from the Proto-Faaslet at hand into a slot at hand, calls
//               -> FIRST CPU: until the guest's first instruction; of all of it, until the slot is empty again
//     idle N    makes N Faaslets, each of which has answered a call and was reset -> ok
//     drop      removes them -> ok
//
//   bench_table3 call FOLDER      a process of its own that calls the published function once, and writes what it wrote
//
//   bench_table3 start
//     run ARGUMENTS...     starts a program (words separated by tabs), its standard input empty -> FIRST CPU: until the
//                          time that it writes; of fork, exec and the processes that ended in it
//     hold N ARGUMENTS...  starts it N times, each waiting for its input -> the process ids
//     drop                 closes their input and waits for their ends -> ok
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/fd.h"
#include "faaslet/faaslet.h"
#include "functions/host_key.h"
#include "functions/registry.h"
#include "host/imports.h"
#include "host/initialise.h"
#include "host/run.h"
#include "object_store/directory_store.h"

namespace spore::bench {
namespace {

constexpr size_t kInstancesMax = 20'000;
constexpr int kStartMsMax = 10'000;  // of one program that is held

int64_t now_of(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000ll + now.tv_nsec;
}

struct Sample {
  int64_t first_ns = 0;
  int64_t cpu_ns = 0;
  std::string text() const { return fmt::format("{} {}", first_ns, cpu_ns); }
};

Result<size_t> parse_count(std::string_view text) {
  size_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end != text.data() + text.size() || count < 1 || count > kInstancesMax)
    return fail(ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not a count from 1 to {}", text, kInstancesMax));
  return count;
}

// The time that the function wrote.
Result<int64_t> time_in(ByteSpan output) {
  int64_t time = 0;
  if (output.size() != sizeof(time))
    return fail(ErrorCode::kInternal, fmt::format("the function wrote {} bytes instead of a time", output.size()));
  std::memcpy(&time, output.data(), sizeof(time));
  return time;
}

// ---- Spore ----------------------------------------------------------------------------------------------------------

const functions::FunctionId kFunction{"bench", "function"};

Result<std::shared_ptr<const faaslet::ProtoFaaslet>> initialise(
    std::shared_ptr<const faaslet::ProtoFaaslet> instantiated, const functions::FunctionId& id,
    const functions::FunctionConfig& config) {
  return host::initialise(
      std::move(instantiated),
      {.name = id.text(), .arguments = config.arguments(id.name), .environment = config.environment()});
}

// A host's store and code arena, as `spore serve` opens them.
class Host {
 public:
  static Result<std::unique_ptr<Host>> open(const std::filesystem::path& folder) {
    std::unique_ptr<Host> host(new Host);
    TRY(faaslet::install_signal_handlers());
    ASSIGN_OR_RETURN(host->key_, functions::load_or_make_host_key(folder / "key"));
    ASSIGN_OR_RETURN(host->arena_, faaslet::CodeArena::reserve(hmac_sha256(host->key_, as_bytes("bench_table3"))));
    ASSIGN_OR_RETURN(host->store_, object_store::DirectoryStore::open(folder / "store"));
    return host;
  }

  Result<std::unique_ptr<functions::Registry>> registry() const {
    return functions::Registry::open(*store_, compiler_, *arena_, {.initialise = initialise}, {.host_key = key_});
  }

 private:
  Host() = default;
  Bytes key_;
  compiler::ChildCompiler compiler_;
  std::unique_ptr<faaslet::CodeArena> arena_;
  std::unique_ptr<object_store::ObjectStore> store_;
};

// How imports are linked and where calls enter: once for each loaded function.
struct Program {
  std::shared_ptr<const functions::LoadedFunction> function;
  std::vector<faaslet::HostFunction> links;
  host::Entry entry;

  static Result<Program> load(functions::Registry& registry) {
    Program program;
    ASSIGN_OR_RETURN(program.function, registry.load(kFunction));
    ASSIGN_OR_RETURN(program.links, host::link(program.function->proto->module()));
    ASSIGN_OR_RETURN(program.entry, host::find_entry(program.function->proto->module()));
    return program;
  }
};

struct Instance {
  std::unique_ptr<host::HostState> state;
  std::unique_ptr<faaslet::Faaslet> faaslet;

  static Result<Instance> restore(const Program& program, faaslet::Slot slot) {
    const functions::FunctionConfig& config = program.function->version.config;
    host::CallSetup setup;
    setup.arguments = config.arguments(kFunction.name);
    setup.environment = config.environment();
    ASSIGN_OR_RETURN(auto state, host::HostState::make(std::move(setup)));
    Instance instance;
    instance.state = std::make_unique<host::HostState>(std::move(state));
    ASSIGN_OR_RETURN(instance.faaslet, faaslet::Faaslet::restore(std::move(slot), program.function->proto,
                                                                 program.links, instance.state.get()));
    return instance;
  }

  Result<void> call(const Program& program, faaslet::Seat& seat) {
    seat.begin_call();
    const host::CallResult result =
        host::Run(*faaslet, *state, program.entry, program.function->proto->initialised()).finish(seat, {});
    seat.end_call();
    if (result.kind != host::CallResult::Kind::kExited || result.exit_code != 0)
      return fail(ErrorCode::kInternal,
                  fmt::format("the function failed: code {} {}", result.exit_code, result.trap.message));
    return {};
  }
};

Result<void> serve_spore(const std::filesystem::path& folder, const std::filesystem::path& wasm_file) {
  ASSIGN_OR_RETURN(const auto host, Host::open(folder));
  ASSIGN_OR_RETURN(auto registry, host->registry());
  ASSIGN_OR_RETURN(const Bytes wasm, read_file(wasm_file));
  TRY(registry->publish({.id = kFunction, .wasm = wasm}));
  faaslet::Seat seat;
  ASSIGN_OR_RETURN(auto spare, faaslet::Slot::reserve());
  // Of "cold" there is nothing in this process before it begins but the store, opened: not even the function's record
  // is in use, as no registry is.
  std::optional<Program> program;
  std::vector<Instance> idle;
  std::cout << "ready" << std::endl;

  const auto cold = [&]() -> Result<std::string> {
    if (!idle.empty()) return fail(ErrorCode::kFailedPrecondition, "a function with idle Faaslets is not cold");
    program.reset();
    registry.reset();
    ASSIGN_OR_RETURN(registry, host->registry());
    const int64_t cpu = now_of(CLOCK_PROCESS_CPUTIME_ID);
    const int64_t begin = now_of(CLOCK_MONOTONIC);
    Sample sample;
    {
      ASSIGN_OR_RETURN(const Program loaded, Program::load(*registry));
      ASSIGN_OR_RETURN(auto slot, faaslet::Slot::reserve());
      ASSIGN_OR_RETURN(Instance instance, Instance::restore(loaded, std::move(slot)));
      TRY(instance.call(loaded, seat));
      ASSIGN_OR_RETURN(const int64_t first, time_in(instance.state->output));
      sample.first_ns = first - begin;
    }
    sample.cpu_ns = now_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (registry->stats().compiled != 0) return fail(ErrorCode::kInternal, "the object in the store was not used");
    return sample.text();
  };
  const auto loaded = [&]() -> Result<void> {
    if (program) return {};
    ASSIGN_OR_RETURN(program, Program::load(*registry));
    return {};
  };
  const auto proto = [&]() -> Result<std::string> {
    TRY(loaded());
    Sample sample;
    const int64_t cpu = now_of(CLOCK_THREAD_CPUTIME_ID);
    const int64_t begin = now_of(CLOCK_MONOTONIC);
    {
      ASSIGN_OR_RETURN(Instance instance, Instance::restore(*program, std::move(spare)));
      TRY(instance.call(*program, seat));
      ASSIGN_OR_RETURN(const int64_t first, time_in(instance.state->output));
      sample.first_ns = first - begin;
      spare = instance.faaslet->take_slot();
    }
    TRY(spare.clear());
    sample.cpu_ns = now_of(CLOCK_THREAD_CPUTIME_ID) - cpu;
    return sample.text();
  };
  const auto make_idle = [&](std::string_view text) -> Result<std::string> {
    ASSIGN_OR_RETURN(const size_t count, parse_count(text));
    TRY(loaded());
    for (size_t i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(auto slot, faaslet::Slot::reserve());
      ASSIGN_OR_RETURN(Instance instance, Instance::restore(*program, std::move(slot)));
      TRY(instance.call(*program, seat));
      if (!instance.faaslet->reset()) return fail(ErrorCode::kInternal, "a Faaslet could not be reset");
      instance.state->output = {};
      idle.push_back(std::move(instance));
    }
    return "ok";
  };

  for (std::string line; std::getline(std::cin, line);) {
    Result<std::string> answer = fail(ErrorCode::kInvalidArgument, "no such command: " + line);
    if (line == "cold") answer = cold();
    if (line == "proto") answer = proto();
    if (line.starts_with("idle ")) answer = make_idle(std::string_view(line).substr(5));
    if (line == "drop") {
      idle.clear();
      answer = "ok";
    }
    std::cout << (answer ? *answer : "error: " + answer.error().message) << std::endl;
  }
  return {};
}

Result<void> call_once(const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(const auto host, Host::open(folder));
  ASSIGN_OR_RETURN(const auto registry, host->registry());
  faaslet::Seat seat;
  ASSIGN_OR_RETURN(const Program program, Program::load(*registry));
  ASSIGN_OR_RETURN(auto slot, faaslet::Slot::reserve());
  ASSIGN_OR_RETURN(Instance instance, Instance::restore(program, std::move(slot)));
  TRY(instance.call(program, seat));
  return write_all(STDOUT_FILENO, instance.state->output);
}

// ---- processes ------------------------------------------------------------------------------------------------------

std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  while (true) {
    const size_t tab = line.find('\t');
    words.emplace_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return words;
    line.remove_prefix(tab + 1);
  }
}

struct Pipe {
  UniqueFd read, write;
  static Result<Pipe> make() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("make a pipe");
    return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  }
};

// By fork and exec, as the comparison says.
Result<pid_t> start(const std::vector<std::string>& words, int in, int out) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) return fail_errno("fork");
  if (child == 0) {
    if (::dup2(in, STDIN_FILENO) >= 0 && ::dup2(out, STDOUT_FILENO) >= 0) ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  return child;
}

Result<rusage> wait_for(pid_t child, const std::string& program) {
  int status = 0;
  rusage usage{};
  if (::wait4(child, &status, 0, &usage) != child) return fail_errno("wait for " + program);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return fail(ErrorCode::kInternal, WIFEXITED(status)
                                          ? fmt::format("{} ended with {}", program, WEXITSTATUS(status))
                                          : fmt::format("{} was ended by signal {}", program, WTERMSIG(status)));
  return usage;
}

int64_t nanoseconds(const timeval& time) { return time.tv_sec * 1'000'000'000ll + time.tv_usec * 1'000ll; }

Result<std::string> run_program(const std::vector<std::string>& words) {
  const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!nothing.valid()) return fail_errno("open /dev/null");
  ASSIGN_OR_RETURN(Pipe output, Pipe::make());
  const int64_t cpu = now_of(CLOCK_PROCESS_CPUTIME_ID);
  const int64_t begin = now_of(CLOCK_MONOTONIC);
  ASSIGN_OR_RETURN(const pid_t child, start(words, nothing.get(), output.write.get()));
  output.write.reset();
  const auto written = read_all(output.read.get(), 4096);
  ASSIGN_OR_RETURN(const rusage usage, wait_for(child, words[0]));
  if (!written) return std::unexpected(written.error());
  ASSIGN_OR_RETURN(const int64_t first, time_in(*written));
  return Sample{first - begin,
                now_of(CLOCK_PROCESS_CPUTIME_ID) - cpu + nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime)}
      .text();
}

struct Held {
  std::vector<pid_t> children;
  UniqueFd input;  // theirs ends when this closes

  Result<std::string> drop(const std::string& program) {
    input.reset();
    Result<std::string> answer = "ok";
    for (const pid_t child : children)
      if (const auto ended = wait_for(child, program); !ended) answer = std::unexpected(ended.error());
    children.clear();
    return answer;
  }
};

Result<std::string> hold_programs(Held& held, size_t count, const std::vector<std::string>& words) {
  if (!held.children.empty()) return fail(ErrorCode::kFailedPrecondition, "programs are held already");
  ASSIGN_OR_RETURN(Pipe input, Pipe::make());
  ASSIGN_OR_RETURN(Pipe output, Pipe::make());
  held.input = std::move(input.write);
  std::string pids;
  for (size_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const pid_t child, start(words, input.read.get(), output.write.get()));
    held.children.push_back(child);
    // It has begun when it has written the time; what it does next is to wait.
    pollfd written{output.read.get(), POLLIN, 0};
    int64_t time = 0;
    if (::poll(&written, 1, kStartMsMax) != 1 || ::read(written.fd, &time, sizeof(time)) != sizeof(time))
      return fail(ErrorCode::kDeadlineExceeded, words[0] + " did not write a time");
    pids += (pids.empty() ? "" : " ") + std::to_string(child);
  }
  return pids;
}

Result<void> serve_programs() {
  Held held;
  std::string program;
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> words = words_of(line);
    const std::string command = words[0];
    words.erase(words.begin());
    Result<std::string> answer = fail(ErrorCode::kInvalidArgument, "no such command: " + line);
    if (command == "run" && !words.empty()) {
      answer = run_program(words);
    } else if (command == "hold" && words.size() > 1) {
      const auto count = parse_count(words[0]);
      words.erase(words.begin());
      program = words[0];
      answer = count ? hold_programs(held, *count, words) : std::unexpected(count.error());
    } else if (command == "drop") {
      answer = held.drop(program);
    }
    std::cout << (answer ? *answer : "error: " + answer.error().message) << std::endl;
  }
  TRY(held.drop(program));
  return {};
}

Result<void> run(std::span<char*> arguments) {
  const std::string_view mode = arguments.size() > 1 ? arguments[1] : "";
  if (mode == "spore" && arguments.size() == 4) return serve_spore(arguments[2], arguments[3]);
  if (mode == "call" && arguments.size() == 3) return call_once(arguments[2]);
  if (mode == "start" && arguments.size() == 2) return serve_programs();
  return fail(ErrorCode::kInvalidArgument, "usage: bench_table3 spore FOLDER FUNCTION.wasm | call FOLDER | start");
}

}  // namespace
}  // namespace spore::bench

int main(int argc, char** argv) {
  const auto done = spore::bench::run({argv, static_cast<size_t>(argc)});
  if (done) return 0;
  std::fprintf(stderr, "bench_table3: %s\n", done.error().message.c_str());
  return 1;
}

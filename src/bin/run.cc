// `spore run`: a module as a native program would run, without a server.
#include "host/run.h"

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "base/fd.h"
#include "bin/commands.h"
#include "bin/runtime.h"
#include "bin/script.h"
#include "faaslet/faaslet.h"
#include "functions/object_cache.h"
#include "host/imports.h"
#include "host/network.h"
#include "host/watchdog.h"

namespace spore::bin {

namespace {

constexpr int kExitTrap = 134;     // as a native program that aborts
constexpr int kExitTimeout = 124;  // as timeout(1)
constexpr int kExitFailed = 125;   // the program never started
constexpr uint64_t kModuleBytesMax = 1ull << 30;
constexpr uint64_t kOptimisedAtOnceBytesMax = 256 << 10;  // larger modules run on the fast tier unless asked otherwise

struct RunOptions {
  std::vector<std::string> directories;
  std::vector<std::string> environment;
  std::string tier;
  bool spectre_hardening = false;
  std::string network;      // "none", "host"; empty: none
  uint64_t timeout_ms = 0;  // 0: none
  std::string file;
  std::string interpreter;  // of a script; empty: looked for
  std::vector<std::string> arguments;
};

Result<host::Preopen> parse_directory(const std::string& text) {
  const size_t mark = text.find("::");
  host::Preopen out{.host_path = text.substr(0, mark),
                    .guest_path = mark == std::string::npos ? text : text.substr(mark + 2),
                    .access = host::Access::kReadWrite};
  if (out.host_path.empty() || out.guest_path.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--dir " + text + ": it is HOST or HOST::GUEST");
  }
  return out;
}

Result<std::string> parse_variable(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals != std::string::npos && equals > 0) return text;
  const char* value = equals == std::string::npos ? std::getenv(text.c_str()) : nullptr;
  if (!value)
    return fail(ErrorCode::kInvalidArgument, "--env " + text + ": it is NAME=VALUE, or the name of a variable");
  return text + "=" + value;
}

// The best that is in the cache; where nothing is, what is compiled soon enough.
Result<wasm::Object> find_object(const functions::ObjectCache& objects, ByteSpan wasm, const std::string& tier,
                                 bool hardened) {
  compiler::Options options;
  ASSIGN_OR_RETURN(options.cpu_level, wasm::cpu_level_of_this_machine());
  options.threads = std::max(1u, std::thread::hardware_concurrency());
  options.tier = wasm::Tier::kOptimised;
  options.hardened = hardened;
  if (tier == "fast") options.tier = wasm::Tier::kFast;
  if (tier.empty() && wasm.size() > kOptimisedAtOnceBytesMax) {
    ASSIGN_OR_RETURN(auto found, objects.find(sha256(wasm), options));
    if (found) return std::move(found->object);
    options.tier = wasm::Tier::kFast;
  }
  ASSIGN_OR_RETURN(auto cached, objects.find_or_compile(wasm, options));
  return std::move(cached.object);
}

void print_stack(const faaslet::Trap& trap) {
  for (const auto& frame : trap.stack) {
    std::fprintf(stderr, "  at %s (func[%u]+0x%x)\n", frame.function.c_str(), frame.function_index, frame.code_offset);
  }
}

// What a call on a host has too: a layer of its own where no directory was given for "/", and /spore. Behind those that
// were given, and only where this process can make them.
void add_own_directories(std::vector<host::Preopen>& preopens) {
  using Source = host::Preopen::Source;
  if (!host::call_files()) return;
  if (std::ranges::find(preopens, "/", &host::Preopen::guest_path) == preopens.end())
    preopens.push_back({.guest_path = "/", .access = host::Access::kReadWrite, .source = Source::kLocalLayer});
  preopens.push_back({.guest_path = "/spore", .source = Source::kCallFiles});
}

Result<int> run_module(const RunOptions& options) {
  ASSIGN_OR_RETURN(const auto directory, functions::UserCache::default_directory());
  ASSIGN_OR_RETURN(const auto cache, functions::UserCache::open(directory));
  ASSIGN_OR_RETURN(const auto arena, start_runtime(cache->host_key()));

  host::CallSetup setup;
  setup.arguments.push_back(options.file);
  std::filesystem::path module = options.file;
  if (script_language(options.file)) {
    ASSIGN_OR_RETURN(Script script, open_script(options.file, options.interpreter));
    module = std::move(script.interpreter);
    setup.arguments.insert(setup.arguments.end(), script.arguments.begin(), script.arguments.end());
  }
  setup.arguments.insert(setup.arguments.end(), options.arguments.begin(), options.arguments.end());
  for (const std::string& variable : options.environment) {
    ASSIGN_OR_RETURN(auto parsed, parse_variable(variable));
    setup.environment.push_back(std::move(parsed));
  }
  for (const std::string& text : options.directories) {
    ASSIGN_OR_RETURN(auto preopen, parse_directory(text));
    setup.preopens.push_back(std::move(preopen));
  }
  add_own_directories(setup.preopens);
  setup.streams = {.in = 0, .out = 1, .err = 2};
  if (options.network == "host") {
    ASSIGN_OR_RETURN(setup.network, host::process_network());
  }

  ASSIGN_OR_RETURN(const Bytes wasm, read_file(module, kModuleBytesMax));
  TRY(check_is_module(module, wasm));
  ASSIGN_OR_RETURN(auto object, find_object(cache->objects(), wasm, options.tier, options.spectre_hardening));
  ASSIGN_OR_RETURN(const auto loaded, arena->load(std::move(object)));
  ASSIGN_OR_RETURN(const auto links, host::link(loaded->module()));
  ASSIGN_OR_RETURN(const auto entry, host::find_entry(loaded->module()));
  ASSIGN_OR_RETURN(const auto proto, faaslet::ProtoFaaslet::make_instantiated(loaded));
  ASSIGN_OR_RETURN(auto state, host::HostState::make(std::move(setup)));
  ASSIGN_OR_RETURN(auto slot, faaslet::Slot::reserve());
  ASSIGN_OR_RETURN(const auto faaslet, faaslet::Faaslet::restore(std::move(slot), proto, links, &state));

  host::Watchdog watchdog;
  faaslet::Seat seat;
  host::RunLimits limits;
  const uint64_t generation = seat.begin_call();
  std::optional<host::Watchdog::Guard> guard;
  if (options.timeout_ms) {
    limits.deadline = faaslet::Clock::now() + std::chrono::milliseconds(options.timeout_ms);
    guard.emplace(watchdog.watch(seat, generation, *limits.deadline));
  }
  // A reader that goes away ends the program as it ends a native one.
  std::signal(SIGPIPE, SIG_DFL);
  const auto result = host::run(*faaslet, state, seat, entry, limits);
  seat.end_call();
  switch (result.kind) {
    case host::CallResult::Kind::kExited: return result.exit_code;
    case host::CallResult::Kind::kNotPushed:
      std::fprintf(stderr, "spore: %s: %s\n", options.file.c_str(), result.error.message.c_str());
      return 1;
    case host::CallResult::Kind::kTrapped:
      std::fprintf(stderr, "spore: %s: trap: %s\n", options.file.c_str(), result.trap.message.c_str());
      print_stack(result.trap);
      return kExitTrap;
    case host::CallResult::Kind::kOutOfCpuTime:
      std::fprintf(stderr, "spore: %s: %s\n", options.file.c_str(), result.trap.message.c_str());
      print_stack(result.trap);
      return kExitTimeout;
    case host::CallResult::Kind::kInterrupted:
      std::fprintf(stderr, "spore: %s: timed out after %llu ms\n", options.file.c_str(),
                   static_cast<unsigned long long>(options.timeout_ms));
      print_stack(result.trap);
      return kExitTimeout;
  }
  return kExitFailed;
}

}  // namespace

void add_run(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* run =
      app.add_subcommand("run",
                         "Run a module or a script as a program: its stdin, stdout, stderr and exit code are "
                         "those of this process");
  run->add_option("--dir", options->directories, "A directory that the program may use: HOST, or HOST::GUEST")
      ->type_name("HOST[::GUEST]")
      ->allow_extra_args(false);
  run->add_option("--env", options->environment, "An environment variable: NAME=VALUE, or NAME to pass ours on")
      ->type_name("NAME[=VALUE]")
      ->allow_extra_args(false);
  run->add_option("--timeout", options->timeout_ms, "End the program after so many milliseconds (exit code 124)")
      ->type_name("MS");
  run->add_option("--tier", options->tier, "Compile with this tier; default: the best that is cached, or is ready soon")
      ->check(CLI::IsMember({"fast", "optimised"}));
  run->add_flag("--spectre-hardening", options->spectre_hardening,
                "As for functions that set spectre_hardening (docs/isolation.md)");
  run->add_option("--network", options->network,
                  "none: the program has no network (default); host: it has this machine's, all of it")
      ->check(CLI::IsMember({"none", "host"}));
  run->add_option("--interpreter", options->interpreter, "The interpreter's module, for a script")->type_name("FILE");
  run->footer(
      "FILE [ARGUMENTS...]: a module, or a script (.py, .js); what follows its name belongs to the program.\n"
      "Exit code 134: it trapped; 124: it timed out; 125: it could not be started.");
  run->prefix_command();
  run->callback([run, options, &exit_code] {
    const auto rest = run->remaining();
    if (rest.empty()) throw CLI::RequiredError("FILE");
    if (rest.front().starts_with("-")) throw CLI::ExtrasError("run", {rest.front()});
    options->file = rest.front();
    options->arguments.assign(rest.begin() + 1, rest.end());
    const auto ran = run_module(*options);
    if (!ran) std::fprintf(stderr, "spore: %s: %s\n", options->file.c_str(), ran.error().message.c_str());
    exit_code = ran ? *ran : kExitFailed;
  });
}

}  // namespace spore::bin

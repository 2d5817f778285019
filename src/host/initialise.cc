#include "host/initialise.h"

#include <spdlog/spdlog.h>

#include <thread>

#include "faaslet/faaslet.h"
#include "host/entry.h"
#include "host/imports.h"
#include "host/run.h"
#include "host/watchdog.h"

namespace spore::host {

namespace {

using faaslet::ProtoFaaslet;

constexpr uint64_t kLogBytesMax = 64 << 10;
constexpr size_t kStackFramesShown = 8;

std::string told(const faaslet::Trap& trap) {
  std::string out = trap.message;
  for (size_t i = 0; i < std::min(trap.stack.size(), kStackFramesShown); ++i)
    out += (i == 0 ? " (in " : " < ") + trap.stack[i].function;
  return trap.stack.empty() ? out : out + ")";
}

void log_lines(const std::string& name, ByteSpan text) {
  for (size_t begin = 0; begin < text.size();) {
    const std::string_view rest = as_text(text.subspan(begin));
    std::string line(rest.substr(0, rest.find('\n')));
    begin += line.size() + 1;
    for (char& c : line)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    spdlog::info("{}: initialiser: {}", name, line);
  }
}

Result<std::shared_ptr<const ProtoFaaslet>> uninitialised(const ProtoFaaslet& instantiated, std::string because) {
  auto state = instantiated.state();
  state.uninitialised_because = std::move(because);
  return ProtoFaaslet::make(instantiated.object(), state, instantiated.memory_pages_max());
}

Result<std::shared_ptr<const ProtoFaaslet>> run_initialisers(const std::shared_ptr<const ProtoFaaslet>& instantiated,
                                                             const Entry& entry, InitialiseOptions options) {
  ASSIGN_OR_RETURN(const auto links, link_for_initialisers(instantiated->module()));
  CallSetup setup;
  setup.arguments = std::move(options.arguments);
  setup.environment = std::move(options.environment);
  setup.preopens = std::move(options.preopens);
  setup.limits.log_bytes_max = kLogBytesMax;
  setup.memory = options.memory;
  ASSIGN_OR_RETURN(auto host_state, HostState::make(std::move(setup)));
  ASSIGN_OR_RETURN(auto slot, faaslet::Slot::reserve());
  ASSIGN_OR_RETURN(const auto faaslet, faaslet::Faaslet::restore(std::move(slot), instantiated, links, &host_state));

  faaslet->charge_to(options.memory);
  if (faaslet->cover_memory() != MemoryAccount::Refusal::kNone)
    return fail(ErrorCode::kResourceExhausted, "no memory for its initialisers in what the tenant may have");

  Watchdog watchdog;
  faaslet::Seat seat;
  const auto deadline = faaslet::Clock::now() + options.timeout;
  const uint64_t generation = seat.begin_call();
  const auto guard = watchdog.watch(seat, generation, deadline);
  std::vector<uint32_t> functions = entry.initialisers;
  if (entry.before_snapshot) functions.push_back(*entry.before_snapshot);
  for (const uint32_t function : functions) {
    const std::string name = "the initialiser " + instantiated->module().function_name(function);
    Entry alone;
    alone.from_image = {function};
    const CallResult ended =
        Run(*faaslet, host_state, alone, /*initialised=*/true).finish(seat, {.deadline = deadline});
    log_lines(options.name, host_state.log);
    host_state.log.clear();
    if (const ImportDeclaration* asked = host_state.initialiser_asked) {
      if (asked->in_initialiser == InInitialiser::kRefused)
        return fail(ErrorCode::kInvalidModule,
                    name + " calls " + std::string(asked->name) + ": an initialiser cannot use files");
      return uninitialised(*instantiated, name + " calls " + std::string(asked->name));
    }
    switch (ended.kind) {
      case CallResult::Kind::kExited: break;
      case CallResult::Kind::kNotPushed: return std::unexpected(ended.error);
      case CallResult::Kind::kTrapped: return fail(ErrorCode::kInvalidModule, name + " traps: " + told(ended.trap));
      case CallResult::Kind::kOutOfCpuTime:  // it has no such limit
      case CallResult::Kind::kInterrupted:
        return fail(ErrorCode::kDeadlineExceeded,
                    name + " did not end within " + std::to_string(options.timeout.count()) + " ms");
    }
    if (ended.called_exit)
      return fail(ErrorCode::kInvalidModule, name + " exits with code " + std::to_string(ended.exit_code));
    if (!host_state.output.empty()) return uninitialised(*instantiated, name + " writes output");
  }
  seat.end_call();
  ASSIGN_OR_RETURN(auto state, faaslet->capture());
  state.initialised = true;
  return ProtoFaaslet::make(instantiated->object(), state, instantiated->memory_pages_max());
}

}  // namespace

Result<std::shared_ptr<const ProtoFaaslet>> initialise(std::shared_ptr<const ProtoFaaslet> instantiated,
                                                       InitialiseOptions options) {
  ASSIGN_OR_RETURN(const Entry entry, find_entry(instantiated->module()));
  if (entry.initialisers.empty() && !entry.before_snapshot && !entry.after_restore) return instantiated;
  Result<std::shared_ptr<const ProtoFaaslet>> out;
  std::thread([&] { out = run_initialisers(instantiated, entry, std::move(options)); }).join();
  return out;
}

}  // namespace spore::host

#include "executor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/fd.h"
#include "compiler/compiler.h"
#include "convert.h"
#include "faaslet/proto_faaslet.h"
#include "spectest.h"

namespace spore::spec {

using faaslet::Faaslet;
using faaslet::Outcome;
using wasm::ExternalKind;
using wasm::TrapKind;
using wasm::ValueType;

struct Executor::Instance {
  faaslet::LinkedFaaslet* linked = nullptr;  // owned by the world
  std::vector<faaslet::HostFunction> links;  // of the plain one
  std::unique_ptr<Faaslet> plain;

  Faaslet& faaslet() const { return linked ? *linked : *plain; }
};

namespace {

constexpr uint64_t kModuleBytesMax = 64 << 20;

// The functions of "spectest" print their arguments; nobody reads that here.
faaslet::HostResult print_nothing(faaslet::HostCall&) { return faaslet::HostResult::kDone; }

bool only_spectest_functions(const wasm::ModuleInfo& module) {
  return std::ranges::all_of(module.imports, [](const wasm::Import& import) {
    return import.kind == ExternalKind::kFunction && import.module == "spectest" && import.name.starts_with("print");
  });
}

// The suite adds details here and there: "uninitialized element 2".
bool is_trap(std::string_view expected, TrapKind kind) { return expected.starts_with(faaslet::message_of(kind)); }

std::string describe(const Outcome& outcome) {
  switch (outcome.kind) {
    case Outcome::Kind::kReturned: return "returned";
    case Outcome::Kind::kTrapped: return fmt::format("trapped: {}", outcome.trap.message);
    case Outcome::Kind::kExited: return "exited";
    case Outcome::Kind::kParked: return "parked";
  }
  return "?";
}

std::unexpected<Error> wrong(std::string message) { return fail(ErrorCode::kInternal, std::move(message)); }

template <class T>
std::string join(const std::vector<T>& values) {
  std::string text;
  for (const T& value : values) text += (text.empty() ? "" : ", ") + to_string(value);
  return "[" + text + "]";
}

}  // namespace

Executor::Executor(ExecutorOptions options, Tally& tally, std::function<void(uint32_t, const std::string&)> report)
    : options_(std::move(options)), tally_(tally), report_(std::move(report)) {}

Executor::~Executor() {
  // In the order of need: instances hold loaded objects, these the arena.
  instances_.clear();
  world_.reset();
}

Result<std::unique_ptr<Executor>> Executor::make(ExecutorOptions options, Tally& tally,
                                                 std::function<void(uint32_t, const std::string&)> report) {
  std::unique_ptr<Executor> executor(new Executor(std::move(options), tally, std::move(report)));
  TRY(faaslet::install_signal_handlers());
  ASSIGN_OR_RETURN(executor->arena_, faaslet::CodeArena::reserve(as_bytes("spec suite")));
  executor->seat_ = std::make_unique<faaslet::Seat>();
  executor->world_ = std::make_unique<faaslet::LinkedWorld>(*executor->seat_);
  return executor;
}

// A module of its own for each text, because a module may have one memory only without the multi-memory proposal.
Result<void> Executor::add_spectest() {
  for (const auto& [name, text] : kSpectestModules) {
    const auto file = options_.folder / (std::string(name) + ".wat");
    TRY(write_file_atomically(file, as_bytes(text)));
    ASSIGN_OR_RETURN(const Bytes bytes, assemble(file, {"--enable-threads"}, /*validate=*/true, options_.folder));
    compiler::Options options = options_.compile;
    options.cross_instance = true;
    options.proposals = compiler::kAllProposals;
    ASSIGN_OR_RETURN(wasm::Object object, compiler::compile(bytes, options));
    ASSIGN_OR_RETURN(auto loaded, arena_->load(std::move(object)));
    ASSIGN_OR_RETURN(const auto made, world_->instantiate(std::move(loaded)));
    if (made.outcome.kind != Outcome::Kind::kReturned) return wrong("spectest " + describe(made.outcome));
    world_->register_instance("spectest", *made.instance);
  }
  return {};
}

void Executor::run(const std::vector<Command>& commands) {
  const Command* last = nullptr;
  std::map<std::string, const Command*> named;
  for (const Command& command : commands) {
    tally_.assertions += command.is_assertion();
    if (command.kind == Command::Kind::kModule) {
      last = &command;
      if (!command.name.empty()) named[command.name] = &command;
    }
    if (command.kind == Command::Kind::kRegister)
      linked_modules_.insert(command.name.empty() ? last : named[command.name]);
  }
  if (auto added = add_spectest(); !added) {
    ++tally_.failed;
    report_(0, added.error().message);
    return;
  }
  for (const Command& command : commands) {
    tally_.line = command.line;
    auto verdict = execute(command);
    if (!verdict) {
      ++tally_.failed;
      report_(command.line, verdict.error().message);
    } else if (*verdict == Verdict::kSkippedText) {
      ++tally_.skipped_text;
    } else if (*verdict == Verdict::kSkippedValid) {
      ++tally_.skipped_valid;
    } else {
      tally_.passed += command.is_assertion();
    }
  }
}

Result<Executor::Verdict> Executor::execute(const Command& command) {
  switch (command.kind) {
    case Command::Kind::kModule: return define(command);
    case Command::Kind::kRegister: {
      ASSIGN_OR_RETURN(Instance * instance, find(command.name));
      if (!instance->linked) return wrong("registered, but not linkable");
      world_->register_instance(command.register_as, *instance->linked);
      return Verdict::kPassed;
    }
    case Command::Kind::kAction: {
      std::vector<Value> results;
      ASSIGN_OR_RETURN(const Outcome outcome, perform(command.action, results));
      if (outcome.kind != Outcome::Kind::kReturned) return wrong(describe(outcome));
      return Verdict::kPassed;
    }
    case Command::Kind::kAssertReturn: return assert_return(command);
    case Command::Kind::kAssertTrap:
    case Command::Kind::kAssertExhaustion:
    case Command::Kind::kAssertException: return assert_trap(command);
    case Command::Kind::kAssertInvalid:
    case Command::Kind::kAssertMalformed: return assert_rejected(command);
    case Command::Kind::kAssertUnlinkable: return assert_unlinkable(command);
    case Command::Kind::kAssertUninstantiable: return assert_uninstantiable(command);
  }
  return wrong("not a command");
}

Result<Executor::Instance*> Executor::find(const std::string& name) {
  Instance* instance = last_;
  if (!name.empty()) {
    const auto found = named_.find(name);
    instance = found == named_.end() ? nullptr : found->second;
  }
  if (!instance) return wrong("no module: its instantiation failed");
  return instance;
}

Result<Bytes> Executor::module_bytes(const Command& command) {
  if (!command.text_module) return read_file(command.file, kModuleBytesMax);
  return assemble(command.file, options_.wabt_flags, /*validate=*/false, options_.folder);
}

Result<Executor::Instantiated> Executor::instantiate(const Command& command) {
  ASSIGN_OR_RETURN(const Bytes bytes, module_bytes(command));
  ASSIGN_OR_RETURN(const wasm::ModuleInfo info, compiler::inspect(bytes));
  compiler::Options options = options_.compile;
  options.cross_instance = linked_modules_.contains(&command) || !only_spectest_functions(info);
  ASSIGN_OR_RETURN(wasm::Object object, compiler::compile(bytes, options));
  ASSIGN_OR_RETURN(auto loaded, arena_->load(std::move(object)));

  auto instance = std::make_unique<Instance>();
  Instantiated result;
  if (options.cross_instance) {
    ASSIGN_OR_RETURN(const auto made, world_->instantiate(std::move(loaded)));
    instance->linked = made.instance;
    result.outcome = made.outcome;
  } else {
    ASSIGN_OR_RETURN(auto proto, faaslet::ProtoFaaslet::make_instantiated(std::move(loaded)));
    ASSIGN_OR_RETURN(auto slot, faaslet::Slot::reserve());
    instance->links.assign(info.imported_functions, &print_nothing);
    ASSIGN_OR_RETURN(instance->plain, Faaslet::restore(std::move(slot), std::move(proto), instance->links, nullptr));
    if (info.start) result.outcome = instance->plain->start(*seat_, *info.start);
  }
  if (result.outcome.kind == Outcome::Kind::kReturned) {
    result.instance = instance.get();
    instances_.push_back(std::move(instance));
  }
  return result;
}

Result<Executor::Verdict> Executor::define(const Command& command) {
  last_ = nullptr;
  if (!command.name.empty()) named_[command.name] = nullptr;
  // What nobody can name any more goes.
  std::erase_if(instances_, [&](const auto& instance) {
    return instance->plain &&
           std::ranges::none_of(named_, [&](const auto& entry) { return entry.second == instance.get(); });
  });
  ASSIGN_OR_RETURN(const Instantiated made, instantiate(command));
  if (!made.instance) return wrong("instantiation " + describe(made.outcome));
  last_ = made.instance;
  if (!command.name.empty()) named_[command.name] = made.instance;
  return Verdict::kPassed;
}

Result<Outcome> Executor::perform(const Action& action, std::vector<Value>& results) {
  ASSIGN_OR_RETURN(Instance * instance, find(action.module));
  Faaslet& faaslet = instance->faaslet();
  const wasm::ModuleInfo& module = faaslet.module();
  if (action.kind == Action::Kind::kGet) {
    const wasm::Export* found = module.find_export(action.field, ExternalKind::kGlobal);
    if (!found) return wrong(fmt::format("no global \"{}\"", action.field));
    const ValueType type = module.globals[found->index].type.type;
    Value value{.type = type, .cell = {}};
    if (instance->linked) {
      value.cell = instance->linked->global(found->index);
    } else {
      const size_t size = type == ValueType::kV128 ? 16 : 8;
      std::memcpy(&value.cell, faaslet.memory() + faaslet.object().layout().globals[found->index], size);
    }
    results = {value};
    return Outcome{};
  }
  const wasm::Export* found = module.find_export(action.field, ExternalKind::kFunction);
  if (!found) return wrong(fmt::format("no function \"{}\"", action.field));
  const wasm::Signature& signature = module.signature_of(found->index);
  std::vector<wasm::Cell> arguments;
  for (const Value& argument : action.arguments) arguments.push_back(argument.cell);
  if (arguments.size() != signature.params.size())
    return wrong(fmt::format("{} arguments for {}", arguments.size(), to_string(signature)));
  std::vector<wasm::Cell> cells(signature.results.size());
  Outcome outcome;
  if (instance->linked) {
    outcome = world_->call({ExternalKind::kFunction, instance->linked, found->index}, arguments, cells);
  } else {
    outcome = faaslet.start(*seat_, found->index, arguments);
    if (outcome.kind == Outcome::Kind::kReturned)
      for (uint32_t i = 0; i < cells.size(); ++i) cells[i] = faaslet.result(i);
  }
  results.clear();
  for (size_t i = 0; i < cells.size(); ++i) results.push_back({.type = signature.results[i], .cell = cells[i]});
  return outcome;
}

Result<Executor::Verdict> Executor::assert_return(const Command& command) {
  std::vector<Value> results;
  ASSIGN_OR_RETURN(const Outcome outcome, perform(command.action, results));
  const std::string what = command.action.field;
  if (outcome.kind != Outcome::Kind::kReturned) return wrong(fmt::format("{} {}", what, describe(outcome)));
  bool good = false;
  if (!command.either.empty()) {
    good = results.size() == 1 &&
           std::ranges::any_of(command.either, [&](const Expected& one) { return matches(one, results[0]); });
  } else {
    good = results.size() == command.expected.size();
    for (size_t i = 0; good && i < results.size(); ++i) good = matches(command.expected[i], results[i]);
  }
  if (good) return Verdict::kPassed;
  return wrong(fmt::format("{}{} gave {}, expected {}{}", what, join(command.action.arguments), join(results),
                           command.either.empty() ? "" : "one of ",
                           join(command.either.empty() ? command.expected : command.either)));
}

Result<Executor::Verdict> Executor::assert_trap(const Command& command) {
  std::vector<Value> results;
  ASSIGN_OR_RETURN(const Outcome outcome, perform(command.action, results));
  const bool exception = command.kind == Command::Kind::kAssertException;
  const bool good =
      outcome.kind == Outcome::Kind::kTrapped &&
      (exception ? outcome.trap.kind == TrapKind::kUncaughtException : is_trap(command.text, outcome.trap.kind));
  if (good) return Verdict::kPassed;
  return wrong(fmt::format("{}{} {}{}, expected {}", command.action.field, join(command.action.arguments),
                           describe(outcome), outcome.kind == Outcome::Kind::kReturned ? " " + join(results) : "",
                           exception ? "an exception" : "the trap \"" + command.text + "\""));
}

Result<Executor::Verdict> Executor::assert_rejected(const Command& command) {
  // Scripts of proposals that are older than reference types, which brought modules with several tables.
  if (command.text == "multiple tables") return Verdict::kSkippedValid;
  // A text that is malformed never becomes a module.
  if (command.text_module && command.kind == Command::Kind::kAssertMalformed) return Verdict::kSkippedText;
  const auto bytes = module_bytes(command);
  if (!bytes && command.text_module) return Verdict::kSkippedText;
  if (!bytes) return std::unexpected(bytes.error());
  const auto object = compiler::compile(*bytes, options_.compile);
  if (object) return wrong(fmt::format("accepted a module, expected the error \"{}\"", command.text));
  if (object.error().code != ErrorCode::kInvalidModule)
    return wrong(fmt::format("the error is {} \"{}\", expected an invalid module: \"{}\"",
                             to_string(object.error().code), object.error().message, command.text));
  return Verdict::kPassed;
}

Result<Executor::Verdict> Executor::assert_unlinkable(const Command& command) {
  ASSIGN_OR_RETURN(const Bytes bytes, module_bytes(command));
  ASSIGN_OR_RETURN(const wasm::ModuleInfo info, compiler::inspect(bytes));
  const auto externals = world_->resolve(info);
  if (externals) return wrong(fmt::format("linked, expected \"{}\"", command.text));
  if (externals.error().message.starts_with(command.text)) return Verdict::kPassed;
  return wrong(fmt::format("refused with \"{}\", expected \"{}\"", externals.error().message, command.text));
}

Result<Executor::Verdict> Executor::assert_uninstantiable(const Command& command) {
  auto made = instantiate(command);
  if (!made) {
    // A ProtoFaaslet refuses segments that are out of bounds when it is made, in words of its own.
    const std::string& message = made.error().message;
    std::string_view segment = command.text;
    if (segment == "out of bounds memory access") segment = "data segment";
    if (segment == "out of bounds table access") segment = "element segment";
    if (message.starts_with("instantiation traps: ") && message.contains(segment)) return Verdict::kPassed;
    return std::unexpected(std::move(made).error());
  }
  if (made->outcome.kind == Outcome::Kind::kTrapped && is_trap(command.text, made->outcome.trap.kind))
    return Verdict::kPassed;
  return wrong(fmt::format("instantiation {}, expected \"{}\"", describe(made->outcome), command.text));
}

}  // namespace spore::spec

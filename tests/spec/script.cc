#include "script.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/fd.h"

namespace spore::spec {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr uint64_t kJsonBytesMax = 256 << 20;

Result<Command::Kind> kind_of(std::string_view type) {
  using enum Command::Kind;
  constexpr std::pair<std::string_view, Command::Kind> kinds[] = {
      {"module", kModule},
      {"register", kRegister},
      {"action", kAction},
      {"assert_return", kAssertReturn},
      {"assert_trap", kAssertTrap},
      {"assert_exhaustion", kAssertExhaustion},
      {"assert_exception", kAssertException},
      {"assert_invalid", kAssertInvalid},
      {"assert_malformed", kAssertMalformed},
      {"assert_unlinkable", kAssertUnlinkable},
      {"assert_uninstantiable", kAssertUninstantiable},
  };
  for (const auto& [name, kind] : kinds)
    if (name == type) return kind;
  return fail(ErrorCode::kInvalidArgument, fmt::format("unknown command \"{}\"", type));
}

Result<Action> parse_action(const json& value) {
  Action action;
  action.kind = value.at("type") == "get" ? Action::Kind::kGet : Action::Kind::kInvoke;
  action.module = value.value("module", "");
  action.field = value.at("field").get<std::string>();
  if (value.contains("args"))
    for (const json& argument : value["args"]) {
      ASSIGN_OR_RETURN(const Value parsed, parse_value(argument));
      action.arguments.push_back(parsed);
    }
  return action;
}

Result<Command> parse_command(const json& value, const fs::path& folder) {
  Command command;
  command.line = value.at("line").get<uint32_t>();
  ASSIGN_OR_RETURN(command.kind, kind_of(value.at("type").get<std::string>()));
  if (value.contains("filename")) command.file = folder / value["filename"].get<std::string>();
  command.text_module = value.value("module_type", "binary") == "text";
  command.name = value.value("name", "");
  command.register_as = value.value("as", "");
  command.text = value.value("text", "");
  if (value.contains("action")) {
    ASSIGN_OR_RETURN(command.action, parse_action(value["action"]));
  }
  // Only of assert_return do the results have values.
  if (command.kind != Command::Kind::kAssertReturn) return command;
  for (const char* key : {"expected", "either"}) {
    if (!value.contains(key)) continue;
    for (const json& item : value[key]) {
      ASSIGN_OR_RETURN(Expected expected, parse_expected(item));
      (key[1] == 'x' ? command.expected : command.either).push_back(std::move(expected));
    }
  }
  return command;
}

}  // namespace

Result<std::vector<Command>> read_script(const fs::path& path) {
  ASSIGN_OR_RETURN(const Bytes bytes, read_file(path, kJsonBytesMax));
  std::vector<Command> commands;
  try {
    const json script = json::parse(bytes.begin(), bytes.end());
    for (const json& value : script.at("commands")) {
      auto command = parse_command(value, path.parent_path());
      if (!command) return std::unexpected(std::move(command).error().within(path.filename().string()));
      commands.push_back(std::move(*command));
    }
  } catch (const json::exception& error) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("{}: {}", path.filename().string(), error.what()));
  }
  return commands;
}

}  // namespace spore::spec

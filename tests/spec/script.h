// A script of the spec suite as a list of commands, read from the JSON of wast2json.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "value.h"

namespace spore::spec {

struct Action {
  enum class Kind : uint8_t { kInvoke, kGet };
  Kind kind = Kind::kInvoke;
  std::string module;  // "": the last one
  std::string field;
  std::vector<Value> arguments;
};

struct Command {
  enum class Kind : uint8_t {
    kModule,
    kRegister,
    kAction,
    kAssertReturn,
    kAssertTrap,
    kAssertExhaustion,
    kAssertException,
    kAssertInvalid,
    kAssertMalformed,
    kAssertUnlinkable,
    kAssertUninstantiable,
  };
  Kind kind = Kind::kModule;
  uint32_t line = 0;
  std::filesystem::path file;  // of the module
  bool text_module = false;    // the file is in the text format
  std::string name;            // $name of the module, or ""
  std::string register_as;
  Action action;
  std::vector<Expected> expected;
  std::vector<Expected> either;  // not empty: the one result is one of these
  std::string text;              // of the trap or error

  bool is_assertion() const { return kind >= Kind::kAssertReturn; }
};

Result<std::vector<Command>> read_script(const std::filesystem::path& json);

}  // namespace spore::spec

// Functions that are scripts: which language a file is written in, where that language's interpreter lies, and the
// arguments that make the interpreter run the script. An interpreter is an ordinary module (docs/languages.md); the
// script's text is an argument of it, so it is stored with the function, and all scripts of a language share one
// module. Main thread only. Errors: kInvalidArgument (no such language, too long), kNotFound (its interpreter is not
// here).
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace spore::bin {

struct ScriptLanguage {
  std::string_view name;         // as people write it
  std::string_view suffix;       // ".py"
  std::string_view interpreter;  // its module's file name
  std::string_view option;       // the interpreter's argument before the text of a script
  std::string_view made_by;      // the command that makes the module
  std::string_view not_yet;      // a script that fails: what a function runs until its own script is there
};

// Nothing for any other suffix.
const ScriptLanguage* script_language(const std::filesystem::path& file);

struct Script {
  const ScriptLanguage* language;
  std::filesystem::path interpreter;   // the module
  std::vector<std::string> arguments;  // that come before the function's own
};

// `named` is the interpreter that the user named, or empty: then it is looked for in the directories of
// interpreter_directories(), in their order.
Result<Script> open_script(const std::filesystem::path& file, const std::filesystem::path& named);

// $SPORE_INTERPRETERS, what a build of Spore has beside this program, /usr/share/spore/interpreters.
std::vector<std::filesystem::path> interpreter_directories();

// The directory of this program. Empty where the system does not tell.
std::filesystem::path program_directory();

// Refuses what is neither a module nor a script that can be run: by its suffix, where `bytes` begin like no module.
Result<void> check_is_module(const std::filesystem::path& file, ByteSpan bytes);

}  // namespace spore::bin

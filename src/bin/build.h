// The languages that functions are written in: how a new one begins (`spore new`) and which command makes a module of
// it
// (`spore build`). This table is the one place of both. Main thread only.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spore::bin {

struct Language {
  std::string_view name;         // as --lang takes it
  std::string_view suffix;       // of its sources
  std::string_view source_name;  // of a new function's source; empty: the function's own name and `suffix`
  std::string_view beginning;    // that source
};
std::span<const Language> languages();

struct BuildCommand {
  std::vector<std::string> words;  // run in the source's folder; empty: nothing is to be built, it is a script
};
// What makes `module` of `source`, both file names relative to `folder`. kInvalidArgument: a source in no language that
// is known; kNotFound: a tool is missing, named with the package that brings it.
Result<BuildCommand> build_command(const std::filesystem::path& folder, const std::string& source,
                                   const std::string& module);

}  // namespace spore::bin

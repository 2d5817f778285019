// From a .wast script to what the runner reads: wabt's wast2json splits it into a JSON list of commands and one file
// for each module. Functions run as child processes and leave their files in the folder they are given.
//
// wabt 1.0.32 does not know every instruction that the suite uses. Where it lacks one (the table `gaps` in convert.cc),
// the functions that use it and the assertions about them are blanked out, line numbers kept, and counted. What a
// script says by mistake is put right (the table `errata`).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace spore::spec {

struct Conversion {
  std::filesystem::path json;
  uint32_t dropped_assertions = 0;
};

// `flags`: of wast2json, for instance --enable-threads.
Result<Conversion> convert_script(const std::filesystem::path& wast, const std::vector<std::string>& flags,
                                  const std::filesystem::path& folder);

// Modules given as text: `validate` = false takes modules that only a validator rejects. kInvalidModule where the text
// is none.
Result<Bytes> assemble(const std::filesystem::path& wat, const std::vector<std::string>& flags, bool validate,
                       const std::filesystem::path& folder);

// Replaces with blanks every function that contains `word`, and every assertion; the number of those.
uint32_t blank_out(std::string& script, std::string_view word);

}  // namespace spore::spec

#include "bin/script.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/fd.h"

namespace spore::bin {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kScriptBytesMax = 200 << 10;  // a host takes 256 KiB of arguments and environment in all

constexpr std::array kLanguages{
    ScriptLanguage{"Python", ".py", "python.wasm", "-c", "make -C examples python",
                   "raise SystemExit('this function has no script yet')"},
    ScriptLanguage{"JavaScript", ".js", "quickjs.wasm", "-e", "make -C examples quickjs",
                   "throw new Error('this function has no script yet')"},
};

std::string known_suffixes() {
  std::string out;
  for (const auto& language : kLanguages)
    out += (out.empty() ? "" : ", ") + std::string(language.suffix) + " (" + std::string(language.name) + ")";
  return out;
}

Result<fs::path> find_interpreter(const fs::path& file, const ScriptLanguage& language) {
  std::string looked;
  for (const auto& directory : interpreter_directories()) {
    const fs::path candidate = directory / language.interpreter;
    std::error_code error;
    if (fs::is_regular_file(candidate, error)) return candidate;
    looked += "\n    " + candidate.string();
  }
  return fail(ErrorCode::kNotFound,
              file.string() + ": the interpreter of " + std::string(language.name) + " is not here; looked for" +
                  looked + "\n  \"" + std::string(language.made_by) +
                  "\" makes it; --interpreter FILE or SPORE_INTERPRETERS=DIRECTORY name another place");
}

}  // namespace

const ScriptLanguage* script_language(const fs::path& file) {
  const auto found = std::ranges::find(kLanguages, file.extension().string(), &ScriptLanguage::suffix);
  return found == kLanguages.end() ? nullptr : found;
}

fs::path program_directory() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path();
}

std::vector<fs::path> interpreter_directories() {
  std::vector<fs::path> out;
  if (const char* const named = std::getenv("SPORE_INTERPRETERS"); named && *named) out.emplace_back(named);
  if (const fs::path here = program_directory(); !here.empty()) {
    out.push_back(here / "examples");
    out.push_back(here.parent_path() / "examples");
  }
  out.emplace_back("/usr/share/spore/interpreters");
  return out;
}

Result<Script> open_script(const fs::path& file, const fs::path& named) {
  const ScriptLanguage* const language = script_language(file);
  if (!language)
    return fail(ErrorCode::kInvalidArgument,
                file.string() + ": no script in a language that Spore runs; there are " + known_suffixes());
  auto text = read_file(file, kScriptBytesMax);
  if (!text) {
    if (text.error().code == ErrorCode::kResourceExhausted)
      return fail(ErrorCode::kInvalidArgument,
                  file.string() + ": a script may have " + std::to_string(kScriptBytesMax) + " bytes at most");
    return std::unexpected(std::move(text).error());
  }
  if (std::ranges::find(*text, uint8_t{0}) != text->end())
    return fail(ErrorCode::kInvalidArgument, file.string() + ": a script holds no NUL character");
  Script out{.language = language, .interpreter = named};
  out.arguments = {std::string(language->option), std::string(as_text(*text))};
  if (named.empty()) {
    ASSIGN_OR_RETURN(out.interpreter, find_interpreter(file, *language));
  }
  return out;
}

Result<void> check_is_module(const fs::path& file, ByteSpan bytes) {
  const std::string suffix = file.extension().string();
  if (suffix.empty() || suffix == ".wasm" || as_text(bytes).starts_with(std::string_view("\0asm", 4))) return {};
  return fail(ErrorCode::kInvalidArgument, file.string() +
                                               ": no WebAssembly module, and there is no interpreter for \"" + suffix +
                                               "\"; scripts are " + known_suffixes());
}

}  // namespace spore::bin

#include "convert.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

#include "base/fd.h"

extern char** environ;

namespace spore::spec {

namespace fs = std::filesystem;

namespace {

struct Gap {
  std::string_view file;  // the end of its path
  std::string_view instruction;
};
constexpr Gap gaps[] = {
    {"relaxed-simd/relaxed_dot_product.wast", "f32x4.relaxed_dot_bf16x8_add_f32x4"},
};

// Where a script says what it cannot mean: integer results written as float constants.
struct Erratum {
  std::string_view file;
  std::string_view wrong;
  std::string_view right;
};
constexpr Erratum errata[] = {
    {"relaxed-simd/relaxed_dot_product.wast", "(v128.const f32x4 14 127 368 737)", "(v128.const i32x4 14 127 368 737)"},
    {"relaxed-simd/relaxed_dot_product.wast", "(v128.const f32x4 -65023 64518 3 4)",
     "(v128.const i32x4 -65023 64518 3 4)"},
};

constexpr uint64_t kScriptBytesMax = 64 << 20;
constexpr uint64_t kMessageBytesMax = 1 << 20;

// Runs a program of wabt; what it printed is the message of the error.
Result<void> run(const std::vector<std::string>& command, const fs::path& folder) {
  const fs::path log = folder / "wabt.log";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno(command[0] + " (Debian package wabt)", error);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return fail_errno("waitpid");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  auto text = read_file(log, kMessageBytesMax);
  const std::string message = text ? std::string(as_text(*text)) : text.error().message;
  return fail(ErrorCode::kInvalidModule, command[0] + ": " + message);
}

// The end of the form, string, comment or word that begins at `at`.
size_t skip_item(std::string_view text, size_t at) {
  if (text[at] == '"') {
    for (++at; at < text.size() && text[at] != '"'; ++at)
      if (text[at] == '\\') ++at;
    return std::min(at + 1, text.size());
  }
  if (text.substr(at, 2) == ";;") return std::min(text.find('\n', at), text.size());
  if (text.substr(at, 2) == "(;") {
    int depth = 0;
    for (; at < text.size(); ++at) {
      if (text.substr(at, 2) == "(;")
        ++depth, ++at;
      else if (text.substr(at, 2) == ";)" && (++at, --depth == 0))
        return at + 1;
    }
    return at;
  }
  if (text[at] == '(') {
    for (++at; at < text.size() && text[at] != ')';) at = skip_item(text, at);
    return std::min(at + 1, text.size());
  }
  return at + 1;
}

void blank(std::string& text, size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i)
    if (text[i] != '\n') text[i] = ' ';
}

bool is_form(std::string_view text, size_t at) { return text[at] == '(' && text.substr(at, 2) != "(;"; }

}  // namespace

uint32_t blank_out(std::string& script, std::string_view word) {
  uint32_t assertions = 0;
  for (size_t at = 0; at < script.size();) {
    const size_t end = skip_item(script, at);
    const std::string_view item = std::string_view(script).substr(at, end - at);
    if (!is_form(script, at) || item.find(word) == std::string_view::npos) {
      at = end;
      continue;
    }
    if (item.starts_with("(assert_")) {
      blank(script, at, end);
      ++assertions;
    } else {
      for (size_t inner = at + 1; inner < end - 1;) {
        const size_t inner_end = skip_item(script, inner);
        if (is_form(script, inner) && std::string_view(script).substr(inner, inner_end - inner).contains(word))
          blank(script, inner, inner_end);
        inner = inner_end;
      }
    }
    at = end;
  }
  return assertions;
}

Result<Conversion> convert_script(const fs::path& wast, const std::vector<std::string>& flags, const fs::path& folder) {
  Conversion conversion;
  conversion.json = folder / (wast.stem().string() + ".json");
  fs::path source = wast;
  ASSIGN_OR_RETURN(const Bytes original, read_file(wast, kScriptBytesMax));
  std::string script(as_text(original));
  const std::string name = wast.generic_string();
  for (const Gap& gap : gaps)
    if (name.ends_with(gap.file)) conversion.dropped_assertions += blank_out(script, gap.instruction);
  for (const Erratum& erratum : errata) {
    if (!name.ends_with(erratum.file)) continue;
    const size_t at = script.find(erratum.wrong);
    if (at != std::string::npos) script.replace(at, erratum.wrong.size(), erratum.right);
  }
  if (script != as_text(original)) {
    source = folder / wast.filename();
    TRY(write_file_atomically(source, as_bytes(script)));
  }
  std::vector<std::string> command = {"wast2json", source.string(), "-o", conversion.json.string()};
  command.insert(command.end(), flags.begin(), flags.end());
  TRY(run(command, folder));
  return conversion;
}

Result<Bytes> assemble(const fs::path& wat, const std::vector<std::string>& flags, bool validate,
                       const fs::path& folder) {
  const fs::path binary = folder / (wat.stem().string() + ".assembled.wasm");
  std::vector<std::string> command = {"wat2wasm", wat.string(), "-o", binary.string()};
  if (!validate) command.push_back("--no-check");
  command.insert(command.end(), flags.begin(), flags.end());
  TRY(run(command, folder));
  return read_file(binary, kScriptBytesMax);
}

}  // namespace spore::spec

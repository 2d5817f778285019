// spore build [DIR]: makes the module of the function in a folder, by the tools of its language.
#include "bin/build.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "bin/commands.h"
#include "bin/function_file.h"
#include "bin/script.h"

namespace spore::bin {
namespace fs = std::filesystem;
namespace {

constexpr std::array kLanguages{
    Language{"c", ".c", "", R"(// The input of a call is on standard input; what goes to standard output is the answer.
#include <stdio.h>

int main(void) {
  char name[256];
  const size_t length = fread(name, 1, sizeof(name), stdin);
  printf("Hello, %.*s!\n", (int)length, name);
  return 0;
}
)"},
    Language{"cpp", ".cc", "",
             R"(// The input of a call is on standard input; what goes to standard output is the answer.
#include <iostream>
#include <iterator>
#include <string>

int main() {
  const std::string name(std::istreambuf_iterator<char>(std::cin), {});
  std::cout << "Hello, " << name << "!\n";
}
)"},
    Language{"rust", ".rs", "",
             R"(// The input of a call is on standard input; what goes to standard output is the answer.
use std::io::{self, Read};

fn main() -> io::Result<()> {
    let mut name = String::new();
    io::stdin().read_to_string(&mut name)?;
    println!("Hello, {name}!");
    Ok(())
}
)"},
    Language{"go", ".go", "main.go",
             R"(// The input of a call is on standard input; what goes to standard output is the answer.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
)

func main() {
	name, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Hello, %s!\n", name)
}
)"},
    Language{"assemblyscript", ".ts", "", R"(// A call runs spore_call; what it returns is the exit code.
@external("spore", "input_size")
declare function input_size(): u32;
@external("spore", "input_read")
declare function input_read(offset: u32, to: usize, size_bytes: u32): u32;
@external("spore", "output_write")
declare function output_write(from: usize, size_bytes: u32): u32;

export function spore_call(): i32 {
  const input = new Uint8Array(input_size());
  input_read(0, input.dataStart, input.byteLength);
  const name = String.UTF8.decodeUnsafe(input.dataStart, input.byteLength);
  const output = String.UTF8.encode("Hello, " + name + "!\n");
  output_write(changetype<usize>(output), output.byteLength);
  return 0;
}
)"},
    Language{"javascript", ".js", "", R"(// Spore.input() is the input of a call; what is printed is the answer.
print(`Hello, ${Spore.input()}!`);
)"},
    Language{"python", ".py", "", R"(# The input of a call is on standard input; what is printed is the answer.
import sys

print(f"Hello, {sys.stdin.read()}!")
)"},
};

// A program (in PATH, or a path) or another file that a command needs, and what brings it.
struct Need {
  std::string what;
  std::string_view brought_by;
};

bool is_here(const std::string& what) {
  if (what.find('/') != std::string::npos) return ::access(what.c_str(), F_OK) == 0;
  const char* const path = std::getenv("PATH");
  const std::string_view directories = path ? path : "/usr/bin:/bin";
  for (size_t begin = 0; begin <= directories.size();) {
    const size_t end = std::min(directories.find(':', begin), directories.size());
    const fs::path file = fs::path(directories.substr(begin, end - begin)) / what;
    if (::access(file.c_str(), X_OK) == 0) return true;
    begin = end + 1;
  }
  return false;
}

Result<void> check_needs(std::string_view language, std::initializer_list<Need> needs) {
  for (const Need& need : needs)
    if (!is_here(need.what))
      return fail(ErrorCode::kNotFound, "to build " + std::string(language) + ", " + need.what +
                                            " is needed and is not here; " + std::string(need.brought_by));
  return {};
}

// Where npm's assemblyscript lies: in the function's folder or one above it, or beside a build of Spore.
Result<fs::path> find_assemblyscript(const fs::path& folder) {
  const fs::path below = "node_modules/assemblyscript/bin/asc.js";
  std::vector<fs::path> places;
  std::error_code error;
  for (fs::path at = fs::canonical(folder, error); !error && !at.empty(); at = at.parent_path()) {
    places.push_back(at / below);
    if (at == at.root_path()) break;
  }
  if (const fs::path here = program_directory(); !here.empty()) places.push_back(here.parent_path() / "guests" / below);
  for (const auto& place : places)
    if (fs::is_regular_file(place, error)) return place;
  return fail(ErrorCode::kNotFound,
              "to build assemblyscript, its compiler is needed, in node_modules/ here, above, or of "
              "a build of Spore; npm install assemblyscript, or Spore's scripts/install guests, "
              "brings it");
}

// Its exit code, 128 + N where signal N ended it.
Result<int> run_command(const fs::path& folder, const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  if (const int error = ::posix_spawn_file_actions_init(&actions)) return fail_errno(words.front(), error);
  const std::unique_ptr<posix_spawn_file_actions_t, decltype(&::posix_spawn_file_actions_destroy)> owned(
      &actions, ::posix_spawn_file_actions_destroy);
  if (const int error = ::posix_spawn_file_actions_addchdir_np(&actions, folder.c_str()))
    return fail_errno(folder.string(), error);
  pid_t child = 0;
  if (const int error = ::posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ))
    return fail_errno(words.front(), error);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return fail_errno(words.front());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// As a shell takes it.
std::string shell_text(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& word : words) {
    if (!out.empty()) out += ' ';
    if (word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./+,:@") ==
        std::string::npos) {
      out += word;
      continue;
    }
    out += '\'';
    for (const char c : word) c == '\'' ? out += "'\\''" : out += c;
    out += '\'';
  }
  return out;
}

Result<void> build(const std::string& place) {
  std::error_code error;
  fs::path description = place;
  if (!description.string().ends_with(".toml")) {
    ASSIGN_OR_RETURN(description, find_function_file(place));
  }
  ASSIGN_OR_RETURN(const FunctionFile file, read_function_file(description));
  if (file.source.empty())
    return fail(ErrorCode::kInvalidArgument, description.string() + " does not say what to build (source)");
  if (!fs::is_regular_file(file.source, error))
    return fail(ErrorCode::kNotFound, file.source.string() + ": there is no such file");
  fs::path folder = description.parent_path();
  if (folder.empty()) folder = ".";
  const std::string source = file.source.lexically_relative(description.parent_path()).string();
  if (!script_language(file.source) && file.module.empty())
    return fail(ErrorCode::kInvalidArgument, description.string() + " does not say which module to make (module)");
  const std::string module = file.module.lexically_relative(description.parent_path()).string();
  ASSIGN_OR_RETURN(const BuildCommand command, build_command(folder, source, module));
  if (command.words.empty()) {
    std::printf("%s is a script: nothing is to be built\n", file.source.c_str());
    return {};
  }
  std::fprintf(stderr, "(cd %s && %s)\n", shell_text({folder.string()}).c_str(), shell_text(command.words).c_str());
  ASSIGN_OR_RETURN(const int code, run_command(folder, command.words));
  if (code != 0)
    return fail(ErrorCode::kInvalidArgument, file.source.string() + " was not built: " + command.words.front() +
                                                 " ended with exit code " + std::to_string(code));
  const uint64_t size = fs::file_size(file.module, error);
  if (error) return fail(ErrorCode::kNotFound, file.module.string() + " was not made: " + error.message());
  std::printf("%s  %llu bytes\n", file.module.c_str(), static_cast<unsigned long long>(size));
  return {};
}

}  // namespace

std::span<const Language> languages() { return kLanguages; }

Result<BuildCommand> build_command(const fs::path& folder, const std::string& source, const std::string& module) {
  const std::string suffix = fs::path(source).extension().string();
  const std::string from = source.starts_with('/') ? source : "./" + source;
  const std::string to = module.starts_with('/') ? module : "./" + module;
  constexpr std::string_view kCompiler = "apt-get install clang-19 brings it",
                             kLinker = "apt-get install lld-19 brings it",
                             kLibrary = "apt-get install wasi-libc brings it";
  if (script_language(source)) return BuildCommand{};
  if (suffix == ".c") {
    TRY(check_needs("c",
                    {{"clang-19", kCompiler}, {"wasm-ld-19", kLinker}, {"/usr/lib/wasm32-wasi/libc.a", kLibrary}}));
    return BuildCommand{{"clang-19", "--target=wasm32-wasi", "-O2", "-s", "-Wall", "-Wextra", from, "-o", to}};
  }
  if (suffix == ".cc" || suffix == ".cpp" || suffix == ".cxx") {
    TRY(check_needs("cpp",
                    {{"clang++-19", kCompiler},
                     {"wasm-ld-19", kLinker},
                     {"/usr/lib/wasm32-wasi/libc.a", kLibrary},
                     {"/usr/lib/wasm32-wasi/libc++.a", "apt-get install libc++-19-dev-wasm32 brings it"},
                     {"/usr/lib/wasm32-wasi/libc++abi.a", "apt-get install libc++abi-19-dev-wasm32 brings it"}}));
    return BuildCommand{{"clang++-19", "--target=wasm32-wasi", "-std=c++23", "-fno-exceptions", "-O2", "-s", "-Wall",
                         "-Wextra", from, "-o", to}};
  }
  if (suffix == ".rs") {
    // Debian's own, which has the standard library for wasm32-wasi, and the linker of its LLVM.
    TRY(check_needs("rust", {{"/usr/bin/rustc", "apt-get install rustc brings it"},
                             {"/usr/lib/rustlib/wasm32-wasi", "apt-get install libstd-rust-dev-wasm32 brings it"},
                             {"wasm-ld-14", "apt-get install lld-14 brings it"}}));
    return BuildCommand{{"/usr/bin/rustc", "--target", "wasm32-wasi", "--edition", "2021", "-C", "opt-level=3", "-C",
                         "strip=symbols", "-C", "linker=wasm-ld-14", from, "-o", to}};
  }
  if (suffix == ".go") {
    TRY(check_needs("go", {{"go", "Go 1.21 or later, from https://go.dev/dl, brings it (Debian 12 has 1.19)"}}));
    std::error_code error;
    const bool is_package = fs::exists(folder / "go.mod", error);
    return BuildCommand{{"env", "GOOS=wasip1", "GOARCH=wasm", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to,
                         is_package ? "." : from}};
  }
  if (suffix == ".ts") {
    TRY(check_needs("assemblyscript", {{"node", "apt-get install nodejs brings it"}}));
    ASSIGN_OR_RETURN(const fs::path compiler, find_assemblyscript(folder));
    return BuildCommand{{"node", compiler.string(), from, "--outFile", to, "-O3", "--runtime", "incremental"}};
  }
  std::string known;
  for (const Language& language : languages()) known += (known.empty() ? "" : ", ") + std::string(language.suffix);
  return fail(ErrorCode::kInvalidArgument,
              source + ": no language is known for \"" + suffix + "\"; there are " + known);
}

void add_build(CLI::App& app, int& exit_code) {
  auto* const command = app.add_subcommand("build", "Build the function of a folder, by the tools of its language");
  const auto place = std::make_shared<std::string>(".");
  command->add_option("DIR", *place, "The folder, or its function file")->capture_default_str();
  command->callback([place, &exit_code] {
    if (const auto done = build(*place); !done) {
      std::fprintf(stderr, "spore build: %s\n", done.error().message.c_str());
      exit_code = 1;
    }
  });
}

}  // namespace spore::bin

// spore new --lang L [TENANT/]NAME: a folder with a function to begin with.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/fd.h"
#include "bin/build.h"
#include "bin/commands.h"
#include "bin/script.h"
#include "functions/function.h"

namespace spore::bin {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kTenant = "demo";  // of a name without one

struct NewArguments {
  std::string language, name, directory = ".";
};

Result<void> make_function(const NewArguments& arguments) {
  const auto language = std::ranges::find(languages(), arguments.language, &Language::name);
  if (language == languages().end()) {
    std::string known;
    for (const Language& one : languages()) known += (known.empty() ? "" : ", ") + std::string(one.name);
    return fail(ErrorCode::kInvalidArgument, "--lang " + arguments.language + ": there are " + known);
  }
  const bool has_tenant = arguments.name.find('/') != std::string::npos;
  ASSIGN_OR_RETURN(const auto id, functions::FunctionId::parse(
                                      has_tenant ? arguments.name : std::string(kTenant) + "/" + arguments.name));
  const fs::path folder = fs::path(arguments.directory) / id.name;
  const std::string source =
      language->source_name.empty() ? id.name + std::string(language->suffix) : std::string(language->source_name);
  const bool is_script = script_language(source) != nullptr;
  std::string description = "name = \"" + id.text() + "\"\nsource = \"" + source + "\"\n";
  if (!is_script) description += "module = \"" + id.name + ".wasm\"\n";
  std::error_code error;
  // Makes it or refuses: what is there, also an empty folder or a link, is never written over.
  if (!fs::create_directory(folder, error))
    return fail(ErrorCode::kAlreadyExists, folder.string() + ": " + (error ? error.message() : "is there already"));
  TRY(write_file_atomically(folder / source, as_bytes(language->beginning)));
  TRY(write_file_atomically(folder / (id.name + ".toml"), as_bytes(description)));
  const std::string place = folder.string();
  std::printf("%s has %s and %s.toml. Next:\n", place.c_str(), source.c_str(), id.name.c_str());
  if (!is_script) std::printf("  spore build %s\n", place.c_str());
  std::printf("  spore run %s\n", (folder / (is_script ? source : id.name + ".wasm")).c_str());
  std::printf("  spore publish %s\n  spore call %s -d Ada\n", place.c_str(), id.text().c_str());
  return {};
}

}  // namespace

void add_new(CLI::App& app, int& exit_code) {
  auto* const command = app.add_subcommand("new", "Make a folder with a function to begin with");
  const auto arguments = std::make_shared<NewArguments>();
  command->add_option("--lang", arguments->language, "c, cpp, rust, go, assemblyscript, javascript or python")
      ->required();
  command->add_option("NAME", arguments->name, "NAME or TENANT/NAME of the function; its folder is called NAME")
      ->required();
  command->add_option("--dir", arguments->directory, "Where to make the folder")->capture_default_str();
  command->callback([arguments, &exit_code] {
    if (const auto done = make_function(*arguments); !done) {
      std::fprintf(stderr, "spore new: %s\n", done.error().message.c_str());
      exit_code = 1;
    }
  });
}

}  // namespace spore::bin

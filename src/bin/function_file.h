// A function as a TOML file beside its source: what to publish, under which name, how configured.
//
//   name = "demo/hello"        # TENANT/NAME
//   module = "hello.wasm"      # relative to this file, as is
//   source = "hello.c"         # what `spore build` makes it from; a script (.py, .js) is published as it is
//   timeout_ms = 500
//   memory_max = "64MB"        # or a number of bytes
//   output_max = "1MB"
//   args = ["--fast"]
//   [env]
//   LANG = "C"
//   [mounts]
//   "/data" = "files:data"
//
// Every key may be missing.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"

namespace spore::bin {

struct FunctionFile {
  std::string name;
  std::filesystem::path module, source;              // as they can be opened; empty: not given
  nlohmann::json config = nlohmann::json::object();  // the fields of functions::config_from_json that are given
};

// The function file of a folder: FOLDER/FOLDER.toml, else the only FOLDER/*.toml. kNotFound: there is none;
// kInvalidArgument: there are several.
Result<std::filesystem::path> find_function_file(const std::filesystem::path& folder);

// kInvalidArgument, as FILE:LINE:COLUMN: what is wrong with which key.
Result<FunctionFile> read_function_file(const std::filesystem::path& path);

}  // namespace spore::bin

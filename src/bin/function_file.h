// A function as a TOML file beside its source: what to publish, under which name, how configured.
//
//   name = "demo/hello"        # TENANT/NAME
//   module = "hello.wasm"      # relative to this file
//   timeout_ms = 500
//   memory_max = "64MB"        # or a number of bytes
//   output_max = "1MB"
//   args = ["--fast"]
//   [env]
//   LANG = "C"
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
  std::filesystem::path module;                      // as it can be opened; empty: not given
  nlohmann::json config = nlohmann::json::object();  // the fields of functions::config_from_json that are given
};

// kInvalidArgument, as FILE:LINE:COLUMN: what is wrong with which key.
Result<FunctionFile> read_function_file(const std::filesystem::path& path);

}  // namespace spore::bin

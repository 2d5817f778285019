#include "bin/function_file.h"

#include <gtest/gtest.h>

#include <fstream>

namespace spore::bin {
namespace {

class FunctionFileTest : public ::testing::Test {
 protected:
  FunctionFileTest() {
    std::string name = (std::filesystem::temp_directory_path() / "spore-function-file-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~FunctionFileTest() override { std::filesystem::remove_all(folder_); }

  Result<FunctionFile> read(std::string_view text) {
    std::ofstream(folder_ / "f.toml") << text;
    return read_function_file(folder_ / "f.toml");
  }
  std::string refusal(std::string_view text) {
    const auto file = read(text);
    if (file) return "";
    return file.error().message.substr(folder_.string().size() + 1);
  }

  std::filesystem::path folder_;
};

TEST_F(FunctionFileTest, SaysWhatToPublishAndHow) {
  const auto file = read(R"(name = "demo/hello"
module = "build/hello.wasm"
source = "hello.c"
local_max = "1KB"
local_files_max = 7
concurrency_max = 3
push = "on_success"
timeout_ms = 500
memory_max = "64MB"
output_max = 1000
args = ["--fast", "ü"]
[env]
LANG = "C"
[mounts]
"/data" = "files:data")");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->name, "demo/hello");
  EXPECT_EQ(file->module, folder_ / "build/hello.wasm");
  EXPECT_EQ(file->source, folder_ / "hello.c");
  EXPECT_EQ(file->config, (nlohmann::json{{"timeout_ms", 500},
                                          {"memory_max_bytes", 64 << 20},
                                          {"output_max_bytes", 1000},
                                          {"local_bytes_max", 1 << 10},
                                          {"local_files_max", 7},
                                          {"concurrency_max", 3},
                                          {"push", "on_success"},
                                          {"mounts", {{"/data", "files:data"}}},
                                          {"args", {"--fast", "ü"}},
                                          {"env", {{"LANG", "C"}}}}));
}

TEST_F(FunctionFileTest, WhatIsMissingStaysAsItIs) {
  const auto file = read("");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_TRUE(file->name.empty() && file->module.empty() && file->config.empty());
}

TEST_F(FunctionFileTest, RefusalsNameFileLineAndKey) {
  EXPECT_EQ(refusal("\ntimeout = 3"),
            "f.toml:2:1: there is no key \"timeout\"; there are name, module, source, timeout_ms, memory_max, "
            "output_max, local_max, local_files_max, concurrency_max, cpu_ms, cpu_weight, cpu_percent, require, "
            "isolation, spectre_hardening, push, network, args, env and mounts");
  EXPECT_EQ(refusal("timeout_ms = \"3\""), "f.toml:1:14: timeout_ms must be a whole number that is not negative");
  EXPECT_EQ(refusal("timeout_ms = -3"), "f.toml:1:14: timeout_ms must be a whole number that is not negative");
  EXPECT_EQ(refusal("memory_max = \"much\""),
            "f.toml:1:14: memory_max must be a size as \"64MB\" or a number of bytes");
  EXPECT_EQ(refusal("args = [\"a\",\n 3]"), "f.toml:2:2: each of args must be a string");
  EXPECT_EQ(refusal("[env]\nA = 1"), "f.toml:2:5: env.A must be a string");
  EXPECT_EQ(refusal("name = 3"), "f.toml:1:8: name must be a string");
  EXPECT_EQ(refusal("name = \"a\nb").substr(0, 9), "f.toml:1:");
}

TEST_F(FunctionFileTest, AFolderHasOneFileOrOneOfItsOwnName) {
  const auto none = find_function_file(folder_);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  std::ofstream(folder_ / "f.toml") << "";
  EXPECT_EQ(*find_function_file(folder_), folder_ / "f.toml");
  std::ofstream(folder_ / "g.toml") << "";
  const auto several = find_function_file(folder_);
  ASSERT_FALSE(several);
  EXPECT_EQ(several.error().code, ErrorCode::kInvalidArgument);
  const auto own = folder_ / (folder_.filename().string() + ".toml");
  std::ofstream(own.string()) << "";
  EXPECT_EQ(*find_function_file(folder_), own);
  EXPECT_FALSE(find_function_file(folder_ / "none"));
}

TEST_F(FunctionFileTest, AFileThatIsNotThereIsNamed) {
  const auto file = read_function_file(folder_ / "none.toml");
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().message.find("none.toml"), std::string::npos);
}

}  // namespace
}  // namespace spore::bin

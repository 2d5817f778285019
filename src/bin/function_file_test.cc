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
timeout_ms = 500
memory_max = "64MB"
output_max = 1000
args = ["--fast", "ü"]
[env]
LANG = "C")");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->name, "demo/hello");
  EXPECT_EQ(file->module, folder_ / "build/hello.wasm");
  EXPECT_EQ(file->config, (nlohmann::json{{"timeout_ms", 500},
                                          {"memory_max_bytes", 64 << 20},
                                          {"output_max_bytes", 1000},
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
            "f.toml:2:1: there is no key \"timeout\"; there are name, module, timeout_ms, memory_max, output_max, args "
            "and env");
  EXPECT_EQ(refusal("timeout_ms = \"3\""), "f.toml:1:14: timeout_ms must be a whole number that is not negative");
  EXPECT_EQ(refusal("timeout_ms = -3"), "f.toml:1:14: timeout_ms must be a whole number that is not negative");
  EXPECT_EQ(refusal("memory_max = \"much\""),
            "f.toml:1:14: memory_max must be a size as \"64MB\" or a number of bytes");
  EXPECT_EQ(refusal("args = [\"a\",\n 3]"), "f.toml:2:2: each of args must be a string");
  EXPECT_EQ(refusal("[env]\nA = 1"), "f.toml:2:5: env.A must be a string");
  EXPECT_EQ(refusal("name = 3"), "f.toml:1:8: name must be a string");
  EXPECT_EQ(refusal("name = \"a\nb").substr(0, 9), "f.toml:1:");
}

TEST_F(FunctionFileTest, AFileThatIsNotThereIsNamed) {
  const auto file = read_function_file(folder_ / "none.toml");
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().message.find("none.toml"), std::string::npos);
}

}  // namespace
}  // namespace spore::bin

#include "functions/function.h"

#include <gtest/gtest.h>

namespace spore::functions {
namespace {

TEST(FunctionId, IsTenantAndName) {
  const auto id = FunctionId::parse("acme/word-count_2.0");
  ASSERT_TRUE(id);
  EXPECT_EQ(id->tenant, "acme");
  EXPECT_EQ(id->name, "word-count_2.0");
  EXPECT_EQ(id->text(), "acme/word-count_2.0");
}

TEST(FunctionId, RefusesWhatCouldBeAPathOrAnEscape) {
  for (const char* text : {"", "a", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/.b", "-a/b", "a/b c", "a/b\n",
                           "a/\xc3\xa4", "a/b%", "a/b@1", "a\\/b"}) {
    const auto id = FunctionId::parse(text);
    ASSERT_FALSE(id) << text;
    EXPECT_EQ(id.error().code, ErrorCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(FunctionId::make("a", std::string("b\0c", 3)));
  EXPECT_TRUE(FunctionId::make("a", std::string(64, 'b')));
  EXPECT_FALSE(FunctionId::make("a", std::string(65, 'b')));
}

TEST(FunctionConfig, SurvivesJson) {
  const FunctionConfig config{.timeout_ms = 5,
                              .memory_max_bytes = 1 << 20,
                              .output_max_bytes = 0,
                              .env = {{"A", "b=c"}, {"Ü", "\"\\\n"}},
                              .args = {"", "-c", "print('ä')"}};
  const auto parsed = config_from_json(config_to_json(config));
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(*parsed, config);
}

TEST(FunctionConfig, MissingFieldsKeepTheirValues) {
  const FunctionConfig base{.timeout_ms = 77, .env = {{"A", "1"}}, .args = {"x"}};
  auto config = config_from_json(R"({"args": ["y", "z"]})", base);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->timeout_ms, 77u);
  EXPECT_EQ(config->env, base.env);
  EXPECT_EQ(config->args, (std::vector<std::string>{"y", "z"}));
}

TEST(FunctionConfig, NamesTheFieldThatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "the configuration"},
      {"[]", "the configuration"},
      {"{", "the configuration"},
      {R"({"timeout": 1})", "timeout"},
      {R"({"timeout_ms": 0})", "timeout_ms"},
      {R"({"timeout_ms": 3600001})", "timeout_ms"},
      {R"({"timeout_ms": -1})", "timeout_ms"},
      {R"({"timeout_ms": 1.5})", "timeout_ms"},
      {R"({"timeout_ms": "1"})", "timeout_ms"},
      {R"({"timeout_ms": 99999999999999999999999})", "timeout_ms"},
      {R"({"memory_max_bytes": 65535})", "memory_max_bytes"},
      {R"({"memory_max_bytes": 4294967297})", "memory_max_bytes"},
      {R"({"output_max_bytes": 1073741825})", "output_max_bytes"},
      {R"({"env": []})", "env"},
      {R"({"env": {"": "x"}})", "env"},
      {R"({"env": {"a=b": "x"}})", "env"},
      {R"({"env": {"a": 1}})", "env"},
      {R"({"env": {"a": "\u0000"}})", "env"},
      {R"({"args": "x"})", "args"},
      {R"({"args": [1]})", "args"},
      {R"({"args": ["\u0000"]})", "args"},
  };
  for (const auto& [json, field] : cases) {
    const auto config = config_from_json(json);
    ASSERT_FALSE(config) << json;
    EXPECT_EQ(config.error().code, ErrorCode::kInvalidArgument) << json;
    EXPECT_NE(config.error().message.find(field), std::string::npos) << json << ": " << config.error().message;
  }
}

TEST(FunctionConfig, BoundsStrings) {
  FunctionConfig config;
  config.args.assign(kConfigStringsMax, "");
  EXPECT_TRUE(check_config(config));
  config.args.emplace_back();
  EXPECT_FALSE(check_config(config));
  config.args = {std::string(kConfigTextBytesMax, 'x')};
  EXPECT_FALSE(check_config(config));
  config.args.clear();
  for (size_t i = 0; i <= kConfigStringsMax; ++i) config.env[std::to_string(i)];
  EXPECT_FALSE(check_config(config));
}

TEST(FunctionConfig, TakesOnlyUtf8) {
  for (const char* good :
       {"\x7f", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(check_config({.args = {good}})) << good;
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xc2",
        "\xc2"
        "x",
        "\xe0\x9f\xbf", "\xed\xa0\x80", "\xef\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"})
    EXPECT_FALSE(check_config({.args = {bad}})) << bad;
}

}  // namespace
}  // namespace spore::functions

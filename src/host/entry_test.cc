#include "host/entry.h"

#include <gtest/gtest.h>

namespace spore::host {
namespace {

using wasm::ExternalKind;
using enum wasm::ValueType;

wasm::ModuleInfo module_exporting(std::vector<std::pair<std::string, wasm::Signature>> exports) {
  wasm::ModuleInfo info;
  for (auto& [name, signature] : exports) {
    const auto index = static_cast<uint32_t>(info.functions.size());
    info.types.push_back(signature);
    info.functions.push_back(index);
    info.exports.push_back({name, ExternalKind::kFunction, index});
  }
  return info;
}

const wasm::Signature kPlain{};
const wasm::Signature kCode{{}, {kI32}};

TEST(Entry, CommandRunsStart) {
  const auto entry = find_entry(module_exporting({{"helper", kCode}, {"_start", kPlain}}));
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->kind, Entry::Kind::kCommand);
  EXPECT_EQ(entry->from_start, std::vector<uint32_t>{1});
  EXPECT_FALSE(entry->has_exit_code);
}

TEST(Entry, ReactorRunsInitializeFirst) {
  const auto entry = find_entry(module_exporting({{"spore_call", kCode}, {"_initialize", kPlain}}));
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->kind, Entry::Kind::kReactor);
  EXPECT_EQ(entry->from_start, (std::vector<uint32_t>{1, 0}));
  EXPECT_TRUE(entry->has_exit_code);
}

TEST(Entry, ReactorWithoutInitializeAndWithoutCode) {
  const auto entry = find_entry(module_exporting({{"spore_call", kPlain}}));
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->from_start, std::vector<uint32_t>{0});
  EXPECT_FALSE(entry->has_exit_code);
}

TEST(Entry, StartSectionComesFirst) {
  auto info = module_exporting({{"spore_call", kPlain}, {"_initialize", kPlain}, {"top", kPlain}});
  info.start = 2;
  const auto entry = find_entry(info);
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->from_start, (std::vector<uint32_t>{2, 1, 0}));
}

TEST(Entry, InitialisersRunInOrderAndTheHooksStandAroundThem) {
  auto info = module_exporting({{"spore_call", kCode},
                                {"spore_after_restore", kPlain},
                                {"spore_init", kPlain},
                                {"spore_before_snapshot", kPlain},
                                {"_initialize", kPlain}});
  const auto entry = find_entry(info);
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->initialisers, (std::vector<uint32_t>{4, 2}));
  EXPECT_EQ(entry->before_snapshot, 3u);
  EXPECT_EQ(entry->from_image, (std::vector<uint32_t>{1, 0}));
  EXPECT_EQ(entry->from_start, (std::vector<uint32_t>{4, 2, 0}));
}

TEST(Entry, SporeCallWinsOverStart) {
  const auto entry = find_entry(module_exporting({{"_start", kPlain}, {"spore_call", kPlain}}));
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->from_start, std::vector<uint32_t>{1});
}

TEST(Entry, MissingEntryNamesBoth) {
  const auto entry = find_entry(module_exporting({{"main", kPlain}}));
  ASSERT_FALSE(entry);
  EXPECT_EQ(entry.error().code, ErrorCode::kInvalidModule);
  EXPECT_NE(entry.error().message.find("_start"), std::string::npos);
  EXPECT_NE(entry.error().message.find("spore_call"), std::string::npos);
}

TEST(Entry, ExportThatIsNoFunctionDoesNotCount) {
  wasm::ModuleInfo info;
  info.exports.push_back({"_start", ExternalKind::kMemory, 0});
  EXPECT_FALSE(find_entry(info));
}

TEST(Entry, WrongSignatureIsNamed) {
  const wasm::Signature takes{{kI32}, {}};
  const wasm::Signature wide{{}, {kI64}};
  const auto start = find_entry(module_exporting({{"_start", takes}}));
  ASSERT_FALSE(start);
  EXPECT_NE(start.error().message.find("_start must be a function () -> (), it is (i32) -> ()"), std::string::npos)
      << start.error().message;
  EXPECT_FALSE(find_entry(module_exporting({{"_start", kCode}})));
  EXPECT_FALSE(find_entry(module_exporting({{"spore_call", wide}})));
  EXPECT_FALSE(find_entry(module_exporting({{"spore_call", takes}})));
  EXPECT_FALSE(find_entry(module_exporting({{"spore_call", kPlain}, {"_initialize", kCode}})));
}

}  // namespace
}  // namespace spore::host

#include "functions/shared_files.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace spore::functions {
namespace {

class SharedFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "spore-files-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

Bytes bytes(std::string_view text) { return Bytes(text.begin(), text.end()); }

TEST_F(SharedFilesTest, WhatIsPutIsThereAfterARestartAndWhatWasUnderWayIsNot) {
  {
    auto files = SharedFiles::open(folder_);
    ASSERT_TRUE(files);
    const auto first = files->put("t", "a/b.txt", bytes("one"));
    ASSERT_TRUE(first);
    EXPECT_TRUE(*first);
    const auto second = files->put("t", "a/b.txt", bytes("two"));
    ASSERT_TRUE(second);
    EXPECT_FALSE(*second);
    std::ofstream(folder_ + "/incoming/7") << "half";
  }
  auto files = SharedFiles::open(folder_);
  ASSERT_TRUE(files);
  EXPECT_EQ(*files->get("t", "a/b.txt", 100), bytes("two"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/incoming"));
}

TEST_F(SharedFilesTest, ATenantSeesItsOwn) {
  auto files = SharedFiles::open(folder_);
  ASSERT_TRUE(files->put("one", "f", bytes("x")));
  EXPECT_EQ(files->get("two", "f", 100).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(files->list("two", "", std::nullopt, 10)->empty());
  EXPECT_EQ(files->list("..", "", std::nullopt, 10).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(SharedFilesTest, FilesAndDirectoriesOfOneNameExcludeEachOther) {
  auto files = SharedFiles::open(folder_);
  ASSERT_TRUE(files->put("t", "a/b", bytes("x")));
  EXPECT_EQ(files->put("t", "a", bytes("x")).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(files->put("t", "a/b/c", bytes("x")).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(files->directory_of("t", "a/b").error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(files->get("t", "a", 100).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(files->remove("t", "a").error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/incoming"));
}

TEST_F(SharedFilesTest, ListsInOrderFromWhereItWasLeft) {
  auto files = SharedFiles::open(folder_);
  for (const char* path : {"d/3", "d/1", "c", "d/2"}) ASSERT_TRUE(files->put("t", path, bytes("12")));
  const auto first = files->list("t", "", std::nullopt, 2);
  ASSERT_EQ(first->size(), 2u);
  EXPECT_EQ((*first)[0].path, "c");
  EXPECT_EQ((*first)[1].path, "d/1");
  EXPECT_EQ((*first)[1].size_bytes, 2u);
  const auto rest = files->list("t", "d", "d/1", 10);
  ASSERT_EQ(rest->size(), 2u);
  EXPECT_EQ((*rest)[1].path, "d/3");
}

TEST(SharedPath, WhatCouldLeadElsewhereIsRefused) {
  for (const char* path : {"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\nb", "a\x7f"}) {
    EXPECT_FALSE(check_shared_path(path)) << path;
  }
  EXPECT_FALSE(check_shared_path(std::string("a\0b", 3)));
  EXPECT_FALSE(check_shared_path(std::string(256, 'x')));
  std::string deep = "a";
  for (size_t i = 1; i < kSharedPathPartsMax; ++i) deep += "/a";
  EXPECT_TRUE(check_shared_path(deep));
  EXPECT_FALSE(check_shared_path(deep + "/a"));
  for (const char* path : {"a", "a/b.c", "...", "..a", "\xff\xfe", "a b"}) EXPECT_TRUE(check_shared_path(path)) << path;
}

}  // namespace
}  // namespace spore::functions

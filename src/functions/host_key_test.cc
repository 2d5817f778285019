#include "functions/host_key.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <set>
#include <thread>

#include "base/fd.h"

namespace spore::functions {
namespace {

namespace fs = std::filesystem;

class HostKeyTest : public ::testing::Test {
 protected:
  HostKeyTest() {
    std::string name = (fs::temp_directory_path() / "spore-key-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~HostKeyTest() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(HostKeyTest, IsMadeOnceAndKept) {
  const auto first = load_or_make_host_key(folder_ / "key");
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(first->size(), kHostKeyBytes);
  EXPECT_EQ(*load_or_make_host_key(folder_ / "key"), *first);
  EXPECT_NE(*load_or_make_host_key(folder_ / "other"), *first);
  EXPECT_EQ(fs::status(folder_ / "key").permissions(), fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 2);
}

TEST_F(HostKeyTest, OneThatOthersMayReadIsRefused) {
  ASSERT_TRUE(load_or_make_host_key(folder_ / "key"));
  ::chmod((folder_ / "key").c_str(), 0640);
  EXPECT_EQ(load_or_make_host_key(folder_ / "key").error().code, ErrorCode::kPermissionDenied);
}

TEST_F(HostKeyTest, WhatIsNoKeyIsRefusedAndNotReplaced) {
  for (const size_t size : {0u, 31u, 33u}) {
    ASSERT_TRUE(write_file_atomically(folder_ / "key", Bytes(size, 'x')));
    EXPECT_EQ(load_or_make_host_key(folder_ / "key").error().code, ErrorCode::kFailedPrecondition) << size;
    EXPECT_EQ(fs::file_size(folder_ / "key"), size);
  }
  fs::create_directory(folder_ / "folder");
  EXPECT_FALSE(load_or_make_host_key(folder_ / "folder"));
  EXPECT_FALSE(load_or_make_host_key(folder_ / "nowhere" / "key"));
}

TEST_F(HostKeyTest, ThoseWhoMakeItAtOnceAgree) {
  std::vector<std::thread> threads;
  std::vector<Bytes> keys(8);
  for (auto& key : keys)
    threads.emplace_back([&] {
      if (auto made = load_or_make_host_key(folder_ / "key")) key = *made;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(std::set<Bytes>(keys.begin(), keys.end()).size(), 1u);
  EXPECT_EQ(keys[0].size(), kHostKeyBytes);
}

}  // namespace
}  // namespace spore::functions

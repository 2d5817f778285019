#include "bin/state_store.h"

#include <gtest/gtest.h>

namespace spore::bin {
namespace {

using Kind = StateStoreName::Kind;

TEST(StateStore, IsNamedByKindAndPlace) {
  const auto plain = parse_state_store("rocksdb");
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->kind, Kind::kRocksDb);
  EXPECT_EQ(plain->location, "");
  const auto there = parse_state_store("rocksdb:/a b:c");
  ASSERT_TRUE(there.has_value());
  EXPECT_EQ(there->kind, Kind::kRocksDb);
  EXPECT_EQ(there->location, "/a b:c");
  for (const char* url : {"redis://127.0.0.1:6379/2", "rediss://u:p@h", "redis-cluster://a:1,b:2"}) {
    const auto redis = parse_state_store(url);
    ASSERT_TRUE(redis.has_value()) << url;
    EXPECT_EQ(redis->kind, Kind::kRedis);
    EXPECT_EQ(redis->location, url);
  }
}

TEST(StateStore, OtherNamesAreRefused) {
  for (const char* name : {"", "rocksdb:", "rocksdbs", "redis:", "redis://", "/var/lib", "memory", "http://h"}) {
    const auto parsed = parse_state_store(name);
    ASSERT_FALSE(parsed.has_value()) << name;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(parsed.error().message.find(name), std::string::npos);
    EXPECT_NE(parsed.error().message.find("rocksdb:DIR"), std::string::npos);
  }
}

TEST(StateStore, PasswordsAreNeverTold) {
  EXPECT_EQ(without_password("redis://user:geheim@host:1/0"), "redis://***@host:1/0");
  EXPECT_EQ(without_password("redis://:ge@heim@host"), "redis://***@host");
  EXPECT_EQ(without_password("redis://host/0"), "redis://host/0");
  EXPECT_EQ(without_password("rocksdb:/a@b"), "rocksdb:/a@b");
  for (const char* url : {"http://u:geheim@h", "redis://u:geheim@h"}) {
    const auto opened = open_state_store(url, {}, IfMissing::kMake);
    ASSERT_FALSE(opened.has_value());
    EXPECT_EQ(opened.error().message.find("geheim"), std::string::npos) << opened.error().message;
  }
}

TEST(StateStore, WithoutADefaultTheDirectoryHasToBeNamed) {
  const auto opened = open_state_store("rocksdb", {}, IfMissing::kMake);
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::kInvalidArgument);
}

TEST(StateStore, WhatHasToBeThereIsNotMade) {
  const auto opened = open_state_store("rocksdb:/nowhere/to/be/found", {}, IfMissing::kFail);
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::kNotFound);
  EXPECT_NE(opened.error().message.find("/nowhere/to/be/found"), std::string::npos);
}

}  // namespace
}  // namespace spore::bin

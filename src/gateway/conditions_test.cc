#include "gateway/conditions.h"

#include <gtest/gtest.h>

namespace spore::gateway {
namespace {

using Verdict = Conditions::Verdict;
using Kind = RangeAnswer::Kind;

Verdict match(const char* field, std::optional<std::string> tag) { return Conditions{.if_match = field}.judge(tag); }
Verdict none_match(const char* field, std::optional<std::string> tag) {
  return Conditions{.if_none_match = field}.judge(tag);
}

TEST(Conditions, IfMatchNeedsTheCurrentTag) {
  EXPECT_EQ(match("\"a-1\"", "\"a-1\""), Verdict::kHold);
  EXPECT_EQ(match(" \"x\" ,\t\"a-1\"", "\"a-1\""), Verdict::kHold);
  EXPECT_EQ(match("*", "\"a-1\""), Verdict::kHold);
  for (const char* field : {"\"a-2\"", "W/\"a-1\"", "a-1", "\"a-1", "", "\"a\", -1\""})
    EXPECT_EQ(match(field, "\"a-1\""), Verdict::kIfMatchFails) << field;
  EXPECT_EQ(match("*", std::nullopt), Verdict::kIfMatchFails);
  EXPECT_EQ(match("\"a-1\"", std::nullopt), Verdict::kIfMatchFails);
}

TEST(Conditions, IfNoneMatchForbidsTheCurrentTag) {
  for (const char* field : {"*", "\"a-1\"", "W/\"a-1\"", "\"x\", W/\"a-1\""})
    EXPECT_EQ(none_match(field, "\"a-1\""), Verdict::kIfNoneMatchFails) << field;
  EXPECT_EQ(none_match("\"a-2\"", "\"a-1\""), Verdict::kHold);
  EXPECT_EQ(none_match("*", std::nullopt), Verdict::kHold);
  EXPECT_EQ(Conditions{}.judge("\"a-1\""), Verdict::kHold);
  EXPECT_FALSE(Conditions{}.any());
}

RangeAnswer part(uint64_t begin, uint64_t end) { return {.kind = Kind::kPart, .part = {begin, end}}; }

TEST(Range, OfTenBytes) {
  EXPECT_EQ(range_of("bytes=0-0", 10), part(0, 1));
  EXPECT_EQ(range_of("bytes=2-5", 10), part(2, 6));
  EXPECT_EQ(range_of("Bytes= 2-5 ", 10), part(2, 6));
  EXPECT_EQ(range_of("bytes=9-", 10), part(9, 10));
  EXPECT_EQ(range_of("bytes=0-", 10), part(0, 10));
  EXPECT_EQ(range_of("bytes=0-99", 10), part(0, 10));
  EXPECT_EQ(range_of("bytes=3-99999999999999999999999", 10), part(3, 10));
  EXPECT_EQ(range_of("bytes=-3", 10), part(7, 10));
  EXPECT_EQ(range_of("bytes=-10", 10), part(0, 10));
  EXPECT_EQ(range_of("bytes=-11", 10), part(0, 10));
}

TEST(Range, BehindTheEndIsUnsatisfiable) {
  for (const char* range : {"bytes=10-", "bytes=10-12", "bytes=99999999999999999999-", "bytes=-0"})
    EXPECT_EQ(range_of(range, 10).kind, Kind::kUnsatisfiable) << range;
  EXPECT_EQ(range_of("bytes=0-", 0).kind, Kind::kUnsatisfiable);
  EXPECT_EQ(range_of("bytes=-1", 0).kind, Kind::kWhole);
}

TEST(Range, WhatIsNoSingleRangeOfBytesIsIgnored) {
  for (const char* range : {"", "bytes", "bytes=", "bytes=-", "bytes=5", "bytes=5-2", "bytes=a-b", "bytes=1-b",
                            "bytes=0-1,4-5", "bytes=--1", "bytes=+1-2", "lines=0-1", "bytes =0-1"})
    EXPECT_EQ(range_of(range, 10).kind, Kind::kWhole) << range;
}

TEST(Range, CountsBesideTheCurrentStrongTag) {
  EXPECT_TRUE(range_counts("\"a-1\"", "\"a-1\""));
  for (const char* field : {"W/\"a-1\"", "\"a-2\"", "Fri, 27 Nov 2026 00:00:00 GMT", ""})
    EXPECT_FALSE(range_counts(field, "\"a-1\"")) << field;
}

}  // namespace
}  // namespace spore::gateway

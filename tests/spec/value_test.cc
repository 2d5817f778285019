#include "value.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace spore::spec {
namespace {

using nlohmann::json;
using wasm::ValueType;

Expected expected_of(const char* text) {
  auto expected = parse_expected(json::parse(text));
  EXPECT_TRUE(expected) << (expected ? "" : expected.error().message);
  return expected ? *expected : Expected{};
}

TEST(Value, ComparesOnlyTheBitsOfItsType) {
  const Expected one = expected_of(R"({"type": "i32", "value": "1"})");
  EXPECT_TRUE(matches(one, {ValueType::kI32, {0xffff'ffff'0000'0001, 7}}));
  EXPECT_FALSE(matches(one, {ValueType::kI32, {2, 0}}));
  EXPECT_FALSE(matches(one, {ValueType::kI64, {1, 0}}));
}

TEST(Value, CanonicalNanHasOnlyTheQuietBitAndAnySign) {
  const Expected nan = expected_of(R"({"type": "f32", "value": "nan:canonical"})");
  EXPECT_TRUE(matches(nan, {ValueType::kF32, {0x7fc0'0000, 0}}));
  EXPECT_TRUE(matches(nan, {ValueType::kF32, {0xffc0'0000, 0}}));
  EXPECT_FALSE(matches(nan, {ValueType::kF32, {0x7fc0'0001, 0}}));
  EXPECT_FALSE(matches(nan, {ValueType::kF32, {0x7f80'0000, 0}}));
}

TEST(Value, ArithmeticNanIsAnyQuietNan) {
  const Expected nan = expected_of(R"({"type": "f64", "value": "nan:arithmetic"})");
  EXPECT_TRUE(matches(nan, {ValueType::kF64, {0xfff8'0000'0000'0001, 0}}));
  EXPECT_FALSE(matches(nan, {ValueType::kF64, {0x7ff4'0000'0000'0000, 0}}));
}

TEST(Value, VectorsAreComparedLaneByLane) {
  const Expected lanes = expected_of(
      R"({"type": "v128", "lane_type": "f32", "value": ["0", "nan:arithmetic", "nan:canonical", "4294967295"]})");
  EXPECT_TRUE(matches(lanes, {ValueType::kV128, {0x7fc0'1234'0000'0000, 0xffff'ffff'7fc0'0000}}));
  EXPECT_FALSE(matches(lanes, {ValueType::kV128, {0x7fc0'1234'0000'0000, 0xffff'ffff'7fc0'0001}}));
}

TEST(Value, ArgumentsArePackedLowLaneFirst) {
  auto value = parse_value(
      json::parse(R"({"type": "v128", "lane_type": "i16", "value": ["1", "2", "3", "4", "5", "6", "7", "65535"]})"));
  ASSERT_TRUE(value);
  EXPECT_EQ(value->cell.low, 0x0004'0003'0002'0001u);
  EXPECT_EQ(value->cell.high, 0xffff'0007'0006'0005u);
}

TEST(Value, NullIsNoExternrefNumber) {
  const Expected null = expected_of(R"({"type": "externref", "value": "null"})");
  const Expected zero = expected_of(R"({"type": "externref", "value": "0"})");
  EXPECT_TRUE(matches(null, {ValueType::kExternRef, {0, 0}}));
  EXPECT_FALSE(matches(zero, {ValueType::kExternRef, {0, 0}}));
  EXPECT_TRUE(matches(zero, {ValueType::kExternRef, {1, 0}}));
}

TEST(Value, RefusesWhatIsNoValue) {
  EXPECT_FALSE(parse_value(json::parse(R"({"type": "i31", "value": "0"})")));
  EXPECT_FALSE(parse_value(json::parse(R"({"type": "i32", "value": "12x"})")));
  EXPECT_FALSE(parse_value(json::parse(R"({"type": "i32"})")));
  EXPECT_FALSE(parse_value(json::parse(R"({"type": "v128", "lane_type": "i64", "value": ["1"]})")));
}

}  // namespace
}  // namespace spore::spec

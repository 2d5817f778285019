#include "value.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

namespace spore::spec {

using nlohmann::json;
using wasm::ValueType;

namespace {

Result<ValueType> parse_type(std::string_view text) {
  for (ValueType type : {ValueType::kI32, ValueType::kI64, ValueType::kF32, ValueType::kF64, ValueType::kV128,
                         ValueType::kFuncRef, ValueType::kExternRef})
    if (text == wasm::to_string(type)) return type;
  return fail(ErrorCode::kInvalidArgument, fmt::format("unknown value type \"{}\"", text));
}

Result<Lane> parse_lane(const json& text) {
  if (!text.is_string()) return fail(ErrorCode::kInvalidArgument, "a value that is not a string");
  const auto& digits = text.get_ref<const std::string&>();
  if (digits == "nan:canonical") return Lane{Lane::Kind::kCanonicalNan, 0};
  if (digits == "nan:arithmetic") return Lane{Lane::Kind::kArithmeticNan, 0};
  Lane lane;
  const char* end = digits.data() + digits.size();
  std::from_chars_result result{};
  if (digits.starts_with('-')) {
    int64_t number = 0;
    result = std::from_chars(digits.data(), end, number);
    lane.bits = static_cast<uint64_t>(number);
  } else {
    result = std::from_chars(digits.data(), end, lane.bits);
  }
  if (result.ec != std::errc() || result.ptr != end)
    return fail(ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not a number", digits));
  return lane;
}

unsigned bits_of(ValueType type) { return type == ValueType::kI32 || type == ValueType::kF32 ? 32 : 64; }

uint64_t mask_of(unsigned lane_bits) { return lane_bits == 64 ? ~uint64_t{0} : (uint64_t{1} << lane_bits) - 1; }

Result<unsigned> lane_bits_of(std::string_view lane_type) {
  if (lane_type == "i8") return 8;
  if (lane_type == "i16") return 16;
  if (lane_type == "i32" || lane_type == "f32") return 32;
  if (lane_type == "i64" || lane_type == "f64") return 64;
  return fail(ErrorCode::kInvalidArgument, fmt::format("unknown lane type \"{}\"", lane_type));
}

uint64_t lane_at(const wasm::Cell& cell, unsigned lane_bits, unsigned index) {
  const unsigned bit = lane_bits * index;
  const uint64_t word = bit < 64 ? cell.low : cell.high;
  return (word >> (bit % 64)) & mask_of(lane_bits);
}

bool lane_matches(const Lane& lane, unsigned lane_bits, uint64_t bits) {
  const uint64_t quiet = lane_bits == 32 ? 0x7fc0'0000 : 0x7ff8'0000'0000'0000;
  const uint64_t sign = uint64_t{1} << (lane_bits - 1);
  switch (lane.kind) {
    case Lane::Kind::kExact: return bits == (lane.bits & mask_of(lane_bits));
    case Lane::Kind::kCanonicalNan: return (bits & ~sign) == quiet;
    case Lane::Kind::kArithmeticNan: return (bits & quiet) == quiet;
  }
  return false;
}

std::string hexadecimal(unsigned lane_bits, uint64_t bits) { return fmt::format("0x{:0{}x}", bits, lane_bits / 4); }

}  // namespace

Result<Expected> parse_expected(const json& value) {
  if (!value.is_object() || !value.contains("type") || !value["type"].is_string())
    return fail(ErrorCode::kInvalidArgument, "a value without a type");
  Expected expected;
  ASSIGN_OR_RETURN(expected.type, parse_type(value["type"].get_ref<const std::string&>()));
  if (expected.type == ValueType::kV128) {
    if (!value.contains("lane_type") || !value.contains("value") || !value["value"].is_array())
      return fail(ErrorCode::kInvalidArgument, "a vector without lanes");
    ASSIGN_OR_RETURN(expected.lane_bits, lane_bits_of(value["lane_type"].get<std::string>()));
    for (const json& text : value["value"]) {
      ASSIGN_OR_RETURN(Lane lane, parse_lane(text));
      expected.lanes.push_back(lane);
    }
    if (expected.lanes.size() * expected.lane_bits != 128)
      return fail(ErrorCode::kInvalidArgument, fmt::format("a vector of {} lanes", expected.lanes.size()));
    return expected;
  }
  expected.lane_bits = bits_of(expected.type);
  if (wasm::is_reference(expected.type)) {
    if (!value.contains("value")) {
      expected.any_reference = true;
      return expected;
    }
    Lane lane;
    if (value["value"] != "null") {
      ASSIGN_OR_RETURN(lane, parse_lane(value["value"]));
      lane.bits += 1;
    }
    expected.lanes.push_back(lane);
    return expected;
  }
  if (!value.contains("value")) return fail(ErrorCode::kInvalidArgument, "a number without its value");
  ASSIGN_OR_RETURN(Lane lane, parse_lane(value["value"]));
  expected.lanes.push_back(lane);
  return expected;
}

Result<Value> parse_value(const json& json) {
  ASSIGN_OR_RETURN(const Expected expected, parse_expected(json));
  if (expected.any_reference) return fail(ErrorCode::kInvalidArgument, "an argument that is any reference");
  Value value{.type = expected.type, .cell = {}};
  for (size_t i = 0; i < expected.lanes.size(); ++i) {
    const Lane& lane = expected.lanes[i];
    const bool narrow = expected.lane_bits == 32;
    uint64_t bits = lane.bits;
    if (lane.kind != Lane::Kind::kExact) bits = narrow ? 0x7fc0'0000 : 0x7ff8'0000'0000'0000;
    const unsigned bit = expected.lane_bits * static_cast<unsigned>(i);
    (bit < 64 ? value.cell.low : value.cell.high) |= (bits & mask_of(expected.lane_bits)) << (bit % 64);
  }
  return value;
}

bool matches(const Expected& expected, const Value& value) {
  if (expected.type != value.type) return false;
  if (expected.any_reference) return value.cell.low != 0;
  for (size_t i = 0; i < expected.lanes.size(); ++i)
    if (!lane_matches(expected.lanes[i], expected.lane_bits,
                      lane_at(value.cell, expected.lane_bits, static_cast<unsigned>(i))))
      return false;
  return true;
}

std::string to_string(const Value& value) {
  std::string text(wasm::to_string(value.type));
  if (value.type == ValueType::kV128) return text + fmt::format(":0x{:016x}{:016x}", value.cell.high, value.cell.low);
  const unsigned bits = bits_of(value.type);
  return text + ":" + hexadecimal(bits, value.cell.low & mask_of(bits));
}

std::string to_string(const Expected& expected) {
  std::string text(wasm::to_string(expected.type));
  if (expected.any_reference) return text + ":not null";
  text += expected.type == ValueType::kV128 ? fmt::format(":{}-bit lanes", expected.lane_bits) : ":";
  for (const Lane& lane : expected.lanes) {
    if (expected.type == ValueType::kV128) text += ' ';
    if (lane.kind == Lane::Kind::kCanonicalNan) text += "nan:canonical";
    if (lane.kind == Lane::Kind::kArithmeticNan) text += "nan:arithmetic";
    if (lane.kind == Lane::Kind::kExact)
      text += hexadecimal(expected.lane_bits, lane.bits & mask_of(expected.lane_bits));
  }
  return text;
}

}  // namespace spore::spec

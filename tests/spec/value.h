// Values in the scripts of the WebAssembly spec suite: arguments, and what a result must look like (an exact value, one
// of the kinds of NaN that the specification allows, any non-null reference).
//
// Everything is bits. A vector is compared lane by lane, in the shape that the script gives it. An externref number N
// of a script is N + 1 in the runtime, where 0 is null.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "wasm/abi.h"

namespace spore::spec {

struct Lane {
  enum class Kind : uint8_t { kExact, kCanonicalNan, kArithmeticNan };
  Kind kind = Kind::kExact;
  uint64_t bits = 0;
};

struct Value {
  wasm::ValueType type = wasm::ValueType::kI32;
  wasm::Cell cell;
};

struct Expected {
  wasm::ValueType type = wasm::ValueType::kI32;
  unsigned lane_bits = 32;
  std::vector<Lane> lanes;     // lowest first; one for scalars and references
  bool any_reference = false;  // not null
};

// From the JSON of wast2json: {"type": "i32", "value": "42"}, {"type": "v128", "lane_type": "i8", "value": [...]}.
Result<Value> parse_value(const nlohmann::json& json);
Result<Expected> parse_expected(const nlohmann::json& json);

bool matches(const Expected& expected, const Value& value);

std::string to_string(const Value& value);
std::string to_string(const Expected& expected);

}  // namespace spore::spec

// Conditional and partial requests (RFC 9110, sections 13 and 14): what a request's If-Match, If-None-Match, If-Range
// and Range say about something with an entity tag and a size. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spore::gateway {

// The fields of one request; nothing: it has none of that name.
struct Conditions {
  std::optional<std::string> if_match;
  std::optional<std::string> if_none_match;

  bool any() const { return if_match || if_none_match; }
  // Whether the method may go on, and if not, which field says so. `tag`: the current entity tag with its quotes;
  // nothing: there is no such thing now.
  enum class Verdict : uint8_t { kHold, kIfMatchFails, kIfNoneMatchFails };
  Verdict judge(const std::optional<std::string>& tag) const;
};

// Of bytes: [begin, end), never empty.
struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool operator==(const ByteRange&) const = default;
};

struct RangeAnswer {
  enum class Kind : uint8_t { kWhole, kPart, kUnsatisfiable };
  Kind kind = Kind::kWhole;
  ByteRange part;  // of kPart
  bool operator==(const RangeAnswer&) const = default;
};

// What a Range field asks of `size_bytes` bytes. kWhole also for what a server ignores: other units, several ranges,
// what is no range. kUnsatisfiable: it begins behind the end.
RangeAnswer range_of(std::string_view range, uint64_t size_bytes);
// Whether a Range field counts beside this If-Range field: only if that is the current tag, and a strong one.
bool range_counts(std::string_view if_range, std::string_view tag);

}  // namespace spore::gateway

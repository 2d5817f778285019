#include "gateway/conditions.h"

#include <algorithm>

namespace spore::gateway {

namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

enum class Comparison : uint8_t { kStrong, kWeak };

// Whether a list of entity tags, or *, has `tag`, which is a strong one. Text behind what is no tag is not read.
bool has_tag(std::string_view list, std::string_view tag, Comparison comparison) {
  if (trimmed(list) == "*") return true;
  while (true) {
    const size_t begin = list.find_first_not_of(" \t,");
    if (begin == std::string_view::npos) return false;
    list.remove_prefix(begin);
    const bool weak = list.starts_with("W/");
    if (weak) list.remove_prefix(2);
    if (!list.starts_with('"')) return false;
    const size_t end = list.find('"', 1);
    if (end == std::string_view::npos) return false;
    if (list.substr(0, end + 1) == tag && (!weak || comparison == Comparison::kWeak)) return true;
    list.remove_prefix(end + 1);
  }
}

// Decimal digits; what is too large for the type is as large as it can be. Nothing for anything else.
std::optional<uint64_t> position(std::string_view text) {
  if (text.empty()) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    const auto digit = static_cast<uint64_t>(c - '0');
    value = value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : value * 10 + digit;
  }
  return value;
}

}  // namespace

Conditions::Verdict Conditions::judge(const std::optional<std::string>& tag) const {
  if (if_match && !(tag && has_tag(*if_match, *tag, Comparison::kStrong))) return Verdict::kIfMatchFails;
  if (if_none_match && tag && has_tag(*if_none_match, *tag, Comparison::kWeak)) return Verdict::kIfNoneMatchFails;
  return Verdict::kHold;
}

RangeAnswer range_of(std::string_view range, uint64_t size_bytes) {
  using Kind = RangeAnswer::Kind;
  constexpr std::string_view kUnit = "bytes=";
  const bool bytes =
      range.size() >= kUnit.size() &&
      std::equal(kUnit.begin(), kUnit.end(), range.begin(), [](char a, char b) { return a == (b | 0x20) || a == b; });
  if (!bytes) return {};
  range = trimmed(range.substr(kUnit.size()));
  const size_t dash = range.find('-');
  if (dash == std::string_view::npos) return {};
  const auto last = position(range.substr(dash + 1));
  if (dash == 0) {
    if (!last) return {};
    if (*last == 0) return {.kind = Kind::kUnsatisfiable};
    if (size_bytes == 0) return {};  // all of it, for which there is no Content-Range
    return {.kind = Kind::kPart, .part = {size_bytes - std::min(*last, size_bytes), size_bytes}};
  }
  const auto first = position(range.substr(0, dash));
  if (!first || (!last && dash + 1 != range.size()) || (last && *last < *first)) return {};
  if (*first >= size_bytes) return {.kind = Kind::kUnsatisfiable};
  return {.kind = Kind::kPart, .part = {*first, std::min(last.value_or(UINT64_MAX), size_bytes - 1) + 1}};
}

bool range_counts(std::string_view if_range, std::string_view tag) { return trimmed(if_range) == tag; }

}  // namespace spore::gateway

#include "gateway/api_support.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace spore::gateway {
using nlohmann::json;

Response json_response(unsigned status, const json& body) {
  return text_response(status, "application/json", body.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  if (text.empty() || text.size() > 19) return std::nullopt;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  return value;
}

size_t limit_of(const Request& request, size_t standard, size_t most) {
  const auto text = request.parameter("limit");
  const auto limit = text ? parse_number(*text) : std::nullopt;
  return limit ? std::clamp<uint64_t>(*limit, 1, most) : standard;
}

}  // namespace spore::gateway

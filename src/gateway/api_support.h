// What the endpoints of Api share: JSON answers, and numbers in requests.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>

#include "gateway/http.h"

namespace spore::gateway {

Response json_response(unsigned status, const nlohmann::json& body);

// Decimal digits, at most 19; nothing for anything else.
std::optional<uint64_t> parse_number(std::string_view text);
// The query's `limit`, from 1 to `most`; `standard` where it is missing or no number.
size_t limit_of(const Request& request, size_t standard, size_t most);

}  // namespace spore::gateway

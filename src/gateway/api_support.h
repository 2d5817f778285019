// What the endpoints of Api share: JSON answers, and numbers in requests.
#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/http.h"
#include "worker/call.h"

namespace spore::gateway {

Response json_response(unsigned status, const nlohmann::json& body);

// As RFC 3339 writes it, in UTC with milliseconds.
std::string time_text(std::chrono::system_clock::time_point time);

// Spore-Call-Id, how the call began and how long it took.
void add_call_fields(Response& response, const worker::CallResult& result);

// Decimal digits, at most 19; nothing for anything else.
std::optional<uint64_t> parse_number(std::string_view text);
// The query's `limit`, from 1 to `most`; `standard` where it is missing or no number.
size_t limit_of(const Request& request, size_t standard, size_t most);

}  // namespace spore::gateway

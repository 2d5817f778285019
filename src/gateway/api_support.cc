#include "gateway/api_support.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

namespace spore::gateway {
using nlohmann::json;

Response json_response(unsigned status, const json& body) {
  return text_response(status, "application/json", body.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

std::string time_text(std::chrono::system_clock::time_point time) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  const size_t length = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
  char fraction[8];
  std::snprintf(fraction, sizeof(fraction), ".%03dZ", static_cast<int>(ms % 1000));
  return std::string(text, length) + fraction;
}

void add_call_fields(Response& response, const worker::CallResult& result) {
  response.add_field("Spore-Call-Id", result.id.text());
  if (result.start != worker::StartKind::kNone) {
    response.add_field("Spore-Start", to_string(result.start));
    response.add_field("Spore-Start-Us", std::to_string(result.starting.count()));
    response.add_field("Spore-Cpu-Us", std::to_string(result.usage.cpu.count()));
    response.add_field("Spore-Memory-Bytes", std::to_string(result.usage.memory_bytes));
    if (result.usage.sent_bytes) response.add_field("Spore-Sent-Bytes", std::to_string(result.usage.sent_bytes));
    if (result.usage.received_bytes)
      response.add_field("Spore-Received-Bytes", std::to_string(result.usage.received_bytes));
  }
  response.add_field("Spore-Queued-Us", std::to_string(result.queued.count()));
  response.add_field("Spore-Duration-Us", std::to_string(result.duration.count()));
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

// Errors as RFC 9457 problem documents. Each has a `type` of its own (urn:spore:problem:NAME), so that programs need
// not read the prose; `detail` names the cause.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "gateway/http.h"
#include "worker/call.h"

namespace spore::gateway {

// `name` and `title` as the status has them.
Response problem(unsigned status, std::string_view detail, std::string_view instance = {});
Response problem(unsigned status, std::string_view name, std::string_view title, std::string_view detail,
                 std::string_view instance = {});
// What the registry, the store or the configuration said.
Response problem_of(const Error& error, std::string_view instance = {});
unsigned status_of(ErrorCode code);
// The same document, without the status line; for event streams and operations.
nlohmann::json problem_json(const Error& error, std::string_view instance = {});

// What was called.
struct Called {
  functions::FunctionId function;
  uint64_t version = 0;
  uint64_t output_bytes_max = 0;
};
// A call that did not end with exit code 0: the status table of the gateway. With function, version and, where the
// guest was computing, its stack.
Response problem_of(const worker::CallResult& result, const Called& called);
nlohmann::json problem_json(const worker::CallResult& result, const Called& called);
unsigned status_of(const worker::CallResult& result);

}  // namespace spore::gateway

#include "gateway/problem.h"

#include <nlohmann/json.hpp>

#include "base/check.h"

namespace spore::gateway {
using nlohmann::json;
using worker::CallStatus;

namespace {

struct Kind {
  unsigned status;
  std::string_view name;
  std::string_view title;
};

// For statuses that mean one thing here.
constexpr Kind kKinds[] = {
    {400, "bad_request", "The request is malformed"},
    {401, "unauthenticated", "A valid key is needed"},
    {403, "forbidden", "This is not allowed here"},
    {404, "not_found", "There is no such thing"},
    {405, "method_not_allowed", "This method has no meaning here"},
    {408, "request_timeout", "The request took too long to arrive"},
    {409, "conflict", "It is not in a state for this"},
    {412, "precondition_failed", "It is not in the state that the request expects"},
    {413, "too_large", "The body is too large"},
    {414, "target_too_long", "The request target is too long"},
    {416, "range_not_satisfiable", "There is nothing in that range"},
    {422, "module_rejected", "The module cannot be published"},
    {429, "too_many_requests", "Too many calls are waiting"},
    {431, "header_too_large", "The request header is too large"},
    {500, "internal", "The host failed"},
    {501, "not_implemented", "This host cannot do that yet"},
    {502, "bad_answer", "The function's answer is no CGI response"},
    {503, "unavailable", "The host cannot take this now"},
    {504, "timeout", "It took too long"},
    {505, "http_version", "This version of HTTP is not spoken here"},
    {507, "store_full", "The store has no room for it"},
};

json document(unsigned status, std::string_view name, std::string_view title, std::string_view detail,
              std::string_view instance) {
  json out = {{"type", "urn:spore:problem:" + std::string(name)}, {"title", title}, {"status", status}};
  if (!detail.empty()) out["detail"] = detail;
  if (!instance.empty()) out["instance"] = instance;
  return out;
}

Response to_response(unsigned status, const json& body) {
  // What a guest or client sent may be quoted in it, so bytes that are no UTF-8 are replaced.
  auto response = text_response(status, "application/problem+json",
                                body.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
  if (status == 429 || status == 503) response.add_field("Retry-After", "1");
  if (status == 401) response.add_field("WWW-Authenticate", "Bearer");
  return response;
}

const Kind& kind_of(unsigned status) {
  for (const Kind& kind : kKinds) {
    if (kind.status == status) return kind;
  }
  CHECK(status != 500);
  return kind_of(500);
}

Kind kind_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return kind_of(400);
    case ErrorCode::kInvalidModule: return kind_of(422);
    case ErrorCode::kNotFound: return kind_of(404);
    case ErrorCode::kAlreadyExists: return kind_of(412);
    case ErrorCode::kResourceExhausted: return {422, "resource_exhausted", "It needs more than it may have"};
    case ErrorCode::kDeadlineExceeded: return kind_of(504);
    case ErrorCode::kUnavailable: return kind_of(503);
    case ErrorCode::kPermissionDenied: return kind_of(403);
    case ErrorCode::kFailedPrecondition: return {500, "host_unfit", "This host cannot do that"};
    case ErrorCode::kInternal: return kind_of(500);
  }
  return kind_of(500);
}

Kind kind_of(const worker::CallResult& result) {
  switch (result.status) {
    case CallStatus::kOk: return {200, "none", "The call succeeded"};
    case CallStatus::kExited: return {500, "exit", "The function exited with an error"};
    case CallStatus::kTrapped: return {500, "trap", "The function trapped"};
    case CallStatus::kTimedOut: return {504, "timeout", "The call took longer than it may"};
    case CallStatus::kOutOfCpuTime: return {504, "out_of_cpu_time", "The call used up its CPU time"};
    case CallStatus::kOutputTooLarge: return {502, "output_too_large", "The function wrote more than it may"};
    case CallStatus::kNotPushed: return {500, "state_not_pushed", "What the call wrote to state is not pushed"};
    case CallStatus::kCancelled: return {503, "cancelled", "The call was cancelled"};
    case CallStatus::kQueueFull: return {503, "host_full", "The host's queue is full"};
    case CallStatus::kTenantQueueFull: return {429, "tenant_queue_full", "The tenant's queue is full"};
    case CallStatus::kTenantMemory: return {429, "tenant_memory", "The tenant has all the memory that it may have"};
    case CallStatus::kHostMemory: return {503, "host_memory", "The host has no memory left"};
    case CallStatus::kDraining: return {503, "draining", "The host is shutting down"};
    case CallStatus::kFailed: return {500, "internal", "The host could not run the call"};
    case CallStatus::kProcessEnded: return {502, "process_ended", "The process that ran the call ended"};
  }
  return kind_of(500);
}

}  // namespace

Response problem(unsigned status, std::string_view detail, std::string_view instance) {
  const Kind& kind = kind_of(status);
  return problem(status, kind.name, kind.title, detail, instance);
}

Response problem(unsigned status, std::string_view name, std::string_view title, std::string_view detail,
                 std::string_view instance) {
  return to_response(status, document(status, name, title, detail, instance));
}

unsigned status_of(ErrorCode code) { return kind_of(code).status; }

json problem_json(const Error& error, std::string_view instance) {
  const Kind kind = kind_of(error.code);
  return document(kind.status, kind.name, kind.title, error.message, instance);
}

Response problem_of(const Error& error, std::string_view instance) {
  return to_response(kind_of(error.code).status, problem_json(error, instance));
}

unsigned status_of(const worker::CallResult& result) {
  const bool has_error = result.status == CallStatus::kFailed || result.status == CallStatus::kNotPushed;
  if (has_error && result.error.code != ErrorCode::kInternal) {
    return result.error.code == ErrorCode::kResourceExhausted ? 503 : status_of(result.error.code);
  }
  return kind_of(result).status;
}

Response problem_of(const worker::CallResult& result, const Called& called) {
  return to_response(status_of(result), problem_json(result, called));
}

json problem_json(const worker::CallResult& result, const Called& called) {
  const Kind kind = kind_of(result);
  const unsigned status = status_of(result);
  json out = document(status, kind.name, kind.title, {}, "urn:spore:call:" + result.id.text());
  out["function"] = called.function.text();
  out["version"] = called.version;
  switch (result.status) {
    case CallStatus::kExited:
      out["code"] = "exit";
      out["exit_code"] = result.exit_code;
      out["detail"] = "exit code " + std::to_string(result.exit_code);
      break;
    case CallStatus::kTimedOut:
      out["code"] = "timeout";
      out["detail"] = result.start == worker::StartKind::kNone
                          ? result.trap.message
                          : "the call was stopped after " + std::to_string(result.duration.count() / 1000) + " ms";
      break;
    case CallStatus::kOutOfCpuTime:
      out["code"] = "out_of_cpu_time";
      out["detail"] = result.trap.message;
      break;
    case CallStatus::kTrapped:
      out["code"] = faaslet::name_of(result.trap.kind);
      out["detail"] = result.trap.message;
      break;
    case CallStatus::kOutputTooLarge:
      out["code"] = "output_too_large";
      out["detail"] = "more than " + std::to_string(called.output_bytes_max) + " bytes";
      break;
    case CallStatus::kTenantMemory:
    case CallStatus::kHostMemory:
      out["code"] = kind.name;
      out["detail"] = result.error.message;
      break;
    case CallStatus::kFailed:
    case CallStatus::kProcessEnded:
    case CallStatus::kNotPushed:
      out["code"] = to_string(result.error.code);
      out["detail"] = result.error.message;
      break;
    default: out["code"] = kind.name; break;
  }
  if (out.contains("detail")) out["message"] = out["detail"];
  if (!result.trap.stack.empty()) {
    json stack = json::array();
    for (const auto& frame : result.trap.stack) {
      stack.push_back({{"function", frame.function}, {"index", frame.function_index}, {"offset", frame.code_offset}});
    }
    out["stack"] = std::move(stack);
  }
  return out;
}

}  // namespace spore::gateway

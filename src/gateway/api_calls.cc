// The endpoints of Api for durable calls: asynchronous ones, calls with an idempotency key, and what became of them.
#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>

#include "gateway/api.h"
#include "gateway/api_support.h"
#include "gateway/problem.h"

namespace spore::gateway {
using calls::AsyncCalls;
using calls::CallRecord;
using calls::CallState;
using nlohmann::json;
using std::chrono::milliseconds;

namespace {

constexpr size_t kListMax = 1'000;
constexpr uint64_t kWaitMsMax = 60'000;
constexpr auto kClientWaitMax = std::chrono::hours(2);  // longer than a call may take
constexpr auto kPingInterval = std::chrono::seconds(15);

bool wants_async(const Request& request) {
  if (request.field(Field::kPrefer).find("respond-async") != std::string::npos) return true;
  const auto async = request.parameter("async");
  return async && *async != "0" && *async != "false";
}

// "30s", "500ms", "30" (seconds).
std::optional<milliseconds> parse_wait(std::string_view text) {
  uint64_t unit_ms = 1'000;
  if (text.ends_with("ms")) {
    unit_ms = 1;
    text.remove_suffix(2);
  } else if (text.ends_with("s")) {
    text.remove_suffix(1);
  }
  const auto number = parse_number(text);
  if (!number || *number == 0 || *number > kWaitMsMax / unit_ms) return std::nullopt;
  return milliseconds(*number * unit_ms);
}

std::string wall_time_text(int64_t ms) { return time_text(std::chrono::system_clock::time_point(milliseconds(ms))); }

Called called(const CallRecord& record) {
  return {.function = record.function, .version = record.ran_version, .output_bytes_max = record.output_bytes_allowed};
}

// Of a call that was cancelled no attempt need have ended.
worker::CallResult result_of(const CallRecord& record) {
  worker::CallResult result = record.result;
  if (record.state == CallState::kCancelled) result.status = worker::CallStatus::kCancelled;
  return result;
}

json json_of(const CallRecord& record) {
  json out = {{"id", record.id.text()},
              {"function", record.function.text()},
              {"status", to_string(record.state)},
              {"attempt", record.attempt},
              {"attempts_max", record.attempts_max},
              {"created_at", wall_time_text(record.created_ms)},
              {"input_bytes", record.input_bytes}};
  if (const uint64_t version = record.ran_version ? record.ran_version : record.version) out["version"] = version;
  if (record.started_ms) out["started_at"] = wall_time_text(record.started_ms);
  if (record.state == CallState::kRetrying) out["retry_at"] = wall_time_text(record.due_ms);
  if (record.ended()) {
    out["ended_at"] = wall_time_text(record.ended_ms);
    out["expires_at"] = wall_time_text(record.expires_ms);
  }
  if (record.state == CallState::kFailed) out["dead"] = record.dead;
  if (record.has_output) {
    out["exit_code"] = 0;
    out["output_bytes"] = record.output_bytes;
    out["duration_us"] = record.result.duration.count();
  } else if (record.failures > 0 || record.ended()) {
    const worker::CallResult result = result_of(record);
    if (result.status == worker::CallStatus::kExited) out["exit_code"] = result.exit_code;
    out["problem"] = problem_json(result, called(record));
  }
  return out;
}

Response accepted_response(const CallRecord& record, bool existed) {
  Response response = json_response(202, json_of(record));
  response.add_field("Location", "/v1/calls/" + record.id.text());
  response.add_field("Spore-Call-Id", record.id.text());
  if (existed) response.add_field("Spore-Replayed", "true");
  return response;
}

Response refusal_of(const Error& error, std::string_view path) {
  switch (error.code) {
    case ErrorCode::kAlreadyExists:
      return problem(422, "idempotency_key_reused", "The idempotency key belongs to another request", error.message,
                     path);
    case ErrorCode::kResourceExhausted:
      return problem(429, "tenant_calls_full", "The tenant has as many calls as it may", error.message, path);
    case ErrorCode::kFailedPrecondition:
      return problem(409, "not_dead", "Only a dead letter can be replayed", error.message, path);
    default: return problem_of(error, path);
  }
}

Response no_call(std::string_view path) { return problem(404, "there is no such call (any more)", path); }

struct Filter {
  std::optional<CallState> state;
  bool dead = false;
};
std::optional<Filter> filter_of(std::string_view text) {
  if (text == "dead") return Filter{.dead = true};
  for (const CallState state : {CallState::kQueued, CallState::kRunning, CallState::kRetrying, CallState::kSucceeded,
                                CallState::kFailed, CallState::kCancelled})
    if (text == to_string(state)) return Filter{.state = state};
  return std::nullopt;
}

std::optional<std::string> from_hex(std::string_view text) {
  if (text.size() % 2 != 0 || text.size() > 256) return std::nullopt;
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    if (i % 2 == 0) out += '\0';
    out.back() = static_cast<char>(out.back() << 4 | digit);
  }
  return out;
}

}  // namespace

struct Api::CallsRequest {
  Endpoint endpoint = Endpoint::kCalls;
  Verb method = Verb::get;
  std::string path;
  std::optional<std::string> tenant;  // that the key is for
  std::optional<Responder> responder;
  calls::CallId id;
  calls::ListQuery list;
  std::optional<milliseconds> wait;
  bool events = false;
  // A call that is to be accepted.
  calls::Submission submission;
  MemoryBudget::Share input_share;
  bool async = false;
  // While it waits.
  bool client_waits = false;  // for the output, not for what is known of the call
  calls::Clock::time_point until;
};

Result<Api::CallOptions> Api::call_options_of(const Request& request) const {
  const auto wrong = [](std::string message) { return fail(ErrorCode::kInvalidArgument, std::move(message)); };
  CallOptions out{.async = wants_async(request)};
  if (const auto timeout = request.parameter("timeout_ms")) {
    const auto ms = parse_number(*timeout);
    if (!ms || *ms == 0 || *ms > functions::kTimeoutMsMax)
      return wrong("timeout_ms is a whole number from 1 to " + std::to_string(functions::kTimeoutMsMax));
    out.timeout_ms = *ms;
  }
  if (const auto asked = request.parameter("priority")) {
    using worker::Priority;
    const auto all = {Priority::kLow, Priority::kNormal, Priority::kHigh};
    const auto* const named = std::ranges::find(all, *asked, [](Priority priority) { return to_string(priority); });
    if (named == all.end()) return wrong("priority is low, normal or high");
    if (*named == Priority::kHigh && !access_.sees_all_tenants(request))
      return fail(ErrorCode::kPermissionDenied,
                  "priority high goes before other tenants: it takes a key for all of them");
    out.priority = *named;
  }
  if (request.has(Field::kIdempotencyKey)) {
    out.key = request.field(Field::kIdempotencyKey);
    if (out.key.empty() || out.key.size() > calls::kKeyBytesMax ||
        !std::ranges::all_of(out.key, [](char c) { return c >= ' ' && c <= '~'; }))
      return wrong("Idempotency-Key has 1 to " + std::to_string(calls::kKeyBytesMax) + " printable bytes of ASCII");
  }
  auto attempts = request.parameter("attempts");
  if (!attempts && request.has(Field::kAttempts)) attempts = request.field(Field::kAttempts);
  if (attempts) {
    const auto number = parse_number(*attempts);
    if (!number || *number == 0 || *number > calls::kAttemptsMax)
      return wrong("attempts (or Spore-Attempts) is a whole number from 1 to " + std::to_string(calls::kAttemptsMax));
    if (!out.async && out.key.empty())
      return wrong("only a call that is asynchronous or has an Idempotency-Key has attempts");
    out.attempts = static_cast<uint32_t>(*number);
  }
  return out;
}

void Api::respond(CallsRequest& request, Response response) {
  metrics_.count_response(response.status);
  request.responder->respond(std::move(response));
}

bool Api::work_on_calls(const std::shared_ptr<CallsRequest>& request,
                        void (Api::*work)(std::shared_ptr<CallsRequest>)) {
  Background::Task task = [this, request, work] { (this->*work)(request); };
  if (calls_work_.try_submit(task)) return true;
  respond(*request, problem(503, "too many requests about calls are waiting", request->path));
  return false;
}

void Api::durable_call(Request& request, functions::FunctionId id, CallOptions options, Responder responder) {
  if (!options_.calls) {
    return responder.respond(answer(request, problem(501,
                                                     "this host has no store for asynchronous calls and for those "
                                                     "with an Idempotency-Key",
                                                     request.path())));
  }
  auto call = std::make_shared<CallsRequest>();
  call->path = request.path();
  call->async = options.async;
  call->submission = {.function = std::move(id),
                      .version = request.route.version.value_or(0),
                      .input = std::move(request.body),
                      .key = std::move(options.key),
                      .attempts_max = options.attempts,
                      .timeout_ms = options.timeout_ms,
                      .priority = options.priority,
                      .client_waits = !options.async};
  // Who waits is told of a failure, and decides itself.
  if (!options.async && options.attempts == 0) call->submission.attempts_max = 1;
  call->input_share = std::move(request.body_share);
  call->responder.emplace(std::move(responder));
  work_on_calls(call, &Api::accept_call);
}

void Api::accept_call(std::shared_ptr<CallsRequest> request) {
  auto accepted = options_.calls->accept(std::move(request->submission));
  request->input_share.release();
  if (!accepted) return respond(*request, refusal_of(accepted.error(), request->path));
  const CallRecord& record = accepted->record;
  if (request->async) {
    Response response = accepted_response(record, accepted->existed);
    response.add_field("Preference-Applied", "respond-async");
    return respond(*request, std::move(response));
  }
  request->id = record.id;
  request->client_waits = true;
  if (!accepted->existed) {
    request->until = calls::Clock::now() + kClientWaitMax;
    return wait_for_end(std::move(request));
  }
  if (record.ended()) return respond(*request, outcome_of(record, true));
  Response running = problem(409, "call_running", "The call with this idempotency key has not ended",
                             "it is call " + record.id.text(), request->path);
  running.add_field("Location", "/v1/calls/" + record.id.text());
  running.add_field("Retry-After", "1");
  respond(*request, std::move(running));
}

Response Api::outcome_of(const CallRecord& record, bool replayed) {
  Response response;
  const worker::CallResult result = result_of(record);
  if (record.state == CallState::kSucceeded) {
    auto output = options_.calls->output(record);
    if (!output) return problem_of(output.error(), "/v1/calls/" + record.id.text());
    response.body = std::move(*output);
  } else {
    response = problem_of(result, called(record));
  }
  add_call_fields(response, result);
  if (replayed) response.add_field("Spore-Replayed", "true");
  return response;
}

void Api::wait_for_end(std::shared_ptr<CallsRequest> request) {
  const bool late = calls::Clock::now() >= request->until;
  std::optional<uint64_t> number;
  if (!late) {
    // What wakes it must not wait for the disk.
    number = options_.calls->watch(request->id, AsyncCalls::Until::kEnd, request->until,
                                   [this, request] { work_on_calls(request, &Api::wait_for_end); });
  }
  const auto record = options_.calls->find(request->id);
  const bool ended = !record || !*record || (*record)->ended();
  if (number && !ended) return;
  if (number && !options_.calls->unwatch(*number)) return;  // it has been woken, and is answered there
  if (!record) return respond(*request, problem_of(record.error(), request->path));
  if (!*record) return respond(*request, no_call(request->path));
  if (!request->client_waits) return respond(*request, json_response(200, json_of(**record)));
  if (ended) return respond(*request, outcome_of(**record, false));
  Response response =
      late ? problem(504, "the call has not ended; it goes on", request->path)
           : problem(503, "nobody can wait here now; the call goes on, ask again with its key", request->path);
  response.add_field("Location", "/v1/calls/" + request->id.text());
  response.add_field("Spore-Call-Id", request->id.text());
  respond(*request, std::move(response));
}

// ---- /v1/calls ------------------------------------------------------------------------------------------------------

// Who called whom, below a call from outside; of this host's memory, which holds the last of them.
Response Api::call_graph(const Request& request) const {
  const auto id = calls::parse_call_id(request.route.id);
  const auto graph = id ? worker_.graph(*id) : std::nullopt;
  const auto tenant = access_.only_tenant(request);
  if (!graph || (tenant && *tenant != graph->tenant))
    return problem(404, "there is no such call that has called others (any more)", request.path());
  json records = json::array();
  for (const worker::CallRecord& call : graph->calls) {
    json record = {{"id", call.id.text()},
                   {"function", call.function},
                   {"version", call.version},
                   {"depth", call.depth},
                   {"status", call.ended     ? to_string(call.status)
                              : call.started ? "running"
                                             : "waiting"},
                   {"submitted_us", call.submitted.count()},
                   {"input_bytes", call.input_bytes}};
    if (call.parent != SIZE_MAX) record["parent"] = graph->calls[call.parent].id.text();
    if (call.started) record["started_us"] = call.started->count();
    if (call.ended) {
      record["ended_us"] = call.ended->count();
      record["exit_code"] = call.exit_code;
      record["output_bytes"] = call.output_bytes;
      record["start"] = to_string(call.start);
    }
    records.push_back(std::move(record));
  }
  return json_response(200, {{"tenant", graph->tenant}, {"calls", std::move(records)}});
}

void Api::calls(Request& request, Responder responder) {
  const auto refuse = [&](Response response) { responder.respond(answer(request, std::move(response))); };
  if (request.route.endpoint == Endpoint::kGraph) return refuse(call_graph(request));
  if (!options_.calls) return refuse(problem(404, "this host has no durable calls", request.path()));
  auto asked = std::make_shared<CallsRequest>();
  asked->endpoint = request.route.endpoint;
  asked->method = request.method == Verb::head ? Verb::get : request.method;
  asked->path = request.path();
  asked->tenant = access_.only_tenant(request);
  if (asked->endpoint == Endpoint::kCalls) {
    calls::ListQuery& query = asked->list;
    query.tenant = request.parameter("tenant").value_or(asked->tenant.value_or(""));
    if (asked->tenant && query.tenant != *asked->tenant) {
      return refuse(problem(404, "there is nothing of that name", request.path()));
    }
    if (const auto status = request.parameter("status")) {
      const auto filter = filter_of(*status);
      if (!filter) {
        return refuse(
            problem(400, "status is none of queued, running, retrying, succeeded, failed, dead, cancelled: " + *status,
                    request.path()));
      }
      query.state = filter->state;
      query.dead = filter->dead;
    }
    const auto cursor = from_hex(request.parameter("cursor").value_or(""));
    if (!cursor) return refuse(problem(400, "the cursor is none of this list", request.path()));
    query.cursor = *cursor;
    query.limit = limit_of(request, 100, kListMax);
  } else {
    const auto id = calls::parse_call_id(request.route.id);
    if (!id) return refuse(no_call(request.path()));
    asked->id = *id;
  }
  if (const auto wait = request.parameter("wait")) {
    asked->wait = parse_wait(*wait);
    if (!asked->wait) return refuse(problem(400, "wait is 1ms to 60s, as 500ms or 30s", request.path()));
  }
  asked->events = asked->endpoint == Endpoint::kOneCall && request.method == Verb::get &&
                  request.field(Field::kAccept).find("text/event-stream") != std::string::npos;
  asked->responder.emplace(std::move(responder));
  work_on_calls(asked, &Api::ask_about_call);
}

void Api::ask_about_call(std::shared_ptr<CallsRequest> request) {
  AsyncCalls& store = *options_.calls;
  if (request->endpoint == Endpoint::kCalls) return respond(*request, list_calls(*request));
  const auto found = store.find(request->id);
  if (!found) return respond(*request, problem_of(found.error(), request->path));
  if (!*found || (request->tenant && *request->tenant != (*found)->function.tenant))
    return respond(*request, no_call(request->path));
  const CallRecord& record = **found;
  if (request->method != Verb::get) return respond(*request, change_call(*request, record));
  if (request->endpoint == Endpoint::kOneCall) {
    if (request->events) return begin_events(std::move(request));
    if (!request->wait || record.ended()) return respond(*request, json_response(200, json_of(record)));
    request->until = calls::Clock::now() + *request->wait;
    return wait_for_end(std::move(request));
  }
  const bool is_log = request->endpoint == Endpoint::kCallLog;
  if (!is_log && !record.ended()) {
    Response response = problem(409, "call_running", "The call has not ended",
                                "it is " + std::string(to_string(record.state)), request->path);
    response.add_field("Retry-After", "1");
    return respond(*request, std::move(response));
  }
  auto bytes = is_log ? store.log(record) : store.output(record);
  if (!bytes) return respond(*request, problem_of(bytes.error(), request->path));
  Response response;
  if (is_log) response.content_type = "text/plain; charset=utf-8";
  response.body = std::move(*bytes);
  response.add_field("Spore-Call-Id", record.id.text());
  respond(*request, std::move(response));
}

Response Api::list_calls(const CallsRequest& request) {
  const auto page = options_.calls->list(request.list);
  if (!page) return problem_of(page.error(), request.path);
  json entries = json::array();
  for (const CallRecord& record : page->calls) entries.push_back(json_of(record));
  json out = {{"calls", std::move(entries)}};
  if (!page->cursor.empty()) out["cursor"] = to_hex(as_bytes(page->cursor));
  return json_response(200, out);
}

Response Api::change_call(const CallsRequest& request, const CallRecord& record) {
  AsyncCalls& store = *options_.calls;
  if (request.method == Verb::post) {
    const auto replayed = store.replay(request.id);
    if (!replayed) return refusal_of(replayed.error(), request.path);
    return *replayed ? accepted_response(**replayed, false) : no_call(request.path);
  }
  if (record.dead) {
    const auto gone = store.discard(request.id);
    if (!gone) return problem_of(gone.error(), request.path);
    if (!*gone) return problem(409, "it is no dead letter any more", request.path);
    Response response;
    response.status = 204;
    return response;
  }
  const auto cancelled = store.cancel(request.id);
  if (!cancelled) return problem_of(cancelled.error(), request.path);
  if (!*cancelled) return no_call(request.path);
  if ((*cancelled)->state == CallState::kCancelled) return json_response(200, json_of(**cancelled));
  return problem(409, "call_ended", "The call has ended", "it has " + std::string(to_string((*cancelled)->state)),
                 request.path);
}

// ---- events ---------------------------------------------------------------------------------------------------------

struct Api::CallEvents {
  EventStream stream;
  calls::CallId id;
  std::optional<std::pair<CallState, uint32_t>> told;  // with the attempt
  std::mutex turn;                                     // what is watched for may come while the news before it are told
};

void Api::begin_events(std::shared_ptr<CallsRequest> request) {
  metrics_.count_response(200);
  go_on_with_events(std::make_shared<CallEvents>(request->responder->stream(), request->id));
}

void Api::go_on_with_events(std::shared_ptr<CallEvents> events) {
  const std::lock_guard turn(events->turn);
  const auto number = options_.calls->watch(events->id, AsyncCalls::Until::kChange, calls::Clock::now() + kPingInterval,
                                            [this, events] {
                                              Background::Task task = [this, events] { go_on_with_events(events); };
                                              if (!calls_work_.try_submit(task)) events->stream.finish();
                                            });
  const auto record = options_.calls->find(events->id);
  bool goes_on = number && record && *record;
  if (record && *record) {
    const std::pair now((*record)->state, (*record)->attempt);
    const bool news = events->told != now;
    events->told = now;
    goes_on =
        (news ? events->stream.send("status", json_of(**record).dump(-1, ' ', false, json::error_handler_t::replace))
              : events->stream.ping()) &&
        goes_on && !(*record)->ended();
  }
  if (goes_on) return;
  if (number && !options_.calls->unwatch(*number)) return;  // it goes on there, and ends there
  events->stream.finish();
}

}  // namespace spore::gateway

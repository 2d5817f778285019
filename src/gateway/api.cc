#include "gateway/api.h"

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "gateway/api_support.h"
#include "gateway/cgi.h"
#include "gateway/openapi.h"
#include "gateway/problem.h"
#include "gateway/web_streams.h"

namespace spore::gateway {
using nlohmann::json;

namespace {

constexpr uint64_t kSmallBodyBytesMax = 1 << 20;  // of everything but modules and inputs of calls

struct Rule {
  Endpoint endpoint;
  Verb method;
  Scope scope;
  bool takes_body;
};

// Every endpoint with its methods; what is not here is 405 (or 404, where the endpoint is unknown). HEAD is like GET.
constexpr Rule kRules[] = {
    {Endpoint::kPage, Verb::get, Scope::kNone, false},
    {Endpoint::kHealth, Verb::get, Scope::kNone, false},
    {Endpoint::kReady, Verb::get, Scope::kNone, false},
    {Endpoint::kMetrics, Verb::get, Scope::kAdmin, false},
    {Endpoint::kOpenApi, Verb::get, Scope::kNone, false},
    {Endpoint::kFunctions, Verb::get, Scope::kRead, false},
    {Endpoint::kFunction, Verb::get, Scope::kRead, false},
    {Endpoint::kFunction, Verb::put, Scope::kPublish, true},
    {Endpoint::kFunction, Verb::delete_, Scope::kPublish, false},
    {Endpoint::kConfig, Verb::get, Scope::kRead, false},
    {Endpoint::kConfig, Verb::put, Scope::kPublish, true},
    {Endpoint::kVersions, Verb::get, Scope::kRead, false},
    {Endpoint::kRollback, Verb::post, Scope::kPublish, true},
    {Endpoint::kLogs, Verb::get, Scope::kRead, false},
    {Endpoint::kCall, Verb::post, Scope::kCall, true},
    {Endpoint::kCalls, Verb::get, Scope::kCall, false},
    {Endpoint::kOneCall, Verb::get, Scope::kCall, false},
    {Endpoint::kOneCall, Verb::delete_, Scope::kCall, false},
    {Endpoint::kOutput, Verb::get, Scope::kCall, false},
    {Endpoint::kCallLog, Verb::get, Scope::kCall, false},
    {Endpoint::kGraph, Verb::get, Scope::kCall, false},
    {Endpoint::kReplay, Verb::post, Scope::kCall, false},
    {Endpoint::kOperation, Verb::get, Scope::kPublish, false},
    {Endpoint::kSnapshots, Verb::get, Scope::kRead, false},
    {Endpoint::kFiles, Verb::get, Scope::kRead, false},
    {Endpoint::kFiles, Verb::put, Scope::kPublish, true},
    {Endpoint::kFiles, Verb::delete_, Scope::kPublish, false},
    {Endpoint::kValues, Verb::get, Scope::kRead, false},
    {Endpoint::kValue, Verb::get, Scope::kRead, false},
    {Endpoint::kValue, Verb::put, Scope::kPublish, true},
    {Endpoint::kValue, Verb::post, Scope::kPublish, true},
    {Endpoint::kValue, Verb::delete_, Scope::kPublish, false},
};

std::string_view name_of(Verb method) {
  switch (method) {
    case Verb::get: return "GET, HEAD";
    case Verb::put: return "PUT";
    case Verb::post: return "POST";
    case Verb::delete_: return "DELETE";
    default: return "";
  }
}

// A page that a function sends runs scripts in the origin that it comes from. Where that is the API's own, they are
// kept out of it: in an opaque origin, which a host without keys takes no requests from.
constexpr std::string_view kSandbox = "sandbox allow-scripts allow-forms allow-popups allow-downloads";

Called called(const functions::LoadedFunction& function) {
  return {.function = function.id,
          .version = function.version.number,
          .output_bytes_max = function.version.config.output_max_bytes};
}

}  // namespace

Api::Api(functions::Registry& registry, worker::Worker& worker, Access access, ApiOptions options)
    : registry_(registry),
      worker_(worker),
      access_(std::move(access)),
      options_(options),
      state_work_(options.state ? options.state_threads : 0, options.state_requests_max),
      calls_work_(options.calls ? options.calls_threads : 0, options.calls_requests_max),
      catalogue_(options.catalogue_threads, options.catalogue_queue_max),
      publishing_(options.publish_threads, options.publish_queue_max) {
  if (!options_.calls) return;
  options_.calls->on_attempt_ended([this](const calls::CallRecord& record, const worker::CallResult& result) {
    metrics_.count_call(result);
    worker::CallResult logged = result;
    call_log_.add(log_entry_of(logged, record.function, record.ran_version, record.input_bytes));
  });
}

void Api::finish() {
  stop_publishing_.request_stop();
  publishing_.finish();
  catalogue_.finish();
  state_work_.finish();
  calls_work_.finish();
  if (options_.calls) options_.calls->on_attempt_ended({});
}

Response Api::answer(const Request& request, Response response) {
  metrics_.count_response(response.status);
  return response;
}

Response Api::error(unsigned status, std::string_view detail) {
  metrics_.count_response(status);
  return problem(status, detail);
}

// Nothing where this listener is the one for such requests.
std::optional<Response> Api::admit_at(const Request& request) const {
  const bool web = request.is_web();
  if (request.listener == Listener::kWeb && !web) {
    return problem(404, "this address serves web handlers alone, at /fn/", request.path());
  }
  if (request.listener != Listener::kApi) return std::nullopt;
  if (web) return problem(404, "web handlers of this host have an address of their own", request.path());
  // Their pages are foreign to the API, whichever name of this machine they were asked for by.
  if (request.has(Field::kOrigin) && server_ && is_origin_at(request.field(Field::kOrigin), *server_->web_port())) {
    return problem(403, "pages of web handlers may not use the API (Origin)", request.path());
  }
  return std::nullopt;
}

std::variant<BodyRule, Response> Api::admit(Request& request) {
  request.route = parse_route(request.path());
  const Route& route = request.route;
  const auto refuse = [&](Response response) { return answer(request, std::move(response)); };
  if (auto refusal = admit_at(request)) return refuse(std::move(*refusal));
  if (route.endpoint == Endpoint::kWeb) {
    if (auto refusal = access_.check(request, Scope::kCall, route.tenant)) return refuse(std::move(*refusal));
    if (!draining_.load(std::memory_order_relaxed)) {
      if (!server_) return BodyRule(options_.call_input_bytes_max);
      return BodyRule(options_.web_bytes_max, options_.web_held_bytes_max);
    }
    return refuse(problem(503, "draining", "The host is shutting down", "", request.path()));
  }
  const Verb method = request.method == Verb::head ? Verb::get : request.method;
  const Rule* rule = nullptr;
  std::string allowed;
  for (const Rule& candidate : kRules) {
    if (candidate.endpoint != route.endpoint) continue;
    if (candidate.method == method) {
      rule = &candidate;
      break;
    }
    if (!allowed.empty()) allowed += ", ";
    allowed += name_of(candidate.method);
  }
  if (auto refusal = access_.check(request, rule ? rule->scope : Scope::kNone, route.tenant)) {
    return refuse(std::move(*refusal));
  }
  if (!rule) {
    if (allowed.empty()) return refuse(problem(404, "there is no such endpoint", request.path()));
    Response response = problem(405, "this endpoint knows " + allowed, request.path());
    response.add_field("Allow", allowed);
    return refuse(std::move(response));
  }
  const bool works = route.endpoint == Endpoint::kCall || method != Verb::get;
  if (works && draining_.load(std::memory_order_relaxed)) {
    return refuse(problem(503, "draining", "The host is shutting down", "", request.path()));
  }
  if (!rule->takes_body) return BodyRule(0);
  if (route.endpoint == Endpoint::kCall) return options_.call_input_bytes_max;
  if (route.endpoint == Endpoint::kFiles) return options_.file_bytes_max;
  if (route.endpoint == Endpoint::kValue) return options_.value_bytes_max;
  return route.endpoint == Endpoint::kFunction ? options_.module_bytes_max : kSmallBodyBytesMax;
}

void Api::handle(Request& request, Responder responder) {
  const Route& route = request.route;
  if (route.endpoint == Endpoint::kSnapshots) return snapshots(request, std::move(responder));
  if (route.endpoint == Endpoint::kFiles && !options_.shared_files) {
    return responder.respond(answer(request, problem(404, "this host has no shared files", request.path())));
  }
  if (route.endpoint == Endpoint::kFiles) return files(request, std::move(responder));
  if (route.endpoint == Endpoint::kValues || route.endpoint == Endpoint::kValue) {
    return state(request, std::move(responder));
  }
  if (route.endpoint >= Endpoint::kCalls && route.endpoint <= Endpoint::kReplay) {
    return calls(request, std::move(responder));
  }
  if (route.name.empty()) return responder.respond(answer(request, get(request)));
  auto id = functions::FunctionId::make(route.tenant, route.name);
  if (!id) {
    const unsigned status = request.method == Verb::put ? 400 : 404;
    return responder.respond(answer(request, problem(status, id.error().message, request.path())));
  }
  if (route.endpoint == Endpoint::kWeb) return web(request, std::move(*id), std::move(responder));
  if (route.endpoint == Endpoint::kCall) return call(request, std::move(*id), std::move(responder));
  if (request.method == Verb::get || request.method == Verb::head) {
    switch (route.endpoint) {
      case Endpoint::kFunction: return responder.respond(answer(request, describe(request, *id)));
      case Endpoint::kConfig: return responder.respond(answer(request, config(request, *id)));
      case Endpoint::kVersions: return responder.respond(answer(request, versions(*id)));
      default: return responder.respond(answer(request, logs(request, *id)));
    }
  }
  if (route.endpoint == Endpoint::kFunction && request.method == Verb::put) {
    return publish(request, std::move(*id), std::move(responder));
  }
  change(request, std::move(*id), std::move(responder));
}

Response Api::get(const Request& request) {
  switch (request.route.endpoint) {
    case Endpoint::kPage: return text_response(200, "text/html; charset=utf-8", page());
    case Endpoint::kHealth: return text_response(200, "text/plain; charset=utf-8", "ok\n");
    case Endpoint::kReady:
      if (draining_.load(std::memory_order_relaxed)) {
        return problem(503, "draining", "The host is shutting down", "", request.path());
      }
      return text_response(200, "text/plain; charset=utf-8", "ready\n" + options_.boundaries.text());
    case Endpoint::kMetrics:
      if (!access_.sees_all_tenants(request)) return problem(403, "metrics are about every tenant", request.path());
      CHECK(server_ != nullptr);
      return text_response(200, "text/plain; version=0.0.4; charset=utf-8",
                           metrics_.render(server_->stats(), worker_.stats(), registry_.stats(),
                                           options_.calls ? options_.calls->stats() : calls::AsyncStats{},
                                           {.books = options_.memory, .watch = options_.memory_watch}));
    case Endpoint::kOpenApi: return text_response(200, "application/json", openapi());
    case Endpoint::kFunctions: return list(request);
    case Endpoint::kOperation: return operation(request);
    default: return problem(404, "there is no such endpoint", request.path());
  }
}

Response Api::operation(const Request& request) {
  const auto found = operations_.find(request.route.id);
  const auto tenant = access_.only_tenant(request);
  if (!found || (tenant && *tenant != found->tenant())) {
    return problem(404, "there is no such operation (any more)", request.path());
  }
  return text_response(200, "application/json",
                       found->describe().dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

// ---- calls ----------------------------------------------------------------------------------------------------------

struct Api::Pending {
  worker::CallRequest call;
  Output output;
  uint64_t input_bytes = 0;
  MemoryBudget::Share input_share;
  // Who gets the answer: one of the two.
  std::optional<Responder> responder;
  std::shared_ptr<WebStreams> streams;

  Responder& answers() { return streams ? streams->responder() : *responder; }
};

void Api::call(Request& request, functions::FunctionId id, Responder responder) {
  worker::CallRequest call;
  const bool asks_for_more = request.has(Field::kPrefer) || request.has(Field::kIdempotencyKey) ||
                             request.has(Field::kAttempts) || request.path().size() != request.target.size();
  if (asks_for_more) {
    auto options = call_options_of(request);
    if (!options) return responder.respond(answer(request, problem_of(options.error(), request.path())));
    if (options->async || !options->key.empty()) {
      return durable_call(request, std::move(id), std::move(*options), std::move(responder));
    }
    if (options->timeout_ms) call.timeout = std::chrono::milliseconds(options->timeout_ms);
    call.priority = options->priority;
  }
  responder.when_gone([this, id = call.id] { worker_.cancel(id); });
  Pending pending{.call = std::move(call), .responder = std::move(responder)};
  pending.input_share = std::move(request.body_share);
  begin_call(request, std::move(id), std::move(pending));
}

void Api::web(Request& request, functions::FunctionId id, Responder responder) {
  auto environment = cgi_environment(request, access_.has_keys() ? KeyIs::kInRequest : KeyIs::kNotNeeded);
  if (!environment) return responder.respond(answer(request, problem_of(environment.error(), request.path())));
  Pending pending;
  pending.output = {.is_cgi = true, .method = request.method, .listener = request.listener};
  pending.call.environment = std::move(*environment);
  if (!server_) {
    pending.responder.emplace(std::move(responder));
    return begin_call(request, std::move(id), std::move(pending));
  }
  const worker::CallId call = pending.call.id;
  const bool sandboxed = request.listener == Listener::kAll;
  // A body that is streamed keeps its share: more of it is to come.
  if (!request.body_stream.valid()) pending.input_share = std::move(request.body_share);
  pending.streams = std::make_shared<WebStreams>(
      std::move(request.body_stream), server_->memory(), request.method, std::move(responder),
      [call, sandboxed](Response& response) {
        if (sandboxed) response.add_field("Content-Security-Policy", kSandbox);
        response.add_field("Spore-Call-Id", call.text());
      },
      [this, call] { worker_.cancel(call); });
  pending.call.streams = pending.streams;
  begin_call(request, std::move(id), std::move(pending));
}

void Api::begin_call(Request& request, functions::FunctionId id, Pending pending) {
  const auto refuse = [&](Pending& refused, Response response) {
    refused.answers().respond(answer(request, std::move(response)));
  };
  if (!pending.streams || pending.streams->input() < 0) pending.call.input = std::move(request.body);
  pending.input_bytes = pending.call.input.size();
  if (auto loaded = registry_.find_loaded(id, request.route.version)) {
    return start_call(std::move(loaded), std::move(pending));
  }
  // The first call after a start, or a function that does not exist. Loading may read a disk, even compile.
  if (!registry_.describe(id))
    return refuse(pending, problem(404, "there is no function " + id.text(), request.path()));
  auto shared = std::make_shared<Pending>(std::move(pending));
  Background::Task task = [this, shared, id, version = request.route.version,
                           path = std::string(request.path())]() mutable {
    const auto began = std::chrono::steady_clock::now();
    auto loaded = registry_.load(id, version);
    shared->call.loading =
        std::max(std::chrono::microseconds(1),
                 std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began));
    if (!loaded) {
      metrics_.count_response(status_of(loaded.error().code));
      return shared->answers().respond(problem_of(loaded.error(), path));
    }
    start_call(std::move(*loaded), std::move(*shared));
  };
  if (!catalogue_.try_submit(task))
    refuse(*shared, problem(503, "too many functions are being loaded", request.path()));
}

void Api::start_call(std::shared_ptr<const functions::LoadedFunction> function, Pending pending) {
  worker::CallRequest call = std::move(pending.call);
  call.function = function;
  worker_.submit(std::move(call), [this, function = std::move(function),
                                   pending = std::move(pending)](worker::CallResult result) mutable {
    // Before the answer: who has it may send the next input at once.
    pending.input_share.release();
    if (pending.streams) pending.streams->release_input();
    end_call(std::move(result), *function, pending);
  });
}

void Api::end_call(worker::CallResult result, const functions::LoadedFunction& function, Pending& pending) {
  const unsigned streamed = pending.streams ? pending.streams->status() : 0;
  const bool complete = result.status == worker::CallStatus::kOk;
  Response response = response_of(std::move(result), function, pending.output, pending.input_bytes, streamed);
  if (streamed) {
    pending.answers().end_body(complete);
  } else {
    pending.answers().respond(std::move(response));
  }
}

void Api::chained_call_ended(worker::CallResult& result, const functions::LoadedFunction& function,
                             uint64_t input_bytes) {
  metrics_.count_call(result);
  call_log_.add(log_entry_of(result, function.id, function.version.number, input_bytes));
}

Response Api::response_of(worker::CallResult result, const functions::LoadedFunction& function, const Output& output,
                          uint64_t input_bytes, unsigned streamed) {
  metrics_.count_call(result);
  Response response;
  CallLogEntry entry = log_entry_of(result, function.id, function.version.number, input_bytes);
  if (streamed) {
    call_log_.add(std::move(entry));
    metrics_.count_response(streamed);
    return response;
  }
  if (result.status == worker::CallStatus::kOk && output.is_cgi) {
    if (auto parsed = parse_cgi_answer(std::move(result.output), output.method)) {
      response = std::move(*parsed);
    } else {
      response = problem(502, "the output of " + function.id.text() + " is no CGI response: " + parsed.error().message,
                         "urn:spore:call:" + result.id.text());
      entry.detail = parsed.error().message;
    }
    if (output.listener == Listener::kAll) response.add_field("Content-Security-Policy", kSandbox);
  } else if (result.status == worker::CallStatus::kOk) {
    response.body = std::move(result.output);
  } else {
    response = problem_of(result, called(function));
  }
  add_call_fields(response, result);
  call_log_.add(std::move(entry));
  metrics_.count_response(response.status);
  return response;
}

}  // namespace spore::gateway

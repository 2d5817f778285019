// The endpoints of Api that read and change the catalogue of functions.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "gateway/api.h"
#include "gateway/api_support.h"
#include "gateway/problem.h"

namespace spore::gateway {
using functions::FunctionId;
using functions::FunctionInfo;
using functions::VersionInfo;
using nlohmann::json;

namespace {

constexpr size_t kListMax = 1'000;
constexpr size_t kLogsMax = 1'000;
constexpr double kProgressStep = 0.01;  // between two events of a stream

json json_of(const VersionInfo& version) {
  return {{"version", version.number},
          {"digest", version.digest_text()},
          {"wasm_bytes", version.wasm_bytes},
          {"object_bytes", version.object_bytes},
          {"tier", wasm::to_string(version.tier)},
          {"published_at", time_text(version.published_at)},
          {"config", json::parse(functions::config_to_json(version.config))}};
}

json json_of(const FunctionInfo& function) {
  json out = json_of(function.current_version());
  out["tenant"] = function.id.tenant;
  out["name"] = function.id.name;
  return out;
}

json json_of(const FunctionId& id, const VersionInfo& version) {
  json out = json_of(version);
  out["tenant"] = id.tenant;
  out["name"] = id.name;
  return out;
}

json versions_json(const FunctionInfo& function) {
  json versions = json::array();
  for (auto version = function.versions.rbegin(); version != function.versions.rend(); ++version) {
    versions.push_back(json_of(*version));
    versions.back()["current"] = version->number == function.current;
  }
  return versions;
}

std::string etag_of(const VersionInfo& version) { return "\"" + version.digest_text() + "\""; }

Response with_etag(Response response, const VersionInfo& version) {
  response.add_field("ETag", etag_of(version));
  return response;
}

struct Precondition {
  std::optional<Digest> digest;
  bool must_exist = false;
  bool must_not_exist = false;
};

std::optional<Digest> parse_etag(std::string_view text) {
  Digest digest{};
  if (text.size() != 2 + 2 * digest.size() || text.front() != '"' || text.back() != '"') return std::nullopt;
  for (size_t i = 0; i < 2 * digest.size(); ++i) {
    const char c = text[1 + i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    digest[i / 2] = static_cast<uint8_t>(digest[i / 2] * 16 + digit);
  }
  return digest;
}

// Nothing: 412, as an entity tag that is none of ours never matches.
std::optional<Precondition> precondition_of(const Request& request) {
  Precondition out;
  if (request.has(Field::kIfNoneMatch)) {
    if (request.field(Field::kIfNoneMatch) != "*") return std::nullopt;
    out.must_not_exist = true;
  }
  if (!request.has(Field::kIfMatch)) return out;
  const std::string& field = request.field(Field::kIfMatch);
  if (field == "*") {
    out.must_exist = true;
    return out;
  }
  out.digest = parse_etag(field);
  if (!out.digest) return std::nullopt;
  return out;
}

Response tag_is_foreign(const Request& request) {
  return problem(412, "If-Match takes * or one entity tag as this host gave it, If-None-Match only *", request.path());
}

Response no_function(const FunctionId& id, const Request& request) {
  return problem(404, "there is no function " + id.text(), request.path());
}

Response no_version(const FunctionId& id, uint64_t number, const Request& request) {
  return problem(404, id.text() + " has no version " + std::to_string(number) + " (any more)", request.path());
}

}  // namespace

// ---- reading --------------------------------------------------------------------------------------------------------

Response Api::list(const Request& request) {
  functions::ListQuery query;
  query.tenant = request.route.tenant;
  if (const auto only = access_.only_tenant(request)) query.tenant = *only;
  if (const auto prefix = request.parameter("prefix")) query.prefix = *prefix;
  if (const auto cursor = request.parameter("cursor")) {
    auto after = FunctionId::parse(*cursor);
    if (!after) return problem(400, "cursor: " + after.error().message, request.path());
    query.after = std::move(*after);
  }
  const size_t limit = limit_of(request, 100, kListMax);
  query.count_max = limit + 1;  // one more tells whether there is a next page
  auto found = registry_.list(query);
  const bool more = found.size() > limit;
  if (more) found.pop_back();
  json functions = json::array();
  for (const FunctionInfo& function : found) functions.push_back(json_of(function));
  json out = {{"functions", std::move(functions)}};
  if (more) out["cursor"] = found.back().id.text();
  return json_response(200, out);
}

Response Api::describe(const Request& request, const FunctionId& id) {
  const auto function = registry_.describe(id);
  if (!function) return no_function(id, request);
  if (!request.route.version) {
    json out = json_of(*function);
    out["versions"] = versions_json(*function);
    return with_etag(json_response(200, out), function->current_version());
  }
  const auto version = std::ranges::find(function->versions, *request.route.version, &VersionInfo::number);
  if (version == function->versions.end()) return no_version(id, *request.route.version, request);
  return with_etag(json_response(200, json_of(id, *version)), *version);
}

Response Api::versions(const FunctionId& id) {
  const auto function = registry_.describe(id);
  if (!function) return problem(404, "there is no function " + id.text());
  return json_response(200, {{"current", function->current}, {"versions", versions_json(*function)}});
}

Response Api::config(const Request& request, const FunctionId& id) {
  const auto function = registry_.describe(id);
  if (!function) return no_function(id, request);
  const VersionInfo& version = function->current_version();
  return with_etag(text_response(200, "application/json", functions::config_to_json(version.config) + "\n"), version);
}

Response Api::logs(const Request& request, const FunctionId& id) {
  if (!registry_.describe(id)) return no_function(id, request);
  json calls = json::array();
  for (const CallLogEntry& entry : call_log_.last_of(id, limit_of(request, 100, kLogsMax))) {
    json call = {{"id", entry.id.text()},
                 {"version", entry.version},
                 {"ended_at", time_text(entry.ended_at)},
                 {"outcome", to_string(entry.outcome)},
                 {"exit_code", entry.exit_code},
                 {"queued_us", entry.queued.count()},
                 {"duration_us", entry.duration.count()},
                 {"cpu_us", entry.usage.cpu.count()},
                 {"memory_bytes", entry.usage.memory_bytes},
                 {"sent_bytes", entry.usage.sent_bytes},
                 {"received_bytes", entry.usage.received_bytes},
                 {"input_bytes", entry.input_bytes},
                 {"output_bytes", entry.output_bytes},
                 {"log", as_text(entry.log)},
                 {"log_truncated", entry.log_truncated}};
    if (!entry.detail.empty()) call["detail"] = entry.detail;
    calls.push_back(std::move(call));
  }
  return json_response(200, {{"calls", std::move(calls)}});
}

// ---- publishing -----------------------------------------------------------------------------------------------------

// A publish on its way through the background queue, and to whom it is told how it goes: exactly one of the three.
struct Api::Publish {
  FunctionId id;
  std::string path;
  Bytes wasm;
  MemoryBudget::Share wasm_share;
  Precondition precondition;
  std::optional<functions::FunctionConfig> config;
  std::optional<Responder> responder;
  std::optional<EventStream> stream;
  std::shared_ptr<Operation> operation;
  double told = 0;

  void progress(double share) {
    if (operation) operation->progress(share);
    if (!stream || share < told + kProgressStep) return;
    told = share;
    stream->send("progress", json({{"share", share}}).dump());
  }
  void succeed(const VersionInfo& version, unsigned status) {
    json result = json_of(id, version);
    if (operation) return operation->succeed(std::move(result));
    if (stream) {
      result["status"] = status;
      stream->send("published", result.dump(-1, ' ', false, json::error_handler_t::replace));
      return stream->finish();
    }
    Response response = with_etag(json_response(status, result), version);
    response.add_field("Location", "/v1/functions/" + id.text() + "@" + std::to_string(version.number));
    responder->respond(std::move(response));
  }
  void fail(const Error& error) {
    if (operation) return operation->fail(problem_json(error, path));
    if (stream) {
      stream->send("problem", problem_json(error, path).dump(-1, ' ', false, json::error_handler_t::replace));
      return stream->finish();
    }
    responder->respond(problem_of(error, path));
  }
};

void Api::publish(Request& request, FunctionId id, Responder responder) {
  const auto refuse = [&](Response response) { responder.respond(answer(request, std::move(response))); };
  if (request.route.version) {
    return refuse(
        problem(400, "versions are numbered by the host; publish without @" + std::to_string(*request.route.version),
                request.path()));
  }
  const auto precondition = precondition_of(request);
  if (!precondition) return refuse(tag_is_foreign(request));
  std::optional<functions::FunctionConfig> config;
  if (request.has(Field::kConfig)) {
    const auto now = registry_.describe(id);
    auto parsed = functions::config_from_json(request.field(Field::kConfig),
                                              now ? now->current_version().config : functions::FunctionConfig{});
    if (!parsed) return refuse(problem_of(std::move(parsed).error().within("Spore-Config"), request.path()));
    config = std::move(*parsed);
  }
  if (publishing_.pending() >= options_.publish_queue_max + options_.publish_threads) {
    return refuse(problem(503, "too many publishes are waiting", request.path()));
  }
  const bool async = request.field(Field::kPrefer).find("respond-async") != std::string::npos;
  auto job = std::make_shared<Publish>();
  job->id = std::move(id);
  job->path = std::string(request.path());
  job->wasm = std::move(request.body);
  job->wasm_share = std::move(request.body_share);
  job->precondition = *precondition;
  job->config = std::move(config);
  if (async) {
    job->operation = operations_.begin(job->id.tenant, "publish " + job->id.text());
    if (!job->operation) return refuse(problem(503, "too many operations are under way", request.path()));
  }
  const bool streams = !async && request.field(Field::kAccept).find("text/event-stream") != std::string::npos;

  // Filled in after the job is queued would be too late: it may run at once.
  std::shared_ptr<Responder> held;
  if (async) {
    held = std::make_shared<Responder>(std::move(responder));
  } else if (streams) {
    metrics_.count_response(200);
    job->stream.emplace(responder.stream());
  } else {
    job->responder.emplace(std::move(responder));
  }
  Background::Task task = [this, job] {
    functions::PublishRequest publish_request{.id = job->id,
                                              .wasm = job->wasm,
                                              .config = job->config,
                                              .expected_digest = job->precondition.digest,
                                              .must_exist = job->precondition.must_exist,
                                              .must_not_exist = job->precondition.must_not_exist};
    const auto before = registry_.describe(job->id);
    auto published =
        registry_.publish(publish_request, [&](double share) { job->progress(share); }, stop_publishing_.get_token());
    job->wasm = {};
    job->wasm_share.release();
    worker_.forget_unused();
    metrics_.count_publish(published.has_value());
    if (published) {
      const bool unchanged = before && before->current == published->number;
      const unsigned status = unchanged ? 200 : 201;
      if (job->responder) metrics_.count_response(status);
      return job->succeed(*published, status);
    }
    Error error = std::move(published).error();
    if (error.code == ErrorCode::kNotFound && job->precondition.must_exist) error.code = ErrorCode::kAlreadyExists;
    if (job->responder) metrics_.count_response(status_of(error.code));
    job->fail(error);
  };
  if (!publishing_.try_submit(task)) {
    const Error full{ErrorCode::kUnavailable, "too many publishes are waiting"};
    if (!held) return job->fail(full);
    job->operation->fail(problem_json(full, job->path));
    return held->respond(answer(request, problem_of(full, job->path)));
  }
  if (held) {
    Response accepted = json_response(202, job->operation->describe());
    accepted.add_field("Location", "/v1/operations/" + job->operation->id());
    accepted.add_field("Preference-Applied", "respond-async");
    held->respond(answer(request, std::move(accepted)));
  }
}

// ---- other changes --------------------------------------------------------------------------------------------------

void Api::change(Request& request, FunctionId id, Responder responder) {
  const auto precondition = precondition_of(request);
  const Endpoint endpoint = request.route.endpoint;
  std::optional<uint64_t> version = request.route.version;
  if (!precondition) return responder.respond(answer(request, tag_is_foreign(request)));
  if (version && endpoint != Endpoint::kRollback) {
    return responder.respond(answer(
        request,
        problem(400, "this is done to a function, not to one version of it: leave out @" + std::to_string(*version),
                request.path())));
  }
  auto shared = std::make_shared<Responder>(std::move(responder));
  Background::Task task = [this, shared, id = std::move(id), endpoint, version, body = std::move(request.body),
                           share = std::move(request.body_share), precondition = *precondition,
                           path = std::string(request.path())]() mutable {
    const auto current = registry_.describe(id);
    Response response;
    if (!current) {
      response = problem(precondition.must_exist ? 412 : 404, "there is no function " + id.text(), path);
    } else if (precondition.must_not_exist) {
      response = problem(412, id.text() + " exists", path);
    } else if (endpoint == Endpoint::kConfig) {
      response = configure(id, body, precondition.digest);
    } else if (precondition.digest && *precondition.digest != current->current_version().module_digest) {
      response = problem(412, "the current version of " + id.text() + " is another one", path);
    } else if (endpoint == Endpoint::kRollback) {
      if (!version && !body.empty()) {
        const json asked = json::parse(body.begin(), body.end(), nullptr, false);
        if (!asked.is_object() || (asked.contains("version") && !asked["version"].is_number_unsigned())) {
          metrics_.count_response(400);
          return shared->respond(problem(400, "the body is empty, or {\"version\": NUMBER}", path));
        }
        if (asked.contains("version")) version = asked["version"].get<uint64_t>();
      }
      response = roll_back(id, version);
    } else {
      response = remove(id, precondition.digest);
    }
    worker_.forget_unused();
    metrics_.count_response(response.status);
    shared->respond(std::move(response));
  };
  if (!catalogue_.try_submit(task)) {
    shared->respond(answer(request, problem(503, "too many changes are waiting", request.path())));
  }
}

Response Api::configure(const FunctionId& id, const Bytes& body, std::optional<Digest> expected) {
  auto config = functions::config_from_json(as_text(body));
  if (!config) return problem_of(config.error());
  const auto version = registry_.configure(id, *config, expected);
  if (!version) return problem_of(version.error());
  return with_etag(json_response(200, json_of(id, *version)), *version);
}

Response Api::roll_back(const FunctionId& id, std::optional<uint64_t> number) {
  const auto version = registry_.rollback(id, number);
  if (!version) return problem_of(version.error());
  return with_etag(json_response(200, json_of(id, *version)), *version);
}

Response Api::remove(const FunctionId& id, std::optional<Digest> expected) {
  if (auto removed = registry_.remove(id); !removed) return problem_of(removed.error());
  Response response;
  response.status = 204;
  return response;
}

}  // namespace spore::gateway

// The endpoints of Api for the files that a tenant shares with its functions.
#include <ctime>
#include <nlohmann/json.hpp>

#include "gateway/api.h"
#include "gateway/api_support.h"
#include "gateway/problem.h"

namespace spore::gateway {
using functions::SharedFile;
using nlohmann::json;

namespace {

constexpr size_t kListMax = 1'000;

json json_of(const SharedFile& file) {
  const std::time_t changed = std::chrono::system_clock::to_time_t(file.changed_at);
  std::tm parts{};
  ::gmtime_r(&changed, &parts);
  char text[32];
  const size_t size = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  // A path is bytes; what is no UTF-8 is told with replacement characters.
  return {{"path", file.path}, {"size_bytes", file.size_bytes}, {"changed_at", std::string(text, size)}};
}

Response list_response(const std::vector<SharedFile>& files, size_t limit) {
  json list = json::array();
  const size_t count = std::min(limit, files.size());
  for (size_t i = 0; i < count; ++i) list.push_back(json_of(files[i]));
  json out = {{"files", std::move(list)}};
  if (files.size() > limit) out["cursor"] = files[limit - 1].path;
  Response response = json_response(200, {});
  const std::string text = out.dump(-1, ' ', false, json::error_handler_t::replace);
  response.body = Bytes(text.begin(), text.end());
  return response;
}

}  // namespace

// All of it may wait for the disk.
void Api::files(Request& request, Responder responder) {
  struct Job {
    Verb method;
    std::string tenant, path, instance;
    std::string below;
    std::optional<std::string> after;
    size_t limit;
    Bytes body;
    MemoryBudget::Share share;
  };
  auto job = std::make_shared<Job>(Job{.method = request.method,
                                       .tenant = request.route.tenant,
                                       .path = request.route.rest,
                                       .instance = std::string(request.path()),
                                       .below = request.parameter("below").value_or(""),
                                       .after = request.parameter("cursor"),
                                       .limit = limit_of(request, 100, kListMax),
                                       .body = std::move(request.body),
                                       .share = std::move(request.body_share)});
  auto shared = std::make_shared<Responder>(std::move(responder));
  Background::Task task = [this, job, shared] {
    Response response = [&]() -> Response {
      const auto refused = [&](const Error& error) {
        if (error.code == ErrorCode::kAlreadyExists) return problem(409, error.message, job->instance);
        return problem_of(error, job->instance);
      };
      functions::SharedFiles& files = *options_.shared_files;
      if (job->path.empty()) {
        if (job->method != Verb::get && job->method != Verb::head)
          return problem(405, "a file is named /v1/files/TENANT/PATH", job->instance);
        const auto found = files.list(job->tenant, job->below, job->after, job->limit + 1);
        return found ? list_response(*found, job->limit) : refused(found.error());
      }
      if (job->method == Verb::put) {
        const auto is_new = files.put(job->tenant, job->path, job->body);
        if (!is_new) return refused(is_new.error());
        return json_response(*is_new ? 201 : 200, {{"path", job->path}, {"size_bytes", job->body.size()}});
      }
      if (job->method == Verb::delete_) {
        if (const auto removed = files.remove(job->tenant, job->path); !removed) return refused(removed.error());
        return Response{.status = 204};
      }
      auto bytes = files.get(job->tenant, job->path, options_.file_bytes_max);
      if (!bytes) return refused(bytes.error());
      return Response{.body = std::move(*bytes)};
    }();
    job->share.release();
    metrics_.count_response(response.status);
    shared->respond(std::move(response));
  };
  if (!catalogue_.try_submit(task)) {
    shared->respond(answer(request, problem(503, "too many changes are waiting", request.path())));
  }
}

}  // namespace spore::gateway

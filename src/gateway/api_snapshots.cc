// The endpoints of Api that show the images of functions.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "functions/image_description.h"
#include "gateway/api.h"
#include "gateway/api_support.h"
#include "gateway/problem.h"

namespace spore::gateway {
using functions::FunctionId;
using functions::ImageInfo;
using nlohmann::json;

namespace {

constexpr size_t kListMax = 1'000;

json json_of(const ImageInfo& image) {
  return {{"tenant", image.id.tenant}, {"name", image.id.name},  {"version", image.version},
          {"current", image.current},  {"loaded", image.loaded}, {"stored_bytes", image.stored_bytes}};
}

json json_of(const functions::ImageDescription& image) {
  json out = {{"format_version", image.format_version},
              {"layout_version", image.layout_version},
              {"module_digest", to_hex(image.module_digest)},
              {"initialisers", to_string(image.initialisers)},
              {"image_bytes", image.image_bytes},
              {"resident_bytes", image.resident_bytes},
              {"globals", image.globals},
              {"memories", json::array()},
              {"tables", json::array()}};
  if (!image.because.empty()) out["because"] = image.because;
  for (const auto& memory : image.memories)
    out["memories"].push_back({{"size_bytes", memory.size_bytes}, {"size_max_bytes", memory.size_max_bytes}});
  for (const auto& table : image.tables)
    out["tables"].push_back({{"element", table.element}, {"size", table.size}, {"size_max", table.size_max}});
  return out;
}

// Where a page of the list begins: behind TENANT/NAME@VERSION.
std::optional<std::pair<FunctionId, uint64_t>> parse_cursor(std::string_view text) {
  const size_t at = text.find('@');
  if (at == std::string_view::npos) return std::nullopt;
  auto id = FunctionId::parse(text.substr(0, at));
  const auto version = parse_number(text.substr(at + 1));
  if (!id || !version) return std::nullopt;
  return std::pair(std::move(*id), *version);
}

}  // namespace

void Api::snapshots(Request& request, Responder responder) {
  const auto refuse = [&](unsigned status, std::string_view detail) {
    responder.respond(answer(request, problem(status, detail, request.path())));
  };
  SnapshotQuery query{.tenant = request.route.tenant, .name = request.route.name, .path = std::string(request.path())};
  if (!query.name.empty()) {
    const auto id = FunctionId::make(query.tenant, query.name);
    if (!id) return refuse(404, id.error().message);
  }
  query.describe = request.route.version.has_value();
  query.version = request.route.version;
  if (const auto asked = request.parameter("version")) {
    if (query.name.empty()) return refuse(400, "version is one of a function: /v1/snapshots/TENANT/NAME?version=");
    query.describe = true;
    const auto version = parse_number(*asked);
    if (!version && *asked != "current") return refuse(400, "version is a number, or `current`");
    if (query.version && query.version != version) return refuse(400, "the path names another version than the query");
    query.version = version;
  }
  if (const auto only = access_.only_tenant(request)) query.tenant = *only;
  query.limit = limit_of(request, 100, kListMax);
  if (const auto cursor = request.parameter("cursor")) {
    query.after = parse_cursor(*cursor);
    if (!query.after) return refuse(400, "cursor is TENANT/NAME@VERSION, as this host gave it");
  }
  auto shared = std::make_shared<Responder>(std::move(responder));
  // It reads the store, and may compile.
  Background::Task task = [this, shared, query = std::move(query)] {
    Response response = query.describe ? describe_snapshot(query) : list_snapshots(query);
    metrics_.count_response(response.status);
    shared->respond(std::move(response));
  };
  if (!catalogue_.try_submit(task))
    shared->respond(answer(request, problem(503, "too many functions are being loaded", request.path())));
}

Response Api::list_snapshots(const SnapshotQuery& query) {
  auto images = registry_.images(query.tenant, query.name);
  if (!images) return problem_of(images.error(), query.path);
  if (!query.name.empty() && images->empty())
    return problem(404, "there is no function " + query.tenant + "/" + query.name, query.path);
  auto at = images->begin();
  const auto place = [](const ImageInfo& image) { return std::pair(image.id, image.version); };
  if (query.after) at = std::ranges::upper_bound(*images, *query.after, {}, place);
  json list = json::array();
  for (; at != images->end() && list.size() < query.limit; ++at) list.push_back(json_of(*at));
  const bool more = at != images->end();
  json out = {{"snapshots", std::move(list)}};
  if (more) out["cursor"] = std::prev(at)->id.text() + "@" + std::to_string(std::prev(at)->version);
  return json_response(200, out);
}

Response Api::describe_snapshot(const SnapshotQuery& query) {
  const FunctionId id{query.tenant, query.name};
  const auto loaded = registry_.load(id, query.version);
  if (!loaded) return problem_of(loaded.error(), query.path);
  if (!(*loaded)->proto)
    return problem(404, "the image of " + id.text() + " is in the process of its tenant alone", query.path);
  const auto images = registry_.images(id.tenant, id.name);
  if (!images) return problem_of(images.error(), query.path);
  const uint64_t version = (*loaded)->version.number;
  const auto image = std::ranges::find(*images, version, &ImageInfo::version);
  if (image == images->end())
    return problem(404, id.text() + " has no version " + std::to_string(version) + " any more", query.path);
  json out = json_of(*image);
  out.update(json_of(functions::describe_image(*(*loaded)->proto)));
  return json_response(200, out);
}

}  // namespace spore::gateway

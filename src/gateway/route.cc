#include "gateway/route.h"

#include <charconv>

#include "base/percent.h"

namespace spore::gateway {

namespace {

// Takes the first segment off the path "/a/b/c": gives "a", leaves "/b/c".
std::string_view take_segment(std::string_view& path) {
  path.remove_prefix(1);
  const auto segment = path.substr(0, path.find('/'));
  path.remove_prefix(segment.size());
  return segment;
}

bool decode(std::string_view segment, std::string& out) {
  if (segment.find('%') == std::string_view::npos) {
    out.assign(segment);
    return true;
  }
  auto decoded = percent_decode(segment);
  if (!decoded) return false;
  out = std::move(*decoded);
  return true;
}

std::optional<uint64_t> parse_version(std::string_view digits) {
  uint64_t version = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), version);
  if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) return std::nullopt;
  return version;
}

Endpoint function_endpoint(std::string_view rest) {
  if (rest.empty()) return Endpoint::kFunction;
  if (rest == "/call") return Endpoint::kCall;
  if (rest == "/config") return Endpoint::kConfig;
  if (rest == "/versions") return Endpoint::kVersions;
  if (rest == "/rollback") return Endpoint::kRollback;
  if (rest == "/logs") return Endpoint::kLogs;
  return Endpoint::kUnknown;
}

Endpoint call_endpoint(std::string_view rest) {
  if (rest.empty()) return Endpoint::kOneCall;
  if (rest == "/output") return Endpoint::kOutput;
  if (rest == "/log") return Endpoint::kCallLog;
  if (rest == "/replay") return Endpoint::kReplay;
  if (rest == "/graph") return Endpoint::kGraph;
  return Endpoint::kUnknown;
}

}  // namespace

Route parse_route(std::string_view path) {
  const auto alone = [](Endpoint endpoint) {
    Route alone_route;
    alone_route.endpoint = endpoint;
    return alone_route;
  };
  if (path == "/") return alone(Endpoint::kPage);
  if (path == "/healthz") return alone(Endpoint::kHealth);
  if (path == "/readyz") return alone(Endpoint::kReady);
  if (path == "/metrics") return alone(Endpoint::kMetrics);
  if (path == "/v1/openapi.json") return alone(Endpoint::kOpenApi);

  Route route;
  constexpr std::string_view kOperations = "/v1/operations/";
  if (path.starts_with(kOperations)) {
    route.id = path.substr(kOperations.size());
    if (!route.id.empty() && route.id.find('/') == std::string::npos) route.endpoint = Endpoint::kOperation;
    return route;
  }
  if (path == "/v1/calls" || path == "/v1/calls/") return alone(Endpoint::kCalls);
  if (constexpr std::string_view kCalls = "/v1/calls/"; path.starts_with(kCalls)) {
    std::string_view rest = path.substr(kCalls.size() - 1);
    route.id = take_segment(rest);
    route.endpoint = call_endpoint(rest);
    return route;
  }
  if (constexpr std::string_view kFiles = "/v1/files/"; path.starts_with(kFiles)) {
    std::string_view rest = path.substr(kFiles.size() - 1);
    if (!decode(take_segment(rest), route.tenant) || route.tenant.empty()) return route;
    if (!rest.empty() && !decode(rest.substr(1), route.rest)) return route;
    route.endpoint = Endpoint::kFiles;
    return route;
  }
  if (constexpr std::string_view kState = "/v1/state/"; path.starts_with(kState)) {
    std::string_view rest = path.substr(kState.size() - 1);
    if (!decode(take_segment(rest), route.tenant) || route.tenant.empty()) return route;
    if (!rest.empty()) route.rest = rest.substr(1);
    route.endpoint = rest.empty() ? Endpoint::kValues : Endpoint::kValue;
    return route;
  }
  constexpr std::string_view kFunctions = "/v1/functions", kSnapshots = "/v1/snapshots";
  const bool snapshots = path.starts_with(kSnapshots), web = path.starts_with(kWebPrefix);
  if (!snapshots && !web && !path.starts_with(kFunctions)) return route;
  std::string_view rest = path.substr(web ? kWebPrefix.size() - 1 : snapshots ? kSnapshots.size() : kFunctions.size());
  const Endpoint list = snapshots ? Endpoint::kSnapshots : Endpoint::kFunctions;
  if (!web && (rest.empty() || rest == "/")) return alone(list);
  if (rest.front() != '/') return route;
  if (!decode(take_segment(rest), route.tenant) || route.tenant.empty()) return route;
  if (rest.empty() || rest == "/") {
    if (!web) route.endpoint = list;
    return route;
  }
  std::string_view name = take_segment(rest);
  if (const size_t at = name.find('@'); at != std::string_view::npos) {
    route.version = parse_version(name.substr(at + 1));
    if (!route.version) return route;
    name = name.substr(0, at);
  }
  if (!decode(name, route.name) || route.name.empty()) return route;
  if (web) {
    route.rest = rest;
    route.endpoint = Endpoint::kWeb;
    return route;
  }
  if (!snapshots) {
    route.endpoint = function_endpoint(rest);
    return route;
  }
  if (rest.size() > 1) {
    if (route.version) return route;
    route.version = parse_version(rest.substr(1));
    if (!route.version) return route;
  }
  route.endpoint = Endpoint::kSnapshots;
  return route;
}

}  // namespace spore::gateway

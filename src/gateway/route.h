// Which endpoint a path names. Pure; knows no methods, no permissions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spore::gateway {

enum class Endpoint : uint8_t {
  kUnknown,
  kPage,       // /
  kHealth,     // /healthz
  kReady,      // /readyz
  kMetrics,    // /metrics
  kOpenApi,    // /v1/openapi.json
  kFunctions,  // /v1/functions, /v1/functions/TENANT
  kFunction,   // /v1/functions/TENANT/NAME[@VERSION]
  kConfig,     // .../config
  kVersions,   // .../versions
  kRollback,   // .../rollback
  kLogs,       // .../logs
  kCall,       // .../call
  kOperation,  // /v1/operations/ID
  kCalls,      // /v1/calls
  kOneCall,    // /v1/calls/ID
  kOutput,     // .../output
  kCallLog,    // .../log
  kGraph,      // .../graph
  kReplay,     // .../replay
  kSnapshots,  // /v1/snapshots[/TENANT[/NAME[@VERSION or /VERSION]]]
  kFiles,      // /v1/files/TENANT[/PATH]
  kValues,     // /v1/state/TENANT
  kValue,      // /v1/state/TENANT/KEY
  kWeb,        // /fn/TENANT/NAME[@VERSION][/...]
};

struct Route {
  Endpoint endpoint = Endpoint::kUnknown;
  std::string tenant;  // percent-decoded, not checked further
  std::string name;
  std::optional<uint64_t> version;
  std::string id;  // of an operation or a call
  // kWeb: the path behind the name, as sent: "" or from a slash on. kFiles: the file's path, percent-decoded. kValue:
  // the key, as sent: all that is behind the tenant's slash.
  std::string rest;
};

constexpr std::string_view kWebPrefix = "/fn/";

// `path`: without a query. Malformed escapes and versions are kUnknown.
Route parse_route(std::string_view path);

}  // namespace spore::gateway

#include "gateway/route.h"

#include <gtest/gtest.h>

namespace spore::gateway {
namespace {

TEST(Route, NamesFixedEndpoints) {
  EXPECT_EQ(parse_route("/").endpoint, Endpoint::kPage);
  EXPECT_EQ(parse_route("/healthz").endpoint, Endpoint::kHealth);
  EXPECT_EQ(parse_route("/readyz").endpoint, Endpoint::kReady);
  EXPECT_EQ(parse_route("/metrics").endpoint, Endpoint::kMetrics);
  EXPECT_EQ(parse_route("/v1/openapi.json").endpoint, Endpoint::kOpenApi);
  EXPECT_EQ(parse_route("/v1/functions").endpoint, Endpoint::kFunctions);
}

TEST(Route, FindsTenantAndName) {
  const Route route = parse_route("/v1/functions/acme/hello/call");
  EXPECT_EQ(route.endpoint, Endpoint::kCall);
  EXPECT_EQ(route.tenant, "acme");
  EXPECT_EQ(route.name, "hello");
  EXPECT_FALSE(route.version);
  const Route tenant = parse_route("/v1/functions/acme");
  EXPECT_EQ(tenant.endpoint, Endpoint::kFunctions);
  EXPECT_EQ(tenant.tenant, "acme");
}

TEST(Route, FindsTheVersionBehindAnAt) {
  const Route route = parse_route("/v1/functions/acme/hello@12/call");
  EXPECT_EQ(route.endpoint, Endpoint::kCall);
  EXPECT_EQ(route.name, "hello");
  EXPECT_EQ(route.version, 12u);
}

TEST(Route, RefusesMalformedVersions) {
  for (const char* path : {"/v1/functions/a/b@", "/v1/functions/a/b@x", "/v1/functions/a/b@1x", "/v1/functions/a/b@-1",
                           "/v1/functions/a/b@99999999999999999999"}) {
    EXPECT_EQ(parse_route(path).endpoint, Endpoint::kUnknown) << path;
  }
}

TEST(Route, DecodesEscapesAndRefusesBrokenOnes) {
  EXPECT_EQ(parse_route("/v1/functions/ac%6De/b").tenant, "acme");
  EXPECT_EQ(parse_route("/v1/functions/a%2Fb/c").tenant, "a/b");  // for whoever checks names to refuse
  EXPECT_EQ(parse_route("/v1/functions/a%2/b").endpoint, Endpoint::kUnknown);
  EXPECT_EQ(parse_route("/v1/functions/a%zz/b").endpoint, Endpoint::kUnknown);
}

TEST(Route, UnknownPathsAreUnknown) {
  for (const char* path : {"/v2/functions", "/v1/functionsx", "/v1/functions//b/call", "/v1/functions/a/b/c",
                           "/v1/functions/a/b/call/", "/healthz/", "", "*", "/v1/operations/", "/v1/operations/a/b"}) {
    EXPECT_EQ(parse_route(path).endpoint, Endpoint::kUnknown) << path;
  }
}

TEST(Route, FindsSnapshotsOfAllOfATenantAFunctionAVersion) {
  for (const char* path : {"/v1/snapshots", "/v1/snapshots/"}) {
    EXPECT_EQ(parse_route(path).endpoint, Endpoint::kSnapshots) << path;
    EXPECT_EQ(parse_route(path).tenant, "") << path;
  }
  EXPECT_EQ(parse_route("/v1/snapshots/acme").tenant, "acme");
  const Route function = parse_route("/v1/snapshots/acme/hello");
  EXPECT_EQ(function.endpoint, Endpoint::kSnapshots);
  EXPECT_EQ(function.name, "hello");
  EXPECT_FALSE(function.version);
  for (const char* path : {"/v1/snapshots/acme/hello/12", "/v1/snapshots/acme/hello@12"}) {
    const Route version = parse_route(path);
    EXPECT_EQ(version.endpoint, Endpoint::kSnapshots) << path;
    EXPECT_EQ(version.name, "hello") << path;
    EXPECT_EQ(version.version, 12u) << path;
  }
  for (const char* path : {"/v1/snapshotsx", "/v1/snapshots/a/b/c", "/v1/snapshots/a/b/1/2", "/v1/snapshots/a/b@1/1",
                           "/v1/snapshots/a/b/-1", "/v1/snapshots/a/b/99999999999999999999", "/v1/snapshots//b"}) {
    EXPECT_EQ(parse_route(path).endpoint, Endpoint::kUnknown) << path;
  }
}

TEST(Route, FindsStateValuesAndKeepsTheirKeysAsSent) {
  EXPECT_EQ(parse_route("/v1/state/acme").endpoint, Endpoint::kValues);
  EXPECT_EQ(parse_route("/v1/state/ac%6De").tenant, "acme");
  const auto key = [](std::string_view path) {
    const Route route = parse_route(path);
    EXPECT_EQ(route.endpoint, Endpoint::kValue) << path;
    EXPECT_EQ(route.tenant, "acme") << path;
    return route.rest;
  };
  EXPECT_EQ(key("/v1/state/acme/weights"), "weights");
  EXPECT_EQ(key("/v1/state/acme/a/b//c/"), "a/b//c/");
  EXPECT_EQ(key("/v1/state/acme/a%2Fb"), "a%2Fb");
  EXPECT_EQ(key("/v1/state/acme/../x"), "../x");
  EXPECT_EQ(key("/v1/state/acme/a@b"), "a@b");
  EXPECT_EQ(key("/v1/state/acme/%zz"), "%zz");  // for whoever decodes it to refuse
  EXPECT_EQ(key("/v1/state/acme/"), "");        // a key that is empty, not a list
  for (const char* path : {"/v1/state", "/v1/state/", "/v1/state//a", "/v1/statex/acme", "/v1/state/a%2/b"}) {
    EXPECT_EQ(parse_route(path).endpoint, Endpoint::kUnknown) << path;
  }
}

TEST(Route, FindsCalls) {
  EXPECT_EQ(parse_route("/v1/calls").endpoint, Endpoint::kCalls);
  EXPECT_EQ(parse_route("/v1/calls/").endpoint, Endpoint::kCalls);
  EXPECT_EQ(parse_route("/v1/calls/ab12").endpoint, Endpoint::kOneCall);
  EXPECT_EQ(parse_route("/v1/calls/ab12").id, "ab12");
  EXPECT_EQ(parse_route("/v1/calls/ab12/output").endpoint, Endpoint::kOutput);
  EXPECT_EQ(parse_route("/v1/calls/ab12/log").endpoint, Endpoint::kCallLog);
  EXPECT_EQ(parse_route("/v1/calls/ab12/graph").endpoint, Endpoint::kGraph);
  EXPECT_EQ(parse_route("/v1/calls/ab12/replay").endpoint, Endpoint::kReplay);
  for (const char* path : {"/v1/calls/ab12/", "/v1/calls/ab12/more", "/v1/calls/ab12/log/", "/v1/callsx"})
    EXPECT_EQ(parse_route(path).endpoint, Endpoint::kUnknown) << path;
}

TEST(Route, FindsOperations) {
  const Route route = parse_route("/v1/operations/0123abcd");
  EXPECT_EQ(route.endpoint, Endpoint::kOperation);
  EXPECT_EQ(route.id, "0123abcd");
}

TEST(Route, WebHandlersKeepThePathBehindTheirNameAsItWasSent) {
  const auto web = [](std::string_view path) { return parse_route(path); };
  EXPECT_EQ(web("/fn/acme/hello").endpoint, Endpoint::kWeb);
  EXPECT_EQ(web("/fn/acme/hello").rest, "");
  EXPECT_EQ(web("/fn/acme/hello/").rest, "/");
  const Route route = web("/fn/ac%6De/hello@12/a%2Fb/../c");
  EXPECT_EQ(route.endpoint, Endpoint::kWeb);
  EXPECT_EQ(route.tenant, "acme");
  EXPECT_EQ(route.name, "hello");
  EXPECT_EQ(route.version, 12u);
  EXPECT_EQ(route.rest, "/a%2Fb/../c");
  for (const char* path : {"/fn", "/fn/", "/fn/acme", "/fn/acme/", "/fn//hello", "/fn/acme//x", "/fn/acme/hello@x/a",
                           "/fnord/acme/hello"}) {
    EXPECT_EQ(web(path).endpoint, Endpoint::kUnknown) << path;
  }
}

}  // namespace
}  // namespace spore::gateway

#include "state/redis_url.h"

#include <charconv>

#include "base/percent.h"

namespace spore::state {
namespace {

template <class T>
bool parse_whole(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
}

std::unexpected<Error> bad(const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, "the Redis URL " + what);
}

}  // namespace

std::string RedisEndpoint::text() const {
  const bool brackets = host.find(':') != std::string::npos;
  return (brackets ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<RedisEndpoint> parse_redis_endpoint(std::string_view text) {
  RedisEndpoint out;
  std::string_view port;
  bool has_port = false;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return bad("has an address without a closing bracket");
    out.host = text.substr(1, end - 1);
    const std::string_view rest = text.substr(end + 1);
    if (!rest.empty() && rest[0] != ':') return bad("has something other than a port after the bracket");
    has_port = !rest.empty();
    if (has_port) port = rest.substr(1);
  } else {
    const size_t colon = text.find(':');
    if (colon != std::string_view::npos && text.find(':', colon + 1) != std::string_view::npos)
      return bad("has more than one colon in a host; an IPv6 address stands in brackets");
    out.host = text.substr(0, colon);
    has_port = colon != std::string_view::npos;
    if (has_port) port = text.substr(colon + 1);
  }
  if (out.host.empty()) return bad("names no host");
  if (out.host.size() > 255 || out.host.find_first_of(std::string_view(" /?#@\0", 6)) != std::string::npos)
    return bad("has a host that is none");
  if (has_port && (!parse_whole(port, out.port) || out.port == 0)) return bad("has a port that is not 1 to 65535");
  return out;
}

Result<RedisUrl> RedisUrl::parse(std::string_view text) {
  RedisUrl out;
  const size_t colon = text.find("://");
  const std::string_view scheme = text.substr(0, colon == std::string_view::npos ? 0 : colon);
  if (scheme == "rediss" || scheme == "rediss-cluster") {
    out.tls = true;
  } else if (scheme != "redis" && scheme != "redis-cluster") {
    return bad("does not begin with redis://, rediss://, redis-cluster:// or rediss-cluster://");
  }
  out.cluster = scheme.ends_with("-cluster");
  std::string_view rest = text.substr(colon + 3);
  if (const size_t at = rest.rfind('@'); at != std::string_view::npos) {
    const std::string_view login = rest.substr(0, at);
    rest = rest.substr(at + 1);
    const size_t separator = login.find(':');
    if (separator == std::string_view::npos) return bad("has a user without a password; write user:password@");
    const auto user = percent_decode(login.substr(0, separator));
    const auto password = percent_decode(login.substr(separator + 1));
    if (!user || !password) return bad("has a % in user or password that two hexadecimal digits do not follow");
    out.user = *user;
    out.password = *password;
    if (out.password.empty()) return bad("has an empty password");
  }
  if (const size_t slash = rest.find('/'); slash != std::string_view::npos) {
    const std::string_view database = rest.substr(slash + 1);
    rest = rest.substr(0, slash);
    if (!database.empty() && (!parse_whole(database, out.database) || out.database > 1'000'000))
      return bad("has a database that is not a number");
    if (out.cluster && out.database != 0) return bad("has a database; a cluster has only 0");
  }
  while (true) {
    const size_t comma = rest.find(',');
    ASSIGN_OR_RETURN(auto endpoint, parse_redis_endpoint(rest.substr(0, comma)));
    out.endpoints.push_back(std::move(endpoint));
    if (out.endpoints.size() > kRedisSeedsMax) return bad("names more than 64 hosts");
    if (comma == std::string_view::npos) break;
    rest = rest.substr(comma + 1);
  }
  if (!out.cluster && out.endpoints.size() > 1) return bad("names several hosts; for a cluster use redis-cluster://");
  return out;
}

std::string RedisUrl::text() const {
  std::string out = std::string(tls ? "rediss" : "redis") + (cluster ? "-cluster" : "") + "://";
  for (const auto& endpoint : endpoints) out += (out.back() == '/' ? "" : ",") + endpoint.text();
  if (database != 0) out += "/" + std::to_string(database);
  return out;
}

}  // namespace spore::state

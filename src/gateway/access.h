// Who may do what. Either a host has no keys, listens on loopback only, and then takes requests only from this
// machine's own programs and pages (not from a web page that points a name at 127.0.0.1); or every request carries a
// key.
//
// The file of keys is JSON:
//
//   {"keys": [{"token": "at least 16 characters", "tenant": "acme", "scopes": ["call", "publish", "read"]},
//             {"token_sha256": "64 hexadecimal digits", "tenant": "*", "scopes": ["admin"]}]}
//
// `tenant` "*" is every tenant. Scopes: `call` functions, `publish` (also configure, roll back, remove, write files and
// state), `read` (list, describe, logs, snapshots, files, state), `admin` (all of it, and metrics). Only digests of
// tokens are kept in memory.
//
// Immutable after construction; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "gateway/http.h"

namespace spore::gateway {

enum class Scope : uint8_t { kNone = 0, kCall = 1, kPublish = 2, kRead = 4, kAdmin = 8 };

class Access {
 public:
  // Without keys: loopback, own programs only.
  Access() = default;
  // kPermissionDenied where others may read the file; kInvalidArgument names what is wrong in it.
  static Result<Access> from_file(const std::filesystem::path& file);
  static Result<Access> from_json(std::string_view json);

  bool has_keys() const { return !keys_.empty(); }

  // Nothing, or the refusal: 401 without a valid key, 403 for a foreign Host or Origin or a missing scope, 404 for
  // another tenant's things. Scope::kNone: everybody.
  std::optional<Response> check(const Request& request, Scope needed, std::string_view tenant) const;
  // Whether the request's key is for every tenant (without keys: yes).
  bool sees_all_tenants(const Request& request) const;
  // The one tenant that the request's key is for, or nothing.
  std::optional<std::string> only_tenant(const Request& request) const;

 private:
  struct Key {
    std::string tenant;
    uint8_t scopes = 0;
  };
  const Key* key_of(const Request& request) const;

  std::map<Digest, Key> keys_;  // by the SHA-256 of the token
};

// Whether a Host or Origin field names this machine by a name that no DNS server has a say in.
bool is_own_host(std::string_view host);
bool is_own_origin(std::string_view origin);
// Whether an Origin field has this port, whatever its host; without a port it has its scheme's.
bool is_origin_at(std::string_view origin, uint16_t port);

}  // namespace spore::gateway

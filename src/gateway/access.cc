#include "gateway/access.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "gateway/api_support.h"
#include "gateway/problem.h"

namespace spore::gateway {
using nlohmann::json;

namespace {

constexpr uint64_t kKeyFileBytesMax = 1 << 20;
constexpr size_t kTokenCharactersMin = 16;

std::optional<Scope> scope_named(std::string_view name) {
  if (name == "call") return Scope::kCall;
  if (name == "publish") return Scope::kPublish;
  if (name == "read") return Scope::kRead;
  if (name == "admin") return Scope::kAdmin;
  return std::nullopt;
}

std::optional<Digest> digest_from_hex(std::string_view text) {
  Digest out{};
  if (text.size() != 2 * out.size()) return std::nullopt;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    out[i / 2] = static_cast<uint8_t>(out[i / 2] * 16 + digit);
  }
  return out;
}

// "name:8080" -> "name"; "[::1]:8080" -> "[::1]".
std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

}  // namespace

bool is_own_host(std::string_view host) {
  const auto name = without_port(host);
  return name == "localhost" || name == "127.0.0.1" || name == "[::1]";
}

bool is_own_origin(std::string_view origin) {
  const size_t scheme_end = origin.find("://");
  return scheme_end != std::string_view::npos && is_own_host(origin.substr(scheme_end + 3));
}

bool is_origin_at(std::string_view origin, uint16_t port) {
  const size_t scheme_end = origin.find("://");
  if (scheme_end == std::string_view::npos) return false;
  const std::string_view host = origin.substr(scheme_end + 3);
  const std::string_view behind = host.substr(without_port(host).size());
  if (behind.empty()) return port == (origin.substr(0, scheme_end) == "https" ? 443 : 80);
  const auto number = behind.front() == ':' ? parse_number(behind.substr(1)) : std::nullopt;
  return number && *number == port;
}

Result<Access> Access::from_file(const std::filesystem::path& file) {
  struct stat status{};
  if (::stat(file.c_str(), &status) != 0) return fail_errno("keys file " + file.string());
  if (status.st_mode & (S_IRWXG | S_IRWXO)) {
    return fail(ErrorCode::kPermissionDenied,
                "keys file " + file.string() + ": others than its owner may read it (chmod 600)");
  }
  ASSIGN_OR_RETURN(const Bytes text, read_file(file, kKeyFileBytesMax));
  auto access = from_json(as_text(text));
  if (!access) return std::unexpected(std::move(access).error().within("keys file " + file.string()));
  return access;
}

Result<Access> Access::from_json(std::string_view text) {
  const auto wrong = [](std::string message) { return fail(ErrorCode::kInvalidArgument, std::move(message)); };
  const json document = json::parse(text, nullptr, false);
  if (document.is_discarded()) return wrong("it is not JSON");
  if (!document.is_object() || !document.contains("keys") || !document["keys"].is_array()) {
    return wrong("it has no array `keys`");
  }
  Access access;
  size_t index = 0;
  for (const json& entry : document["keys"]) {
    const std::string where = "keys[" + std::to_string(index++) + "]";
    if (!entry.is_object()) return wrong(where + " is no object");
    Digest digest{};
    Key key;
    for (const auto& [name, value] : entry.items()) {
      if (name == "token" && value.is_string()) {
        const auto& token = value.get_ref<const std::string&>();
        if (token.size() < kTokenCharactersMin) return wrong(where + ".token has less than 16 characters");
        digest = sha256(as_bytes(token));
      } else if (name == "token_sha256" && value.is_string()) {
        const auto parsed = digest_from_hex(value.get_ref<const std::string&>());
        if (!parsed) return wrong(where + ".token_sha256 is not 64 lower-case hexadecimal digits");
        digest = *parsed;
      } else if (name == "tenant" && value.is_string()) {
        key.tenant = value.get<std::string>();
        if (key.tenant != "*") TRY(functions::check_name_part(where + ".tenant", key.tenant));
      } else if (name == "scopes" && value.is_array()) {
        for (const json& scope : value) {
          const auto known = scope.is_string() ? scope_named(scope.get_ref<const std::string&>()) : std::nullopt;
          if (!known) return wrong(where + ".scopes: " + scope.dump() + " is none of call, publish, read, admin");
          key.scopes |= static_cast<uint8_t>(*known);
        }
      } else {
        return wrong(where + "." + name + " is unknown or of the wrong type");
      }
    }
    if (digest == Digest{}) return wrong(where + " has neither `token` nor `token_sha256`");
    if (key.tenant.empty()) return wrong(where + " has no `tenant`");
    if (key.scopes == 0) return wrong(where + " has no `scopes`");
    if (!access.keys_.emplace(digest, std::move(key)).second) return wrong(where + " repeats the token of another key");
  }
  if (access.keys_.empty()) return wrong("it has no key");
  return access;
}

const Access::Key* Access::key_of(const Request& request) const {
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view field = request.field(Field::kAuthorization);
  if (!field.starts_with(kBearer)) return nullptr;
  // The look-up is by digest, so how long it takes says nothing about the tokens.
  const auto found = keys_.find(sha256(as_bytes(field.substr(kBearer.size()))));
  return found == keys_.end() ? nullptr : &found->second;
}

std::optional<Response> Access::check(const Request& request, Scope needed, std::string_view tenant) const {
  if (!has_keys()) {
    if (!is_own_host(request.field(Field::kHost)) && (request.version == 11 || request.has(Field::kHost))) {
      return problem(403,
                     "this host has no keys, so it answers only to localhost, 127.0.0.1 and [::1]; the Host "
                     "field says something else",
                     request.path());
    }
    if (request.has(Field::kOrigin) && !is_own_origin(request.field(Field::kOrigin))) {
      return problem(403, "this host has no keys, so it takes no requests from foreign web pages (Origin)",
                     request.path());
    }
    return std::nullopt;
  }
  if (needed == Scope::kNone) return std::nullopt;
  const Key* key = key_of(request);
  if (!key) return problem(401, "send `Authorization: Bearer TOKEN` with a key of this host", request.path());
  if (!tenant.empty() && key->tenant != "*" && key->tenant != tenant) {
    return problem(404, "there is nothing of that name", request.path());
  }
  if (!(key->scopes & (static_cast<uint8_t>(needed) | static_cast<uint8_t>(Scope::kAdmin)))) {
    return problem(403, "the key lacks the scope for this", request.path());
  }
  return std::nullopt;
}

bool Access::sees_all_tenants(const Request& request) const { return !only_tenant(request); }

std::optional<std::string> Access::only_tenant(const Request& request) const {
  if (!has_keys()) return std::nullopt;
  const Key* key = key_of(request);
  if (key && key->tenant == "*") return std::nullopt;
  return key ? key->tenant : std::string();
}

}  // namespace spore::gateway

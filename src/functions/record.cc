#include "functions/record.h"

#include <nlohmann/json.hpp>

namespace spore::functions {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;

std::unexpected<Error> damaged(std::string_view name, const std::string& why) {
  return fail(ErrorCode::kInternal, "the record " + std::string(name) + " is damaged: " + why);
}

std::optional<Digest> digest_from_hex(std::string_view hex) {
  Digest out{};
  if (hex.size() != 2 * out.size()) return std::nullopt;
  for (size_t i = 0; i < hex.size(); ++i) {
    const char c = hex[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    out[i / 2] = static_cast<uint8_t>(out[i / 2] << 4 | digit);
  }
  return out;
}

std::optional<uint64_t> number_at(const json& object, const char* field) {
  const auto found = object.find(field);
  if (found == object.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<uint64_t>();
}

std::optional<std::string> text_at(const json& object, const char* field) {
  const auto found = object.find(field);
  if (found == object.end() || !found->is_string()) return std::nullopt;
  return found->get<std::string>();
}

}  // namespace

std::string record_name(const FunctionId& id) { return "functions/" + id.tenant + "/" + id.name + ".json"; }

std::string record_to_json(const Record& record) {
  json versions = json::array();
  for (const auto& version : record.info.versions) {
    const auto published =
        std::chrono::duration_cast<std::chrono::milliseconds>(version.published_at.time_since_epoch());
    versions.push_back({{"number", version.number},
                        {"module", version.digest_text()},
                        {"wasm_bytes", version.wasm_bytes},
                        {"published_unix_ms", static_cast<uint64_t>(std::max<int64_t>(published.count(), 0))},
                        {"config", json::parse(config_to_json(version.config))}});
  }
  return json{{"format", kFormat},           {"tenant", record.info.id.tenant},
              {"name", record.info.id.name}, {"current", record.info.current},
              {"next", record.next_number},  {"versions", std::move(versions)}}
      .dump();
}

Result<Record> record_from_json(std::string_view name, std::string_view text) {
  const json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return damaged(name, "it is no JSON object");
  if (number_at(parsed, "format") != kFormat) return damaged(name, "it has another format");
  const auto tenant = text_at(parsed, "tenant"), function = text_at(parsed, "name");
  const auto current = number_at(parsed, "current"), next = number_at(parsed, "next");
  const auto versions = parsed.find("versions");
  if (!tenant || !function || !current || !next || versions == parsed.end() || !versions->is_array())
    return damaged(name, "a field is missing");
  auto id = FunctionId::make(*tenant, *function);
  if (!id) return damaged(name, id.error().message);
  if (record_name(*id) != name) return damaged(name, "it is the record of " + id->text());

  Record out{.info = {.id = *id, .current = *current}, .next_number = *next};
  bool has_current = false;
  uint64_t last = 0;
  for (const auto& entry : *versions) {
    if (!entry.is_object()) return damaged(name, "a version is no object");
    const auto number = number_at(entry, "number"), wasm_bytes = number_at(entry, "wasm_bytes"),
               published = number_at(entry, "published_unix_ms");
    const auto module = text_at(entry, "module");
    const auto config = entry.find("config");
    if (!number || !wasm_bytes || !published || !module || config == entry.end())
      return damaged(name, "a field of a version is missing");
    const auto digest = digest_from_hex(*module);
    if (!digest) return damaged(name, "a digest is malformed");
    if (*number <= last || *number >= *next) return damaged(name, "versions are out of order");
    auto parsed_config = config_from_json(config->dump());
    if (!parsed_config) return damaged(name, parsed_config.error().message);
    last = *number;
    has_current |= *number == *current;
    VersionInfo version{.number = *number, .module_digest = *digest, .wasm_bytes = *wasm_bytes};
    version.published_at = std::chrono::system_clock::time_point(
        std::chrono::milliseconds(std::min<uint64_t>(*published, 1ull << 43)));  // some 280 years: no overflow
    version.config = std::move(*parsed_config);
    out.info.versions.push_back(std::move(version));
  }
  if (!has_current) return damaged(name, "its current version is missing");
  return out;
}

}  // namespace spore::functions

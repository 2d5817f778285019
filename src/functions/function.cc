#include "functions/function.h"

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "functions/shared_files.h"
#include "isolation/cpu_groups.h"

namespace spore::functions {
namespace {

using nlohmann::json;

constexpr size_t kNamePartBytesMax = 64;
constexpr size_t kConfigJsonBytesMax = 1 << 20;

bool is_letter_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

// Well-formed as RFC 3629 says: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80                   ? 1
                          : lead >= 0xC2 && lead < 0xE0 ? 2
                          : lead >= 0xE0 && lead < 0xF0 ? 3
                          : lead >= 0xF0 && lead < 0xF5 ? 4
                                                        : 0;
    if (length == 0 || length > text.size() - i) return false;
    for (size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      unsigned char low = 0x80, high = 0xBF;
      if (k == 1 && lead == 0xE0) low = 0xA0;
      if (k == 1 && lead == 0xED) high = 0x9F;
      if (k == 1 && lead == 0xF0) low = 0x90;
      if (k == 1 && lead == 0xF4) high = 0x8F;
      if (next < low || next > high) return false;
    }
    i += length;
  }
  return true;
}

std::unexpected<Error> refuse(std::string_view field, const std::string& why) {
  return fail(ErrorCode::kInvalidArgument, std::string(field) + " " + why);
}

Result<void> check_range(std::string_view field, uint64_t value, uint64_t min, uint64_t max) {
  if (value < min || value > max)
    return refuse(field, "must lie between " + std::to_string(min) + " and " + std::to_string(max) + ", not be " +
                             std::to_string(value));
  return {};
}

Result<void> check_string(std::string_view field, std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return refuse(field, "must not hold a NUL character");
  if (!is_utf8(text)) return refuse(field, "must be UTF-8");
  return {};
}

Result<void> read_number(const json& value, std::string_view field, uint64_t& out) {
  if (!value.is_number_unsigned()) return refuse(field, "must be a whole number");
  out = value.get<uint64_t>();
  return {};
}

// A path that a program can name, not one that Spore answers itself.
Result<void> check_mounts(const std::map<std::string, std::string>& mounts) {
  if (mounts.size() > kMountsMax) return refuse("mounts", "has more than " + std::to_string(kMountsMax) + " entries");
  for (const auto& [at, what] : mounts) {
    const std::string field = "mounts[\"" + at + "\"]";
    TRY(check_string("mounts", at));
    TRY(check_string(field, what));
    if (!at.starts_with('/') || at == "/") return refuse(field, "must be an absolute path below \"/\"");
    if (const auto path = check_shared_path(at.substr(1)); !path) return refuse(field, "is no path of a directory");
    if (at == "/spore" || at.starts_with("/spore/")) return refuse(field, "lies in /spore, which is reserved");
    const std::string name = what.substr(what.find(':') + 1);
    if (what.starts_with("files:")) {
      if (name.empty()) continue;
      if (const auto path = check_shared_path(name); !path) return refuse(field, path.error().message);
    } else if (what.starts_with("host:")) {
      TRY(check_name_part(field, name));
    } else {
      return refuse(field, "must be \"files:DIRECTORY\" or \"host:NAME\", not \"" + what + "\"");
    }
  }
  return {};
}

Result<void> read_texts(const json& value, std::string_view field, std::map<std::string, std::string>& out) {
  if (!value.is_object()) return refuse(field, "must be an object of strings");
  out.clear();
  for (const auto& [name, text] : value.items()) {
    if (!text.is_string()) return refuse(field, "must be an object of strings");
    out[name] = text.get<std::string>();
  }
  return {};
}

}  // namespace

Result<void> check_name_part(std::string_view what, std::string_view part) {
  if (part.empty()) return refuse(what, "is empty");
  if (part.size() > kNamePartBytesMax)
    return refuse(what, "is longer than " + std::to_string(kNamePartBytesMax) + " characters");
  if (!is_letter_or_digit(part[0]) && part[0] != '_') return refuse(what, "must begin with a letter, a digit or '_'");
  for (const char c : part)
    if (!is_letter_or_digit(c) && c != '.' && c != '_' && c != '-')
      return refuse(what, "may only hold letters, digits, '.', '_' and '-'");
  return {};
}

Result<FunctionId> FunctionId::make(std::string_view tenant, std::string_view name) {
  TRY(check_name_part("the tenant's name", tenant));
  TRY(check_name_part("the function's name", name));
  return FunctionId{std::string(tenant), std::string(name)};
}

Result<FunctionId> FunctionId::parse(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return refuse("the function", "must be written TENANT/NAME");
  return make(text.substr(0, slash), text.substr(slash + 1));
}

std::vector<std::string> FunctionConfig::arguments(std::string_view program) const {
  std::vector<std::string> out;
  out.reserve(1 + args.size());
  out.emplace_back(program);
  out.insert(out.end(), args.begin(), args.end());
  return out;
}

std::vector<std::string> FunctionConfig::environment() const {
  std::vector<std::string> out;
  out.reserve(env.size());
  for (const auto& [name, value] : env) out.push_back(name + "=" + value);
  return out;
}

std::shared_ptr<faaslet::CpuQuota> make_cpu_quota(const FunctionConfig& config) {
  if (config.cpu_percent == 0) return nullptr;
  return std::make_shared<faaslet::CpuQuota>(static_cast<uint32_t>(config.cpu_percent));
}

Result<void> check_config(const FunctionConfig& config) {
  TRY(check_range("timeout_ms", config.timeout_ms, 1, kTimeoutMsMax));
  TRY(check_range("memory_max_bytes", config.memory_max_bytes, wasm::kPageBytes, kMemoryBytesMax));
  TRY(check_range("output_max_bytes", config.output_max_bytes, 0, kOutputBytesMax));
  TRY(check_range("local_bytes_max", config.local_bytes_max, 0, kLocalBytesMax));
  TRY(check_range("local_files_max", config.local_files_max, 1, kLocalFilesMax));
  TRY(check_range("concurrency_max", config.concurrency_max, 0, kConcurrencyMax));
  TRY(check_range("cpu_ms", config.cpu_ms, 0, kCpuMsMax));
  TRY(check_range("cpu_weight", config.cpu_weight, 1, isolation::kCpuWeightMax));
  TRY(check_range("cpu_percent", config.cpu_percent, 0, kCpuPercentMax));
  TRY(check_mounts(config.mounts));
  if (config.args.size() > kConfigStringsMax)
    return refuse("args", "has more than " + std::to_string(kConfigStringsMax) + " entries");
  if (config.env.size() > kConfigStringsMax)
    return refuse("env", "has more than " + std::to_string(kConfigStringsMax) + " variables");
  if (config.require.size() > kConfigStringsMax)
    return refuse("require", "has more than " + std::to_string(kConfigStringsMax) + " entries");
  for (const auto& boundary : config.require) TRY(check_name_part("require: a boundary's name", boundary));
  size_t text_bytes = 0;
  for (const auto& argument : config.args) {
    TRY(check_string("args", argument));
    text_bytes += argument.size() + 1;
  }
  for (const auto& [name, value] : config.env) {
    if (name.empty() || name.find('=') != std::string::npos)
      return refuse("env", "has a variable whose name is empty or holds '='");
    TRY(check_string("env", name));
    TRY(check_string("env", value));
    text_bytes += name.size() + value.size() + 2;
  }
  if (text_bytes > kConfigTextBytesMax)
    return refuse("args and env", "are larger than " + std::to_string(kConfigTextBytesMax) + " bytes together");
  return {};
}

namespace {

json network_to_json(const isolation::NetworkPolicy& network) {
  return {{"internet", network.internet},
          {"allow", isolation::allowed_texts(network)},
          {"egress_bits", network.egress_bits_per_second},
          {"ingress_bits", network.ingress_bits_per_second},
          {"sockets_max", network.sockets_max}};
}

Result<std::optional<isolation::NetworkPolicy>> network_from_json(const json& value) {
  if (value.is_null()) return std::nullopt;
  if (!value.is_object()) return refuse("network", "must be an object, or null: none");
  isolation::NetworkPolicy out;
  uint64_t sockets_max = out.sockets_max;
  for (const auto& [name, part] : value.items()) {
    const std::string field = "network." + name;
    if (name == "internet") {
      if (!part.is_boolean()) return refuse(field, "must be true or false");
      out.internet = part.get<bool>();
    } else if (name == "allow") {
      if (!part.is_array()) return refuse(field, "must be an array of strings");
      for (const auto& text : part) {
        if (!text.is_string()) return refuse(field, "must be an array of strings");
        if (const auto added = isolation::add_allowed(out, text.get<std::string>()); !added)
          return refuse(field + ":", added.error().message);
      }
    } else if (name == "egress_bits") {
      TRY(read_number(part, field, out.egress_bits_per_second));
    } else if (name == "ingress_bits") {
      TRY(read_number(part, field, out.ingress_bits_per_second));
    } else if (name == "sockets_max") {
      TRY(read_number(part, field, sockets_max));
    } else {
      return refuse("network", "has no field \"" + name + "\"");
    }
  }
  TRY(check_range("network.sockets_max", sockets_max, 1, kSocketsMax));
  out.sockets_max = static_cast<uint32_t>(sockets_max);
  return out;
}

}  // namespace

std::string config_to_json(const FunctionConfig& config) {
  return json{{"timeout_ms", config.timeout_ms},
              {"memory_max_bytes", config.memory_max_bytes},
              {"output_max_bytes", config.output_max_bytes},
              {"local_bytes_max", config.local_bytes_max},
              {"local_files_max", config.local_files_max},
              {"concurrency_max", config.concurrency_max},
              {"cpu_ms", config.cpu_ms},
              {"cpu_weight", config.cpu_weight},
              {"cpu_percent", config.cpu_percent},
              {"require", config.require},
              {"isolation", config.isolation == Isolation::kProcess ? "process" : "shared"},
              {"spectre_hardening", config.spectre_hardening},
              {"network", config.network ? network_to_json(*config.network) : json()},
              {"env", config.env},
              {"mounts", config.mounts},
              {"push", config.push == StatePush::kOnSuccess ? "on_success" : "explicit"},
              {"args", config.args}}
      .dump();
}

Result<FunctionConfig> config_from_json(std::string_view text, FunctionConfig base) {
  if (text.size() > kConfigJsonBytesMax) return refuse("the configuration", "is too large");
  const json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return refuse("the configuration", "must be a JSON object");
  for (const auto& [field, value] : parsed.items()) {
    if (field == "timeout_ms") {
      TRY(read_number(value, field, base.timeout_ms));
    } else if (field == "memory_max_bytes") {
      TRY(read_number(value, field, base.memory_max_bytes));
    } else if (field == "output_max_bytes") {
      TRY(read_number(value, field, base.output_max_bytes));
    } else if (field == "env") {
      TRY(read_texts(value, field, base.env));
    } else if (field == "mounts") {
      TRY(read_texts(value, field, base.mounts));
    } else if (field == "local_bytes_max") {
      TRY(read_number(value, field, base.local_bytes_max));
    } else if (field == "local_files_max") {
      TRY(read_number(value, field, base.local_files_max));
    } else if (field == "concurrency_max") {
      TRY(read_number(value, field, base.concurrency_max));
    } else if (field == "cpu_ms") {
      TRY(read_number(value, field, base.cpu_ms));
    } else if (field == "cpu_weight") {
      TRY(read_number(value, field, base.cpu_weight));
    } else if (field == "cpu_percent") {
      TRY(read_number(value, field, base.cpu_percent));
    } else if (field == "network") {
      ASSIGN_OR_RETURN(base.network, network_from_json(value));
    } else if (field == "push") {
      if (value != "explicit" && value != "on_success") return refuse(field, "must be \"explicit\" or \"on_success\"");
      base.push = value == "on_success" ? StatePush::kOnSuccess : StatePush::kExplicit;
    } else if (field == "isolation") {
      if (value != "shared" && value != "process") return refuse(field, "must be \"shared\" or \"process\"");
      base.isolation = value == "process" ? Isolation::kProcess : Isolation::kShared;
    } else if (field == "spectre_hardening") {
      if (!value.is_boolean()) return refuse(field, "must be true or false");
      base.spectre_hardening = value.get<bool>();
    } else if (field == "args" || field == "require") {
      auto& texts = field == "args" ? base.args : base.require;
      if (!value.is_array()) return refuse(field, "must be an array of strings");
      texts.clear();
      for (const auto& entry : value) {
        if (!entry.is_string()) return refuse(field, "must be an array of strings");
        texts.push_back(entry.get<std::string>());
      }
    } else {
      return refuse("the configuration", "has no field \"" + field + "\"");
    }
  }
  TRY(check_config(base));
  return base;
}

const VersionInfo& FunctionInfo::current_version() const {
  for (const auto& version : versions)
    if (version.number == current) return version;
  CHECK(false, id.text(), current);
}

}  // namespace spore::functions

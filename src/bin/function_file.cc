#include "bin/function_file.h"

#include <toml++/toml.h>

#include <CLI/CLI.hpp>

#include "base/fd.h"

namespace spore::bin {
namespace {

constexpr uint64_t kFileBytesMax = 1 << 20;

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path) {}

  std::unexpected<Error> wrong(const toml::source_region& where, const std::string& what) const {
    return fail(ErrorCode::kInvalidArgument, path_.string() + ":" + std::to_string(where.begin.line) + ":" +
                                                 std::to_string(where.begin.column) + ": " + what);
  }

  Result<FunctionFile> read(const toml::table& file) const {
    FunctionFile out;
    for (const auto& [key, node] : file) {
      const std::string name(key.str());
      if (name == "name") {
        ASSIGN_OR_RETURN(out.name, text(name, node));
      } else if (name == "module") {
        ASSIGN_OR_RETURN(const std::string module, text(name, node));
        out.module = path_.parent_path() / module;
      } else if (name == "source") {
        ASSIGN_OR_RETURN(const std::string source, text(name, node));
        out.source = path_.parent_path() / source;
      } else if (name == "timeout_ms") {
        ASSIGN_OR_RETURN(out.config["timeout_ms"], number(name, node));
      } else if (name == "local_files_max" || name == "concurrency_max" || name == "cpu_ms" || name == "cpu_weight" ||
                 name == "cpu_percent") {
        ASSIGN_OR_RETURN(out.config[name], number(name, node));
      } else if (name == "memory_max" || name == "output_max" || name == "local_max") {
        ASSIGN_OR_RETURN(out.config[name == "local_max" ? "local_bytes_max" : name + "_bytes"], size(name, node));
      } else if (name == "push" || name == "isolation") {
        ASSIGN_OR_RETURN(out.config[name], text(name, node));
      } else if (name == "spectre_hardening") {
        ASSIGN_OR_RETURN(out.config[name], flag(name, node));
      } else if (name == "args" || name == "require") {
        ASSIGN_OR_RETURN(out.config[name], texts(name, node));
      } else if (name == "network") {
        ASSIGN_OR_RETURN(out.config[name], network(node));
      } else if (name == "env" || name == "mounts") {
        ASSIGN_OR_RETURN(out.config[name], table_of_texts(name, node));
      } else {
        return wrong(key.source(),
                     "there is no key \"" + name +
                         "\"; there are name, module, source, timeout_ms, memory_max, output_max, local_max, "
                         "local_files_max, concurrency_max, cpu_ms, cpu_weight, cpu_percent, require, isolation, "
                         "spectre_hardening, push, network, args, env and mounts");
      }
    }
    return out;
  }

 private:
  Result<nlohmann::json> network(const toml::node& node) const {
    const toml::table* table = node.as_table();
    if (!table) return wrong(node.source(), "network must be a table");
    nlohmann::json out = nlohmann::json::object();
    for (const auto& [key, value] : *table) {
      const std::string name(key.str());
      if (name == "internet") {
        ASSIGN_OR_RETURN(out[name], flag("network.internet", value));
      } else if (name == "allow") {
        ASSIGN_OR_RETURN(out[name], texts("network.allow", value));
      } else if (name == "egress_bits" || name == "ingress_bits" || name == "sockets_max") {
        ASSIGN_OR_RETURN(out[name], number("network." + name, value));
      } else {
        return wrong(key.source(), "network has no key \"" + name +
                                       "\"; it has internet, allow, egress_bits, ingress_bits and sockets_max");
      }
    }
    return out;
  }
  Result<std::string> text(const std::string& name, const toml::node& node) const {
    const auto value = node.value_exact<std::string>();
    if (!value) return wrong(node.source(), name + " must be a string");
    return *value;
  }
  Result<bool> flag(const std::string& name, const toml::node& node) const {
    const auto value = node.value_exact<bool>();
    if (!value) return wrong(node.source(), name + " must be true or false");
    return *value;
  }
  Result<uint64_t> number(const std::string& name, const toml::node& node) const {
    const auto value = node.value_exact<int64_t>();
    if (!value || *value < 0) return wrong(node.source(), name + " must be a whole number that is not negative");
    return static_cast<uint64_t>(*value);
  }
  Result<uint64_t> size(const std::string& name, const toml::node& node) const {
    auto value = node.value_exact<std::string>();
    if (!value) return number(name, node);
    try {
      CLI::AsSizeValue(/*kb_is_1000=*/false)(*value);  // writes the number over the text
    } catch (const CLI::Error&) {
      return wrong(node.source(), name + " must be a size as \"64MB\" or a number of bytes");
    }
    return std::stoull(*value);
  }
  Result<std::vector<std::string>> texts(const std::string& name, const toml::node& node) const {
    const toml::array* const list = node.as_array();
    if (!list) return wrong(node.source(), name + " must be an array of strings");
    std::vector<std::string> out;
    for (const auto& entry : *list) {
      ASSIGN_OR_RETURN(out.emplace_back(), text("each of " + name, entry));
    }
    return out;
  }
  Result<std::map<std::string, std::string>> table_of_texts(const std::string& name, const toml::node& node) const {
    const toml::table* const table = node.as_table();
    if (!table) return wrong(node.source(), name + " must be a table of strings");
    std::map<std::string, std::string> out;
    for (const auto& [key, entry] : *table) {
      ASSIGN_OR_RETURN(out[std::string(key.str())], text(name + "." + std::string(key.str()), entry));
    }
    return out;
  }

  const std::filesystem::path& path_;
};

}  // namespace

Result<std::filesystem::path> find_function_file(const std::filesystem::path& folder) {
  std::error_code error;
  const auto whole = std::filesystem::weakly_canonical(folder, error);
  const auto own = folder / (whole.filename().string() + ".toml");
  if (std::filesystem::is_regular_file(own, error)) return own;
  std::vector<std::filesystem::path> found;
  std::filesystem::directory_iterator entries(folder, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error))
    if (entries->path().extension() == ".toml") found.push_back(entries->path());
  if (error) return fail(ErrorCode::kNotFound, folder.string() + ": " + error.message());
  if (found.empty()) return fail(ErrorCode::kNotFound, folder.string() + ": there is no function file (*.toml) in it");
  if (found.size() > 1)
    return fail(ErrorCode::kInvalidArgument, folder.string() + ": has several function files; name one of them");
  return found.front();
}

Result<FunctionFile> read_function_file(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const Bytes bytes, read_file(path, kFileBytesMax));
  const Reader reader(path);
  try {
    return reader.read(toml::parse(as_text(bytes), path.string()));
  } catch (const toml::parse_error& error) {
    return reader.wrong(error.source(), std::string(error.description()));
  }
}

}  // namespace spore::bin

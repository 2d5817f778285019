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
      } else if (name == "timeout_ms") {
        ASSIGN_OR_RETURN(out.config["timeout_ms"], number(name, node));
      } else if (name == "memory_max" || name == "output_max") {
        ASSIGN_OR_RETURN(out.config[name + "_bytes"], size(name, node));
      } else if (name == "args") {
        ASSIGN_OR_RETURN(out.config["args"], texts(name, node));
      } else if (name == "env") {
        ASSIGN_OR_RETURN(out.config["env"], table_of_texts(name, node));
      } else {
        return wrong(key.source(), "there is no key \"" + name +
                                       "\"; there are name, module, timeout_ms, memory_max, output_max, args and env");
      }
    }
    return out;
  }

 private:
  Result<std::string> text(const std::string& name, const toml::node& node) const {
    const auto value = node.value_exact<std::string>();
    if (!value) return wrong(node.source(), name + " must be a string");
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

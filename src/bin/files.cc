// The commands for the files that a tenant shares with its functions: spore files put, get, ls, rm.
#include <filesystem>

#include "base/fd.h"
#include "base/percent.h"
#include "bin/commands.h"
#include "bin/host_client.h"

namespace spore::bin {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr uint64_t kFileBytesMax = 4ull << 30;

struct FilesArguments {
  std::string place;  // TENANT or TENANT/PATH
  std::string source;
  bool raw = false;
};

// /v1/files/TENANT/PATH
Result<std::string> target_of(const std::string& place) {
  const size_t slash = place.find('/');
  if (slash == std::string::npos || slash + 1 == place.size())
    return fail(ErrorCode::kInvalidArgument, "\"" + place + "\": a file is named TENANT/PATH");
  const std::string tenant = place.substr(0, slash);
  TRY(functions::check_name_part("the tenant's name", tenant));
  std::string out = "/v1/files/" + tenant;
  for (size_t begin = slash + 1; begin <= place.size();) {
    const size_t end = std::min(place.find('/', begin), place.size());
    out += "/" + percent_encode(place.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

Result<void> put_one(const Client& client, const fs::path& source, const std::string& place) {
  ASSIGN_OR_RETURN(const std::string target, target_of(place));
  ASSIGN_OR_RETURN(const Bytes bytes, read_file(source, kFileBytesMax));
  TRY(client.send({.method = "PUT", .target = target, .body = bytes}));
  return write_out(place + "  " + size_text(bytes.size()) + "\n");
}

Result<void> put(const Client& client, const FilesArguments& arguments) {
  const fs::path source = arguments.source;
  std::error_code error;
  std::string place = arguments.place;
  if (!fs::is_directory(source, error)) {
    if (place.ends_with('/') || place.find('/') == std::string::npos)
      place += (place.ends_with('/') ? "" : "/") + source.filename().string();
    return put_one(client, source, place);
  }
  if (place.ends_with('/')) place.pop_back();
  for (const auto& entry : fs::recursive_directory_iterator(source)) {
    if (!entry.is_regular_file()) continue;
    TRY(put_one(client, entry.path(), place + "/" + fs::relative(entry.path(), source).string()));
  }
  return {};
}

Result<void> get(const Client& client, const FilesArguments& arguments) {
  ASSIGN_OR_RETURN(const std::string target, target_of(arguments.place));
  TRY(client.send({.target = target}, [](std::string_view bytes) { return write_out(bytes); }));
  return {};
}

Result<void> remove(const Client& client, const FilesArguments& arguments) {
  ASSIGN_OR_RETURN(const std::string target, target_of(arguments.place));
  TRY(client.send({.method = "DELETE", .target = target}));
  return {};
}

Result<void> list(const Client& client, const FilesArguments& arguments) {
  const size_t slash = arguments.place.find('/');
  const std::string tenant = arguments.place.substr(0, slash);
  TRY(functions::check_name_part("the tenant's name", tenant));
  std::string path = "/v1/files/" + tenant + "?limit=1000";
  if (slash != std::string::npos) path += "&below=" + percent_encode(arguments.place.substr(slash + 1));
  ASSIGN_OR_RETURN(const json all, client.send_for_list(path, "files"));
  if (arguments.raw) return write_out(all.dump(2) + "\n");
  std::vector<std::vector<std::string>> rows{{"FILE", "SIZE", "CHANGED"}};
  for (const auto& file : all)
    rows.push_back({tenant + "/" + text_of(file, "path"), size_text(file.value("size_bytes", json(0))),
                    text_of(file, "changed_at")});
  return write_out(table(rows));
}

}  // namespace

void add_files(CLI::App& app, int& exit_code) {
  auto* const files = app.add_subcommand("files", "The files that a tenant shares with its functions");
  files->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, auto action) {
    const auto arguments = std::make_shared<FilesArguments>();
    return std::pair{add_command<FilesArguments>(*files, exit_code, name, help, arguments, action), arguments};
  };
  {
    auto [added, arguments] = add("put", "Publish a file, or all files of a directory", &put);
    added->add_option("SOURCE", arguments->source, "File or directory")->required()->check(CLI::ExistingPath);
    added->add_option("PLACE", arguments->place, "TENANT[/PATH]")->required();
  }
  {
    auto [added, arguments] = add("get", "Write a file to standard output", &get);
    added->add_option("FILE", arguments->place, "TENANT/PATH")->required();
  }
  {
    auto [added, arguments] = add("ls", "List files", &list);
    added->add_option("WHAT", arguments->place, "TENANT[/DIRECTORY]")->required();
    added->add_flag("--json", arguments->raw, "All fields, as JSON");
  }
  {
    auto [added, arguments] = add("rm", "Remove a file; who has it open keeps it", &remove);
    added->add_option("FILE", arguments->place, "TENANT/PATH")->required();
  }
}

}  // namespace spore::bin

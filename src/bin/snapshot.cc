// The commands that show the images which calls begin from: spore snapshot ls, spore snapshot inspect.
#include "bin/commands.h"
#include "bin/host_client.h"

namespace spore::bin {
namespace {

using nlohmann::json;

struct SnapshotArguments {
  std::string what;
  bool raw = false;
};

std::string function_of(const json& entry) { return text_of(entry, "tenant") + "/" + text_of(entry, "name"); }

bool is_true(const json& entry, const char* field) { return entry.value(field, json(false)) == true; }

std::string stored_text(const json& entry) {
  const json bytes = entry.value("stored_bytes", json(0));
  return bytes == 0 ? "-" : size_text(bytes);
}

Result<void> list(const Client& client, const SnapshotArguments& arguments) {
  std::string path = "/v1/snapshots";
  if (arguments.what.find('/') != std::string::npos) {
    ASSIGN_OR_RETURN(const Target target, parse_target(arguments.what, false));
    path += "/" + target.text();
  } else if (!arguments.what.empty()) {
    TRY(functions::check_name_part("the tenant's name", arguments.what));
    path += "/" + arguments.what;
  }
  ASSIGN_OR_RETURN(const json all, client.send_for_list(path + "?limit=1000", "snapshots"));
  if (arguments.raw) return write_out(all.dump(2) + "\n");
  std::vector<std::vector<std::string>> rows{{"FUNCTION", "VERSION", "CURRENT", "LOADED", "STORED"}};
  for (const auto& entry : all)
    rows.push_back({function_of(entry), text_of(entry, "version"), is_true(entry, "current") ? "*" : "",
                    is_true(entry, "loaded") ? "*" : "", stored_text(entry)});
  return write_out(table(rows));
}

std::string initialisers_text(const json& image) {
  const std::string state = text_of(image, "initialisers");
  if (state == "none") return "the module has none";
  if (state == "captured") return "have run";
  return "run in each call: " + text_of(image, "because");
}

// "64.0 KiB of at most 1.0 GiB", or in entries.
std::string of_at_most(const json& object, const char* size, const char* size_max, bool bytes) {
  const json is = object.value(size, json(0)), max = object.value(size_max, json(0));
  return (bytes ? size_text(is) : is.dump()) + " of at most " + (bytes ? size_text(max) : max.dump());
}

Result<void> inspect(const Client& client, const SnapshotArguments& arguments) {
  ASSIGN_OR_RETURN(const Target target, parse_target(arguments.what, true));
  const std::string version = target.version.empty() ? "current" : target.version;
  ASSIGN_OR_RETURN(const json image,
                   client.send_for_json({.target = "/v1/snapshots/" + target.id.text() + "?version=" + version}));
  if (arguments.raw) return write_out(image.dump(2) + "\n");
  std::vector<std::vector<std::string>> rows{
      {"function",
       function_of(image) + "@" + text_of(image, "version") + (is_true(image, "current") ? ", current" : "")},
      {"module", text_of(image, "module_digest")},
      {"format", "version " + text_of(image, "format_version") + ", layout " + text_of(image, "layout_version")},
      {"initialisers", initialisers_text(image)},
      {"image", size_text(image.value("image_bytes", json(0))) + ", of which " +
                    size_text(image.value("resident_bytes", json(0))) + " are in this host's memory"},
      {"stored", stored_text(image)}};
  const auto add_each = [&](const char* field, const char* name, auto text) {
    const json all = image.value(field, json::array());
    if (!all.is_array()) return;
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i].is_object()) rows.push_back({name + (" " + std::to_string(i)), text(all[i])});
  };
  add_each("memories", "memory",
           [](const json& memory) { return of_at_most(memory, "size_bytes", "size_max_bytes", true); });
  add_each("tables", "table", [](const json& entry) {
    return of_at_most(entry, "size", "size_max", false) + ", " + text_of(entry, "element");
  });
  rows.push_back({"globals", text_of(image, "globals")});
  return write_out(table(rows));
}

}  // namespace

void add_snapshot(CLI::App& app, int& exit_code) {
  auto* const snapshot = app.add_subcommand("snapshot", "Show the images that calls begin from");
  snapshot->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, auto action) {
    const auto arguments = std::make_shared<SnapshotArguments>();
    auto* const added = add_command<SnapshotArguments>(*snapshot, exit_code, name, help, arguments, action);
    added->add_flag("--json", arguments->raw, "All fields, as JSON");
    return std::pair{added, arguments};
  };
  {
    auto [added, arguments] = add("ls", "List the images of functions, by version", &list);
    added->add_option("WHAT", arguments->what, "TENANT or TENANT/NAME");
  }
  {
    auto [added, arguments] = add("inspect", "Load a function's image and say what is in it", &inspect);
    added->add_option("FUNCTION", arguments->what, "TENANT/NAME[@VERSION]")->required();
  }
}

}  // namespace spore::bin

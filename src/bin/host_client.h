// What the client commands share: the function that a command line names, a host to ask about it, answers as text, and
// how such a command is added to the program. Main thread only.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "bin/http_client.h"
#include "functions/function.h"

namespace spore::bin {

// A function as the command line names it: TENANT/NAME, where versions are allowed also TENANT/NAME@VERSION.
struct Target {
  functions::FunctionId id;
  std::string version;  // "": the current one

  std::string text() const { return id.text() + (version.empty() ? "" : "@" + version); }
  std::string path() const { return "/v1/functions/" + text(); }
};
Result<Target> parse_target(const std::string& text, bool with_version);

// A problem document as people read it: title, detail, the guest's stack. `status` is told where it holds neither.
Error error_of(const nlohmann::json& problem, unsigned status);

// One host.
class Client {
 public:
  std::string url = "http://127.0.0.1:7077";
  std::string token;

  void add_options(CLI::App& command);
  // Any status but 2xx is an error, told by the problem document that came with it.
  Result<HttpResponse> send(HttpRequest request,
                            const std::function<Result<void>(std::string_view)>& on_body = {}) const;
  Result<nlohmann::json> send_for_json(HttpRequest request) const;
  // The entries (objects) of the list `field` at `path`, page after page as the host's cursors say.
  Result<nlohmann::json> send_for_list(const std::string& path, const char* field) const;
};

// To standard output.
Result<void> write_out(std::string_view bytes);
std::string size_text(const nlohmann::json& bytes);  // "1.5 MiB"
// A field of an object: a string as it is, anything else as JSON, "" where it is missing.
std::string text_of(const nlohmann::json& object, const char* field);
// Rows with columns as wide as their widest cell.
std::string table(const std::vector<std::vector<std::string>>& rows);

// Adds one command to `app` (the program, or a command of it); `arguments` lives as long as the callback, which runs
// `action` and tells its error, and that the command failed, as `exit_code`.
template <class Arguments>
CLI::App* add_command(CLI::App& app, int& exit_code, const char* name, const char* help,
                      const std::shared_ptr<Arguments>& arguments,
                      Result<void> (*action)(const Client&, const Arguments&)) {
  auto* const command = app.add_subcommand(name, help);
  const auto client = std::make_shared<Client>();
  client->add_options(*command);
  const std::string path = app.get_parent() ? app.get_name() + " " + name : name;
  command->callback([client, arguments, action, path, &exit_code] {
    const auto done = action(*client, *arguments);
    if (done) return;
    std::fprintf(stderr, "spore %s: %s\n", path.c_str(), done.error().message.c_str());
    exit_code = 1;
  });
  return command;
}

}  // namespace spore::bin

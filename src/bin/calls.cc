// The commands for durable calls: spore calls ls, show, wait, output, log, cancel, replay.
#include <chrono>

#include "bin/commands.h"
#include "bin/host_client.h"

namespace spore::bin {
namespace {

using nlohmann::json;

constexpr auto kWaitOnce = std::chrono::seconds(30);  // a host waits up to 60 s for one request

struct CallsArguments {
  std::string tenant, status;
  std::vector<std::string> ids;
  unsigned wait_s = 0;  // 0: no end
  bool raw = false;
};

Result<std::string> path_of(const std::string& id) {
  if (id.size() != 32 || id.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "a call's id has 32 hexadecimal digits: " + id);
  return "/v1/calls/" + id;
}

Result<void> list(const Client& client, const CallsArguments& arguments) {
  std::string path = "/v1/calls?limit=1000";
  if (!arguments.tenant.empty()) path += "&tenant=" + percent_encode(arguments.tenant);
  if (!arguments.status.empty()) path += "&status=" + percent_encode(arguments.status);
  ASSIGN_OR_RETURN(const json all, client.send_for_list(path, "calls"));
  std::vector<std::vector<std::string>> rows{{"CALL", "FUNCTION", "STATUS", "ATTEMPT", "CREATED"}};
  for (const auto& entry : all) {
    const bool dead = entry.value("dead", json(false)) == true;
    rows.push_back({text_of(entry, "id"), text_of(entry, "function"), dead ? "dead" : text_of(entry, "status"),
                    text_of(entry, "attempt") + "/" + text_of(entry, "attempts_max"), text_of(entry, "created_at")});
  }
  return write_out(arguments.raw ? all.dump(2) + "\n" : table(rows));
}

Result<void> show(const Client& client, const CallsArguments& arguments) {
  ASSIGN_OR_RETURN(const std::string path, path_of(arguments.ids.front()));
  ASSIGN_OR_RETURN(const json call, client.send_for_json({.target = path}));
  return write_out(call.dump(2) + "\n");
}

// Fails where the call did not succeed, or does not end in time.
Result<void> wait(const Client& client, const CallsArguments& arguments) {
  ASSIGN_OR_RETURN(const std::string path, path_of(arguments.ids.front()));
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(arguments.wait_s);
  while (true) {
    auto once = std::chrono::duration_cast<std::chrono::milliseconds>(kWaitOnce);
    if (arguments.wait_s)
      once = std::clamp(std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()),
                        std::chrono::milliseconds(1), once);
    ASSIGN_OR_RETURN(const json call,
                     client.send_for_json({.target = path + "?wait=" + std::to_string(once.count()) + "ms"}));
    const std::string status = text_of(call, "status");
    const bool goes_on = status == "queued" || status == "running" || status == "retrying";
    if (goes_on && (!arguments.wait_s || std::chrono::steady_clock::now() < until)) continue;
    if (goes_on)
      return fail(ErrorCode::kDeadlineExceeded,
                  "the call is still " + status + " after " + std::to_string(arguments.wait_s) + " s");
    if (status == "succeeded") return arguments.raw ? write_out(call.dump(2) + "\n") : Result<void>();
    Error error = error_of(call.value("problem", json::object()), 0);
    return std::unexpected(std::move(error).within("the call has " + status));
  }
}

Result<void> write_part(const Client& client, const std::string& id, const char* part) {
  ASSIGN_OR_RETURN(const std::string path, path_of(id));
  TRY(client.send({.target = path + part}, write_out));
  return {};
}

Result<void> output(const Client& client, const CallsArguments& arguments) {
  return write_part(client, arguments.ids.front(), "/output");
}

Result<void> log(const Client& client, const CallsArguments& arguments) {
  return write_part(client, arguments.ids.front(), "/log");
}

Result<void> for_each(const Client& client, const CallsArguments& arguments, const char* method, const char* part) {
  for (const std::string& id : arguments.ids) {
    ASSIGN_OR_RETURN(const std::string path, path_of(id));
    auto done = client.send({.method = method, .target = path + part});
    if (!done) return std::unexpected(std::move(done).error().within(id));
  }
  return {};
}

Result<void> cancel(const Client& client, const CallsArguments& arguments) {
  return for_each(client, arguments, "DELETE", "");
}

Result<void> replay(const Client& client, const CallsArguments& arguments) {
  return for_each(client, arguments, "POST", "/replay");
}

}  // namespace

void add_calls(CLI::App& app, int& exit_code) {
  auto* const calls = app.add_subcommand("calls", "Asynchronous calls: what became of them, cancel, replay");
  calls->require_subcommand(1);
  const auto add = [&](const char* name, const char* help,
                       Result<void> (*action)(const Client&, const CallsArguments&)) {
    const auto arguments = std::make_shared<CallsArguments>();
    auto* const added = add_command<CallsArguments>(*calls, exit_code, name, help, arguments, action);
    return std::pair{added, arguments};
  };
  constexpr const char* kId = "The call, as `spore call --async` printed it";
  {
    auto [added, arguments] = add("ls", "List calls, of a tenant newest first", &list);
    added->add_option("TENANT", arguments->tenant, "Whose; default: all that the key may see");
    added->add_option("--status", arguments->status,
                      "queued, running, retrying, succeeded, failed, dead (letters alone) or cancelled");
    added->add_flag("--json", arguments->raw, "All fields, as JSON");
  }
  {
    auto [added, arguments] = add("show", "Show all that is known of a call", &show);
    added->add_option("CALL", arguments->ids, kId)->required()->expected(1);
  }
  {
    auto [added, arguments] = add("wait", "Wait until a call has ended; fails where it did not succeed", &wait);
    added->add_option("CALL", arguments->ids, kId)->required()->expected(1);
    added->add_option("--timeout", arguments->wait_s, "Seconds; 0: as long as it takes")->capture_default_str();
    added->add_flag("--json", arguments->raw, "Then show it, as JSON");
  }
  {
    auto [added, arguments] = add("output", "Write a call's output to standard output", &output);
    added->add_option("CALL", arguments->ids, kId)->required()->expected(1);
  }
  {
    auto [added, arguments] = add("log", "Write what its last attempt logged to standard output", &log);
    added->add_option("CALL", arguments->ids, kId)->required()->expected(1);
  }
  {
    auto [added, arguments] = add("cancel", "Cancel calls; discard dead letters", &cancel);
    added->add_option("CALL", arguments->ids, kId)->required();
  }
  {
    auto [added, arguments] = add("replay", "Run dead letters again, with all their attempts", &replay);
    added->add_option("CALL", arguments->ids, kId)->required();
  }
}

}  // namespace spore::bin

// The commands that speak to a host over HTTP: publish, call, ls, describe, versions, rollback, rm, logs.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/digest.h"
#include "base/fd.h"
#include "base/percent.h"
#include "bin/commands.h"
#include "bin/function_file.h"
#include "bin/host_client.h"
#include "bin/progress.h"
#include "bin/script.h"

namespace spore::bin {
namespace {

using nlohmann::json;

constexpr uint64_t kModuleBytesMax = 1ull << 30;
constexpr size_t kConfigFieldBytesMax = 24 << 10;  // a host takes 32 KiB of header in all
constexpr uint64_t kInputBytesMax = 4ull << 30;

struct PublishArguments {
  std::string file, config_file, name, if_match, interpreter;
  bool only_new = false;
  uint64_t timeout_ms = 0, memory_max_bytes = 0, output_max_bytes = 0;
  std::optional<uint64_t> local_bytes_max, local_files_max, concurrency_max, cpu_ms, cpu_weight, cpu_percent;
  std::string push, isolation;
  std::vector<std::string> env, args, mounts, require, allow;
  bool internet = false;
  std::optional<bool> spectre_hardening;
};

// "NAME=VALUE" of a flag into the map that is that field of a configuration.
Result<void> put_pair(json& change, const char* field, const char* flag, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    return fail(ErrorCode::kInvalidArgument, std::string(flag) + ": " + text);
  change[field][text.substr(0, equals)] = text.substr(equals + 1);
  return {};
}

// The fields of the configuration that the function's file gives, and over them those of the command line.
Result<json> config_change(json change, const PublishArguments& arguments) {
  if (arguments.timeout_ms) change["timeout_ms"] = arguments.timeout_ms;
  if (arguments.memory_max_bytes) change["memory_max_bytes"] = arguments.memory_max_bytes;
  if (arguments.output_max_bytes) change["output_max_bytes"] = arguments.output_max_bytes;
  if (!arguments.args.empty()) change["args"] = arguments.args;
  if (arguments.local_bytes_max) change["local_bytes_max"] = *arguments.local_bytes_max;
  if (arguments.local_files_max) change["local_files_max"] = *arguments.local_files_max;
  if (arguments.concurrency_max) change["concurrency_max"] = *arguments.concurrency_max;
  if (arguments.cpu_ms) change["cpu_ms"] = *arguments.cpu_ms;
  if (arguments.cpu_weight) change["cpu_weight"] = *arguments.cpu_weight;
  if (arguments.cpu_percent) change["cpu_percent"] = *arguments.cpu_percent;
  if (arguments.internet) change["network"]["internet"] = true;
  if (!arguments.allow.empty()) change["network"]["allow"] = arguments.allow;
  if (!arguments.require.empty()) change["require"] = arguments.require;
  if (!arguments.push.empty()) change["push"] = arguments.push;
  if (!arguments.isolation.empty()) change["isolation"] = arguments.isolation;
  if (arguments.spectre_hardening) change["spectre_hardening"] = *arguments.spectre_hardening;
  for (const auto& text : arguments.env) TRY(put_pair(change, "env", "--env must be written NAME=VALUE", text));
  for (const auto& text : arguments.mounts)
    TRY(put_pair(change, "mounts", "--mount must be written PATH=files:DIRECTORY or PATH=host:NAME", text));
  return change;
}

// What is to be published: a module, the configuration it gets, and where it is an interpreter the script it runs.
struct Publication {
  Target target;
  std::filesystem::path module;
  json config = json::object();  // fields that change
  const ScriptLanguage* script = nullptr;
};

Result<Publication> publication_of(const PublishArguments& arguments) {
  std::string file_name = arguments.file;
  if (std::error_code error; std::filesystem::is_directory(file_name, error)) {
    ASSIGN_OR_RETURN(file_name, find_function_file(file_name));
  }
  const bool by_file = file_name.ends_with(".toml");
  const std::string& described_by = by_file ? file_name : arguments.config_file;
  FunctionFile file;
  if (!described_by.empty()) {
    ASSIGN_OR_RETURN(file, read_function_file(described_by));
  }
  if (!by_file) file.module = file_name;
  if (by_file && file.module.empty() && script_language(file.source)) file.module = file.source;
  if (!arguments.name.empty()) file.name = arguments.name;
  if (file.name.empty()) return fail(ErrorCode::kInvalidArgument, "give --name TENANT/NAME, or a file that names it");
  if (file.module.empty())
    return fail(ErrorCode::kInvalidArgument,
                described_by + " does not say which module it is (module), and names no script (source)");
  Publication out;
  ASSIGN_OR_RETURN(out.target, parse_target(file.name, false));
  ASSIGN_OR_RETURN(out.config, config_change(std::move(file.config), arguments));
  out.module = std::move(file.module);
  if (script_language(out.module)) {
    ASSIGN_OR_RETURN(Script script, open_script(out.module, arguments.interpreter));
    out.script = script.language;
    out.module = std::move(script.interpreter);
    json args = std::move(script.arguments);
    for (const auto& arg : out.config.value("args", json::array())) args.push_back(arg);
    out.config["args"] = std::move(args);
  }
  return out;
}

// Puts the configuration, over what the function has, on the module that is there.
Result<json> configure(const Client& client, const Target& target, const json& change, const std::string& if_match) {
  ASSIGN_OR_RETURN(json config, client.send_for_json({.target = target.path() + "/config"}));
  config.update(change);
  const std::string body = config.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
  return client.send_for_json({.method = "PUT",
                               .target = target.path() + "/config",
                               .fields = {{"Content-Type", "application/json"}, {"If-Match", "\"" + if_match + "\""}},
                               .body = as_bytes(body)});
}

Result<json> upload(const Client& client, const Publication& what, const Bytes& wasm, const PublishArguments& arguments,
                    const std::string& config) {
  HttpRequest request{.method = "PUT", .target = what.target.path(), .body = wasm};
  request.fields = {{"Content-Type", "application/wasm"}, {"Accept", "text/event-stream"}};
  if (!arguments.if_match.empty()) request.fields.emplace_back("If-Match", "\"" + arguments.if_match + "\"");
  if (arguments.only_new) request.fields.emplace_back("If-None-Match", "*");
  if (!config.empty()) request.fields.emplace_back("Spore-Config", config);
  std::optional<json> published;
  std::optional<Error> problem;
  {
    ProgressLine line("publishing " + what.target.text());
    EventParser events([&](const std::string& event, const std::string& data) {
      const json parsed = json::parse(data, nullptr, false);
      if (!parsed.is_object()) return;
      if (event == "progress" && parsed.contains("share") && parsed["share"].is_number()) line.show(parsed["share"]);
      if (event == "published") published = parsed;
      if (event == "problem") problem = error_of(parsed, 0);
    });
    TRY(client.send(std::move(request), [&](std::string_view bytes) { return events.feed(bytes); }));
  }
  if (problem) return std::unexpected(std::move(*problem));
  if (!published) return fail(ErrorCode::kUnavailable, "the host went away while it was publishing");
  return std::move(*published);
}

std::string text_of_config(const json& config) {
  return config.empty() ? "" : config.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
}

// A script whose interpreter is the function's module already is a change of its configuration, and one that is too
// long for a header field becomes one after the module is there: until then calls fail.
Result<json> publish_script(const Client& client, const Publication& what, const Bytes& wasm,
                            const PublishArguments& arguments) {
  const std::string digest = to_hex(sha256(wasm));
  if (!arguments.only_new) {
    const auto there = client.send_for_json({.target = what.target.path()});
    if (there && text_of(*there, "digest") == digest)
      return configure(client, what.target, what.config, arguments.if_match.empty() ? digest : arguments.if_match);
  }
  const std::string config = text_of_config(what.config);
  if (config.size() <= kConfigFieldBytesMax) return upload(client, what, wasm, arguments, config);
  json first = what.config;
  first["args"] = {what.script->option, what.script->not_yet};
  const std::string first_config = text_of_config(first);
  if (first_config.size() > kConfigFieldBytesMax)
    return fail(ErrorCode::kInvalidArgument,
                "the environment is larger than " + std::to_string(kConfigFieldBytesMax) + " bytes");
  TRY(upload(client, what, wasm, arguments, first_config));
  return configure(client, what.target, what.config, digest);
}

Result<void> publish(const Client& client, const PublishArguments& arguments) {
  ASSIGN_OR_RETURN(const Publication what, publication_of(arguments));
  ASSIGN_OR_RETURN(const Bytes wasm, read_file(what.module, kModuleBytesMax));
  TRY(check_is_module(what.module, wasm));
  const auto begin = std::chrono::steady_clock::now();
  json published;
  if (what.script) {
    ASSIGN_OR_RETURN(published, publish_script(client, what, wasm, arguments));
  } else {
    const std::string config = text_of_config(what.config);
    if (config.size() > kConfigFieldBytesMax)
      return fail(ErrorCode::kInvalidArgument, "arguments and environment are larger than " +
                                                   std::to_string(kConfigFieldBytesMax) +
                                                   " bytes together; set them by PUT .../config");
    ASSIGN_OR_RETURN(published, upload(client, what, wasm, arguments, config));
  }
  const auto took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%s@%s  %s  %s of wasm, %s, %.2f s\n", what.target.text().c_str(), text_of(published, "version").c_str(),
              text_of(published, "digest").c_str(), size_text(published["wasm_bytes"]).c_str(),
              text_of(published, "tier").c_str(), took);
  return {};
}

struct CallArguments {
  std::string function, file;
  std::optional<std::string> text;
  std::string key;
  unsigned attempts = 0;
  bool async = false;
  bool verbose = false;
  bool graph = false;
};

Result<Bytes> input_of(const CallArguments& arguments) {
  if (arguments.text) return Bytes(arguments.text->begin(), arguments.text->end());
  if (!arguments.file.empty() && arguments.file != "-") return read_file(arguments.file, kInputBytesMax);
  if (arguments.file.empty() && ::isatty(STDIN_FILENO)) return Bytes{};
  return read_all(STDIN_FILENO, kInputBytesMax);
}

// A line for each call, below its caller, in the order in which they began.
std::string draw(const json& calls) {
  std::unordered_map<std::string, std::vector<const json*>> children;
  for (const json& call : calls)
    if (call.is_object()) children[text_of(call, "parent")].push_back(&call);
  std::string out;
  std::vector<const json*> next(children[""].rbegin(), children[""].rend());
  while (!next.empty()) {
    const json& call = *next.back();
    next.pop_back();
    out += std::string(2 * call.value("depth", size_t{0}), ' ') + text_of(call, "function") + "  " +
           text_of(call, "status");
    if (const json ended = call.value("ended_us", json()), started = call.value("started_us", json());
        ended.is_number() && started.is_number())
      out += "  from " + started.dump() + " to " + ended.dump() + " us";
    out += '\n';
    const auto& below = children[text_of(call, "id")];
    next.insert(next.end(), below.rbegin(), below.rend());
  }
  return out;
}

Result<void> call(const Client& client, const CallArguments& arguments) {
  ASSIGN_OR_RETURN(const Target target, parse_target(arguments.function, true));
  ASSIGN_OR_RETURN(const Bytes input, input_of(arguments));
  HttpRequest request{.method = "POST", .target = target.path() + "/call", .body = input};
  request.fields = {{"Content-Type", "application/octet-stream"}};
  if (!arguments.key.empty()) request.fields.emplace_back("Idempotency-Key", arguments.key);
  if (arguments.attempts) request.fields.emplace_back("Spore-Attempts", std::to_string(arguments.attempts));
  if (arguments.async) {
    request.fields.emplace_back("Prefer", "respond-async");
    ASSIGN_OR_RETURN(const json accepted, client.send_for_json(std::move(request)));
    return write_out(text_of(accepted, "id") + "\n");
  }
  ASSIGN_OR_RETURN(const HttpResponse response, client.send(std::move(request), write_out));
  if (arguments.verbose)
    std::fprintf(stderr, "call %s: %s, %s us\n", response.field("spore-call-id").c_str(),
                 response.field("spore-start").c_str(), response.field("spore-duration-us").c_str());
  if (!arguments.graph) return {};
  const auto graph = client.send_for_json({.target = "/v1/calls/" + response.field("spore-call-id") + "/graph"});
  const std::string drawn = graph ? draw(graph->value("calls", json::array())) : "it has called no others\n";
  std::fputs(drawn.c_str(), stderr);
  return {};
}

Result<void> list(const Client& client, const std::string& what, bool raw) {
  const size_t slash = what.find('/');
  const std::string tenant = what.substr(0, slash), prefix = slash == std::string::npos ? "" : what.substr(slash + 1);
  if (!tenant.empty()) TRY(functions::check_name_part("the tenant's name", tenant));
  std::vector<std::vector<std::string>> rows{{"FUNCTION", "VERSION", "TIER", "WASM", "PUBLISHED", "DIGEST"}};
  const std::string path = "/v1/functions" + (tenant.empty() ? "" : "/" + tenant) + "?limit=1000" +
                           (prefix.empty() ? "" : "&prefix=" + percent_encode(prefix));
  ASSIGN_OR_RETURN(const json all, client.send_for_list(path, "functions"));
  for (const auto& entry : all)
    rows.push_back({text_of(entry, "tenant") + "/" + text_of(entry, "name"), text_of(entry, "version"),
                    text_of(entry, "tier"), size_text(entry.value("wasm_bytes", json(0))),
                    text_of(entry, "published_at"), text_of(entry, "digest").substr(0, 16)});
  return write_out(raw ? all.dump(2) + "\n" : table(rows));
}

Result<void> versions(const Client& client, const std::string& function) {
  ASSIGN_OR_RETURN(const Target target, parse_target(function, false));
  ASSIGN_OR_RETURN(const json answer, client.send_for_json({.target = target.path() + "/versions"}));
  std::vector<std::vector<std::string>> rows{{"", "VERSION", "TIER", "WASM", "PUBLISHED", "DIGEST"}};
  for (const auto& entry : answer.value("versions", json::array()))
    if (entry.is_object())
      rows.push_back({entry.value("current", json(false)) == true ? "*" : "", text_of(entry, "version"),
                      text_of(entry, "tier"), size_text(entry.value("wasm_bytes", json(0))),
                      text_of(entry, "published_at"), text_of(entry, "digest")});
  return write_out(table(rows));
}

Result<void> logs(const Client& client, const std::string& function, unsigned count) {
  ASSIGN_OR_RETURN(const Target target, parse_target(function, false));
  ASSIGN_OR_RETURN(const json answer,
                   client.send_for_json({.target = target.path() + "/logs?limit=" + std::to_string(count)}));
  const json calls = answer.value("calls", json::array());
  if (!calls.is_array()) return fail(ErrorCode::kUnavailable, "the host's answer holds no calls");
  std::string out;
  for (auto it = calls.rbegin(); it != calls.rend(); ++it) {  // the newest last, as in a log
    if (!it->is_object()) continue;
    out += text_of(*it, "ended_at") + "  " + text_of(*it, "id") + "  @" + text_of(*it, "version") + "  " +
           text_of(*it, "outcome") + "  " + text_of(*it, "duration_us") + " us";
    if (const auto detail = text_of(*it, "detail"); !detail.empty()) out += "  " + detail;
    out += '\n';
    std::string log = text_of(*it, "log");
    if (it->value("log_truncated", json(false)) == true) log += "\n[the rest was cut off]";
    for (size_t begin = 0; begin < log.size();) {
      const size_t end = std::min(log.find('\n', begin), log.size());
      out += "    " + log.substr(begin, end - begin) + "\n";
      begin = end + 1;
    }
  }
  return write_out(out);
}

Result<void> describe(const Client& client, const std::string& function) {
  ASSIGN_OR_RETURN(const Target target, parse_target(function, true));
  ASSIGN_OR_RETURN(const json answer, client.send_for_json({.target = target.path()}));
  return write_out(answer.dump(2) + "\n");
}

Result<void> roll_back(const Client& client, const std::string& function, uint64_t version) {
  ASSIGN_OR_RETURN(const Target target, parse_target(function, false));
  const std::string body = version ? json{{"version", version}}.dump() : "";
  ASSIGN_OR_RETURN(const json answer, client.send_for_json({.method = "POST",
                                                            .target = target.path() + "/rollback",
                                                            .fields = {{"Content-Type", "application/json"}},
                                                            .body = as_bytes(body)}));
  return write_out(target.text() + "@" + text_of(answer, "version") + "  " + text_of(answer, "digest") + "\n");
}

Result<void> remove(const Client& client, const std::vector<std::string>& names) {
  for (const auto& name : names) {
    ASSIGN_OR_RETURN(const Target target, parse_target(name, false));
    auto removed = client.send({.method = "DELETE", .target = target.path()});
    if (!removed) return std::unexpected(std::move(removed).error().within(name));
  }
  return {};
}

struct FunctionArguments {
  std::string function;
  unsigned count = 100;
  uint64_t version = 0;
  bool raw = false;
  std::vector<std::string> names;
};

}  // namespace

void add_client(CLI::App& app, int& exit_code) {
  const auto publishing = std::make_shared<PublishArguments>();
  auto* command = add_command<PublishArguments>(app, exit_code, "publish", "Publish a module or a script as a function",
                                                publishing, publish);
  command
      ->add_option("FILE", publishing->file,
                   "A WebAssembly module, a script (.py, .js), a TOML file that says which and how, or its folder")
      ->required();
  command->add_option("--name", publishing->name, "TENANT/NAME of the function");
  command->add_option("--config", publishing->config_file, "TOML file with the configuration; flags come over it")
      ->type_name("FILE.toml");
  command->add_option("--interpreter", publishing->interpreter, "The interpreter's module, for a script")
      ->type_name("FILE");
  command->add_option("--if-match", publishing->if_match, "Only over the version with this digest");
  command->add_flag("--new", publishing->only_new, "Only where there is no such function yet");
  command->add_option("--timeout", publishing->timeout_ms, "Milliseconds that a call may take");
  command->add_option("--memory-max", publishing->memory_max_bytes, "Bytes of linear memory, also 64MB, 1GB, ...")
      ->transform(CLI::AsSizeValue(false));
  command->add_option("--output-max", publishing->output_max_bytes, "Bytes of output, also 64MB, 1GB, ...")
      ->transform(CLI::AsSizeValue(false));
  command
      ->add_option("--local-max", publishing->local_bytes_max,
                   "Bytes that a call may write to files of its own, also 64MB, ...; 0: it has no such files")
      ->transform(CLI::AsSizeValue(false));
  command->add_option("--local-files-max", publishing->local_files_max, "Of such files, directories and links");
  command->add_option("--concurrency", publishing->concurrency_max,
                      "Calls of it that run at once on a host, more wait; 0: no limit");
  command->add_option("--cpu-ms", publishing->cpu_ms, "Milliseconds of CPU time that a call may use; 0: no limit");
  command->add_option("--cpu-weight", publishing->cpu_weight,
                      "Of its calls among those that want the same core, 1 to 10000; the default is 100");
  command->add_option("--cpu-percent", publishing->cpu_percent,
                      "Of one core, for all its calls on a host together; 0: no limit");
  command->add_flag("--internet", publishing->internet, "Its calls may reach every public address");
  command
      ->add_option("--allow", publishing->allow,
                   "What its calls may reach beside: HOST:PORT, as 10.1.0.0/16:443 or db.example.com:5432; may be "
                   "repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      ->add_option("--require", publishing->require, "A boundary that the host must enforce, as cpu; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      ->add_option("--isolation", publishing->isolation,
                   "process: its calls run in a process of its tenant's own (docs/isolation.md)")
      ->check(CLI::IsMember({"shared", "process"}));
  command->add_option("--spectre-hardening", publishing->spectre_hardening,
                      "true: its code is compiled so that mispredicted branches leak nothing of its memory "
                      "(docs/isolation.md)");
  command
      ->add_option(
          "--push", publishing->push,
          "on_success: what a call that ends with exit code 0 has written to state is pushed before its answer")
      ->check(CLI::IsMember({"explicit", "on_success"}));
  command
      ->add_option(
          "--mount", publishing->mounts,
          "PATH=files:DIRECTORY (of the tenant's shared files) or PATH=host:NAME (what the host offers); may be "
          "repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--env", publishing->env, "NAME=VALUE for the function; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--arg", publishing->args, "An argument of the function; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);

  const auto calling = std::make_shared<CallArguments>();
  command = add_command<CallArguments>(app, exit_code, "call", "Call a function; its output goes to standard output",
                                       calling, call);
  command->add_option("FUNCTION", calling->function, "TENANT/NAME[@VERSION]")->required();
  auto* const text = command->add_option("-d,--data", calling->text, "The input");
  command->add_option("--data-file", calling->file, "The file that holds the input; - is standard input")
      ->excludes(text);
  command->add_flag("--async", calling->async, "Do not wait: print the id of the call, for `spore calls`");
  command->add_option("--key", calling->key, "Idempotency key: however often it is sent, the function is called once");
  command->add_option("--attempts", calling->attempts, "Attempts where it fails; with --async or --key");
  command->add_flag("--graph", calling->graph, "Draw the calls that it has led to on standard error")
      ->excludes("--async");
  command->add_flag("-v,--verbose", calling->verbose, "Tell the call's id and time on standard error");
  command->footer("Without --data and --data-file the input is read from standard input, unless that is a terminal.");

  const auto with_function = [&](const char* name, const char* help,
                                 Result<void> (*action)(const Client&, const FunctionArguments&)) {
    const auto arguments = std::make_shared<FunctionArguments>();
    auto* const added = add_command<FunctionArguments>(app, exit_code, name, help, arguments, action);
    return std::pair{added, arguments};
  };
  using A = const FunctionArguments&;
  using C = const Client&;
  {
    auto [added, arguments] =
        with_function("ls", "List functions", [](C client, A a) { return list(client, a.function, a.raw); });
    added->add_option("PREFIX", arguments->function, "TENANT or TENANT/PREFIX");
    added->add_flag("--json", arguments->raw, "All fields, as JSON");
  }
  {
    auto [added, arguments] = with_function("describe", "Show all that is known of a function",
                                            [](C client, A a) { return describe(client, a.function); });
    added->add_option("FUNCTION", arguments->function, "TENANT/NAME[@VERSION]")->required();
  }
  {
    auto [added, arguments] = with_function("versions", "List the versions of a function",
                                            [](C client, A a) { return versions(client, a.function); });
    added->add_option("FUNCTION", arguments->function, "TENANT/NAME")->required();
  }
  {
    auto [added, arguments] = with_function("rollback", "Make an older version current",
                                            [](C client, A a) { return roll_back(client, a.function, a.version); });
    added->add_option("FUNCTION", arguments->function, "TENANT/NAME")->required();
    added->add_option("--to", arguments->version, "The version's number (default: the one before the current one)");
  }
  {
    auto [added, arguments] =
        with_function("rm", "Remove functions", [](C client, A a) { return remove(client, a.names); });
    added->add_option("FUNCTION", arguments->names, "TENANT/NAME ...")->required();
  }
  {
    auto [added, arguments] = with_function("logs", "Show the last calls of a function and what they logged",
                                            [](C client, A a) { return logs(client, a.function, a.count); });
    added->add_option("FUNCTION", arguments->function, "TENANT/NAME")->required();
    added->add_option("-n,--count", arguments->count, "How many calls at most")->capture_default_str();
  }
}

}  // namespace spore::bin

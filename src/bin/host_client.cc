#include "bin/host_client.h"

#include <unistd.h>

#include "base/fd.h"
#include "base/percent.h"

namespace spore::bin {
using nlohmann::json;

Result<Target> parse_target(const std::string& text, bool with_version) {
  const size_t at = text.find('@');
  Target out;
  ASSIGN_OR_RETURN(out.id, functions::FunctionId::parse(std::string_view(text).substr(0, at)));
  if (at == std::string::npos) return out;
  out.version = text.substr(at + 1);
  if (!with_version) return fail(ErrorCode::kInvalidArgument, "this takes a function, without a version: " + text);
  if (out.version.empty() || out.version.find_first_not_of("0123456789") != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "the version after @ must be a number: " + text);
  return out;
}

Error error_of(const json& problem, unsigned status) {
  const auto text = [&](const char* field) {
    const auto it = problem.find(field);
    return it != problem.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  std::string message = text("title");
  if (const auto detail = text("detail"); !detail.empty()) message += (message.empty() ? "" : ": ") + detail;
  if (message.empty()) message = "the host answered with status " + std::to_string(status);
  if (const auto stack = problem.find("stack"); stack != problem.end() && stack->is_array())
    for (const auto& frame : *stack)
      if (frame.is_object())
        message +=
            "\n    at " + frame.value("function", json("?")).dump() + " +" + frame.value("offset", json(0)).dump();
  return {ErrorCode::kUnavailable, std::move(message)};
}

namespace {

std::unexpected<Error> refusal(const HttpResponse& response) {
  const json problem = json::parse(response.body, nullptr, false);
  if (problem.is_object()) return std::unexpected(error_of(problem, response.status));
  return fail(ErrorCode::kUnavailable, "the host answered with status " + std::to_string(response.status));
}

}  // namespace

void Client::add_options(CLI::App& command) {
  command.add_option("--server", url, "The host's address")->envname("SPORE_SERVER")->capture_default_str();
  command.add_option("--token", token, "The key to show to the host")->envname("SPORE_TOKEN");
}

Result<HttpResponse> Client::send(HttpRequest request,
                                  const std::function<Result<void>(std::string_view)>& on_body) const {
  ASSIGN_OR_RETURN(ServerAddress server, ServerAddress::parse(url));
  server.token = token;
  ASSIGN_OR_RETURN(HttpResponse response, send_request(server, request, on_body));
  if (!response.ok()) return refusal(response);
  return response;
}

Result<json> Client::send_for_json(HttpRequest request) const {
  ASSIGN_OR_RETURN(const HttpResponse response, send(std::move(request)));
  json out = json::parse(response.body, nullptr, false);
  if (!out.is_object()) return fail(ErrorCode::kUnavailable, "the host's answer is no JSON object");
  return out;
}

Result<json> Client::send_for_list(const std::string& path, const char* field) const {
  const char separator = path.find('?') == std::string::npos ? '?' : '&';
  json all = json::array();
  std::string cursor;
  do {
    const std::string more = cursor.empty() ? "" : separator + ("cursor=" + percent_encode(cursor));
    ASSIGN_OR_RETURN(const json page, send_for_json({.target = path + more}));
    if (!page.contains(field) || !page[field].is_array())
      return fail(ErrorCode::kUnavailable, std::string("the host's answer holds no list of ") + field);
    for (const auto& entry : page[field])
      if (entry.is_object()) all.push_back(entry);
    const std::string next = text_of(page, "cursor");
    if (next == cursor) break;
    cursor = next;
  } while (!cursor.empty());
  return all;
}

Result<void> write_out(std::string_view bytes) { return write_all(STDOUT_FILENO, as_bytes(bytes)); }

std::string size_text(const json& bytes) {
  const double value = bytes.is_number() ? bytes.get<double>() : 0;
  char text[32];
  if (value >= 1 << 30)
    std::snprintf(text, sizeof(text), "%.1f GiB", value / (1 << 30));
  else if (value >= 1 << 20)
    std::snprintf(text, sizeof(text), "%.1f MiB", value / (1 << 20));
  else
    std::snprintf(text, sizeof(text), "%.1f KiB", value / (1 << 10));
  return text;
}

std::string text_of(const json& object, const char* field) {
  const auto it = object.find(field);
  if (it == object.end()) return "";
  return it->is_string() ? it->get<std::string>() : it->dump();
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) {
      if (i == widths.size()) widths.push_back(0);
      widths[i] = std::max(widths[i], row[i].size());
    }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      out += row[i];
      if (i + 1 < row.size()) out.append(widths[i] - row[i].size() + 2, ' ');
    }
    out += '\n';
  }
  return out;
}

}  // namespace spore::bin

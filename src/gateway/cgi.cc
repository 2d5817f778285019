#include "gateway/cgi.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <string_view>

#include "base/percent.h"
#include "gateway/api_support.h"

namespace spore::gateway {

namespace {

std::unexpected<Error> wrong(std::string message) { return fail(ErrorCode::kInvalidArgument, std::move(message)); }

bool same(std::string_view a, std::string_view b) {
  return boost::beast::iequals({a.data(), a.size()}, {b.data(), b.size()});
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::ranges::any_of(names, [&](std::string_view one) { return same(name, one); });
}

bool is_letter_or_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool starts_with_spore(std::string_view name) { return name.size() >= 6 && same(name.substr(0, 6), "Spore-"); }

// Fields that are about one connection, or that the server acts on itself.
bool is_hop_by_hop(std::string_view name) {
  return is_one_of(name, {"Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding",
                          "Upgrade", "Expect", "HTTP2-Settings"});
}

// "Accept-Language" -> "HTTP_ACCEPT_LANGUAGE"; nothing where two names could give the same variable, or programs would
// take the variable for something else: HTTP_PROXY names a proxy to many.
std::optional<std::string> variable_of(std::string_view name, KeyIs key) {
  if (is_hop_by_hop(name) || starts_with_spore(name)) return std::nullopt;
  if (is_one_of(name, {"Proxy", "Proxy-Authorization", "Content-Type", "Content-Length"})) return std::nullopt;
  if (key == KeyIs::kInRequest && same(name, "Authorization")) return std::nullopt;
  std::string out = "HTTP_";
  for (const char c : name) {
    if (!is_letter_or_digit(c) && c != '-') return std::nullopt;
    out += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  }
  return out;
}

// The name alone of "name:8080" or "[::1]:8080".
std::string_view name_of_host(std::string_view host) {
  return host.starts_with('[') ? host.substr(0, host.find(']') + 1) : host.substr(0, host.find(':'));
}

}  // namespace

Result<std::vector<std::string>> cgi_environment(const Request& request, KeyIs key) {
  const Route& route = request.route;
  const auto path_info = percent_decode(route.rest);
  if (!path_info) return wrong("the path has a % that two hexadecimal digits do not follow");
  if (path_info->find('\0') != std::string::npos) return wrong("the path holds a zero byte");

  std::vector<std::string> out;
  out.reserve(16 + request.all_fields.size());
  const auto add = [&](std::string_view name, std::string_view value) {
    std::string variable;
    variable.reserve(name.size() + 1 + value.size());
    out.push_back(std::move(variable.append(name).append("=").append(value)));
  };
  add("GATEWAY_INTERFACE", "CGI/1.1");
  add("SERVER_SOFTWARE", "Spore");
  add("SERVER_PROTOCOL", request.version == 10 ? "HTTP/1.0" : "HTTP/1.1");
  const std::string_view host = name_of_host(request.field(Field::kHost));
  add("SERVER_NAME", host.empty() ? std::string_view(request.local_address) : host);
  add("SERVER_PORT", std::to_string(request.local_port));
  add("REMOTE_ADDR", request.remote_address);
  add("REQUEST_METHOD", request.method_text);
  add("REQUEST_URI", request.target);
  add("SCRIPT_NAME", "/fn/" + route.tenant + "/" + route.name +
                         (route.version ? "@" + std::to_string(*route.version) : std::string()));
  add("PATH_INFO", *path_info);
  add("QUERY_STRING", request.query());
  if (key == KeyIs::kInRequest) add("AUTH_TYPE", "Bearer");
  if (request.has(Field::kContentType)) add("CONTENT_TYPE", request.field(Field::kContentType));
  if (request.chunked || request.content_length) add("CONTENT_LENGTH", std::to_string(request.body.size()));

  // A field that stands there twice is one variable; cookies are joined as the one field that they could have been.
  const size_t first_field = out.size();
  for (const auto& [name, value] : request.all_fields) {
    const auto variable = variable_of(name, key);
    if (!variable) continue;
    const auto earlier = std::find_if(out.begin() + static_cast<ptrdiff_t>(first_field), out.end(), [&](auto& known) {
      return known.size() > variable->size() && known[variable->size()] == '=' && known.starts_with(*variable);
    });
    if (earlier == out.end()) {
      add(*variable, value);
    } else {
      earlier->append(same(name, "Cookie") ? "; " : ", ").append(value);
    }
  }
  return out;
}

// ---- the answer -----------------------------------------------------------------------------------------------------

namespace {

bool is_token_char(char c) {
  return is_letter_or_digit(c) || (c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos);
}

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return (byte < 0x20 && c != '\t') || byte == 0x7f;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// "404 Not Found" -> 404
std::optional<unsigned> parse_status(std::string_view value) {
  if (value.size() > 3 && value[3] != ' ') return std::nullopt;
  const auto number = parse_number(value.substr(0, 3));
  if (value.size() < 3 || !number || *number < 200 || *number > 599) return std::nullopt;
  return static_cast<unsigned>(*number);
}

struct Header {
  std::optional<unsigned> status;
  std::optional<uint64_t> content_length;
  bool has_type = false;
  bool has_location = false;
  std::string fields;
};

Result<void> take_line(std::string_view line, const std::string& where, Header& header) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return wrong(where + " has no colon");
  const std::string_view name = line.substr(0, colon), value = trimmed(line.substr(colon + 1));
  if (name.empty() || !std::ranges::all_of(name, is_token_char)) return wrong(where + " does not begin with a name");
  if (std::ranges::any_of(value, is_control)) return wrong(where + " holds a control character");
  const auto once = [&](bool before) -> Result<void> {
    if (before) return wrong(where + " repeats " + std::string(name));
    return {};
  };
  if (same(name, "Status")) {
    TRY(once(header.status.has_value()));
    header.status = parse_status(value);
    if (!header.status) return wrong(where + ": Status is a number from 200 to 599, perhaps with a reason behind it");
    return {};
  }
  if (same(name, "Content-Length")) {
    TRY(once(header.content_length.has_value()));
    header.content_length = parse_number(value);
    if (!header.content_length) return wrong(where + ": Content-Length is no number");
    return {};
  }
  if (same(name, "Transfer-Encoding"))
    return wrong(where + ": how the body is framed is the host's affair, not " + std::string(name));
  // What is about the connection, speaks for the host, or would reach beyond this function's own paths.
  if (is_hop_by_hop(name) || starts_with_spore(name)) return {};
  if (is_one_of(name, {"Service-Worker-Allowed", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc"})) return {};
  if (same(name, "Content-Type")) {
    TRY(once(header.has_type));
    if (value.empty()) return wrong(where + ": Content-Type is empty");
    header.has_type = true;
  } else if (same(name, "Location")) {
    TRY(once(header.has_location));
    if (value.empty()) return wrong(where + ": Location is empty");
    header.has_location = true;
  }
  header.fields.append(name).append(": ").append(value).append("\r\n");
  return {};
}

// Gives where the body begins.
Result<size_t> parse_header(std::string_view text, Header& header) {
  size_t begin = 0;
  for (size_t number = 1;; ++number) {
    const size_t end = text.substr(0, kCgiHeaderBytesMax).find('\n', begin);
    if (end == std::string_view::npos) {
      return text.size() > kCgiHeaderBytesMax ? wrong("no empty line ends the header within its first " +
                                                      std::to_string(kCgiHeaderBytesMax) + " bytes")
                                              : wrong("no empty line ends the header");
    }
    std::string_view line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    begin = end + 1;
    if (line.empty()) return begin;
    if (number > kCgiFieldsMax) return wrong("the header has more than " + std::to_string(kCgiFieldsMax) + " lines");
    TRY(take_line(line, "line " + std::to_string(number) + " of the header", header));
  }
}

// The header at the beginning of an output, made into a response without a body.
struct Parsed {
  Response response;
  std::optional<uint64_t> content_length;
  size_t body_begin = 0;
  bool bodiless = false;
};

Result<Parsed> parse_head(std::string_view output) {
  if (output.empty()) return wrong("it is empty: there is no header");
  Header header;
  Parsed out;
  ASSIGN_OR_RETURN(out.body_begin, parse_header(output, header));
  if (!header.status && !header.has_type && !header.has_location) {
    return wrong("its header has none of Content-Type, Location and Status");
  }
  const unsigned status = header.status.value_or(header.has_location ? 302 : 200);
  out.response.status = status;
  out.response.fields = std::move(header.fields);
  out.content_length = header.content_length;
  out.bodiless = status == 204 || status == 205 || status == 304;
  if (header.has_type || out.bodiless || output.size() == out.body_begin) out.response.content_type = {};
  return out;
}

}  // namespace

Result<Response> parse_cgi_answer(Bytes output, Verb method) {
  ASSIGN_OR_RETURN(auto parsed, parse_head(as_text(output)));
  Response response = std::move(parsed.response);
  const uint64_t body_bytes = output.size() - parsed.body_begin;
  const bool is_head = method == Verb::head;
  const auto said = parsed.content_length;
  if (said && *said != body_bytes && !(body_bytes == 0 && (is_head || parsed.bodiless))) {
    return wrong("its Content-Length is " + std::to_string(*said) + ", but its body has " + std::to_string(body_bytes) +
                 " bytes");
  }
  if (is_head && body_bytes == 0) {
    // The length that the answer to a GET would have: only the guest can say.
    response.length = said ? Response::Length::kInFields : Response::Length::kUnsaid;
    if (said) response.add_field("Content-Length", std::to_string(*said));
  }
  if (parsed.bodiless) {
    output.clear();
  } else {
    output.erase(output.begin(), output.begin() + static_cast<ptrdiff_t>(parsed.body_begin));
  }
  response.body = std::move(output);
  return response;
}

std::optional<CgiBeginning> parse_cgi_beginning(ByteSpan output, Verb method) {
  auto parsed = parse_head(as_text(output));
  if (!parsed || parsed->bodiless || method == Verb::head) return std::nullopt;
  CgiBeginning out{std::move(parsed->response), parsed->content_length};
  const ByteSpan body = output.subspan(parsed->body_begin);
  out.response.body.assign(body.begin(), body.end());
  return out;
}

}  // namespace spore::gateway

#include "bin/http_client.h"

#include <algorithm>
#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

namespace spore::bin {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

constexpr size_t kKeptBodyBytesMax = 16 << 20;
constexpr size_t kEventBytesMax = 1 << 20;

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return out;
}

std::unexpected<Error> unreachable(const ServerAddress& server, const boost::system::error_code& error) {
  return fail(ErrorCode::kUnavailable, "http://" + server.authority() + ": " + error.message());
}

}  // namespace

Result<ServerAddress> ServerAddress::parse(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  const auto refuse = [&] {
    return fail(ErrorCode::kInvalidArgument,
                "the server must be written http://HOST[:PORT], not \"" + std::string(url) + "\"");
  };
  if (!url.starts_with(kScheme)) return refuse();
  std::string_view rest = url.substr(kScheme.size());
  if (rest.ends_with('/')) rest.remove_suffix(1);
  ServerAddress out{.port = "80"};
  if (rest.starts_with('[')) {
    const size_t end = rest.find(']');
    if (end == std::string_view::npos) return refuse();
    out.host = rest.substr(1, end - 1);
    rest.remove_prefix(end + 1);
  } else {
    out.host = rest.substr(0, rest.find(':'));
    rest.remove_prefix(out.host.size());
  }
  if (!rest.empty()) {
    if (rest[0] != ':' || rest.size() < 2 || rest.size() > 6) return refuse();
    out.port = rest.substr(1);
  }
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (out.host.empty() || !std::ranges::all_of(out.port, is_digit) ||
      out.host.find_first_of("/?#@ \r\n") != std::string::npos)
    return refuse();
  return out;
}

std::string ServerAddress::authority() const {
  const auto name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return name + ":" + port;
}

std::string HttpResponse::field(const std::string& lower_case_name) const {
  const auto it = fields.find(lower_case_name);
  return it == fields.end() ? "" : it->second;
}

Result<HttpResponse> send_request(const ServerAddress& server, const HttpRequest& request,
                                  const std::function<Result<void>(std::string_view)>& on_body) {
  asio::io_context io;
  boost::system::error_code error;
  tcp::resolver resolver(io);
  const auto endpoints = resolver.resolve(server.host, server.port, error);
  if (error) return unreachable(server, error);
  tcp::socket socket(io);
  asio::connect(socket, endpoints, error);
  if (error) return unreachable(server, error);
  socket.set_option(tcp::no_delay(true), error);

  http::request<http::empty_body> head;
  head.method_string(request.method);
  head.target(request.target);
  head.version(11);
  head.set(http::field::host, server.authority());
  head.set(http::field::connection, "close");
  head.set(http::field::user_agent, "spore");
  if (!server.token.empty()) head.set(http::field::authorization, "Bearer " + server.token);
  for (const auto& [name, value] : request.fields) head.set(name, value);
  if (!request.body.empty() || request.method == "PUT" || request.method == "POST")
    head.set(http::field::content_length, std::to_string(request.body.size()));
  http::request_serializer<http::empty_body> serializer(head);
  http::write_header(socket, serializer, error);
  if (error) return unreachable(server, error);
  // A host that refuses the request may close its side before the body is sent; its answer is there to be read.
  asio::write(socket, asio::buffer(request.body.data(), request.body.size()), error);

  boost::beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  http::read_header(socket, buffer, parser, error);
  if (error) return unreachable(server, error);
  HttpResponse out;
  out.status = parser.get().result_int();
  for (const auto& field : parser.get())
    out.fields[lower({field.name_string().data(), field.name_string().size()})] =
        std::string(field.value().data(), field.value().size());

  if (request.on_head) request.on_head(out);

  std::array<char, 64 << 10> chunk;
  while (!parser.is_done()) {
    parser.get().body().data = chunk.data();
    parser.get().body().size = chunk.size();
    parser.get().body().more = true;
    http::read(socket, buffer, parser, error);
    if (error == http::error::need_buffer) error = {};
    if (error) return unreachable(server, error);
    const std::string_view bytes(chunk.data(), chunk.size() - parser.get().body().size);
    if (on_body && out.ok()) {
      TRY(on_body(bytes));
    } else {
      out.body.append(bytes.substr(0, kKeptBodyBytesMax - std::min(kKeptBodyBytesMax, out.body.size())));
    }
  }
  return out;
}

Result<void> EventParser::feed(std::string_view bytes) {
  buffer_.append(bytes);
  size_t begin = 0;
  for (size_t end; (end = buffer_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    std::string_view line = std::string_view(buffer_).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    take_line(line);
  }
  buffer_.erase(0, begin);
  if (buffer_.size() + data_.size() > kEventBytesMax)
    return fail(ErrorCode::kResourceExhausted, "the host sent an event that is too large");
  return {};
}

void EventParser::take_line(std::string_view line) {
  if (line.empty()) {
    if (!data_.empty()) handler_(event_, data_);
    event_ = "message";
    data_.clear();
    return;
  }
  const size_t colon = line.find(':');
  const auto name = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (name == "event") event_ = value;
  if (name == "data") {
    if (!data_.empty()) data_ += '\n';
    data_ += value;
  }
}

}  // namespace spore::bin

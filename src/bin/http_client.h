// One HTTP/1.1 request to a Spore host, for the client commands. Blocking; main thread only. The body of a response is
// handed on as it arrives, so its size costs no memory.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace spore::bin {

struct ServerAddress {
  std::string host;
  std::string port;
  std::string token;  // "": none

  // http://HOST[:PORT]; HOST may be an IPv6 address in brackets.
  static Result<ServerAddress> parse(std::string_view url);
  std::string authority() const;  // as the Host field has it
};

struct HttpResponse {
  unsigned status = 0;
  std::map<std::string, std::string> fields;  // by lower-case name; the last of several
  std::string body;                           // of an error, or of a response without `on_body`; at most 16 MiB

  bool ok() const { return status >= 200 && status < 300; }
  std::string field(const std::string& lower_case_name) const;
};

struct HttpRequest {
  std::string method = "GET";
  std::string target;
  std::vector<std::pair<std::string, std::string>> fields;
  ByteSpan body;
  // Gets the response without its body when the header has arrived.
  std::function<void(const HttpResponse&)> on_head = {};
};

// `on_body`: gets the bytes of a successful response. kUnavailable: the host cannot be reached, or the connection
// broke.
Result<HttpResponse> send_request(const ServerAddress& server, const HttpRequest& request,
                                  const std::function<Result<void>(std::string_view)>& on_body = {});

// Server-sent events, as their bytes arrive.
class EventParser {
 public:
  using Handler = std::function<void(const std::string& event, const std::string& data)>;
  explicit EventParser(Handler handler) : handler_(std::move(handler)) {}
  // kResourceExhausted: an event larger than 1 MiB.
  Result<void> feed(std::string_view bytes);

 private:
  void take_line(std::string_view line);

  Handler handler_;
  std::string buffer_;
  std::string event_ = "message";
  std::string data_;
};

}  // namespace spore::bin

// HTTP/1.1 messages as the gateway sees them: a parsed request, a response to be written, and the parser between bytes
// and request (Beast's, fed by hand, so that nothing is copied twice and every size is bounded while it streams in).
//
//   Connection --bytes--> RequestParser --fills--> Request --Application--> Response --write_head--> bytes
//
// Everything here belongs to one connection and is used by one thread at a time. Sizes are bytes.
#pragma once

#include <array>
#include <boost/beast/http/basic_parser.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "gateway/memory_budget.h"
#include "gateway/route.h"

namespace spore::gateway {

using Verb = boost::beast::http::verb;

// The header fields that the gateway reads; all others are skipped, but for web handlers.
enum class Field : uint8_t {
  kHost,
  kOrigin,
  kAuthorization,
  kAccept,
  kContentType,
  kIfMatch,
  kIfNoneMatch,
  kPrefer,
  kExpect,
  kRange,
  kIfRange,
  kContentRange,
  kConfig,    // Spore-Config
  kAttempts,  // Spore-Attempts
  kIdempotencyKey,
  kCount,
};

constexpr size_t kHeaderBytesMax = 32 << 10;  // request line and fields
constexpr size_t kTargetBytesMax = 8 << 10;
constexpr size_t kFieldsMax = 128;

// Which requests a connection's listener is for.
enum class Listener : uint8_t {
  kAll,
  kApi,  // all but web handlers, which have a listener of their own
  kWeb,  // web handlers alone
};

struct Request {
  Verb method = Verb::unknown;
  std::string method_text;
  std::string target;  // as sent: path, and query behind a question mark
  unsigned version = 11;
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = true;
  bool repeated_host = false;
  std::array<std::string, static_cast<size_t>(Field::kCount)> fields;
  std::array<bool, static_cast<size_t>(Field::kCount)> present{};
  std::vector<std::pair<std::string, std::string>> all_fields;  // for web handlers: every one, as sent
  Bytes body;
  // In the place of `body`, where that is too large to be held: a pipe that it comes through. It ends with the body, or
  // never, where the client goes away before.
  UniqueFd body_stream;
  Route route;                     // set when the request is admitted
  MemoryBudget::Share body_share;  // what the body holds of the gateway's memory

  // The connection's; clear() keeps them. Addresses are text, without the port.
  Listener listener = Listener::kAll;
  std::string remote_address;
  std::string local_address;
  uint16_t local_port = 0;

  // Whether the target is one of a web handler.
  bool is_web() const { return target.starts_with(kWebPrefix); }
  const std::string& field(Field which) const { return fields[static_cast<size_t>(which)]; }
  bool has(Field which) const { return present[static_cast<size_t>(which)]; }
  std::string_view path() const { return std::string_view(target).substr(0, target.find('?')); }
  std::string_view query() const;
  // The percent-decoded value of `name` in the query; "" where it stands alone; nothing where it is missing.
  std::optional<std::string> parameter(std::string_view name) const;
  bool has_body() const { return chunked || content_length.value_or(0) > 0; }
  // Ready for the next request on the same connection; keeps what is allocated.
  void clear();
};

struct Response {
  // Whether Content-Length is written: what the body has, or nothing, or what `fields` already says (answers to HEAD).
  enum class Length : uint8_t { kOfBody, kUnsaid, kInFields };

  unsigned status = 200;
  std::string_view content_type = "application/octet-stream";  // a literal; "": none, or in `fields`
  std::string fields;  // further header lines, each ended by CRLF; built by us only, never from unchecked input
  Bytes body;
  Length length = Length::kOfBody;
  bool close = false;  // close the connection behind it

  void add_field(std::string_view name, std::string_view value) {
    fields.append(name).append(": ").append(value).append("\r\n");
  }
};

Response text_response(unsigned status, std::string_view content_type, std::string_view text);
std::string_view reason_of(unsigned status);

enum class KeepAlive { kNo, kYes };
// Appends status line and header fields, with Content-Length where the status allows one.
void write_head(const Response& response, unsigned version, KeepAlive keep_alive, std::string& out);

// Why a body was not taken; what parse() makes of it is a status.
enum class BodyRefusal { kNone, kTooLarge, kNoMemory };

// One request. Feed it with put() as long as is_done() is false; reads the header first and stops there, so that the
// owner can decide on the body (take_body, discard_body) before any of it is stored.
class RequestParser final : public boost::beast::http::basic_parser<true> {
 public:
  explicit RequestParser(Request& request);

  // Where body bytes go: appended up to `size_max`, each growth charged to `budget`.
  void take_body(uint64_t size_max, MemoryBudget& budget);
  // From now on the owner empties Request::body as it goes: there is no use in room for the whole.
  void pass_body_on() { passed_on_ = true; }
  // The body is read and thrown away, up to `size_max`.
  void discard_body(uint64_t size_max);
  BodyRefusal refusal() const { return refusal_; }
  bool target_too_long() const { return target_too_long_; }

 private:
  using error_code = boost::beast::error_code;
  using string_view = boost::beast::string_view;

  void on_request_impl(Verb method, string_view method_text, string_view target, int version, error_code& ec) override;
  void on_response_impl(int, string_view, int, error_code&) override {}
  void on_field_impl(boost::beast::http::field name, string_view name_text, string_view value, error_code& ec) override;
  void on_header_impl(error_code& ec) override;
  void on_body_init_impl(const boost::optional<uint64_t>& content_length, error_code& ec) override;
  size_t on_body_impl(string_view bytes, error_code& ec) override;
  void on_chunk_header_impl(uint64_t size, string_view extensions, error_code& ec) override;
  size_t on_chunk_body_impl(uint64_t remain, string_view bytes, error_code& ec) override;
  void on_finish_impl(error_code& ec) override;

  size_t append(string_view bytes, error_code& ec);

  Request& request_;
  MemoryBudget* budget_ = nullptr;  // null: discard
  uint64_t body_bytes_max_ = 0;
  uint64_t body_bytes_ = 0;
  size_t fields_ = 0;
  bool header_seen_ = false;
  bool target_too_long_ = false;
  bool passed_on_ = false;
  BodyRefusal refusal_ = BodyRefusal::kNone;
};

}  // namespace spore::gateway

#include "gateway/http.h"

#include <algorithm>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/status.hpp>
#include <charconv>

#include "base/percent.h"

namespace spore::gateway {
namespace http = boost::beast::http;

namespace {

// A body's buffer grows by doubling, from what a client says it will send, but never by more than this ahead of what it
// has sent.
constexpr uint64_t kReserveBytesMax = 1 << 20;

// Those that Beast has no name for.
constexpr std::pair<std::string_view, Field> kOtherFields[] = {
    {"Spore-Config", Field::kConfig},
    {"Spore-Attempts", Field::kAttempts},
    {"Idempotency-Key", Field::kIdempotencyKey},
};

std::optional<Field> known_field(http::field name, std::string_view text) {
  switch (name) {
    case http::field::host: return Field::kHost;
    case http::field::origin: return Field::kOrigin;
    case http::field::authorization: return Field::kAuthorization;
    case http::field::accept: return Field::kAccept;
    case http::field::content_type: return Field::kContentType;
    case http::field::if_match: return Field::kIfMatch;
    case http::field::if_none_match: return Field::kIfNoneMatch;
    case http::field::prefer: return Field::kPrefer;
    case http::field::expect: return Field::kExpect;
    case http::field::range: return Field::kRange;
    case http::field::if_range: return Field::kIfRange;
    case http::field::content_range: return Field::kContentRange;
    case http::field::unknown:
      for (const auto& [other, field] : kOtherFields)
        if (boost::beast::iequals({text.data(), text.size()}, {other.data(), other.size()})) return field;
      return std::nullopt;
    default: return std::nullopt;
  }
}

}  // namespace

std::string_view Request::query() const {
  const size_t mark = target.find('?');
  return mark == std::string::npos ? std::string_view{} : std::string_view(target).substr(mark + 1);
}

std::optional<std::string> Request::parameter(std::string_view name) const {
  std::string_view rest = query();
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    const size_t equals = pair.find('=');
    if (pair.substr(0, equals) != name) continue;
    return percent_decode(equals == std::string_view::npos ? std::string_view{} : pair.substr(equals + 1));
  }
  return std::nullopt;
}

void Request::clear() {
  method = Verb::unknown;
  method_text.clear();
  target.clear();
  version = 11;
  content_length.reset();
  chunked = false;
  keep_alive = true;
  repeated_host = false;
  for (size_t i = 0; i < fields.size(); ++i) {
    if (present[i]) fields[i].clear();
  }
  present = {};
  all_fields.clear();
  body = {};
  body_stream.reset();
  body_share.release();
  route = {};
}

Response text_response(unsigned status, std::string_view content_type, std::string_view text) {
  Response response;
  response.status = status;
  response.content_type = content_type;
  response.body.assign(text.begin(), text.end());
  return response;
}

std::string_view reason_of(unsigned status) {
  if (status == 431) return "Request Header Fields Too Large";
  const auto known = http::int_to_status(status);
  if (known == http::status::unknown) return {};
  const auto reason = http::obsolete_reason(known);
  return {reason.data(), reason.size()};
}

void write_head(const Response& response, unsigned version, KeepAlive keep_alive, std::string& out) {
  char number[24];
  const auto append_number = [&](uint64_t value) {
    out.append(number, std::to_chars(number, number + sizeof(number), value).ptr);
  };
  out += version == 10 ? "HTTP/1.0 " : "HTTP/1.1 ";
  append_number(response.status);
  out += ' ';
  out += reason_of(response.status);
  out += "\r\n";
  if (response.status != 204 && response.status != 304) {
    if (!response.content_type.empty()) out.append("Content-Type: ").append(response.content_type).append("\r\n");
    if (response.length == Response::Length::kOfBody) {
      out += "Content-Length: ";
      append_number(response.body.size());
      out += "\r\n";
    }
  }
  out += response.fields;
  if (keep_alive == KeepAlive::kNo) {
    out += "Connection: close\r\n";
  } else if (version == 10) {
    out += "Connection: keep-alive\r\n";
  }
  out += "\r\n";
}

RequestParser::RequestParser(Request& request) : request_(request) {
  header_limit(kHeaderBytesMax);
  body_limit(boost::none);  // append() counts
  eager(false);
}

void RequestParser::take_body(uint64_t size_max, MemoryBudget& budget) {
  budget_ = &budget;
  body_bytes_max_ = size_max;
  eager(true);
}

void RequestParser::discard_body(uint64_t size_max) {
  budget_ = nullptr;
  body_bytes_max_ = size_max;
  eager(true);
}

void RequestParser::on_request_impl(Verb method, string_view method_text, string_view target, int version,
                                    error_code& ec) {
  if (target.size() > kTargetBytesMax) {
    target_too_long_ = true;
    ec = http::error::bad_target;
    return;
  }
  request_.method = method;
  request_.method_text.assign(method_text.data(), method_text.size());
  request_.target.assign(target.data(), target.size());
  request_.version = static_cast<unsigned>(version);
}

void RequestParser::on_field_impl(http::field name, string_view name_text, string_view value, error_code& ec) {
  if (header_seen_) return;  // a trailer behind a chunked body says nothing that we read
  if (++fields_ > kFieldsMax) {
    ec = http::error::header_limit;
    return;
  }
  if (request_.is_web()) {
    request_.all_fields.emplace_back(std::string(name_text.data(), name_text.size()),
                                     std::string(value.data(), value.size()));
  }
  const auto which = known_field(name, {name_text.data(), name_text.size()});
  if (!which) return;
  const auto index = static_cast<size_t>(*which);
  std::string& field = request_.fields[index];
  if (request_.present[index]) {
    if (*which == Field::kHost) request_.repeated_host = true;
    field += ", ";
  }
  request_.present[index] = true;
  field.append(value.data(), value.size());
}

void RequestParser::on_header_impl(error_code&) {
  header_seen_ = true;
  request_.keep_alive = keep_alive();
  request_.chunked = chunked();
  if (const auto length = content_length()) request_.content_length = *length;
}

void RequestParser::on_body_init_impl(const boost::optional<uint64_t>&, error_code&) {}

size_t RequestParser::on_body_impl(string_view bytes, error_code& ec) { return append(bytes, ec); }

void RequestParser::on_chunk_header_impl(uint64_t, string_view, error_code&) {}

size_t RequestParser::on_chunk_body_impl(uint64_t, string_view bytes, error_code& ec) { return append(bytes, ec); }

void RequestParser::on_finish_impl(error_code&) {}

size_t RequestParser::append(string_view bytes, error_code& ec) {
  if (bytes.size() > body_bytes_max_ - body_bytes_) {
    refusal_ = BodyRefusal::kTooLarge;
    ec = http::error::body_limit;
    return 0;
  }
  body_bytes_ += bytes.size();
  if (!budget_) return bytes.size();
  Bytes& body = request_.body;
  const uint64_t needed = body.size() + bytes.size();
  if (needed > body.capacity()) {
    const uint64_t announced =
        passed_on_ ? 0 : std::min(request_.content_length.value_or(0), needed + kReserveBytesMax);
    uint64_t capacity = std::max({needed, announced, std::min(2 * uint64_t{body.capacity()}, body_bytes_max_)});
    // The announced length is exact: there is no use in growing past it.
    if (request_.content_length) capacity = std::min(capacity, std::max(needed, *request_.content_length));
    if (!request_.body_share.grow_to(*budget_, capacity)) {
      refusal_ = BodyRefusal::kNoMemory;
      ec = http::error::body_limit;
      return 0;
    }
    body.reserve(capacity);
  }
  body.insert(body.end(), bytes.begin(), bytes.end());
  return bytes.size();
}

}  // namespace spore::gateway

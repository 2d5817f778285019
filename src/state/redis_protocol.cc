#include "state/redis_protocol.h"

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace spore::state {
namespace {

std::unexpected<Error> malformed(const std::string& what) {
  return fail(ErrorCode::kUnavailable, "what answers is no Redis: " + what);
}

}  // namespace

void RedisRequest::add(std::string_view argument) {
  text_ += '$';
  text_ += std::to_string(argument.size());
  text_ += "\r\n";
  text_ += argument;
  text_ += "\r\n";
  head_ = "*" + std::to_string(++arguments_) + "\r\n";
}

void RedisRequest::add_borrowed(std::span<const ByteSpan> pieces) {
  size_t size = 0;
  for (const ByteSpan piece : pieces) size += piece.size();
  text_ += '$';
  text_ += std::to_string(size);
  text_ += "\r\n";
  for (const ByteSpan piece : pieces)
    if (!piece.empty()) borrowed_.push_back({text_.size(), piece});
  text_ += "\r\n";
  head_ = "*" + std::to_string(++arguments_) + "\r\n";
}

size_t RedisRequest::size_bytes() const {
  size_t size = text_.size() + head_.size();
  for (const Borrowed& piece : borrowed_) size += piece.bytes.size();
  return size;
}

void RedisRequest::append_pieces(std::vector<ByteSpan>& out) const {
  out.push_back(as_bytes(head_));
  const ByteSpan text = as_bytes(text_);
  size_t from = 0;
  for (const Borrowed& piece : borrowed_) {
    if (piece.at > from) out.push_back(text.subspan(from, piece.at - from));
    out.push_back(piece.bytes);
    from = piece.at;
  }
  out.push_back(text.subspan(from));
}

void RedisReplyParser::begin() {
  CHECK(state_ == State::kLine && line_.empty() && frames_.empty());
  has_sink_ = false;
  sink_ = {};
  elements_ = 0;
  text_bytes_ = 0;
  done_ = false;
  reply_ = {};
}

void RedisReplyParser::begin(std::span<uint8_t> sink) {
  begin();
  has_sink_ = true;
  sink_ = sink;
}

void RedisReplyParser::complete(RedisReply reply) {
  while (true) {
    if (frames_.empty()) {
      reply_ = std::move(reply);
      done_ = true;
      return;
    }
    Frame& frame = frames_.back();
    frame.reply.elements.push_back(std::move(reply));
    if (--frame.left != 0) return;
    reply = std::move(frame.reply);
    frames_.pop_back();
  }
}

Result<void> RedisReplyParser::end_line() {
  std::string line;
  line.swap(line_);
  if (line.empty()) return malformed("an empty line");
  RedisReply reply;
  const std::string_view rest = std::string_view(line).substr(1);
  int64_t number = 0;
  if (line[0] == ':' || line[0] == '$' || line[0] == '*') {
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (rest.empty() || error != std::errc() || end != rest.data() + rest.size())
      return malformed("a number that is none");
  }
  switch (line[0]) {
    case '+':
    case '-':
      reply.kind = line[0] == '+' ? RedisReply::Kind::kStatus : RedisReply::Kind::kError;
      text_bytes_ += rest.size();
      if (text_bytes_ > kRedisReplyBytesMax) return malformed("a reply that is too long");
      reply.text = rest;
      break;
    case ':':
      reply.kind = RedisReply::Kind::kInteger;
      reply.integer = number;
      break;
    case '$': {
      if (number < -1) return malformed("a string of negative length");
      if (number == -1) break;  // nil
      const auto size = static_cast<uint64_t>(number);
      to_sink_ = has_sink_ && frames_.empty();
      if (to_sink_ ? size > sink_.size() : size > kRedisReplyBytesMax - text_bytes_)
        return malformed("a string of " + std::to_string(number) + " bytes, longer than was asked for");
      bulk_ = {};
      bulk_.kind = RedisReply::Kind::kBulk;
      if (!to_sink_) text_bytes_ += size;
      payload_left_ = size;
      payload_end_left_ = 2;
      state_ = size == 0 ? State::kPayloadEnd : State::kPayload;
      return {};
    }
    case '*':
      if (number < -1) return malformed("an array of negative length");
      if (number == -1) break;
      elements_ += static_cast<size_t>(std::min<int64_t>(number, kRedisReplyElementsMax + 1));
      if (elements_ > kRedisReplyElementsMax) return malformed("an array that is too long");
      reply.kind = RedisReply::Kind::kArray;
      if (number == 0) break;
      if (frames_.size() >= kRedisReplyDepthMax) return malformed("arrays too deep in each other");
      frames_.push_back({std::move(reply), static_cast<size_t>(number)});
      return {};
    default: return malformed("a reply of an unknown kind");
  }
  complete(std::move(reply));
  return {};
}

Result<size_t> RedisReplyParser::feed(ByteSpan bytes) {
  size_t at = 0;
  while (at < bytes.size() && !done_) {
    if (state_ == State::kLine) {
      const auto* begin = bytes.data() + at;
      const auto* end = static_cast<const uint8_t*>(std::memchr(begin, '\n', bytes.size() - at));
      const size_t count = end ? static_cast<size_t>(end - begin) : bytes.size() - at;
      if (line_.size() + count > kRedisLineBytesMax) return malformed("a line that is too long");
      line_.append(reinterpret_cast<const char*>(begin), count);
      at += count;
      if (!end) break;
      ++at;
      if (line_.empty() || line_.back() != '\r') return malformed("a line that does not end with CR LF");
      line_.pop_back();
      TRY(end_line());
    } else if (state_ == State::kPayload) {
      const size_t count = std::min(payload_left_, bytes.size() - at);
      if (to_sink_) {
        std::memcpy(direct().data(), bytes.data() + at, count);
        placed(count);
      } else {
        bulk_.text.append(reinterpret_cast<const char*>(bytes.data() + at), count);
        payload_left_ -= count;
        if (payload_left_ == 0) state_ = State::kPayloadEnd;
      }
      at += count;
    } else {
      if (bytes[at] != (payload_end_left_ == 2 ? '\r' : '\n')) return malformed("a string longer than it says");
      ++at;
      if (--payload_end_left_ == 0) {
        state_ = State::kLine;
        complete(std::move(bulk_));
      }
    }
  }
  return at;
}

std::span<uint8_t> RedisReplyParser::direct() {
  if (state_ != State::kPayload || !to_sink_) return {};
  return sink_.subspan(bulk_.sunk_bytes, payload_left_);
}

void RedisReplyParser::placed(size_t count) {
  CHECK(count <= payload_left_, count, payload_left_);
  bulk_.sunk_bytes += count;
  payload_left_ -= count;
  if (payload_left_ == 0) state_ = State::kPayloadEnd;
}

}  // namespace spore::state

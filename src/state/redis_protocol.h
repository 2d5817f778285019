// RESP2, the protocol of Redis: requests as pieces of memory, and a parser of replies that takes what comes in pieces.
//
// Bulk data is not copied on either way: a request borrows the bytes of its large arguments, and the parser tells where
// the next bytes of a bulk string belong, so that they are received there.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace spore::state {

class RedisRequest {
 public:
  RedisRequest() = default;
  RedisRequest(std::initializer_list<std::string_view> arguments) {
    for (const std::string_view argument : arguments) add(argument);
  }

  void add(std::string_view argument);
  // Borrowed until the request has been answered.
  void add_borrowed(ByteSpan argument) { add_borrowed(std::span(&argument, 1)); }
  // One argument in pieces.
  void add_borrowed(std::span<const ByteSpan> pieces);

  size_t arguments() const { return arguments_; }
  size_t size_bytes() const;

  // What goes over the wire, in order, as views that hold until the request changes.
  void append_pieces(std::vector<ByteSpan>& out) const;

 private:
  struct Borrowed {
    size_t at;  // before this byte of text_
    ByteSpan bytes;
  };
  std::string text_;
  std::vector<Borrowed> borrowed_;
  size_t arguments_ = 0;
  std::string head_ = "*0\r\n";
};

struct RedisReply {
  enum class Kind : uint8_t { kNil, kStatus, kError, kInteger, kBulk, kArray };
  Kind kind = Kind::kNil;
  int64_t integer = 0;
  std::string text;                  // of a status, an error, a bulk string
  std::vector<RedisReply> elements;  // of an array
  size_t sunk_bytes = 0;             // of a bulk string that went to the sink, in place of text

  bool is_error() const { return kind == Kind::kError; }
};

// What a server may send at most; more is an error, and the connection is useless.
constexpr size_t kRedisReplyBytesMax = 64 << 20;  // text, all elements together; what goes to a sink is not counted
constexpr size_t kRedisReplyElementsMax = 1 << 20;
constexpr size_t kRedisReplyDepthMax = 8;
constexpr size_t kRedisLineBytesMax = 64 << 10;

// Of one connection; replies one after the other.
class RedisReplyParser {
 public:
  // The next reply begins. With a sink, a bulk string at its top goes there; one that is longer is an error.
  void begin();
  void begin(std::span<uint8_t> sink);

  // Takes bytes up to the reply's end at most, and says how many. kUnavailable, and what is wrong: no way on.
  Result<size_t> feed(ByteSpan bytes);
  bool done() const { return done_; }
  RedisReply take() { return std::move(reply_); }

  // Where the next bytes belong, where that is known already: they may be put there instead of being fed.
  std::span<uint8_t> direct();
  void placed(size_t count);

 private:
  enum class State : uint8_t { kLine, kPayload, kPayloadEnd };
  struct Frame {
    RedisReply reply;
    size_t left;
  };
  Result<void> end_line();
  void complete(RedisReply reply);

  State state_ = State::kLine;
  std::string line_;
  RedisReply bulk_;
  size_t payload_left_ = 0;
  size_t payload_end_left_ = 0;
  bool to_sink_ = false;
  bool has_sink_ = false;
  std::span<uint8_t> sink_;
  std::vector<Frame> frames_;
  size_t elements_ = 0;
  size_t text_bytes_ = 0;
  bool done_ = false;
  RedisReply reply_;
};

}  // namespace spore::state

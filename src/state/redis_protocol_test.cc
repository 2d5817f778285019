#include "state/redis_protocol.h"

#include <gtest/gtest.h>

#include <thread>

#include "state/redis_client.h"
#include "state/redis_url.h"

namespace spore::state {
namespace {

std::string wire(const RedisRequest& request) {
  std::vector<ByteSpan> pieces;
  request.append_pieces(pieces);
  std::string out;
  for (const ByteSpan piece : pieces) out += as_text(piece);
  EXPECT_EQ(out.size(), request.size_bytes());
  return out;
}

// All bytes at once and one by one must give the same.
Result<RedisReply> parse(std::string_view text, std::span<uint8_t> sink = {}) {
  std::optional<Result<RedisReply>> last;
  for (const size_t step : {text.size(), size_t{1}}) {
    RedisReplyParser parser;
    if (sink.empty()) {
      parser.begin();
    } else {
      parser.begin(sink);
    }
    ByteSpan rest = as_bytes(text);
    Result<RedisReply> out = fail(ErrorCode::kInternal, "not whole");
    while (!rest.empty() && !parser.done()) {
      const auto used = parser.feed(rest.first(std::min(step, rest.size())));
      if (!used) {
        out = std::unexpected(used.error());
        break;
      }
      rest = rest.subspan(*used);
    }
    if (parser.done()) out = rest.empty() ? Result<RedisReply>(parser.take()) : fail(ErrorCode::kInternal, "more");
    if (last) {
      EXPECT_EQ(last->has_value(), out.has_value()) << text;
      if (*last && out) EXPECT_EQ((*last)->text, out->text);
    }
    last = std::move(out);
  }
  return std::move(*last);
}

}  // namespace

TEST(RedisProtocol, RequestsAreArraysOfStringsOfAnyBytes) {
  EXPECT_EQ(wire({"GET", "a"}), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
  RedisRequest request{"SET", std::string_view("k\0\r\n", 4)};
  const std::string big = "0123", more = "45";
  const ByteSpan pieces[] = {as_bytes(big), {}, as_bytes(more)};
  request.add_borrowed(pieces);
  request.add_borrowed(ByteSpan());
  request.add("");
  EXPECT_EQ(wire(request), std::string("*5\r\n$3\r\nSET\r\n$4\r\nk\0\r\n\r\n$6\r\n012345\r\n$0\r\n\r\n$0\r\n\r\n", 47));
}

// With TSan; ASKING is sent so.
TEST(RedisProtocol, OneRequestMayBeSentByManyThreadsAtOnce) {
  const RedisRequest request{"ASKING"};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 1000; ++round) ASSERT_EQ(wire(request), "*1\r\n$6\r\nASKING\r\n");
    });
}

TEST(RedisProtocol, ReadsEachKindOfReply) {
  EXPECT_EQ(parse("+OK\r\n")->text, "OK");
  EXPECT_EQ(parse("-ERR no\r\n")->kind, RedisReply::Kind::kError);
  EXPECT_EQ(parse(":-42\r\n")->integer, -42);
  EXPECT_EQ(parse(std::string_view("$5\r\na\r\nb\0\r\n", 11))->text.size(), 5u);
  EXPECT_EQ(parse("$0\r\n\r\n")->kind, RedisReply::Kind::kBulk);
  EXPECT_EQ(parse("$-1\r\n")->kind, RedisReply::Kind::kNil);
  EXPECT_EQ(parse("*-1\r\n")->kind, RedisReply::Kind::kNil);
  EXPECT_TRUE(parse("*0\r\n")->elements.empty());
  auto nested = parse("*3\r\n*2\r\n:1\r\n$1\r\nx\r\n*0\r\n-E\r\n");
  ASSERT_TRUE(nested);
  ASSERT_EQ(nested->elements.size(), 3u);
  EXPECT_EQ(nested->elements[0].elements[1].text, "x");
  EXPECT_TRUE(nested->elements[2].is_error());
}

TEST(RedisProtocol, ABulkStringGoesToItsSink) {
  uint8_t sink[8] = {};
  auto reply = parse("$3\r\nabc\r\n", sink);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->sunk_bytes, 3u);
  EXPECT_EQ(as_text(ByteSpan(sink, 3)), "abc");
  EXPECT_TRUE(reply->text.empty());
  EXPECT_FALSE(parse("$9\r\n123456789\r\n", sink));  // more than there is room for
  EXPECT_EQ(parse("-LOADING x\r\n", sink)->text, "LOADING x");
  EXPECT_EQ(parse("$-1\r\n", sink)->kind, RedisReply::Kind::kNil);

  RedisReplyParser parser;
  parser.begin(sink);
  ASSERT_TRUE(parser.feed(as_bytes("$4\r\nw")));
  ASSERT_EQ(parser.direct().size(), 3u);
  std::memcpy(parser.direct().data(), "xyz", 3);
  parser.placed(3);
  EXPECT_TRUE(parser.direct().empty());
  ASSERT_TRUE(parser.feed(as_bytes("\r\n")));
  ASSERT_TRUE(parser.done());
  EXPECT_EQ(as_text(ByteSpan(sink, 4)), "wxyz");
}

TEST(RedisProtocol, RefusesWhatIsNoReply) {
  for (const std::string& text :
       {std::string("HTTP/1.1 400 Bad Request\r\n"), std::string("\r\n"), std::string("+OK\n"), std::string(":\r\n"),
        std::string(":1x\r\n"), std::string(":99999999999999999999\r\n"), std::string("$-2\r\n"),
        std::string("*-2\r\n"), std::string("$3\r\nabcd\r\n"), std::string("$3\r\nabc\rx"),
        std::string("$67108865\r\n"), std::string("$9223372036854775807\r\n"), std::string("*1048577\r\n"),
        std::string("*9223372036854775807\r\n"),
        std::string("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"),
        "+" + std::string(kRedisLineBytesMax, 'x') + "\r\n", std::string("%1\r\n"), std::string("\0", 1) + "\r\n"}) {
    auto reply = parse(text);
    ASSERT_FALSE(reply) << text.substr(0, 40);
    EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable) << text.substr(0, 40);
  }
}

TEST(RedisProtocol, AnAnnouncedLengthTakesNoMemory) {
  RedisReplyParser parser;
  parser.begin();
  ASSERT_TRUE(parser.feed(as_bytes("$67108864\r\nabc")));
  EXPECT_FALSE(parser.done());
  // Many arrays in one that all together say too much.
  RedisReplyParser many;
  many.begin();
  ASSERT_TRUE(many.feed(as_bytes("*3\r\n*600000\r\n")));
  std::string nils;
  for (int i = 0; i < 600'000; ++i) nils += "$-1\r\n";
  ASSERT_TRUE(many.feed(as_bytes(nils)));
  EXPECT_FALSE(many.feed(as_bytes("*600000\r\n")));
}

TEST(RedisProtocol, SlotsAreThoseOfTheClusterSpecification) {
  EXPECT_EQ(redis_slot("123456789"), 0x31c3);
  EXPECT_EQ(redis_slot("foo"), 12182);
  EXPECT_EQ(redis_slot("{user1000}.following"), redis_slot("user1000"));
  EXPECT_EQ(redis_slot("foo{{bar}}zap"), redis_slot("{bar"));
  EXPECT_NE(redis_slot("foo{}{bar}"), redis_slot("bar"));
}

TEST(RedisUrl, ReadsWhatPeopleWrite) {
  auto url = RedisUrl::parse("redis://h");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->endpoints, (std::vector<RedisEndpoint>{{"h", 6379}}));
  EXPECT_FALSE(url->tls || url->cluster);
  url = RedisUrl::parse("rediss://me:p%40ss%2Fw@[::1]:7000/3");
  ASSERT_TRUE(url) << url.error().message;
  EXPECT_TRUE(url->tls);
  EXPECT_EQ(url->user, "me");
  EXPECT_EQ(url->password, "p@ss/w");
  EXPECT_EQ(url->database, 3u);
  EXPECT_EQ(url->text(), "rediss://[::1]:7000/3");
  url = RedisUrl::parse("redis-cluster://:pw@a:1,b:2,c");
  ASSERT_TRUE(url);
  EXPECT_TRUE(url->cluster);
  EXPECT_EQ(url->user, "");
  EXPECT_EQ(url->password, "pw");
  EXPECT_EQ(url->endpoints.size(), 3u);
  EXPECT_EQ(url->text(), "redis-cluster://a:1,b:2,c:6379");
  EXPECT_TRUE(RedisUrl::parse("rediss-cluster://a:1/")->tls);
}

TEST(RedisUrl, RefusesTheRestWithoutTellingThePassword) {
  for (const char* text : {"",
                           "redis",
                           "http://h",
                           "redis://",
                           "redis://:secret@",
                           "redis://h:0",
                           "redis://h:65536",
                           "redis://h:x",
                           "redis://h:",
                           "redis://h/x",
                           "redis://h/-1",
                           "redis://a,b",
                           "redis-cluster://a/1",
                           "redis-cluster://a,,b",
                           "redis-cluster://a,",
                           "redis://me@h",
                           "redis://me:sec%ret@h",
                           "redis://me:@h",
                           "redis://::1",
                           "redis://[::1",
                           "redis://[::1]x",
                           "redis://a b",
                           "redis://me:secret@h:99999",
                           "redis://me:secret@h/secret"}) {
    auto url = RedisUrl::parse(text);
    ASSERT_FALSE(url) << text;
    EXPECT_EQ(url.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(url.error().message.find("sec"), std::string::npos) << url.error().message;
  }
}

}  // namespace spore::state

#include "gateway/cgi.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace spore::gateway {
namespace {

// ---- the environment ------------------------------------------------------------------------------------------------

Request request_of(std::string_view head) {
  Request request;
  request.listener = Listener::kAll;
  request.remote_address = "127.0.0.1";
  request.local_address = "127.0.0.2";
  request.local_port = 7077;
  RequestParser parser(request);
  boost::beast::error_code error;
  parser.put(boost::asio::const_buffer(head.data(), head.size()), error);
  EXPECT_TRUE(parser.is_header_done()) << error.message();
  request.route = parse_route(request.path());
  EXPECT_EQ(request.route.endpoint, Endpoint::kWeb);
  return request;
}

using Variables = std::map<std::string, std::string>;

Variables variables_of(const Request& request, KeyIs key = KeyIs::kNotNeeded) {
  Variables out;
  const auto environment = cgi_environment(request, key);
  EXPECT_TRUE(environment);
  if (!environment) return out;
  for (const std::string& variable : *environment) {
    const size_t equals = variable.find('=');
    EXPECT_TRUE(out.emplace(variable.substr(0, equals), variable.substr(equals + 1)).second) << variable << " twice";
  }
  return out;
}

Variables variables_of(std::string_view head, KeyIs key = KeyIs::kNotNeeded) {
  return variables_of(request_of(head), key);
}

TEST(CgiEnvironment, SaysWhatTheRequestIs) {
  const auto got = variables_of(
      "GET /fn/acme/hello/a%2Fb/../c?x=%201&y HTTP/1.1\r\nHost: example.org:81\r\nAccept-Language: de\r\n\r\n");
  const Variables expected = {{"AUTH_TYPE", ""},
                              {"GATEWAY_INTERFACE", "CGI/1.1"},
                              {"HTTP_ACCEPT_LANGUAGE", "de"},
                              {"HTTP_HOST", "example.org:81"},
                              {"PATH_INFO", "/a/b/../c"},
                              {"QUERY_STRING", "x=%201&y"},
                              {"REMOTE_ADDR", "127.0.0.1"},
                              {"REQUEST_METHOD", "GET"},
                              {"REQUEST_URI", "/fn/acme/hello/a%2Fb/../c?x=%201&y"},
                              {"SCRIPT_NAME", "/fn/acme/hello"},
                              {"SERVER_NAME", "example.org"},
                              {"SERVER_PORT", "7077"},
                              {"SERVER_PROTOCOL", "HTTP/1.1"},
                              {"SERVER_SOFTWARE", "Spore"}};
  Variables without_key = expected;
  without_key.erase("AUTH_TYPE");
  EXPECT_EQ(got, without_key);
}

TEST(CgiEnvironment, AnyMethodHasItsNameAndThePathMayBeEmpty) {
  auto got = variables_of("BREW /fn/t/f@3 HTTP/1.0\r\n\r\n");
  EXPECT_EQ(got["REQUEST_METHOD"], "BREW");
  EXPECT_EQ(got["SCRIPT_NAME"], "/fn/t/f@3");
  EXPECT_EQ(got["PATH_INFO"], "");
  EXPECT_EQ(got["SERVER_PROTOCOL"], "HTTP/1.0");
  EXPECT_EQ(got["SERVER_NAME"], "127.0.0.2");
}

TEST(CgiEnvironment, TheBodyHasTypeAndLengthOutsideTheFields) {
  auto request = request_of("POST /fn/t/f HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\n");
  request.body = Bytes(5);
  auto got = variables_of(request);
  EXPECT_EQ(got["CONTENT_TYPE"], "a/b");
  EXPECT_EQ(got["CONTENT_LENGTH"], "5");
  EXPECT_FALSE(got.contains("HTTP_CONTENT_TYPE") || got.contains("HTTP_CONTENT_LENGTH"));
  auto chunked = request_of("POST /fn/t/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
  chunked.body = Bytes(7);
  got = variables_of(chunked);
  EXPECT_EQ(got["CONTENT_LENGTH"], "7");
  EXPECT_FALSE(got.contains("HTTP_TRANSFER_ENCODING"));
}

TEST(CgiEnvironment, FieldsThatWouldMisleadAreLeftOut) {
  const auto got = variables_of(
      "GET /fn/t/f HTTP/1.1\r\nHost: h\r\nProxy: evil\r\nX_Real-Name: a\r\nX-Real-Name: b\r\nConnection: close\r\n"
      "Upgrade: websocket\r\nspore-call-id: 1\r\nTE: x\r\nExpect: 100-continue\r\nX!y: 1\r\n\r\n");
  EXPECT_EQ(got.at("HTTP_X_REAL_NAME"), "b");
  for (const auto& [name, value] : got) {
    if (name.starts_with("HTTP_")) {
      EXPECT_TRUE(name == "HTTP_HOST" || name == "HTTP_X_REAL_NAME") << name;
    }
  }
}

TEST(CgiEnvironment, AKeyOfTheHostStaysWithTheHost) {
  constexpr std::string_view kHead = "GET /fn/t/f HTTP/1.1\r\nHost: h\r\naUTHORIZATION: Bearer secret\r\n\r\n";
  EXPECT_EQ(variables_of(kHead, KeyIs::kNotNeeded).at("HTTP_AUTHORIZATION"), "Bearer secret");
  const auto got = variables_of(kHead, KeyIs::kInRequest);
  EXPECT_EQ(got.at("AUTH_TYPE"), "Bearer");
  for (const auto& [name, value] : got) EXPECT_EQ(value.find("secret"), std::string::npos) << name;
}

TEST(CgiEnvironment, RepeatedFieldsAreOneVariable) {
  const auto got =
      variables_of("GET /fn/t/f HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nX: 1\r\nX-Y: 2\r\ncookie: b=2\r\nx: 3\r\n\r\n");
  EXPECT_EQ(got.at("HTTP_COOKIE"), "a=1; b=2");
  EXPECT_EQ(got.at("HTTP_X"), "1, 3");
  EXPECT_EQ(got.at("HTTP_X_Y"), "2");
}

TEST(CgiEnvironment, RefusesPathsThatCannotBeDecoded) {
  EXPECT_FALSE(cgi_environment(request_of("GET /fn/t/f/%zz HTTP/1.1\r\nHost: h\r\n\r\n"), KeyIs::kNotNeeded));
  EXPECT_FALSE(cgi_environment(request_of("GET /fn/t/f/%0 HTTP/1.1\r\nHost: h\r\n\r\n"), KeyIs::kNotNeeded));
  const auto zero = cgi_environment(request_of("GET /fn/t/f/a%00b HTTP/1.1\r\nHost: h\r\n\r\n"), KeyIs::kNotNeeded);
  ASSERT_FALSE(zero);
  EXPECT_EQ(zero.error().message, "the path holds a zero byte");
}

// ---- the answer -----------------------------------------------------------------------------------------------------

Result<Response> parse(std::string_view text, Verb method = Verb::get) {
  return parse_cgi_answer(Bytes(text.begin(), text.end()), method);
}

std::string written(std::string_view text, Verb method = Verb::get) {
  const auto response = parse(text, method);
  if (!response) return "refused: " + response.error().message;
  std::string out;
  write_head(*response, 11, KeepAlive::kYes, out);
  return out.append(as_text(response->body));
}

std::string why_not(std::string_view text, Verb method = Verb::get) {
  const auto response = parse(text, method);
  return response ? "accepted" : response.error().message;
}

TEST(CgiAnswer, LinesEndInLfOrCrlf) {
  constexpr std::string_view kExpected =
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: a/b\r\nX: 1\r\n\r\nhi\n";
  EXPECT_EQ(written("Content-Type: a/b\nX: 1\n\nhi\n"), kExpected);
  EXPECT_EQ(written("Content-Type: a/b\r\nX: 1\r\n\r\nhi\n"), kExpected);
  EXPECT_EQ(written("Content-Type:a/b  \nX:\t1\r\n\nhi\n"), kExpected);
}

TEST(CgiAnswer, TheStatusIsTheGuestsToSay) {
  EXPECT_EQ(written("Status: 404 Not Here\nContent-Type: a/b\n\nx"),
            "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\nContent-Type: a/b\r\n\r\nx");
  EXPECT_EQ(parse("status:599\n\n")->status, 599u);
  EXPECT_EQ(parse("Location: /x\n\n")->status, 302u);
  EXPECT_EQ(parse("Location: /x\nStatus: 308\n\n")->status, 308u);
  for (const char* bad :
       {"", "abc", "99", "100", "101", "199", "600", "1000", "2000", "20", "200x", "-200", "+200", " 2 "}) {
    EXPECT_NE(why_not("Content-Type: a/b\nStatus: " + std::string(bad) + "\n\n").find("Status is a number"),
              std::string::npos)
        << bad;
  }
}

TEST(CgiAnswer, ABodyWithoutATypeIsBytes) {
  EXPECT_EQ(written("Status: 200\n\nx"),
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1\r\n\r\nx");
  EXPECT_EQ(written("Status: 200\n\n"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

TEST(CgiAnswer, NoBodyWhereTheStatusHasNone) {
  EXPECT_EQ(written("Status: 204\nX: 1\n\nbody"), "HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n");
  EXPECT_EQ(written("Status: 304\nETag: \"x\"\nContent-Length: 10\n\nbody"),
            "refused: its Content-Length is 10, but its body has 4 bytes");
  EXPECT_EQ(written("Status: 304\nETag: \"x\"\nContent-Length: 10\n\n"),
            "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n");
  EXPECT_EQ(written("Status: 205\n\nbody"), "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n");
}

TEST(CgiAnswer, ToHeadTheGuestMaySayTheLengthWithoutTheBody) {
  EXPECT_EQ(written("Content-Type: a/b\nContent-Length: 10\n\n", Verb::head),
            "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 10\r\n\r\n");
  EXPECT_EQ(written("Content-Type: a/b\n\n", Verb::head), "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n");
  EXPECT_EQ(why_not("Content-Type: a/b\nContent-Length: 10\n\nx", Verb::head),
            "its Content-Length is 10, but its body has 1 bytes");
}

TEST(CgiAnswer, LengthsMustAgree) {
  EXPECT_EQ(written("Content-Type: a/b\nContent-Length: 2\n\nhi"),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: a/b\r\n\r\nhi");
  EXPECT_EQ(why_not("Content-Type: a/b\nContent-Length: 1\n\nhi"), "its Content-Length is 1, but its body has 2 bytes");
  EXPECT_EQ(why_not("Content-Type: a/b\nContent-Length: 2, 2\n\nhi"),
            "line 2 of the header: Content-Length is no number");
  EXPECT_EQ(why_not("Content-Type: a/b\nContent-Length: 2\nContent-Length: 2\n\nhi"),
            "line 3 of the header repeats Content-Length");
}

TEST(CgiAnswer, SeveralCookiesPass) {
  const std::string got = written("Set-Cookie: a=1\nSet-Cookie: b=2; Path=/\nContent-Type: a/b\n\n");
  EXPECT_NE(got.find("Set-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\n"), std::string::npos) << got;
}

TEST(CgiAnswer, WhatIsTheHostsToSayIsLeftOut) {
  EXPECT_EQ(written("Content-Type: a/b\nConnection: close\nkeep-alive: 1\nUpgrade: h2c\nTrailer: X\nSpore-Call-Id: 1\n"
                    "SPORE-START: x\nService-Worker-Allowed: /\nStrict-Transport-Security: x\nAlt-Svc: x\n"
                    "Clear-Site-Data: \"*\"\n\n"),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Type: a/b\r\n\r\n");
  EXPECT_EQ(why_not("Content-Type: a/b\nTransfer-Encoding: chunked\n\n0\r\n\r\n"),
            "line 2 of the header: how the body is framed is the host's affair, not Transfer-Encoding");
}

TEST(CgiAnswer, NothingAddsALine) {
  using std::string_view_literals::operator""sv;
  for (const std::string_view bad :
       {"Content-Type: a/b\rX: 1\n\n"sv, "Content-Type: a\0b\n\n"sv, "Content-Type: a\x1b[0m\n\n"sv,
        "Content-Type: a\x7f\n\n"sv, "Location: /x\r\r\n\n"sv}) {
    EXPECT_EQ(why_not(bad), "line 1 of the header holds a control character") << bad;
  }
  for (const std::string_view bad : {" folded: x\n\n"sv, ": x\n\n"sv, "a b: x\n\n"sv, "a : x\n\n"sv, "\0: x\n\n"sv,
                                     "X\xc3\xa4: 1\n\n"sv, "\rX: 1\n\n"sv}) {
    EXPECT_EQ(why_not(bad), "line 1 of the header does not begin with a name") << bad;
  }
  EXPECT_EQ(why_not("HTTP/1.1 200 OK\nContent-Type: a/b\n\n"), "line 1 of the header has no colon");
}

TEST(CgiAnswer, NamesWhatIsMissing) {
  EXPECT_EQ(why_not(""), "it is empty: there is no header");
  EXPECT_EQ(why_not("hello"), "no empty line ends the header");
  EXPECT_EQ(why_not("Content-Type: a/b\n"), "no empty line ends the header");
  EXPECT_EQ(why_not("\nhello"), "its header has none of Content-Type, Location and Status");
  EXPECT_EQ(why_not("X: 1\n\nhello"), "its header has none of Content-Type, Location and Status");
  EXPECT_EQ(why_not("Content-Type: \n\n"), "line 1 of the header: Content-Type is empty");
  EXPECT_EQ(why_not("Content-Type: a\nContent-Type: b\n\n"), "line 2 of the header repeats Content-Type");
  EXPECT_EQ(why_not("Location: a\nlocation: b\n\n"), "line 2 of the header repeats location");
  EXPECT_EQ(why_not("Status: 200\nStatus: 200\n\n"), "line 2 of the header repeats Status");
}

TEST(CgiAnswer, TheHeaderIsBounded) {
  const std::string start = "Content-Type: a/b\nX: ";
  const std::string longest = start + std::string(kCgiHeaderBytesMax - start.size() - 2, 'x') + "\n\n";
  ASSERT_EQ(longest.size(), kCgiHeaderBytesMax);
  EXPECT_EQ(why_not(longest), "accepted");
  EXPECT_EQ(why_not(start + "x" + longest.substr(start.size())),
            "no empty line ends the header within its first 65536 bytes");
  std::string lines = "Content-Type: a/b\n";
  for (size_t i = 1; i < kCgiFieldsMax; ++i) lines += "X: 1\n";
  EXPECT_EQ(why_not(lines + "\n"), "accepted");
  EXPECT_EQ(why_not(lines + "X: 1\n\n"), "the header has more than 256 lines");
}

}  // namespace
}  // namespace spore::gateway

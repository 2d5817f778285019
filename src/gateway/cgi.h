// Web handlers speak CGI 1.1 (RFC 3875): a request becomes environment variables and standard input, and what the
// function writes is a few header lines, an empty line, and the body.
//
//   Request --cgi_environment--> "NAME=value"...        (the body is the call's input as it is)
//   the call's output --parse_cgi_answer--> Response, or what is wrong with it
//
// Both are pure. Clients choose names and values of header fields, and guests choose every byte of an answer: nothing
// that either sends can add a header line, end a response early, or pass for something that the host says.
//
// Bounds: the environment is made of what kHeaderBytesMax, kTargetBytesMax and kFieldsMax let in (gateway/http.h; a
// request beyond them was answered 431 or 414). The header of an answer has at most kCgiHeaderBytesMax bytes and
// kCgiFieldsMax lines.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "gateway/http.h"

namespace spore::gateway {

constexpr size_t kCgiHeaderBytesMax = 64 << 10;
constexpr size_t kCgiFieldsMax = 256;

// Whether the Authorization field is this host's affair, and then not the guest's.
enum class KeyIs : uint8_t { kNotNeeded, kInRequest };

// The variables of a request whose route is Endpoint::kWeb. kInvalidArgument: its path has a malformed escape or holds
// a zero byte.
Result<std::vector<std::string>> cgi_environment(const Request& request, KeyIs key);

// `output` is the whole output of a call for a request of `method`. kInvalidArgument says what is wrong in it.
Result<Response> parse_cgi_answer(Bytes output, Verb method);

// `output` is how the output of a call begins; more follows, and goes out as it comes. The response has what is there
// of the body; `content_length` is what the guest says that the whole body has. Nothing where the answer can only be
// given at its end: it is malformed so far, or has no body.
struct CgiBeginning {
  Response response;
  std::optional<uint64_t> content_length;
};
std::optional<CgiBeginning> parse_cgi_beginning(ByteSpan output, Verb method);

}  // namespace spore::gateway

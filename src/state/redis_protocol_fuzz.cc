// Any bytes, in pieces of any size, with and without a sink: the parser of replies ends with a reply or an error, and a
// reply is the same however its bytes came.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "state/redis_protocol.h"
#include "state/redis_url.h"

namespace {

using namespace spore;
using namespace spore::state;

bool same(const RedisReply& a, const RedisReply& b) {
  if (a.kind != b.kind || a.integer != b.integer || a.text != b.text || a.sunk_bytes != b.sunk_bytes ||
      a.elements.size() != b.elements.size())
    return false;
  for (size_t i = 0; i < a.elements.size(); ++i)
    if (!same(a.elements[i], b.elements[i])) return false;
  return true;
}

struct Parsed {
  std::vector<RedisReply> replies;
  bool malformed = false;
};

// Every second reply has a sink; with `direct`, payloads are put where they belong.
Parsed parse(ByteSpan bytes, size_t step, bool direct) {
  Parsed out;
  RedisReplyParser parser;
  uint8_t sink[64];
  const auto begin = [&] {
    if (out.replies.size() % 2 == 1) {
      parser.begin(sink);
    } else {
      parser.begin();
    }
  };
  begin();
  while (!bytes.empty()) {
    if (const auto to = parser.direct(); direct && !to.empty()) {
      const size_t count = std::min({to.size(), bytes.size(), step});
      std::memcpy(to.data(), bytes.data(), count);
      parser.placed(count);
      bytes = bytes.subspan(count);
      continue;
    }
    const auto used = parser.feed(bytes.first(std::min(step, bytes.size())));
    if (!used) {
      CHECK(used.error().code == ErrorCode::kUnavailable);
      out.malformed = true;
      return out;
    }
    CHECK(*used > 0);
    bytes = bytes.subspan(*used);
    if (!parser.done()) continue;
    out.replies.push_back(parser.take());
    begin();
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(data, size);
  const Parsed whole = parse(bytes, size, false);
  for (const auto& other : {parse(bytes, 1, false), parse(bytes, 7, true)}) {
    CHECK(whole.malformed == other.malformed && whole.replies.size() == other.replies.size());
    for (size_t i = 0; i < whole.replies.size(); ++i) CHECK(same(whole.replies[i], other.replies[i]));
  }
  if (const auto url = RedisUrl::parse(as_text(bytes))) CHECK(RedisUrl::parse(url->text()).has_value());
  return 0;
}

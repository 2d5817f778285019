#include "state/value_id.h"

#include <algorithm>

#include "base/digest.h"

namespace spore::state {

namespace {

// Of a well-formed UTF-8 sequence at the start of the text; 0 where there is none. Unicode 15, table 3-7.
size_t utf8_sequence_bytes(std::string_view text) {
  const auto byte = [&](size_t index) -> unsigned {
    return index < text.size() ? static_cast<unsigned char>(text[index]) : 0;
  };
  const auto continues = [&](size_t index) { return (byte(index) & 0xc0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if (first == 0xe0 && byte(1) < 0xa0) return 0;
    if (first == 0xed && byte(1) > 0x9f) return 0;  // surrogates
    return continues(1) && continues(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (first == 0xf0 && byte(1) < 0x90) return 0;
    if (first == 0xf4 && byte(1) > 0x8f) return 0;
    return continues(1) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

Result<void> check_key(std::string_view key) {
  if (key.empty()) return fail(ErrorCode::kInvalidArgument, "the key of a state value is empty");
  if (key.size() > kKeyBytesMax)
    return fail(ErrorCode::kInvalidArgument, "the key of a state value has " + std::to_string(key.size()) +
                                                 " bytes, more than " + std::to_string(kKeyBytesMax));
  for (size_t at = 0; at < key.size();) {
    const size_t bytes = utf8_sequence_bytes(key.substr(at));
    if (bytes == 0 || key[at] == '\0')
      return fail(ErrorCode::kInvalidArgument,
                  "the key of a state value is not UTF-8 without NUL: byte " + std::to_string(at) + " is wrong");
    at += bytes;
  }
  return {};
}

TenantId tenant_id(std::string_view tenant) {
  const Digest digest = sha256(as_bytes(tenant));
  TenantId id;
  std::copy_n(digest.begin(), id.size(), id.begin());
  return id;
}

}  // namespace spore::state

#include "functions/seal.h"

#include "base/digest.h"

namespace spore::functions {
namespace {

constexpr std::string_view kMark = "SPORESL1";
static_assert(kSealBytes == kMark.size() + sizeof(Digest));

Digest seal_of(ByteSpan host_key, std::string_view kind, std::string_view name, ByteSpan content) {
  ByteWriter sealed;
  sealed.write_text(kind);
  sealed.write_text(name);
  sealed.write_bytes(sha256(content));
  return hmac_sha256(host_key, sealed.bytes());
}

}  // namespace

Bytes seal(ByteSpan host_key, std::string_view kind, std::string_view name, ByteSpan content) {
  const Digest seal = seal_of(host_key, kind, name, content);
  Bytes out;
  out.reserve(kSealBytes + content.size());
  out.insert(out.end(), kMark.begin(), kMark.end());
  out.insert(out.end(), seal.begin(), seal.end());
  out.insert(out.end(), content.begin(), content.end());
  return out;
}

std::optional<ByteSpan> unseal(ByteSpan host_key, std::string_view kind, std::string_view name, ByteSpan sealed) {
  if (sealed.size() < kSealBytes || as_text(sealed.first(kMark.size())) != kMark) return std::nullopt;
  const ByteSpan content = sealed.subspan(kSealBytes);
  const Digest seal = seal_of(host_key, kind, name, content);
  if (!equal_in_constant_time(seal, sealed.subspan(kMark.size(), seal.size()))) return std::nullopt;
  return content;
}

}  // namespace spore::functions

// Sealed bytes: what a host puts into a store that others may write to. The seal is HMAC-SHA256 under the host's key
// over what the bytes are (`kind`), where they lie (`name`) and all of them; nobody without the key can make one, and
// one is good for nothing else. Any thread.
#pragma once

#include <optional>
#include <string_view>

#include "base/bytes.h"

namespace spore::functions {

constexpr size_t kSealBytes = 8 + 32;  // in front of the content

Bytes seal(ByteSpan host_key, std::string_view kind, std::string_view name, ByteSpan content);
// The content, borrowed from `sealed`; nothing where the seal does not verify.
std::optional<ByteSpan> unseal(ByteSpan host_key, std::string_view kind, std::string_view name, ByteSpan sealed);

}  // namespace spore::functions

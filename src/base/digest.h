// Digests and keyed digests, by OpenSSL.
#pragma once

#include <array>
#include <string>

#include "base/bytes.h"

namespace spore {

using Digest = std::array<uint8_t, 32>;

Digest sha256(ByteSpan bytes);
Digest hmac_sha256(ByteSpan key, ByteSpan bytes);
bool equal_in_constant_time(ByteSpan a, ByteSpan b);

std::string to_hex(ByteSpan bytes);
// `count` bytes from the kernel's generator.
Bytes random_bytes(size_t count);

}  // namespace spore

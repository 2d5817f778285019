// The key with which a host seals what it trusts: 32 random bytes in a file that only its owner can read. Objects
// sealed with another key are compiled anew.
#pragma once

#include <filesystem>

#include "base/bytes.h"
#include "base/result.h"

namespace spore::functions {

constexpr size_t kHostKeyBytes = 32;

// Reads the key, or makes it. kPermissionDenied where others may read the file; kFailedPrecondition where it is no key.
Result<Bytes> load_or_make_host_key(const std::filesystem::path& file);

}  // namespace spore::functions

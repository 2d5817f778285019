// Files that a tenant gives to its functions: published whole, replaced whole, read-only for functions.
//
//   DIRECTORY/tenants/TENANT/PATH   the file itself, so that a guest reads it as the file it is
//   DIRECTORY/incoming              what is being written; renamed to its place when it is on the disk
//
// Who has opened a file keeps what was opened, whatever is published or removed meanwhile. Nothing but this class may
// write below DIRECTORY: names are trusted to be what it made. Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace spore::functions {

constexpr size_t kSharedPathBytesMax = 1024;
constexpr size_t kSharedPathPartsMax = 32;

// A path of a shared file: parts of 1 to 255 bytes, joined by '/'; none is "." or "..". kInvalidArgument.
Result<void> check_shared_path(std::string_view path);

struct SharedFile {
  std::string path;
  uint64_t size_bytes = 0;
  std::chrono::system_clock::time_point changed_at;
};

class SharedFiles {
 public:
  // Makes the directory where it is missing, and throws away what was being written when a host died.
  static Result<SharedFiles> open(std::string directory);
  // For reading alone: what another process opened, as far as this one sees it.
  static SharedFiles shown_at(std::string directory) { return SharedFiles(std::move(directory)); }
  SharedFiles(SharedFiles&& other) noexcept : directory_(std::move(other.directory_)) {}

  // Returns once the file is on the disk; true: there was none of that path. kAlreadyExists: a directory is there, or a
  // file where the path needs a directory. kUnavailable: the disk is full.
  Result<bool> put(std::string_view tenant, std::string_view path, ByteSpan bytes);
  // kNotFound. kResourceExhausted: larger than `bytes_max`.
  Result<Bytes> get(std::string_view tenant, std::string_view path, uint64_t bytes_max) const;
  Result<SharedFile> describe(std::string_view tenant, std::string_view path) const;
  // kNotFound. Directories that are empty then stay.
  Result<void> remove(std::string_view tenant, std::string_view path);
  // Those below the directory `below` ("": all) behind `after`, sorted by path.
  Result<std::vector<SharedFile>> list(std::string_view tenant, std::string_view below,
                                       const std::optional<std::string>& after, size_t count_max) const;

  // The host's directory that holds the files below `below`; made where it is missing. kAlreadyExists: it is a file.
  Result<std::string> directory_of(std::string_view tenant, std::string_view below) const;

 private:
  explicit SharedFiles(std::string directory) : directory_(std::move(directory)) {}
  std::string place_of(std::string_view tenant, std::string_view path) const;

  std::string directory_;
  std::atomic<uint64_t> serial_{0};  // of names in incoming
};

}  // namespace spore::functions

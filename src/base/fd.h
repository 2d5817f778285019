// File descriptors that close themselves, and whole-file helpers. Nothing here retries for ever or leaves half a file.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"

namespace spore {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

Result<Bytes> read_file(const std::filesystem::path& path, uint64_t size_max_bytes = UINT64_MAX);

// Reads to the end of the stream, at most `size_max_bytes` (more is kResourceExhausted).
Result<Bytes> read_all(int fd, uint64_t size_max_bytes = UINT64_MAX);
Result<void> write_all(int fd, ByteSpan bytes);

// Whole or not at all, also across a crash: a temporary file beside it, fsync, rename, fsync of the folder.
Result<void> write_file_atomically(const std::filesystem::path& path, ByteSpan bytes);

// A sealed-by-convention anonymous file holding `bytes`; close-on-exec.
Result<UniqueFd> make_memfd(const char* name, ByteSpan bytes = {});

}  // namespace spore

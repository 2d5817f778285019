#include "base/fd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace spore {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<Bytes> read_all(int fd, uint64_t size_max_bytes) {
  Bytes out;
  size_t used = 0;
  struct stat info{};
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
    out.resize(std::min<uint64_t>(info.st_size, size_max_bytes) + 1);
  for (;;) {
    if (used == out.size()) out.resize(std::max<size_t>(64 << 10, out.size() * 2));
    const ssize_t n = ::read(fd, out.data() + used, out.size() - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read");
    if (n == 0) break;
    used += static_cast<size_t>(n);
    if (used > size_max_bytes)
      return fail(ErrorCode::kResourceExhausted, "more than " + std::to_string(size_max_bytes) + " bytes");
  }
  out.resize(used);
  return out;
}

Result<Bytes> read_file(const std::filesystem::path& path, uint64_t size_max_bytes) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno("open " + path.string());
  auto bytes = read_all(fd.get(), size_max_bytes);
  if (!bytes) return std::unexpected(std::move(bytes).error().within(path.string()));
  return bytes;
}

Result<void> write_all(int fd, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("write");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

Result<void> write_file_atomically(const std::filesystem::path& path, ByteSpan bytes) {
  static std::atomic<uint64_t> next{0};  // a name for the temporary file, unique in this process
  const auto folder = path.parent_path();
  const auto temporary = folder / ("." + path.filename().string() + "." + std::to_string(::getpid()) + "." +
                                   std::to_string(next++) + ".tmp");
  auto give_up = [&](const char* what) {
    auto error = fail_errno(std::string(what) + " " + temporary.string());
    ::unlink(temporary.c_str());
    return error;
  };
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return fail_errno("create " + temporary.string());
  if (auto written = write_all(fd.get(), bytes); !written) {
    ::unlink(temporary.c_str());
    return std::unexpected(std::move(written).error().within(temporary.string()));
  }
  if (::fsync(fd.get()) != 0) return give_up("fsync");
  if (::rename(temporary.c_str(), path.c_str()) != 0) return give_up("rename");
  UniqueFd directory(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || ::fsync(directory.get()) != 0) return fail_errno("fsync " + folder.string());
  return {};
}

Result<UniqueFd> make_memfd(const char* name, ByteSpan bytes) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return fail_errno("memfd_create");
  TRY(write_all(fd.get(), bytes));
  return fd;
}

}  // namespace spore

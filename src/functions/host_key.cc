#include "functions/host_key.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/digest.h"
#include "base/fd.h"

namespace spore::functions {
namespace {

Result<Bytes> read_key(const std::filesystem::path& file) {
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) return fail_errno("open the host key " + file.string());
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return fail_errno("stat the host key " + file.string());
  if (!S_ISREG(info.st_mode))
    return fail(ErrorCode::kFailedPrecondition, "the host key " + file.string() + " is no plain file");
  if ((info.st_mode & 077) != 0 || (info.st_uid != ::geteuid() && info.st_uid != 0))
    return fail(
        ErrorCode::kPermissionDenied,
        "the host key " + file.string() + " must belong to this user and be readable by nobody else (chmod 600)");
  ASSIGN_OR_RETURN(auto key, read_all(fd.get(), kHostKeyBytes + 1));
  if (key.size() != kHostKeyBytes)
    return fail(ErrorCode::kFailedPrecondition,
                "the host key " + file.string() + " must hold " + std::to_string(kHostKeyBytes) + " bytes");
  return key;
}

}  // namespace

Result<Bytes> load_or_make_host_key(const std::filesystem::path& file) {
  auto key = read_key(file);
  if (key || key.error().code != ErrorCode::kNotFound) return key;
  // Made under another name and linked, which never replaces: of two processes that start at once, both use one key.
  const auto made = file.string() + "." + to_hex(random_bytes(8));
  TRY(write_file_atomically(made, random_bytes(kHostKeyBytes)));
  const int linked = ::link(made.c_str(), file.c_str());
  const int link_error = errno;
  ::unlink(made.c_str());
  if (linked != 0 && link_error != EEXIST) return fail_errno("make the host key " + file.string(), link_error);
  const auto folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const UniqueFd directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || ::fsync(directory.get()) != 0) return fail_errno("fsync " + folder.string());
  return read_key(file);
}

}  // namespace spore::functions

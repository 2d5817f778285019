#include "host/paths.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

namespace spore::host {

using wasi::Errno;

std::expected<UniqueFd, Errno> open_beneath(int directory, const std::string& path, int flags, mode_t mode) {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  // EAGAIN: something was renamed during a walk through "..", which the kernel could not prove to be beneath.
  constexpr int kAttemptsMax = 16;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    const long fd = ::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof(how));
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    if (errno == EXDEV) return std::unexpected(Errno::kPerm);
    if (errno != EAGAIN && errno != EINTR) break;
  }
  return std::unexpected(wasi::errno_of(errno));
}

std::expected<Parent, Errno> open_parent(int directory, const std::string& path, Errno if_dots) {
  if (path.empty()) return std::unexpected(Errno::kNoEnt);
  if (path[0] == '/') return std::unexpected(Errno::kPerm);
  const size_t end = path.find_last_not_of('/') + 1;  // of the last component; the path is not only slashes
  const size_t slash = path.rfind('/', end - 1);
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  const std::string_view last(path.data() + begin, end - begin);
  const std::string parent = begin == 0 ? "." : path.substr(0, begin);
  auto opened = open_beneath(directory, parent, O_PATH | O_DIRECTORY);
  if (!opened) return std::unexpected(opened.error());
  if (last == "..") {
    // Told apart only so that leaving the directory has one error everywhere.
    const auto inside = open_beneath(directory, path, O_PATH);
    return std::unexpected(inside ? if_dots : inside.error());
  }
  if (last == ".") return std::unexpected(if_dots);
  return Parent{std::move(*opened), path.substr(begin)};
}

std::expected<std::string, Errno> join_paths(const std::string& base, const std::string& path) {
  std::string out = base;
  size_t begin = 0;
  while (begin < path.size()) {
    size_t end = path.find('/', begin);
    if (end == std::string::npos) end = path.size();
    const std::string_view part(path.data() + begin, end - begin);
    if (!part.empty() && part != ".") {
      if (!out.empty()) out += '/';
      out += part;
    }
    begin = end + 1;
  }
  if (out.size() > kPathBytesMax) return std::unexpected(Errno::kNameTooLong);
  return out;
}

}  // namespace spore::host

#include "host/paths.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <vector>

namespace spore::host {

using wasi::Errno;

namespace {

constexpr int kLinksMax = 40;       // as the kernel
constexpr size_t kDepthMax = 1024;  // of the walk; each directory on it is open

bool has_openat2() {
  static const bool has = [] {
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH;
    return UniqueFd(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, ".", &how, sizeof(how)))).valid() ||
           (errno != ENOSYS && errno != EPERM);
  }();
  return has;
}

// A walk from a directory downwards. It holds every directory on its way open, so that ".." leads to where the walk
// came from, wherever that has been moved meanwhile, and never above where it began. Links are read and walked, never
// followed by the kernel.
class Walk {
 public:
  Walk(int directory, int flags, mode_t mode) : flags_(flags), mode_(mode), root_(directory) {}

  std::expected<UniqueFd, Errno> go(std::string_view path) {
    if (path.empty()) return std::unexpected(Errno::kNoEnt);
    if (path.size() >= kPathBytesMax) return std::unexpected(Errno::kNameTooLong);
    if (const Errno error = put_first(path); error != Errno::kSuccess) return std::unexpected(error);
    while (rest_.size() > 1) {
      if (const Errno error = step(); error != Errno::kSuccess) return std::unexpected(error);
    }
    return last();
  }

 private:
  int here() const { return way_.empty() ? root_ : way_.back().get(); }

  // Components to be walked before the others. One that is behind a slash, with nothing else, is a directory: ".".
  Errno put_first(std::string_view path) {
    if (path[0] == '/') return Errno::kPerm;
    std::vector<std::string> parts;
    for (size_t begin = 0; begin <= path.size();) {
      const size_t end = std::min(path.find('/', begin), path.size());
      if (end > begin) parts.emplace_back(path.substr(begin, end - begin));
      begin = end + 1;
    }
    if (path.back() == '/') parts.emplace_back(".");
    rest_.insert(rest_.end(), parts.rbegin(), parts.rend());
    return Errno::kSuccess;
  }

  Errno go_up() {
    if (way_.empty()) return Errno::kPerm;
    way_.pop_back();
    return Errno::kSuccess;
  }

  // The link's target takes its place.
  Errno follow(const UniqueFd& link) {
    if (++links_ > kLinksMax) return Errno::kLoop;
    std::string target(kPathBytesMax, 0);
    const ssize_t length = ::readlinkat(link.get(), "", target.data(), target.size());
    if (length < 0) return wasi::errno_of(errno);
    if (length == 0) return Errno::kNoEnt;
    if (static_cast<size_t>(length) == target.size()) return Errno::kNameTooLong;
    return put_first(std::string_view(target).substr(0, static_cast<size_t>(length)));
  }

  // One component that others are behind.
  Errno step() {
    const std::string name = std::move(rest_.back());
    rest_.pop_back();
    if (name == ".") return Errno::kSuccess;
    if (name == "..") return go_up();
    UniqueFd next(::openat(here(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat info;
    if (!next.valid() || ::fstat(next.get(), &info) != 0) {
      const bool makes_directory = errno == ENOENT && (flags_ & O_CREAT) && rest_.size() == 1 && rest_[0] == ".";
      return makes_directory ? Errno::kIsDir : wasi::errno_of(errno);
    }
    if (S_ISLNK(info.st_mode)) return follow(next);
    if (!S_ISDIR(info.st_mode)) return Errno::kNotDir;
    if (way_.size() >= kDepthMax) return Errno::kNameTooLong;
    way_.push_back(std::move(next));
    return Errno::kSuccess;
  }

  std::expected<UniqueFd, Errno> last() {
    while (true) {
      std::string name = std::move(rest_.back());
      rest_.pop_back();
      if (name == "..") {
        if (const Errno error = go_up(); error != Errno::kSuccess) return std::unexpected(error);
        name = ".";
      }
      UniqueFd opened(::openat(here(), name.c_str(), flags_ | O_NOFOLLOW | O_CLOEXEC, mode_));
      const int error = opened.valid() ? 0 : errno;
      struct stat info;
      const bool may_be_link = opened.valid() ? (flags_ & O_PATH) : error == ELOOP || error == ENOTDIR;
      UniqueFd link;
      if (may_be_link && !(flags_ & O_NOFOLLOW)) {
        link = UniqueFd(::openat(here(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
        if (link.valid() && (::fstat(link.get(), &info) != 0 || !S_ISLNK(info.st_mode))) link.reset();
      }
      if (!link.valid()) {
        if (opened.valid()) return opened;
        return std::unexpected(wasi::errno_of(error));
      }
      if (const Errno wrong = follow(link); wrong != Errno::kSuccess) return std::unexpected(wrong);
      while (rest_.size() > 1) {
        if (const Errno wrong = step(); wrong != Errno::kSuccess) return std::unexpected(wrong);
      }
    }
  }

  const int flags_;
  const mode_t mode_;
  const int root_;
  std::vector<UniqueFd> way_;      // below root_
  std::vector<std::string> rest_;  // to be walked, the next one last
  int links_ = 0;
};

}  // namespace

std::expected<UniqueFd, Errno> walk_beneath(int directory, const std::string& path, int flags, mode_t mode) {
  return Walk(directory, flags, (flags & O_CREAT) ? mode : 0).go(path);
}

std::expected<UniqueFd, Errno> open_beneath(int directory, const std::string& path, int flags, mode_t mode) {
  if (!has_openat2()) return walk_beneath(directory, path, flags, mode);
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
  // Where others on the machine rename all the time, that goes on, and the kernel, which begins again, may count a link
  // twice. The walk asks for no proof, and counts itself.
  if (errno == EAGAIN || errno == ELOOP) return walk_beneath(directory, path, flags, mode);
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

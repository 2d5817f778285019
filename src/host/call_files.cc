#include "host/call_files.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

namespace spore::host {

namespace {

constexpr unsigned kAttributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

Result<UniqueFd> mount_tmpfs(const LocalLayer& limits, unsigned attributes) {
  const UniqueFd context(::fsopen("tmpfs", FSOPEN_CLOEXEC));
  if (!context.valid()) return fail_errno("make a file system for a call");
  const auto set = [&](const char* key, const std::string& value) {
    return ::fsconfig(context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) == 0;
  };
  // One more for the root directory.
  if (!set("size", std::to_string(limits.bytes_max)) || !set("nr_inodes", std::to_string(limits.files_max + 1)) ||
      !set("mode", "0700") || ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return fail_errno("make a file system of " + std::to_string(limits.bytes_max) + " bytes for a call");
  }
  UniqueFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, attributes));
  if (!mount.valid()) return fail_errno("mount a file system for a call");
  // What fsmount gives cannot be listed.
  UniqueFd root(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return fail_errno("open the file system of a call");
  return root;
}

Result<CallFiles> make_call_files(CallFilesShown shown) {
  CallFiles out;
  ASSIGN_OR_RETURN(out.directory, mount_tmpfs({.bytes_max = 4096, .files_max = 4}, kAttributes));
  const auto name = [&](const char* name, mode_t mode, ino_t& inode) -> Result<void> {
    const UniqueFd file(::openat(out.directory.get(), name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    struct stat info;
    if (!file.valid() || ::fstat(file.get(), &info) != 0) return fail_errno(std::string("make the call's ") + name);
    inode = info.st_ino;
    return {};
  };
  TRY(name("input", 0400, out.input));
  TRY(name("output", 0200, out.output));
  const auto directory = [&](const char* name, ino_t& inode) -> Result<void> {
    struct stat info;
    if (::mkdirat(out.directory.get(), name, 0500) != 0 ||
        ::fstatat(out.directory.get(), name, &info, AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(std::string("make the directory ") + name);
    inode = info.st_ino;
    return {};
  };
  if (shown.state) TRY(directory("state", out.state));
  if (shown.call) TRY(directory("call", out.call));
  return out;
}

}  // namespace

Result<UniqueFd> make_local_layer(const LocalLayer& limits) { return mount_tmpfs(limits, kAttributes); }

namespace {

template <bool kState, bool kCall>
const Result<CallFiles>& made_call_files() {
  static const Result<CallFiles> kMade = make_call_files({.state = kState, .call = kCall});
  return kMade;
}

}  // namespace

const Result<CallFiles>& call_files(CallFilesShown shown) {
  if (shown.state) return shown.call ? made_call_files<true, true>() : made_call_files<true, false>();
  return shown.call ? made_call_files<false, true>() : made_call_files<false, false>();
}

}  // namespace spore::host

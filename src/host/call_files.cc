#include "host/call_files.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "functions/function.h"
#include "host/file_systems.h"

namespace spore::host {

namespace {

constexpr unsigned kAttributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

TmpfsMaker& tmpfs_maker() {
  static TmpfsMaker maker = make_tmpfs;
  return maker;
}

Result<CallFiles> make_call_files(CallFilesShown shown) {
  CallFiles out;
  ASSIGN_OR_RETURN(out.directory, tmpfs_maker()({.bytes_max = 4096, .files_max = 4}));
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

Result<UniqueFd> make_tmpfs(const LocalLayer& limits) {
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
  UniqueFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, kAttributes));
  if (!mount.valid()) return fail_errno("mount a file system for a call");
  // What fsmount gives cannot be listed.
  UniqueFd root(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return fail_errno("open the file system of a call");
  return root;
}

void set_tmpfs_maker(TmpfsMaker maker) { tmpfs_maker() = std::move(maker); }

Bytes serialize(const LocalLayer& limits) {
  ByteWriter out;
  out.write(limits.bytes_max);
  out.write(limits.files_max);
  return out.take();
}

Result<LocalLayer> parse_local_layer(ByteSpan bytes) {
  ByteReader in(bytes);
  LocalLayer out;
  out.bytes_max = in.read<uint64_t>();
  out.files_max = in.read<uint64_t>();
  if (!in.ok() || !in.at_end() || out.bytes_max == 0 || out.bytes_max > functions::kLocalBytesMax ||
      out.files_max == 0 || out.files_max > functions::kLocalFilesMax)
    return fail(ErrorCode::kInvalidArgument, "not the limits of a call's files");
  return out;
}

Result<UniqueFd> make_local_layer(const LocalLayer& limits) { return tmpfs_maker()(limits); }

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

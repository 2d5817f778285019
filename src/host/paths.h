// Names below a directory that the guest may see, so that nothing escapes from it: not by "..", not by an absolute
// path, not by a symbolic link, not by a rename that happens meanwhile. The kernel does the walk (openat2 with
// RESOLVE_BENEATH); what then happens to a name happens to the last component of it, below a parent that the kernel has
// found. Where openat2 is not to be had (a kernel before 5.6, a container that filters system calls), the walk is done
// here, one component at a time. Any thread.
#pragma once

#include <sys/types.h>

#include <expected>
#include <string>

#include "base/fd.h"
#include "host/wasi_abi.h"

namespace spore::host {

constexpr size_t kPathBytesMax = 4096;

// open(2) of a path below `directory`, without leaving it; kPerm where the path would. `path` holds no NUL.
std::expected<UniqueFd, wasi::Errno> open_beneath(int directory, const std::string& path, int flags, mode_t mode = 0);
// The same without openat2, whether there is one or not.
std::expected<UniqueFd, wasi::Errno> walk_beneath(int directory, const std::string& path, int flags, mode_t mode = 0);

// Where a name is to be made, removed or renamed: the directory that holds it, and its last component (a slash behind
// it is kept). kExist, kInval, kBusy and so on are the caller's: `last` is never ".", ".." or empty, for those the
// error is `if_dots`.
struct Parent {
  UniqueFd directory;
  std::string last;
};
std::expected<Parent, wasi::Errno> open_parent(int directory, const std::string& path, wasi::Errno if_dots);

// `path` below `base`, without empty components and "."; ".." stays. kNameTooLong beyond kPathBytesMax.
std::expected<std::string, wasi::Errno> join_paths(const std::string& base, const std::string& path);

}  // namespace spore::host

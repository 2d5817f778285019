// The file systems that Spore itself makes for a call. Any thread.
//
//   local layer   an empty file system that the call alone sees and writes, and that goes with its last descriptor: a
//                 tmpfs that is mounted nowhere (fsmount(2)), so no program of the host finds it by name. The kernel
//                 counts its bytes and files and answers ENOSPC.
//   call files    a directory with the names "input" and "output", one for the whole process, read-only. It only names:
//                 who opens one of the two gets the call's input or output (wasi_path.cc). For calls that have state it
//                 is another one, with the directory "state", which stands for what state_files.h shows.
//
// Both need CAP_SYS_ADMIN.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/fd.h"
#include "base/result.h"

namespace spore::host {

struct LocalLayer {
  uint64_t bytes_max = 64ull << 20;  // whole pages; not 0
  uint64_t files_max = 4096;         // files, directories and links; not 0

  bool operator==(const LocalLayer&) const = default;
};

// Its root directory. kResourceExhausted, kPermissionDenied and so on: what the kernel said.
Result<UniqueFd> make_local_layer(const LocalLayer& limits);

struct CallFiles {
  UniqueFd directory;
  ino_t input = 0;
  ino_t output = 0;
  ino_t state = 0;  // 0: not there
};

// Made when first asked for. The same error each time where this process cannot make it.
const Result<CallFiles>& call_files(bool with_state = false);

}  // namespace spore::host

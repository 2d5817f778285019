// The file systems that Spore itself makes for a call. Any thread.
//
//   local layer   an empty file system that the call alone sees and writes, and that goes with its last descriptor: a
//                 tmpfs that is mounted nowhere (fsmount(2)), so no program of the host finds it by name. The kernel
//                 counts its bytes and files and answers ENOSPC.
//   call files    a directory with the names "input" and "output", one for all calls that see the same, read-only. It
//   only names:
//                 who opens one of the two gets the call's input or output (wasi_path.cc). Calls that have
//                 state see the directory "state" in it as well (state_files.h), those that can call other functions
//                 the directory "call" (call_streams.h).
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
  ino_t call = 0;   // the same
};

struct CallFilesShown {
  bool state = false;
  bool call = false;
};

// Made when first asked for. The same error each time where this process cannot make it.
const Result<CallFiles>& call_files(CallFilesShown shown = {});

}  // namespace spore::host

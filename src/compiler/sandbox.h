// Ties this process down before it looks at a hostile module. Limits: memory, CPU time, size of a file, descriptors, no
// core files. Then no new privileges, and a filter of system calls that leaves memory, threads of this process, reading
// and writing what is open already, clocks and exit. Anything else fails with EPERM; what only an attack would try (a
// program, a socket, a signal to others, executable memory) ends the process with SIGSYS. It also becomes the first to
// go when the host runs out of memory, yields the CPU to others, and dies with the thread that started it.
//
// Under the address and thread sanitizers, which need address space and system calls of their own, the memory limit and
// the filter are left out (kSandboxComplete is false).
#pragma once

#include "base/result.h"

namespace spore::compiler {

#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSandboxComplete = false;
#else
constexpr bool kSandboxComplete = true;
#endif

struct SandboxLimits {
  uint64_t memory_bytes_max = 0;  // private writable memory
  uint64_t cpu_seconds_max = 0;
  uint64_t file_bytes_max = 0;
  int64_t parent_pid = 0;
};

// While this process has one thread. There is no way back.
Result<void> enter_sandbox(const SandboxLimits& limits);

}  // namespace spore::compiler

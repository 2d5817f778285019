// Compiles in a child process, so that no module can hurt the host: the child has limits on memory, CPU time and
// system calls, and gives back an object or one error. Any thread may call this; it blocks until the child has ended.
#pragma once

#include <filesystem>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/fd.h"
#include "compiler/options.h"

namespace spore::compiler {

struct ChildLimits {
  uint64_t memory_bytes_max = 4ull << 30;
  uint64_t cpu_seconds_max = 600;
  uint64_t wall_seconds_max = 600;
};

// Who starts the children. Any thread.
class ChildStarter {
 public:
  struct Started {
    int64_t pid = 0;
    UniqueFd pid_descriptor;  // readable once it has ended; it is killed by it
  };

  virtual ~ChildStarter() = default;
  // The process whose child it will be.
  virtual int64_t parent() const = 0;
  // `descriptors`: its standard output and error, then kWasmFd, kOutputFd, kProgressFd (child_protocol.h).
  virtual Result<Started> start(const std::filesystem::path& program, const std::vector<std::string>& arguments,
                                std::span<const int> descriptors) = 0;
  // The status, as of waitpid, of one whose descriptor is readable; afterwards it is forgotten.
  virtual Result<int> end(const Started& child) = 0;
};

// spore-compiler, beside this program's own file.
std::filesystem::path default_compiler();

class ChildCompiler {
 public:
  // `starter`: null: this process starts them itself; outlives it.
  explicit ChildCompiler(ChildLimits limits = {}, std::filesystem::path program = default_compiler(),
                         ChildStarter* starter = nullptr);

  // The object in its serialised form. kInvalidModule: the module's fault, with byte offset and reason.
  // kResourceExhausted: it ran into a limit, which the message names. kUnavailable: `stop` was requested.
  Result<Bytes> compile(ByteSpan wasm, const Options& options, const Progress& progress = {},
                        std::stop_token stop = {}) const;

 private:
  ChildLimits limits_;
  std::filesystem::path program_;
  ChildStarter* starter_;
};

}  // namespace spore::compiler

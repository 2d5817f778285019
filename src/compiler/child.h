// Compiles in a child process, so that no module can hurt the host: the child has limits on memory, CPU time and
// system calls, and gives back an object or one error. Any thread may call this; it blocks until the child has ended.
#pragma once

#include <filesystem>
#include <stop_token>

#include "base/fd.h"
#include "compiler/options.h"

namespace spore::compiler {

struct ChildLimits {
  uint64_t memory_bytes_max = 4ull << 30;
  uint64_t cpu_seconds_max = 600;
  uint64_t wall_seconds_max = 600;
};

class ChildCompiler {
 public:
  // `program`: the spore-compiler binary; by default the one beside this program's own file.
  explicit ChildCompiler(ChildLimits limits = {}, std::filesystem::path program = {});

  // The object in its serialised form. kInvalidModule: the module's fault, with byte offset and reason.
  // kResourceExhausted: it ran into a limit, which the message names. kUnavailable: `stop` was requested.
  Result<Bytes> compile(ByteSpan wasm, const Options& options, const Progress& progress = {},
                        std::stop_token stop = {}) const;

 private:
  ChildLimits limits_;
  std::filesystem::path program_;
};

}  // namespace spore::compiler

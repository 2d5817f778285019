// What ChildCompiler and the program spore-compiler agree on: the request as arguments, three descriptors, the exit
// code.
//
// The child reads the wasm from a sealed memory file, writes the object, or the error that ends it, into another, and
// writes its progress, one byte a step (share * 255), into a pipe. Its standard output and error go into a third file.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "compiler/options.h"

namespace spore::compiler {

constexpr int kWasmFd = 3;
constexpr int kOutputFd = 4;
constexpr int kProgressFd = 5;

constexpr int kExitObject = 0;        // the output is the object
constexpr int kExitError = 10;        // the output is the error
constexpr int kExitOutOfMemory = 11;  // over its memory limit; there is no output

constexpr unsigned kThreadsMax = 64;

struct ChildRequest {
  Options options;
  uint64_t memory_bytes_max = 0;
  uint64_t cpu_seconds_max = 0;
  uint64_t output_bytes_max = 0;
  int64_t parent_pid = 0;
};

std::vector<std::string> to_arguments(const ChildRequest& request);
// kInvalidArgument: not what to_arguments writes.
Result<ChildRequest> parse_arguments(std::span<const char* const> arguments);

Bytes serialize_error(const Error& error);
Error parse_error(ByteSpan bytes);

}  // namespace spore::compiler

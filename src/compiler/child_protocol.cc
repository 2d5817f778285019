#include "compiler/child_protocol.h"

#include <charconv>

namespace spore::compiler {
namespace {

// The request as numbers, in a fixed order.
constexpr size_t kArguments = 10;

}  // namespace

std::vector<std::string> to_arguments(const ChildRequest& request) {
  const uint64_t values[kArguments] = {static_cast<uint64_t>(request.options.tier),
                                       static_cast<uint64_t>(request.options.cpu_level),
                                       request.options.threads,
                                       request.options.cross_instance,
                                       request.options.hardened,
                                       request.options.proposals,
                                       request.memory_bytes_max,
                                       request.cpu_seconds_max,
                                       request.output_bytes_max,
                                       static_cast<uint64_t>(request.parent_pid)};
  std::vector<std::string> out;
  for (const uint64_t value : values) out.push_back(std::to_string(value));
  return out;
}

Result<ChildRequest> parse_arguments(std::span<const char* const> arguments) {
  if (arguments.size() != kArguments)
    return fail(ErrorCode::kInvalidArgument, "expected " + std::to_string(kArguments) + " arguments");
  uint64_t values[kArguments];
  for (size_t i = 0; i < kArguments; ++i) {
    const std::string_view text = arguments[i];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), values[i]);
    if (error != std::errc{} || end != text.data() + text.size())
      return fail(ErrorCode::kInvalidArgument, "argument " + std::to_string(i + 1) + " is not a number");
  }
  if (values[0] > 1) return fail(ErrorCode::kInvalidArgument, "no such tier");
  if (values[1] != 2 && values[1] != 3) return fail(ErrorCode::kInvalidArgument, "no such CPU level");
  if (values[2] < 1 || values[2] > kThreadsMax) return fail(ErrorCode::kInvalidArgument, "too many threads, or none");
  if (values[5] > kAllProposals) return fail(ErrorCode::kInvalidArgument, "no such proposals");
  ChildRequest out;
  out.options.tier = static_cast<wasm::Tier>(values[0]);
  out.options.cpu_level = static_cast<wasm::CpuLevel>(values[1]);
  out.options.threads = static_cast<unsigned>(values[2]);
  out.options.cross_instance = values[3] != 0;
  out.options.hardened = values[4] != 0;
  out.options.proposals = static_cast<uint32_t>(values[5]);
  out.memory_bytes_max = values[6];
  out.cpu_seconds_max = values[7];
  out.output_bytes_max = values[8];
  out.parent_pid = static_cast<int64_t>(values[9]);
  return out;
}

Bytes serialize_error(const Error& error) {
  ByteWriter out;
  out.write(static_cast<uint32_t>(error.code));
  out.write_text(error.message);
  return out.take();
}

Error parse_error(ByteSpan bytes) {
  ByteReader in(bytes);
  const auto code = in.read<uint32_t>();
  Error out;
  out.message = in.read_text();
  // The child holds a hostile module; what it says about our own state (not found, permission, ...) is not taken over.
  switch (static_cast<ErrorCode>(code)) {
    case ErrorCode::kInvalidModule: out.code = ErrorCode::kInvalidModule; break;
    case ErrorCode::kResourceExhausted: out.code = ErrorCode::kResourceExhausted; break;
    default: out.code = ErrorCode::kInternal; break;
  }
  if (!in.ok() || out.message.empty()) return {ErrorCode::kInternal, "the compiler's error message is cut short"};
  return out;
}

}  // namespace spore::compiler

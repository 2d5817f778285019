#include "worker/call.h"

#include <sys/random.h>

#include "base/check.h"
#include "base/digest.h"

namespace spore::worker {

CallId CallId::random() {
  // The kernel is asked once for sixteen ids.
  thread_local std::array<CallId, 16> pool;
  thread_local size_t left = 0;
  if (left == 0) {
    const ssize_t got = ::getrandom(pool.data(), sizeof(pool), 0);
    CHECK(got == static_cast<ssize_t>(sizeof(pool)), got);  // up to 256 bytes are never cut short
    left = pool.size();
  }
  return pool[--left];
}

std::string CallId::text() const { return to_hex(bytes); }

void write(ByteWriter& out, const CallResult& result) {
  out.write(result.status);
  out.write(result.exit_code);
  out.write(result.trap.kind);
  out.write_text(result.trap.message);
  out.write<uint64_t>(result.trap.stack.size());
  for (const faaslet::Frame& frame : result.trap.stack) {
    out.write(frame.function_index);
    out.write_text(frame.function);
    out.write(frame.code_offset);
  }
  out.write<uint8_t>(result.log_truncated);
  out.write(result.error.code);
  out.write_text(result.error.message);
  out.write(result.start);
  for (const auto duration : {result.queued, result.starting, result.duration, result.usage.cpu})
    out.write<int64_t>(duration.count());
  for (const uint64_t bytes : {result.usage.memory_bytes, result.usage.sent_bytes, result.usage.received_bytes})
    out.write(bytes);
}

bool read(ByteReader& in, CallResult& result) {
  result.status = in.read<CallStatus>();
  result.exit_code = in.read<int32_t>();
  result.trap.kind = in.read<wasm::TrapKind>();
  result.trap.message = in.read_text();
  const uint64_t frames = in.read_count(4 + 8 + 4);
  for (uint64_t i = 0; i < frames; ++i) {
    faaslet::Frame frame;
    frame.function_index = in.read<uint32_t>();
    frame.function = in.read_text();
    frame.code_offset = in.read<uint32_t>();
    result.trap.stack.push_back(std::move(frame));
  }
  result.log_truncated = in.read<uint8_t>() != 0;
  result.error.code = in.read<ErrorCode>();
  result.error.message = in.read_text();
  result.start = in.read<StartKind>();
  for (auto* duration : {&result.queued, &result.starting, &result.duration, &result.usage.cpu})
    *duration = std::chrono::microseconds(in.read<int64_t>());
  for (auto* bytes : {&result.usage.memory_bytes, &result.usage.sent_bytes, &result.usage.received_bytes})
    *bytes = in.read<uint64_t>();
  return in.ok() && result.status <= kCallStatusLast && result.trap.kind <= wasm::TrapKind::kHostCall &&
         result.error.code >= ErrorCode::kInvalidArgument && result.error.code <= ErrorCode::kInternal &&
         result.start <= StartKind::kWarm;
}

std::string_view to_string(CallStatus status) {
  switch (status) {
    case CallStatus::kOk: return "ok";
    case CallStatus::kExited: return "exited";
    case CallStatus::kTrapped: return "trapped";
    case CallStatus::kTimedOut: return "timed_out";
    case CallStatus::kOutOfCpuTime: return "out_of_cpu_time";
    case CallStatus::kOutputTooLarge: return "output_too_large";
    case CallStatus::kNotPushed: return "not_pushed";
    case CallStatus::kCancelled: return "cancelled";
    case CallStatus::kQueueFull: return "queue_full";
    case CallStatus::kTenantQueueFull: return "tenant_queue_full";
    case CallStatus::kTenantMemory: return "tenant_memory";
    case CallStatus::kHostMemory: return "host_memory";
    case CallStatus::kDraining: return "draining";
    case CallStatus::kFailed: return "failed";
    case CallStatus::kProcessEnded: return "process_ended";
  }
  return "unknown";
}

std::string_view to_string(Priority priority) {
  switch (priority) {
    case Priority::kLow: return "low";
    case Priority::kNormal: return "normal";
    case Priority::kHigh: return "high";
  }
  return "unknown";
}

std::string_view to_string(StartKind start) {
  switch (start) {
    case StartKind::kNone: return "none";
    case StartKind::kCold: return "cold";
    case StartKind::kRestored: return "restored";
    case StartKind::kWarm: return "warm";
  }
  return "unknown";
}

}  // namespace spore::worker

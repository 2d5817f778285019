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

#include "gateway/call_log.h"

namespace spore::gateway {

namespace {
uint64_t bytes_of(const CallLogEntry& entry) { return entry.log.size() + entry.detail.size(); }

std::string detail_of(const worker::CallResult& result) {
  const bool has_error = result.status == worker::CallStatus::kFailed ||
                         result.status == worker::CallStatus::kProcessEnded ||
                         result.status == worker::CallStatus::kNotPushed;
  return has_error ? result.error.message : result.trap.message;
}
}  // namespace

CallLogEntry log_entry_of(worker::CallResult& result, const functions::FunctionId& function, uint64_t version,
                          uint64_t input_bytes) {
  return {.id = result.id,
          .function = function,
          .version = version,
          .ended_at = std::chrono::system_clock::now(),
          .outcome = result.status,
          .exit_code = result.exit_code,
          .detail = detail_of(result),
          .queued = result.queued,
          .duration = result.duration,
          .usage = result.usage,
          .input_bytes = input_bytes,
          .output_bytes = result.output.size() + result.output_streamed,
          .log = std::move(result.log),
          .log_truncated = result.log_truncated};
}

void CallLog::add(CallLogEntry entry) {
  std::deque<CallLogEntry> dropped;  // destroyed outside the lock
  auto ring = ring_.lock();
  ring->bytes += bytes_of(entry);
  ring->entries.push_back(std::move(entry));
  while (ring->entries.size() > entries_max_ || (ring->bytes > bytes_max_ && ring->entries.size() > 1)) {
    ring->bytes -= bytes_of(ring->entries.front());
    dropped.push_back(std::move(ring->entries.front()));
    ring->entries.pop_front();
  }
  ring.lock().unlock();
}

std::vector<CallLogEntry> CallLog::last_of(const functions::FunctionId& function, size_t count_max) const {
  std::vector<CallLogEntry> out;
  auto ring = ring_.lock();
  for (auto entry = ring->entries.rbegin(); entry != ring->entries.rend() && out.size() < count_max; ++entry) {
    if (entry->function == function) out.push_back(*entry);
  }
  return out;
}

}  // namespace spore::gateway

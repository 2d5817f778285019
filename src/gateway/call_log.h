// The last calls of a host, with what each wrote to its log: a ring bounded in entries and bytes. Any thread.
#pragma once

#include <chrono>
#include <deque>
#include <string>
#include <vector>

#include "base/guarded.h"
#include "functions/function.h"
#include "worker/call.h"

namespace spore::gateway {

struct CallLogEntry {
  worker::CallId id;
  functions::FunctionId function;
  uint64_t version = 0;
  std::chrono::system_clock::time_point ended_at;
  worker::CallStatus outcome = worker::CallStatus::kOk;
  int32_t exit_code = 0;
  std::string detail;  // of what went wrong; "" where nothing did
  std::chrono::microseconds queued{0};
  std::chrono::microseconds duration{0};
  worker::CallUsage usage;
  uint64_t input_bytes = 0;
  uint64_t output_bytes = 0;
  Bytes log;
  bool log_truncated = false;
};

// Takes the log out of the result.
CallLogEntry log_entry_of(worker::CallResult& result, const functions::FunctionId& function, uint64_t version,
                          uint64_t input_bytes);

class CallLog {
 public:
  explicit CallLog(size_t entries_max = 10'000, uint64_t bytes_max = 16 << 20)
      : entries_max_(entries_max), bytes_max_(bytes_max) {}

  void add(CallLogEntry entry);
  // The last `count_max` of a function, newest first.
  std::vector<CallLogEntry> last_of(const functions::FunctionId& function, size_t count_max) const;

 private:
  struct Ring {
    std::deque<CallLogEntry> entries;  // oldest first
    uint64_t bytes = 0;                // of their texts
  };
  const size_t entries_max_;
  const uint64_t bytes_max_;
  Guarded<Ring> ring_;
};

}  // namespace spore::gateway

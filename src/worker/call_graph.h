// What a tree of chained calls did: one record for each call, kept while the tree lives and for a while after. Plain
// values.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "worker/call.h"

namespace spore::worker {

struct CallRecord {
  CallId id;
  size_t parent = SIZE_MAX;  // in CallGraph::calls; SIZE_MAX: the root
  std::string function;      // its name
  uint64_t version = 0;
  uint32_t depth = 0;
  // Since the root was submitted; nothing: it has not come that far.
  std::chrono::microseconds submitted{0};
  std::optional<std::chrono::microseconds> started;
  std::optional<std::chrono::microseconds> ended;
  CallStatus status = CallStatus::kOk;  // once it has ended
  int32_t exit_code = 0;
  StartKind start = StartKind::kNone;
  uint64_t input_bytes = 0;
  uint64_t output_bytes = 0;
};

struct CallGraph {
  std::string tenant;
  std::vector<CallRecord> calls;  // the root first, parents before their children
};

}  // namespace spore::worker

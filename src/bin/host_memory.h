// How much of the machine's memory `spore serve` lets guests have, and who goes when there is no more.
//
//   books: a limit of the host, one of each tenant --no room--> what is charged but not held, then idle Faaslets, then
//          clean replicas of state and images of functions that nobody uses; then the guest or the call is refused
//   watch: the machine, or the host's cgroup, runs short --> the same, little by little, and calls wait until it is
//   over
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/memory_account.h"
#include "base/result.h"
#include "functions/registry.h"
#include "isolation/memory_watch.h"
#include "state/local_tier.h"
#include "worker/worker.h"

namespace spore::bin {

struct MemoryOptions {
  uint64_t host_bytes = 0;           // 0: four fifths of what is left when it starts
  uint64_t tenant_bytes = 0;         // 0: half of that
  std::vector<std::string> tenants;  // "TENANT=SIZE": those that have another limit
  uint64_t left_bytes_min = 0;       // 0: a 20th of all
  unsigned wait_ms = 5'000;          // of a call that finds no memory
};

class HostMemory {
 public:
  // Before privileges are given up. kInvalidArgument: one of the options.
  static Result<std::unique_ptr<HostMemory>> begin(const MemoryOptions& options);
  ~HostMemory() { stop(); }

  MemoryBooks& books() { return books_; }
  const isolation::MemoryWatch& watch() const { return watch_; }
  // The limits, and how shortage is found out, for people.
  std::string text() const;

  // From now on these make room. Before the first call.
  void connect(worker::Worker& worker, state::LocalTier& state, functions::Registry& registry);
  // For functions::HostHooks.
  Result<std::shared_ptr<const void>> count_image(const functions::FunctionId& id, uint64_t bytes);
  // Begins to watch, until stop(): before what is connected goes.
  void start();
  void stop() { watch_.stop(); }

 private:
  HostMemory(MemoryBooksOptions books, isolation::MemoryWatchOptions watch);
  void look(isolation::MemoryLevel level);

  MemoryBooks books_;
  const uint64_t tenant_bytes_max_;
  isolation::MemoryWatch watch_;
  worker::Worker* worker_ = nullptr;
  state::LocalTier* state_ = nullptr;
  functions::Registry* registry_ = nullptr;
};

// "64MB", "1GB", or bytes.
Result<uint64_t> parse_size(const std::string& text);

}  // namespace spore::bin

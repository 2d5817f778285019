// Work of the state module that takes its time, as a parked guest waits for it.
//
// An Operation ends once, with a number or an error. Its descriptor is readable from then on, so that whoever waits for
// descriptors anyway can wait for it; one that has ended before anybody asked never gets a descriptor. Who started it
// may let go of it at any time: it ends by itself, unheard.
//
// BlockingPool runs operations that block on a few threads of its own, in turns between tenants: the tenant that has
// waited longest is next, however much another one has queued.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/guarded.h"
#include "base/result.h"

namespace spore::state {

class Operation {
 public:
  bool ended() const { return state_.lock()->result.has_value(); }
  // Readable once it has ended; -1 where the process has no descriptor left.
  int fd();
  // What it ended with; it has ended.
  Result<int64_t> result() const;
  // The first call counts.
  void end(Result<int64_t> result);

 private:
  struct State {
    std::optional<Result<int64_t>> result;
    UniqueFd event;
  };
  Guarded<State> state_;
};

struct BlockingPoolOptions {
  unsigned threads = 8;
  size_t queue_max = 4'096;  // operations that wait for a thread
  size_t queue_per_tenant_max = 1'024;
};

class BlockingPool {
 public:
  explicit BlockingPool(BlockingPoolOptions options = {});
  // Operations that run are waited for; those that still wait end as kUnavailable.
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  // Any thread. One that is refused has ended, with kResourceExhausted.
  std::shared_ptr<Operation> start(const std::string& tenant, std::function<Result<int64_t>()> work);

 private:
  struct Job {
    std::shared_ptr<Operation> operation;
    std::function<Result<int64_t>()> work;
  };
  struct State {
    std::unordered_map<std::string, std::deque<Job>> jobs;  // of tenants that have some
    std::list<std::string> turns;                           // these tenants
    size_t waiting = 0;
    bool stopping = false;
  };
  void run();

  const BlockingPoolOptions options_;
  Guarded<State> state_;
  std::condition_variable job_came_;
  std::vector<std::thread> threads_;
};

}  // namespace spore::state

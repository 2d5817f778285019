// The calls that one call has made: what its guest knows of them (host/child_calls.h), and its place in the tree of
// calls that one call from outside has led to.
//
//   root --Children--> child --Children--> child ...         parents are kept alive by their children, never the
//   reverse
//     \________________ CallTree ________________/           totals and records of the whole tree
//
// Made with the call that they belong to, if that has a way to call others or is itself a child (whose locks need to
// know whom it is called by); most never have a child. What both the guest's thread and others use is
// guarded by the worker's state.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "host/child_calls.h"
#include "worker/call_graph.h"
#include "worker/job.h"

namespace spore::worker {

class Worker;

// Guarded by the worker's state.
struct CallTree {
  CallId root;
  Clock::time_point began;
  uint64_t bytes = 0;  // of inputs of calls that have not begun, and of outputs that are kept
  CallGraph graph;
};

class Children final : public host::ChildCalls, public std::enable_shared_from_this<Children> {
 public:
  // Of a job that is about to start.
  Children(Worker& worker, const Job& job);

  Result<uint32_t> begin(host::ChildRequest request) override;
  Status status(uint32_t handle) override;
  const host::ChildResult& result(uint32_t handle) override;
  bool await(std::span<const uint32_t> handles) override;
  int fd(uint32_t handle) override;
  bool cancel(uint32_t handle) override;
  bool close(uint32_t handle) override;
  Result<std::string> begin_detached(const host::ChildRequest& request, const std::string& once) override;
  std::vector<std::string> ancestors() const override;

 private:
  friend class Worker;
  struct Child {
    Job* job = nullptr;  // until it has ended
    bool awaited = false;
    uint64_t bytes = 0;  // that it counts for in the tree
    MemoryCharge charge;
    host::ChildResult result;
    UniqueFd ended;  // an event, where somebody asked for a descriptor
  };

  // How an entry of the module's table 0 is entered.
  Result<host::Entry> entry_of_self(uint32_t table_index) const;
  CallId id_of_child(uint32_t handle) const;
  // Of those that are awaited, one that only wants a seat; null: none. With the worker's state.
  Job* first_that_waits() const;

  Worker& worker_;
  const CallId id_;
  const std::shared_ptr<const functions::LoadedFunction> function_;
  const Clock::time_point submitted_;
  const Clock::time_point deadline_;
  const uint32_t depth_;
  const Priority priority_;
  const std::shared_ptr<Children> parent_;

  // Guarded by the worker's state.
  std::shared_ptr<CallTree> tree_;  // with the first child; a child's is its parent's
  size_t record_ = 0;               // of this call, in the tree's graph
  std::unordered_map<uint32_t, std::unique_ptr<Child>> children_;
  uint32_t last_handle_ = 0;
  Job* awaits_ = nullptr;  // the call itself, while it is parked for one of them
  std::vector<uint32_t> awaited_;
  bool woken_ = false;  // one of the awaited has ended
  bool ended_ = false;  // the call has: nobody waits for results
};

}  // namespace spore::worker

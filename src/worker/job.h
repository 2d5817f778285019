// A call inside the worker, from its submission to its end. Guarded by the worker's state, but while it runs on a seat:
// then what that seat's thread uses is its own.
#pragma once

#include <boost/intrusive/list.hpp>
#include <list>
#include <map>
#include <memory>
#include <optional>

#include "host/run.h"
#include "worker/call.h"
#include "worker/pool.h"

namespace spore::worker {

class Children;
struct TenantShare;
struct CallTree;
struct Job;
using JobPtr = std::unique_ptr<Job>;
using Parked = std::multimap<Clock::time_point, JobPtr>;  // by Job::wakes_at()

// Which waiting call of a tenant is next, the highest: then the one deepest in its tree, as others wait for it.
struct Rank {
  enum class Stage : uint8_t {
    kLong,   // it has begun, and computes for long
    kNew,    // it has not begun
    kBegun,  // it has
  };
  Stage stage = Stage::kNew;
  uint32_t depth = 0;
  Priority priority = Priority::kNormal;
  auto operator<=>(const Rank&) const = default;
};

// In a list of parked ones that are charged for more than they hold.
using Unsettled = boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

struct Job : Unsettled {
  enum class Place : uint8_t { kNowhere, kLoading, kQueued, kHeld, kRunning, kParked, kParkedOutside, kElsewhere };

  CallRequest request;
  CallDone done;                     // of a call from outside
  std::shared_ptr<Children> parent;  // of a chained one: whose child it is,
  uint32_t handle = 0;               // and under which handle
  uint32_t depth = 0;                // 0: from outside
  std::shared_ptr<CallTree> tree;    // of a chained one, with its place there
  size_t record = 0;
  std::optional<host::Entry> self;  // where it enters, if not where the function says
  Clock::time_point submitted;
  Clock::time_point deadline;

  // From when it starts.
  Clock::time_point started;
  StartKind start = StartKind::kNone;
  std::chrono::microseconds starting{0};
  uint64_t input_bytes = 0;
  MemoryCharge buffers;  // of the input, until it begins
  std::unique_ptr<FaasletPool::Instance> instance;
  std::optional<host::Run> run;
  std::shared_ptr<Children> children;  // those that it has itself; null: it cannot have any

  // Of a call that found no memory to begin or go on in (held_calls.h): who had none, and how long it waits for it.
  MemoryAccount::Refusal short_of = MemoryAccount::Refusal::kNone;
  Clock::time_point memory_deadline;

  Place place = Place::kNowhere;
  void* seat = nullptr;                   // kRunning: the Worker::Attachment
  Clock::time_point seated_at;            // kRunning: since when (call_queue.h)
  Clock::time_point first_seated_at;      // from when it first had one
  std::chrono::nanoseconds seat_time{0};  // that its tenant was charged for, when it last left one
  std::chrono::nanoseconds cpu_time{0};   // that its guest had used then
  std::chrono::nanoseconds cpu_charged{0};
  TenantShare* share = nullptr;       // kRunning, or ready: who pays for the seat (call_queue.h)
  std::list<JobPtr>::iterator at;     // kLoading, kQueued, kHeld, kElsewhere: in the list of them
  std::list<Job*>::iterator turn_at;  // kQueued (call_queue.h)
  Rank rank;                          // when it was last queued (call_queue.h)
  unsigned gates_passed = 0;          // where it counts (call_queue.h)
  bool is_ready = false;              // kQueued: it waits for a seat alone
  Clock::time_point ready_at;         // while it is parked
  uint64_t fd_wait = 0;               // while it is parked for a descriptor: the number of that wait
  Parked::iterator parked_at;         // kParked, kParkedOutside

  // In a process of its tenant's.
  bool runs_elsewhere() const { return request.function->proto == nullptr; }
  Clock::time_point wakes_at() const { return std::min(ready_at, deadline); }
  // Its function has been found: no later than that one's own limit of time allows.
  void limit_time() {
    deadline = std::min(deadline, submitted + std::chrono::milliseconds(request.function->version.config.timeout_ms));
  }
  // Of what it holds while it waits to begin.
  uint64_t waiting_bytes() const;
  const std::string& tenant() const { return request.function->id.tenant; }
};

using UnsettledList = boost::intrusive::list<Job, boost::intrusive::constant_time_size<false>>;

}  // namespace spore::worker

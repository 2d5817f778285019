// Locks on state: for reading by many calls or for writing by one, by key, among the calls of this host (local) or of
// all hosts (global). Locks need no value of that key; a local and a global lock of one key have nothing to do with
// each other.
//
//   guest --lock--> queue of the key --head only--> GlobalTier::try_lock, polled     (a local lock: no store)
//                                     --granted--> held --renewed at a third of the lease--> given back
//
// Order. First come, first served among the calls of a host: a reader does not pass a writer that waits. Among hosts
// there is no queue, the store is asked again and again; a host that hands a global lock from call to call lets go of
// it for a moment every `turn_max`, so that the others have a chance. Readers of other hosts that always overlap can
// keep a writer out until its deadline.
//
// Deadlock. A lock that an ancestor of the caller holds is refused where the modes exclude each other, also to those
// who already wait when the ancestor gets it; a reader whose ancestor reads does not queue behind writers. An ancestor
// that holds a global lock on another host is not seen: that wait ends at its deadline, as do all other circles.
//
// Leases. A global lock is good until a lease after the last renewal was sent, by the clock that goes on while the
// machine is suspended: a host that was stopped knows on waking that its locks are lost. Losing is for ever; the token
// stays, so that the store refuses what is pushed with it once somebody else has got the lock for writing. Readers that
// got it meanwhile are not protected by that: who pushes asks lost() first.
//
// Poison. Who holds a lock for writing and dies leaves it poisoned: all who get it are told, until one has held it for
// writing and given it back. Of a global lock whose holder's host could not give it back in time, too. (A call that
// dies has its lease renewed for a millisecond, to run out; a store that would not shorten it leaves the others waiting
// for its end.)
//
// Methods never block and may be called from any thread. Threads of the service's own ask the store: one renews,
// `asking_threads` ask and give back, one ends waits at their deadline whatever the store does.
#pragma once

#include <condition_variable>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/guarded.h"
#include "state/lock_options.h"
#include "state/lock_table.h"
#include "state/operation.h"

namespace spore::state {

class LockService {
 public:
  // `global` outlives it.
  LockService(GlobalTier& global, LockOptions options);
  // Waits end as kUnavailable. What calls have given up is given back, if the store answers within `store_timeout`;
  // locks that are held still run out.
  ~LockService();
  LockService(const LockService&) = delete;
  LockService& operator=(const LockService&) = delete;

  // Ends when it is granted, with 0, or with 1 where it is poisoned. A reader may ask again for what it reads, and
  // gives it back as often. With a deadline that is past: a local lock that is free at once is granted. Errors:
  //   kDeadlineExceeded    not to be had in time
  //   kFailedPrecondition  would wait for itself: an ancestor or the caller holds it in a mode that excludes this one,
  //                        the caller waits for it already, or has lost it and not given it back
  //   kResourceExhausted   over a bound of LockOptions, or the store is full
  //   kInvalidArgument     the key (see check_key) or the owner
  //   kUnavailable         the call ended meanwhile
  std::shared_ptr<Operation> lock(const ValueId& id, LockMode mode, LockScope scope, const LockHolder& holder,
                                  Deadline deadline);
  // kNotFound: this owner does not hold it. kFailedPrecondition: it did, but the lease was lost; it is given back all
  // the same. The store learns of it soon after.
  Result<void> unlock(const ValueId& id, LockScope scope, const std::string& owner);
  // The call has ended: what it holds is given back, what it waits for is not any more. `died`: not by its own will,
  // which poisons what it holds for writing.
  void release_all(const std::string& owner, bool died);

  // Of the global lock that this owner holds for writing, lost or not; else 0.
  uint64_t token(const ValueId& id, const std::string& owner) const;
  // Whether the lease of the global lock that this owner holds could not be renewed in time.
  bool lost(const ValueId& id, const std::string& owner);
  LockStats stats() const;

  // Does all that is due, in this thread; blocks for as long as the store takes. For services without threads.
  void step();

 private:
  struct State {
    State(const LockOptions& options, std::string prefix, uint64_t seed) : table(options, std::move(prefix), seed) {}
    LockTable table;
    bool stopping = false;
  };

  LockTable::Now now() const { return {.boot = options_.boot_now(), .steady = options_.steady_now()}; }
  void wake(LockTable& table);
  LockTable::Answer perform(const LockTable::Request& request);
  bool work(Guarded<State>::Locked& state, LockTable::Lane lane);
  void run_lane(LockTable::Lane lane);
  void run_deadlines();

  GlobalTier& global_;
  const LockOptions options_;
  Guarded<State> state_;
  std::condition_variable lane_wakes_[2];
  std::condition_variable deadline_wakes_;
  std::vector<std::thread> threads_;
};

}  // namespace spore::state

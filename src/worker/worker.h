// One host: it runs calls, each in a Faaslet of its own, on as many threads at once as it has seats.
//
//   submit --seat free, caller is attached--> runs right here --> done
//      |--no seat free, or the caller is no attached thread--> queue --wake--> run_queued on an attached thread -->
//      done
//
// The worker has no threads for guests of its own. Threads that also do other work (the gateway's) attach themselves,
// and a call runs on the thread that brings it: handing it to another one would cost more than a short call takes.
// There are more attached threads than seats, so that however long guests compute, somebody is left for the other work.
// Whoever attaches threads gives `wake`, which must make one of them call run_queued() soon.
//
// A call that waits (it sleeps, or a stream has nothing for it) holds no seat meanwhile: it is parked, Faaslet and all,
// and goes back to the head of the queue when what it waits for has come.
//
// Every call has a deadline, waiting included: one watchdog thread interrupts guests whose time is up, answers calls
// that waited too long, and waits for descriptors in the place of those that are parked. The queue is bounded, in all
// and for each tenant.
//
// A call's Faaslet comes from the pool (worker/pool.h): an idle one of the same image, else a new one. After the call
// it goes back there. Where slots run out, calls that wait give up theirs and go on in another.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/guarded.h"
#include "faaslet/faaslet.h"
#include "faaslet/seat.h"
#include "host/run.h"
#include "host/state_access.h"
#include "worker/call.h"
#include "worker/file_view.h"
#include "worker/pool.h"

namespace spore::worker {

struct WorkerOptions {
  unsigned seats = 2;                      // calls that run at once
  size_t queue_max = 10'000;               // calls that wait
  size_t queue_per_tenant_max = 5'000;     // of one tenant
  uint64_t queue_bytes_max = 1ull << 30;   // of the inputs, arguments and variables of waiting calls
  size_t parked_max = 100'000;             // calls that wait inside the guest; more hold on to their seats
  uint64_t parked_bytes_max = 4ull << 30;  // of what those hold that had to give up their slots
  uint64_t log_bytes_max = 64 << 10;       // of one call
  PoolOptions pool;
  FileRoots file_roots;
  const host::StateServices* state = nullptr;  // outlives the worker; null: calls have no state
};

struct WorkerStats {
  size_t seats = 0;
  size_t running = 0;
  size_t waiting = 0;
  size_t parked = 0;
  uint64_t parked_bytes = 0;  // what calls that wait without a slot hold
  bool draining = false;
  PoolStats pool;
  state::LocalTierStats state;

  bool idle() const { return running + waiting + parked == 0; }
};

class Worker {
 public:
  Worker(WorkerOptions options, std::function<void()> wake);
  // No thread may be attached any more. Calls that still wait end as kDraining.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Makes the current thread one that runs calls, as long as this object lives. At most one a thread.
  class Attachment {
   public:
    explicit Attachment(Worker& worker);
    ~Attachment();
    Attachment(const Attachment&) = delete;
    Attachment& operator=(const Attachment&) = delete;

   private:
    friend class Worker;
    Worker& worker_;
    faaslet::Seat seat_;
    const uint64_t serial_;  // of the seat, for the pool

    // The call that runs here; guarded by the worker's state.
    struct Running {
      bool active = false;
      CallId id;
      uint64_t generation = 0;
      Clock::time_point deadline;
      bool timed_out = false;
      bool cancelled = false;
    } running_;
  };

  // Any thread. On an attached one the call may have ended, and `done` been called, on return.
  void submit(CallRequest request, CallDone done);
  // Runs one waiting call, if there is one and a seat is free. Attached threads only.
  void run_queued();
  // Ends a waiting, running or parked call as kCancelled. False where there is no such call (any more).
  bool cancel(const CallId& id);

  // cancel() for every call.
  void cancel_all();

  // Drops idle Faaslets of functions that were removed or replaced.
  void forget_unused() { pool_.drop_unused(); }
  // Idle Faaslets unmap what they keep of state, so that replicas nobody uses can go.
  void drop_windows() { pool_.drop_windows(); }

  // From now on calls are refused with kDraining; those that wait or run go on.
  void drain();
  WorkerStats stats() const;

 private:
  struct Job {
    CallRequest request;
    CallDone done;
    Clock::time_point submitted;
    Clock::time_point deadline;
    // From when it starts.
    Clock::time_point started;
    StartKind start = StartKind::kNone;
    std::chrono::microseconds starting{0};
    std::unique_ptr<FaasletPool::Instance> instance;
    std::optional<host::Run> run;
    Clock::time_point ready_at;  // while it is parked
    uint64_t fd_wait = 0;        // while it is parked for a descriptor: the number of that wait
    Clock::time_point wakes_at() const { return std::min(ready_at, deadline); }
  };
  using Parked = std::multimap<Clock::time_point, Job>;  // by wakes_at()
  struct State {
    std::vector<Attachment*> attachments;
    size_t running = 0;
    std::deque<Job> queue;
    Parked parked;                                             // in their slots
    Parked parked_outside;                                     // without one
    std::unordered_map<uint64_t, Clock::time_point> fd_waits;  // by number: wakes_at() of the parked job
    uint64_t last_fd_wait = 0;
    std::unordered_map<std::string, size_t> waiting_of_tenant;
    uint64_t queue_bytes = 0;
    bool draining = false;
    bool stopping = false;
    Clock::time_point watching_until = Clock::time_point::max();  // when the watchdog looks next
  };
  // Takes a seat; null where the current thread is not attached to this worker.
  Attachment* current_attachment();
  enum class Place : uint8_t { kFirst, kLast };
  static void put_job(State& state, Job job, Place place);
  static Job take_job(State& state, std::deque<Job>::iterator job);
  void occupy(State& state, Attachment& here, const Job& job);
  void watch(State& state, Clock::time_point deadline);
  // Starts the call or goes on with it, on a seat that it occupies.
  void run(Attachment& here, Job job);
  // Gives the job a Faaslet of the pool, or its own a slot again.
  Result<void> prepare(Attachment& here, Job& job);
  // False: it is no longer to be parked, as it has been interrupted or there are too many.
  bool park(Attachment& here, Job& job);
  // Registers what a job that is being parked waits for, and forgets it when it is no longer parked. begin_fd_wait
  // gives false where the descriptor cannot be waited for.
  bool begin_fd_wait(State& state, Job& job, const faaslet::Wait& wait);
  void end_fd_wait(State& state, Job& job);
  // The parked job that waits under that number; nothing where it has gone on meanwhile.
  static std::optional<Job> take_fd_wait(State& state, uint64_t number);
  static CallResult finish(Job& job, host::CallResult ended);
  void end_early(Job job, CallStatus status);
  // The slot of the waiting call that wakes last of those that can go on in another one.
  std::optional<faaslet::Slot> reclaim_slot();
  size_t wait_for_events(Clock::time_point until, std::span<epoll_event> events);
  void watchdog_loop();

  const WorkerOptions options_;
  const std::function<void()> wake_;
  Guarded<State> state_;
  std::atomic<uint64_t> parked_bytes_ = 0;  // of calls that wait without a slot
  FaasletPool pool_;
  UniqueFd waits_;           // an epoll set: what parked calls wait for, and watchdog_wakes_ (as number 0)
  UniqueFd watchdog_wakes_;  // an event that ends the watchdog's sleep
  std::thread watchdog_;
};

}  // namespace spore::worker

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
// Nor does one that computes for long while others wait: its guest is preempted, and waits its turn in the queue. Who
// is to make way, when, and who is next is the queue's to say (worker/call_queue.h).
//
// Every call has a deadline, waiting included: one watchdog thread interrupts guests whose time is up, preempts those
// that are to make way, answers calls that waited too long, and waits for descriptors in the place of those that are
// parked. The queue is bounded, in all and for each tenant.
//
// A call that makes calls of its own (worker/children.h) and waits for one of them that has not begun gives its seat to
// it, and goes on there when that has ended: no other thread is woken for either. When a call ends, those that it has
// made and that have not ended are cancelled, with all that they have made.
//
// A call's Faaslet comes from the pool (worker/pool.h): an idle one of the same image, else a new one. After the call
// it goes back there. Where slots run out, calls that wait give up theirs and go on in another.
//
// What Faaslets, inputs and outputs take is charged to their tenant (base/memory_account.h). A call that finds no room
// for its Faaslet is held until there is some, or for WorkerOptions::memory_wait, and so is one that goes on after it
// has waited inside the guest, when all of its memory must be charged again; so is every call from outside that begins
// while the host is short of memory. Where room is wanted, make_room() finds what is charged but not held, and then
// drops idle Faaslets.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
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
#include "isolation/cpu_groups.h"
#include "isolation/network_pool.h"
#include "worker/call.h"
#include "worker/call_graph.h"
#include "worker/call_queue.h"
#include "worker/call_runner.h"
#include "worker/children.h"
#include "worker/file_view.h"
#include "worker/function_source.h"
#include "worker/held_calls.h"
#include "worker/pool.h"

namespace spore::worker {

// Of calls that calls make.
struct ChainLimits {
  uint32_t depth_max = 1'024;              // below the call from outside
  size_t children_max = 10'000;            // that one call holds: begun, and not closed
  size_t tree_calls_max = 100'000;         // that one call from outside leads to
  uint64_t tree_bytes_max = 1ull << 30;    // of their inputs and of outputs that are kept, at once
  uint64_t input_bytes_max = 64ull << 20;  // of one
  size_t graphs_max = 1'000;               // of trees that have ended, remembered
  size_t graph_calls_max = 200'000;        // calls in all of them
};

struct WorkerOptions {
  unsigned seats = 2;                      // calls that run at once
  size_t queue_max = 10'000;               // calls that wait
  size_t queue_per_tenant_max = 5'000;     // of one tenant
  uint64_t queue_bytes_max = 1ull << 30;   // of the inputs, arguments and variables of waiting calls
  size_t parked_max = 100'000;             // calls that wait inside the guest; more hold on to their seats
  uint64_t parked_bytes_max = 4ull << 30;  // of what those hold that had to give up their slots
  uint64_t log_bytes_max = 64 << 10;       // of one call
  std::set<std::string> precise_clocks;    // tenants that may tell nanoseconds; others tell microseconds
  bool preempt = true;                     // whether calls that compute for long make way for others
  size_t tenant_concurrency_max = 0;       // calls of one tenant that run at once; 0: as many as there are seats
  ChainLimits chain;
  MemoryBooks* memory = nullptr;                 // outlives the worker; null: nothing is charged
  std::chrono::milliseconds memory_wait{5'000};  // of a call that finds no memory to begin or go on
  PoolOptions pool;                              // its `memory` is the one above
  FileRoots file_roots;
  const host::StateServices* state = nullptr;  // outlives the worker; null: calls have no state
  state::BlockingPool* makers = nullptr;  // outlives the worker; of calls' file systems and sockets; null: seats wait
  isolation::CpuGroups* cpu_groups =
      nullptr;                                // outlives the worker; for attached threads; null: no weights are kept to
  isolation::NetworkPool* network = nullptr;  // outlives the worker; null: calls have no network
  // In the place of `network`: of a call of a function that has one. Any thread.
  std::function<std::shared_ptr<host::Network>(const functions::LoadedFunction&)> make_network;
  std::optional<isolation::IpAddress> resolver;  // that their names are looked up with; nothing: none are
  functions::Registry* registry = nullptr;       // outlives the worker; null: calls can only call their own function
  FunctionSource* functions = nullptr;           // in the place of that; the same
  CallRunner* runner = nullptr;  // outlives the worker, but holds no call when that goes; null: all calls run here
};

// What the rest of the host does for chained calls. Set before the first call; called on any thread.
struct ChainHooks {
  // A chained call has ended; its output has gone to its parent, and is counted as streamed; its log may be taken.
  // Must not block.
  std::function<void(CallResult&, const functions::LoadedFunction&, uint64_t input_bytes)> ended;
  // A durable call for `once`, the same for the same; blocks. Unset: there are none.
  std::function<Result<CallId>(const functions::FunctionId&, std::optional<uint64_t> version, Bytes input,
                               const std::string& once)>
      begin_detached;
};

struct WorkerStats {
  size_t seats = 0;
  size_t running = 0;
  size_t waiting = 0;
  size_t parked = 0;
  size_t elsewhere = 0;       // in processes of their tenants
  uint64_t parked_bytes = 0;  // what calls that wait without a slot hold
  size_t held = 0;            // of those that wait: for memory
  uint64_t held_in_all = 0;   // since the start
  bool short_of_memory = false;
  bool draining = false;
  PoolStats pool;
  state::LocalTierStats state;
  RunnerStats runner;

  bool idle() const { return running + waiting + parked + elsewhere == 0; }
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
    // Of the guest that runs here; the thread's own work has the default weight.
    void set_cpu_weight(uint64_t weight);
    // Whether the guest offers its core to others; with the worker's state.
    void offer_core(bool offers);
    void lose_cpu_group(const Error& error);

    faaslet::Seat seat_;
    const uint64_t serial_;                     // of the seat, for the pool
    isolation::CpuGroup* cpu_group_ = nullptr;  // null: none, or it failed

    // The call that runs here; guarded by the worker's state.
    struct Running {
      Job* job = nullptr;
      uint64_t generation = 0;
      bool timed_out = false;
      bool cancelled = false;
      std::optional<Clock::time_point> preempted;  // when it was asked to make way
      bool offers_core = false;
    } running_;
  };

  // Any thread. On an attached one the call may have ended, and `done` been called, on return.
  void submit(CallRequest request, CallDone done);
  // Runs one waiting call, if there is one and a seat is free. Attached threads only.
  void run_queued();
  // Ends a waiting, running or parked call as kCancelled, and with it all calls that it has made. False where there is
  // no such call (any more).
  bool cancel(const CallId& id);

  // cancel() for every call.
  void cancel_all();

  // Drops idle Faaslets of functions that were removed or replaced.
  void forget_unused() { pool_.drop_unused(); }
  // Idle Faaslets unmap what they keep of state, so that replicas nobody uses can go.
  void drop_windows() { pool_.drop_windows(); }

  // For MemoryBooks::on_shortage: sees to it that so many bytes have room, if that can be had.
  void make_room(const MemoryAccount* of, uint64_t bytes);
  // While the host is short of memory, calls from outside that have not begun are held.
  void set_short_of_memory(bool is_short);
  // Half of the idle Faaslets go.
  void shed_half() { pool_.shed_half(); }

  void set_hooks(ChainHooks hooks) { hooks_ = std::move(hooks); }
  // Of the tree that began with that call, if it has made calls and is remembered.
  std::optional<CallGraph> graph(const CallId& root) const;

  // From now on calls from outside are refused with kDraining; those that wait or run go on.
  void drain();
  WorkerStats stats() const;

 private:
  friend class Children;
  struct State {
    explicit State(size_t per_tenant_max) : queue(per_tenant_max) {}
    std::vector<Attachment*> attachments;
    size_t running = 0;
    CallQueue queue;
    std::list<JobPtr> elsewhere;  // given to the runner
    std::list<JobPtr> loading;    // chained calls whose functions are being loaded
    HeldCalls held;               // for want of memory
    uint64_t held_in_all = 0;
    Clock::time_point try_held_at;                // again
    Parked parked;                                // in their slots
    UnsettledList unsettled;                      // of those: the ones that may be charged for more than they hold
    Parked parked_outside;                        // without one
    std::unordered_map<uint64_t, Job*> fd_waits;  // parked jobs by the number of their wait
    uint64_t last_fd_wait = 0;
    std::unordered_map<CallId, std::shared_ptr<CallTree>, CallIdHash> trees;
    std::deque<std::shared_ptr<CallTree>> ended_trees;  // oldest first
    size_t ended_calls = 0;                             // in them
    bool draining = false;
    bool stopping = false;
    Clock::time_point watching_until = Clock::time_point::max();  // when the watchdog looks next
    Clock::time_point borrowed_at;                                // the seat more than there are
    Clock::time_point deadline = Clock::time_point::max();        // none of the waiting calls has one before this
  };
  // A job that ends without a seat, and as what.
  struct Ending {
    JobPtr job;
    CallStatus status = CallStatus::kCancelled;
    Error error;                       // kFailed
    std::optional<CallResult> result;  // in the place of both: it ran elsewhere
  };
  using Endings = std::vector<Ending>;
  enum class Park : uint8_t {
    kParked,
    kGoesOn,   // what it waits for has come
    kRefused,  // it has been interrupted, or there are too many
  };

  // Has a call run by the runner, which it was made ready for by leave_here(), with the state's lock held.
  using Leaving = std::pair<Job*, CallRequest>;
  Leaving leave_here(State& state, JobPtr job);
  void run_elsewhere(Leaving leaving);

  // Takes a seat; null where the current thread is not attached to this worker.
  Attachment* current_attachment();
  void occupy(State& state, Attachment& here, Job& job, Clock::time_point now);
  // The watchdog looks then: at the deadline of a call; at the seats.
  void watch_deadline(State& state, Clock::time_point deadline);
  void watch(State& state, Clock::time_point time);
  // Where calls wait for a seat: asks those that are to make way to do so. When to ask again.
  Clock::time_point make_way(State& state, Clock::time_point now);
  // Whether a job that waits, and is next, may run right here at once, on one seat more than there are, as others are
  // to make way for it. It is most likely done before they could have.
  bool may_borrow(const State& state, const Attachment& here, const Job& job, Clock::time_point now) const;
  // Whether a job that has just left its seat may give it to whom it likes.
  bool may_hand_on(const State& state, const Job& job) const {
    return state.running < options_.seats && state.queue.may_hand_on(job);
  }
  // Takes the job off its seat.
  void leave_seat(State& state, Attachment& here, Job& job, Clock::time_point now);
  // Of the waiting calls, the one whose turn it is, on this seat; null: none may run, or no seat is free.
  JobPtr seat_next(State& state, Attachment& here, Clock::time_point now);
  void enqueue(State& state, JobPtr job, Clock::time_point now);
  // Why a call cannot wait in the queue; nothing: it can.
  std::optional<CallStatus> refusal_of(const State& state, const std::string& tenant, uint64_t bytes) const;
  // Charges the input of a call that is about to wait, where it is large.
  MemoryAccount::Refusal charge_input(Job& job, const std::string& tenant) const;
  // Runs jobs on a seat that the first one occupies, one after another as each hands it on.
  void run(Attachment& here, JobPtr job);
  // Starts the call or goes on with it, until it ends or waits. The job that goes on in its place, which has the seat.
  JobPtr run_until_it_waits(Attachment& here, JobPtr job);
  // Gives the job a Faaslet of the pool, or its own a slot again.
  Result<void> prepare(Attachment& here, Job& job);
  // A Faaslet, with all that it may touch charged. Job::short_of says where it has none for want of memory.
  Result<void> find_faaslet(Attachment& here, Job& job);
  Result<void> begin(Attachment& here, Job& job);
  // It could not begin, or not go on, for want of memory; it gives up its seat. Whoever has that next.
  JobPtr hold(Attachment& here, JobPtr job);
  // Up to so many of those that are held are tried again. How many.
  size_t try_held(State& state, size_t count, Clock::time_point now);
  // The same where it is time to; and those whose own is up end.
  size_t look_at_held(State& state, Clock::time_point now, Endings& late);
  static constexpr std::chrono::milliseconds kTryHeldEvery{20};
  static CallStatus memory_status(MemoryAccount::Refusal refusal);
  // How a call ends whose time is up in the queue, or for memory.
  void late_for_memory(Ending& ending, Clock::time_point now) const;
  Error memory_error(const Job& job) const;
  // kParked: `next`, if any, goes on here.
  Park park(Attachment& here, JobPtr& job, JobPtr& next);
  void unpark(State& state, Job& job);
  static JobPtr take_parked(State& state, Job& job);
  // Registers what a job that is being parked waits for, and forgets it when it is no longer parked. begin_fd_wait
  // gives false where the descriptor cannot be waited for.
  bool begin_fd_wait(State& state, Job& job, const faaslet::Wait& wait);
  void end_fd_wait(State& state, Job& job);

  static CallResult finish(Job& job, host::CallResult ended);
  CallResult finish_early(Job& job, Ending& ending);
  // Whatever must be told that the job has ended is told, its own calls are stopped. Takes the output where it is a
  // child. Its parent, where that waited for it alone and may go on.
  JobPtr settle(State& state, Job& job, CallResult& result, Endings& stopped);
  JobPtr tell_parent(State& state, Job& job, CallResult& result);
  void record_end(State& state, const Job& job, const CallResult& result);
  // Those that run, wait, load and are parked.
  static std::vector<Job*> all_jobs(const State& state);
  // Takes the job from wherever it is, or interrupts it.
  void stop(State& state, Job& job, Endings& stopped);
  // Ends these, and all that they have begun.
  void end(Endings endings);
  // The answer of Children's loading.
  void loaded(const std::shared_ptr<Children>& parent, uint32_t handle, Result<FunctionSource::Function> function);

  // The slot of the waiting call that wakes last of those that can go on in another one.
  std::optional<faaslet::Slot> reclaim_slot();
  size_t wait_for_events(Clock::time_point until, std::span<epoll_event> events);
  void watchdog_loop();

  const WorkerOptions options_;
  const std::function<void()> wake_;
  ChainHooks hooks_;
  Guarded<State> state_;
  std::atomic<uint64_t> parked_bytes_ = 0;  // of calls that wait without a slot
  std::atomic<bool> short_of_memory_ = false;
  FaasletPool pool_;
  UniqueFd waits_;           // an epoll set: what parked calls wait for, and watchdog_wakes_ (as number 0)
  UniqueFd watchdog_wakes_;  // an event that ends the watchdog's sleep
  std::thread watchdog_;
  std::unique_ptr<FunctionSource> own_functions_;  // ends its work before the rest goes
  FunctionSource* functions_ = nullptr;            // null: there is none
};

}  // namespace spore::worker

#include "worker/worker.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/time_slice.h"
#include "host/run.h"
#include "worker/call_network.h"

namespace spore::worker {

using std::chrono::duration_cast;
using std::chrono::microseconds;

namespace {

constexpr std::chrono::milliseconds kAskAgain(1);     // those that are to make way and have not
constexpr std::chrono::milliseconds kBorrowedMax(1);  // then somebody must make way
constexpr uint64_t kOutputHeldMax = 256 << 10;        // of a call whose output can go to a stream

thread_local Worker::Attachment* attached_here = nullptr;

// A call that has a seat for longer than this offers its core to those that wake up for a moment, as the gateway's
// threads do. Those of functions that are usually shorter by far are looked at later.
constexpr std::chrono::nanoseconds kComputesAfter = std::chrono::milliseconds(1);
constexpr std::chrono::nanoseconds kComputesAfterLater = std::chrono::milliseconds(5);

bool likely_computes(const Job& job) {
  return job.rank.stage == Rank::Stage::kLong ||
         job.request.function->history->usual_ns.load(std::memory_order_relaxed) > kComputesAfter.count();
}

Clock::time_point computes_at(const Job& job) {
  const int64_t usual = job.request.function->history->usual_ns.load(std::memory_order_relaxed);
  return job.seated_at + (usual >= 0 && usual < kComputesAfter.count() / 4 ? kComputesAfterLater : kComputesAfter);
}

CallResult refused(const CallId& id, CallStatus status, Error error = {}) {
  CallResult result;
  result.id = id;
  result.status = status;
  result.error = std::move(error);
  return result;
}

PoolOptions pool_options(const WorkerOptions& options) {
  PoolOptions out = options.pool;
  out.memory = options.memory;
  return out;
}

}  // namespace

// ---- attached threads -----------------------------------------------------------------------------------------------

Worker::Attachment::Attachment(Worker& worker)
    : worker_(worker),
      serial_(seat_.serial()),
      cpu_group_(worker.options_.cpu_groups ? worker.options_.cpu_groups->take() : nullptr) {
  CHECK(attached_here == nullptr);
  attached_here = this;
  worker_.state_.lock()->attachments.push_back(this);
  ask_for_short_time_slices();
  ::pthread_setname_np(::pthread_self(), "spore-seat");
  if (!cpu_group_) return;
  if (const auto entered = cpu_group_->enter(); !entered) lose_cpu_group(entered.error());
}

Worker::Attachment::~Attachment() {
  std::erase(worker_.state_.lock()->attachments, this);
  attached_here = nullptr;
}

void Worker::Attachment::set_cpu_weight(uint64_t weight) {
  if (!cpu_group_) return;
  if (const auto set = cpu_group_->set_weight(static_cast<uint32_t>(weight)); !set) lose_cpu_group(set.error());
}

void Worker::Attachment::offer_core(bool offers) {
  seat_.offer_core(offers);
  running_.offers_core = offers;
}

void Worker::Attachment::lose_cpu_group(const Error& error) {
  spdlog::error("a thread keeps to no CPU weights any more: {}", error.message);
  cpu_group_ = nullptr;
}

Worker::Attachment* Worker::current_attachment() {
  return attached_here && &attached_here->worker_ == this ? attached_here : nullptr;
}

// ---- intake ---------------------------------------------------------------------------------------------------------

Worker::Worker(WorkerOptions options, std::function<void()> wake)
    : options_(std::move(options)),
      wake_(std::move(wake)),
      state_(options_.tenant_concurrency_max),
      pool_(pool_options(options_), [this] { return reclaim_slot(); }),
      waits_(::epoll_create1(EPOLL_CLOEXEC)),
      watchdog_wakes_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(waits_.valid() && watchdog_wakes_.valid(), errno);
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
  CHECK(::epoll_ctl(waits_.get(), EPOLL_CTL_ADD, watchdog_wakes_.get(), &event) == 0, errno);
  if (options_.registry) own_functions_ = std::make_unique<RegistrySource>(*options_.registry);
  functions_ = options_.functions ? options_.functions : own_functions_.get();
  watchdog_ = std::thread([this] { watchdog_loop(); });
}

Worker::~Worker() {
  own_functions_.reset();
  Endings left;
  {
    auto state = state_.lock();
    CHECK(state->attachments.empty(), state->attachments.size());
    state->stopping = true;
  }
  ::eventfd_write(watchdog_wakes_.get(), 1);
  watchdog_.join();
  {
    auto state = state_.lock();
    for (Job* job : all_jobs(*state)) stop(*state, *job, left);
  }
  for (Ending& ending : left)
    if (!ending.job->run) ending.status = CallStatus::kDraining;
  end(std::move(left));
}

std::optional<CallStatus> Worker::refusal_of(const State& state, const std::string& tenant, uint64_t bytes) const {
  const uint64_t bytes_now = state.queue.bytes() + state.held.bytes();
  if (state.queue.size() + state.loading.size() + state.held.size() >= options_.queue_max ||
      bytes > options_.queue_bytes_max - std::min(bytes_now, options_.queue_bytes_max)) {
    return CallStatus::kQueueFull;
  }
  if (state.queue.size_of(tenant) + state.held.size_of(tenant) >= options_.queue_per_tenant_max)
    return CallStatus::kTenantQueueFull;
  return std::nullopt;
}

void Worker::submit(CallRequest request, CallDone done) {
  const auto now = Clock::now();
  std::chrono::milliseconds timeout(request.function->version.config.timeout_ms);
  if (request.timeout) timeout = std::min(timeout, *request.timeout);
  auto job = std::make_unique<Job>();
  job->request = std::move(request);
  job->done = std::move(done);
  job->submitted = now;
  job->deadline = now + timeout;
  job->short_of = charge_input(*job, job->tenant());
  if (job->short_of != MemoryAccount::Refusal::kNone)
    return job->done(refused(job->request.id, memory_status(job->short_of), memory_error(*job)));
  Attachment* here = current_attachment();
  bool wake = false;
  std::optional<CallStatus> refusal;
  std::optional<Leaving> leaving;
  {
    auto state = state_.lock();
    if (state->draining) {
      refusal = CallStatus::kDraining;
    } else if (job->runs_elsewhere()) {
      leaving = leave_here(*state, std::move(job));
    } else if (here && !here->running_.job && state->running < options_.seats && !state->queue.has_ready() &&
               state->queue.enter(*job)) {
      occupy(*state, *here, *job, now);
    } else {
      here = nullptr;
      refusal = refusal_of(*state, job->tenant(), job->waiting_bytes());
      if (!refusal) {
        Job& added = *job;
        enqueue(*state, std::move(job), now);
        here = current_attachment();
        if (here && may_borrow(*state, *here, added, now)) {
          job = state->queue.take(added);
          state->borrowed_at = now;
          occupy(*state, *here, *job, now);
          watch(*state, now + kBorrowedMax);
        } else {
          here = nullptr;
          wake = state->running < options_.seats && state->queue.has_ready();
          if (!wake) watch(*state, make_way(*state, now));
        }
      }
    }
  }
  if (refusal) return job->done(refused(job->request.id, *refusal));
  if (leaving) return run_elsewhere(std::move(*leaving));
  if (here) return run(*here, std::move(job));
  if (wake) wake_();
}

Worker::Leaving Worker::leave_here(State& state, JobPtr job) {
  Job& leaves = *job;
  leaves.place = Job::Place::kElsewhere;
  leaves.input_bytes = leaves.request.input.size();
  leaves.started = Clock::now();
  CallRequest request = std::move(leaves.request);
  leaves.request = {.id = request.id, .function = request.function, .priority = request.priority};
  leaves.at = state.elsewhere.insert(state.elsewhere.end(), std::move(job));
  return {&leaves, std::move(request)};
}

void Worker::run_elsewhere(Leaving leaving) {
  auto& [job, request] = leaving;
  const auto ended = [this, job](CallResult result) {
    Endings ending;
    {
      auto state = state_.lock();
      ending.push_back({.job = std::move(*job->at), .result = std::move(result)});
      state->elsewhere.erase(job->at);
      job->place = Job::Place::kNowhere;
    }
    end(std::move(ending));
  };
  if (!options_.runner) {
    CallResult result = refused(request.id, CallStatus::kFailed);
    result.error = {ErrorCode::kUnavailable, "this host has no process for " + request.function->id.tenant};
    return ended(std::move(result));
  }
  const auto deadline = job->deadline;
  options_.runner->start(std::move(request), deadline, ended);
}

void Worker::enqueue(State& state, JobPtr job, Clock::time_point now) {
  watch_deadline(state, job->deadline);
  state.queue.add(std::move(job), now);
}

void Worker::run_queued() {
  Attachment* here = current_attachment();
  CHECK(here != nullptr);
  JobPtr job;
  {
    auto state = state_.lock();
    if (here->running_.job || state->running >= options_.seats) return;
    job = seat_next(*state, *here, Clock::now());
  }
  if (job) run(*here, std::move(job));
}

// ---- seats ----------------------------------------------------------------------------------------------------------

void Worker::occupy(State& state, Attachment& here, Job& job, Clock::time_point now) {
  ++state.running;
  here.running_ = {.job = &job,
                   .generation = here.seat_.begin_call(),
                   .timed_out = false,
                   .cancelled = false,
                   .preempted = {},
                   .offers_core = false};
  job.place = Job::Place::kRunning;
  job.seat = &here;
  state.queue.seated(job, now);
  if (likely_computes(job)) here.offer_core(true);
  watch(state, std::min(job.deadline, computes_at(job)));
  if (options_.preempt && state.queue.has_ready()) watch(state, state.queue.makes_way_at(job, now));
}

bool Worker::may_borrow(const State& state, const Attachment& here, const Job& job, Clock::time_point now) const {
  return options_.preempt && !here.running_.job && state.running == options_.seats && state.queue.is_next(job) &&
         std::ranges::any_of(state.attachments, [&](const Attachment* attachment) {
           const Job* seated = attachment->running_.job;
           return seated && state.queue.makes_way_at(*seated, now) <= now;
         });
}

JobPtr Worker::seat_next(State& state, Attachment& here, Clock::time_point now) {
  if (state.running >= options_.seats) return nullptr;
  JobPtr job = state.queue.next();
  if (job) occupy(state, here, *job, now);
  return job;
}

void Worker::leave_seat(State& state, Attachment& here, Job& job, Clock::time_point now) {
  if (here.running_.offers_core) here.offer_core(false);
  here.running_.job = nullptr;
  job.place = Job::Place::kNowhere;
  --state.running;
  if (job.instance) job.cpu_time = job.instance->state().cpu_time_before;
  state.queue.left_seat(job, now);
}

Clock::time_point Worker::make_way(State& state, Clock::time_point now) {
  auto again = Clock::time_point::max();
  if (!options_.preempt || state.running < options_.seats) return again;
  size_t wanted = state.queue.ready();
  const bool borrowed = state.running > options_.seats;
  const bool too_long = borrowed && now >= state.borrowed_at + kBorrowedMax;
  if (too_long) wanted += state.running - options_.seats;
  if (borrowed && !too_long) again = state.borrowed_at + kBorrowedMax;
  if (wanted == 0) return again;
  size_t asked = 0;
  std::vector<Attachment*> due;
  for (Attachment* attachment : state.attachments) {
    const auto& running = attachment->running_;
    if (!running.job) continue;
    if (running.preempted && now < *running.preempted + kAskAgain) {
      ++asked;
      again = std::min(again, *running.preempted + kAskAgain);
    } else if (const auto at = too_long ? now : state.queue.makes_way_at(*running.job, now); at <= now) {
      due.push_back(attachment);
    } else {
      again = std::min(again, at);
    }
  }
  std::ranges::sort(due, {}, [](const Attachment* attachment) { return attachment->running_.job->seated_at; });
  for (Attachment* attachment : due) {
    if (asked++ >= wanted) break;
    attachment->running_.preempted = now;
    attachment->seat_.preempt(attachment->running_.generation);
    again = std::min(again, now + kAskAgain);
  }
  return again;
}

// ---- ending from outside --------------------------------------------------------------------------------------------

std::vector<Job*> Worker::all_jobs(const State& state) {
  std::vector<Job*> jobs;
  for (const Attachment* attachment : state.attachments)
    if (attachment->running_.job) jobs.push_back(attachment->running_.job);
  state.queue.for_each([&](Job& job) { jobs.push_back(&job); });
  for (const JobPtr& job : state.loading) jobs.push_back(job.get());
  for (const JobPtr& job : state.elsewhere) jobs.push_back(job.get());
  state.held.for_each([&](Job& job) { jobs.push_back(&job); });
  for (const Parked* parked : {&state.parked, &state.parked_outside})
    for (const auto& [wakes_at, job] : *parked) jobs.push_back(job.get());
  return jobs;
}

bool Worker::cancel(const CallId& id) {
  Endings stopped;
  bool found = false;
  {
    auto state = state_.lock();
    const auto jobs = all_jobs(*state);
    const auto named = std::ranges::find(jobs, id, [](const Job* job) { return job->request.id; });
    found = named != jobs.end();
    if (found) stop(*state, **named, stopped);
  }
  end(std::move(stopped));
  return found;
}

void Worker::cancel_all() {
  Endings stopped;
  {
    auto state = state_.lock();
    for (Job* job : all_jobs(*state)) stop(*state, *job, stopped);
  }
  end(std::move(stopped));
}

void Worker::stop(State& state, Job& job, Endings& stopped) {
  switch (job.place) {
    case Job::Place::kNowhere: return;  // somebody else ends it at this moment
    case Job::Place::kQueued:
      stopped.push_back({.job = state.queue.take(job), .status = CallStatus::kCancelled});
      return;
    case Job::Place::kHeld: stopped.push_back({.job = state.held.take(job), .status = CallStatus::kCancelled}); return;
    case Job::Place::kLoading: {
      const auto at = job.at;
      stopped.push_back({.job = std::move(*at), .status = CallStatus::kCancelled});
      state.loading.erase(at);
      job.place = Job::Place::kNowhere;
      return;
    }
    case Job::Place::kElsewhere: return options_.runner->cancel(job.request.function->id, job.request.id);
    case Job::Place::kRunning: {
      auto& here = *static_cast<Attachment*>(job.seat);
      here.running_.cancelled = true;
      here.seat_.interrupt(here.running_.generation);
      return;
    }
    case Job::Place::kParked:
    case Job::Place::kParkedOutside:
      stopped.push_back({.job = take_parked(state, job), .status = CallStatus::kCancelled});
      end_fd_wait(state, job);
      return;
  }
}

CallResult Worker::finish_early(Job& job, Ending& ending) {
  if (ending.result) return std::move(*ending.result);
  const bool began = job.run.has_value();
  CallResult result;
  std::vector<faaslet::Frame> stack;
  if (began) {
    stack = job.instance->faaslet().stack();
    result = finish(job, {.kind = host::CallResult::Kind::kInterrupted, .exit_code = 0, .trap = {}});
  } else {
    result.id = job.request.id;
    result.queued = duration_cast<microseconds>(Clock::now() - job.submitted);
  }
  result.status = ending.status;
  result.error = ending.error;
  result.trap.kind = wasm::TrapKind::kInterrupted;
  result.trap.message = began ? "the call ended while it waited" : "the call ended before it could start";
  if (began && job.run->wait().preempted) result.trap.message = faaslet::message_of(result.trap.kind);
  result.trap.stack = std::move(stack);
  return result;
}

void Worker::end(Endings endings) {
  while (!endings.empty()) {
    Ending ending = std::move(endings.back());
    endings.pop_back();
    Job& job = *ending.job;
    CallResult result = finish_early(job, ending);
    bool wake = false;
    {
      auto state = state_.lock();
      state->queue.leave(job);
      result.duration = duration_cast<microseconds>(Clock::now() - job.submitted);
      if (JobPtr parent = settle(*state, job, result, endings)) enqueue(*state, std::move(parent), Clock::now());
      wake = state->queue.has_ready() && state->running < options_.seats;
    }
    if (wake) wake_();
    if (job.instance) parked_bytes_ -= job.instance->faaslet().parked_bytes();
    job.instance.reset();
    if (job.parent && hooks_.ended && job.request.function)
      hooks_.ended(result, *job.request.function, std::max<uint64_t>(job.input_bytes, job.request.input.size()));
    if (job.done) job.done(std::move(result));
  }
}

void Worker::drain() { state_.lock()->draining = true; }

WorkerStats Worker::stats() const {
  const RunnerStats runner = options_.runner ? options_.runner->stats() : RunnerStats{};
  auto state = state_.lock();
  return {.seats = options_.seats,
          .running = state->running,
          .waiting = state->queue.size() + state->loading.size() + state->held.size(),
          .parked = state->parked.size() + state->parked_outside.size(),
          .elsewhere = state->elsewhere.size(),
          .parked_bytes = parked_bytes_,
          .held = state->held.size(),
          .held_in_all = state->held_in_all,
          .short_of_memory = short_of_memory_,
          .draining = state->draining,
          .pool = pool_.stats(),
          .state = options_.state ? options_.state->tier->stats() : state::LocalTierStats{},
          .runner = runner};
}

// ---- running --------------------------------------------------------------------------------------------------------

void Worker::run(Attachment& here, JobPtr job) {
  while (job) {
    here.set_cpu_weight(job->request.function->version.config.cpu_weight);
    job = run_until_it_waits(here, std::move(job));
  }
  here.set_cpu_weight(isolation::kCpuWeightDefault);
}

JobPtr Worker::run_until_it_waits(Attachment& here, JobPtr job) {
  const bool waited = job->run.has_value();
  // The time of a call may be up just as it is to go on: what it waited for may have ended by the same deadline.
  const auto go_on = [&] {
    if (job->deadline <= Clock::now()) here.seat_.interrupt(here.running_.generation);
    return job->run->go(here.seat_);
  };
  const Result<void> prepared = prepare(here, *job);
  CallResult result;
  if (prepared) {
    auto ended = waited ? go_on() : job->run->go(here.seat_);
    while (!ended) {
      JobPtr next;
      switch (park(here, job, next)) {
        case Park::kParked: return next;
        case Park::kGoesOn: ended = go_on(); break;
        case Park::kRefused: ended = job->run->finish(here.seat_, {.deadline = job->deadline}); break;
      }
    }
    result = finish(*job, std::move(*ended));
  } else if (job->short_of != MemoryAccount::Refusal::kNone) {
    return hold(here, std::move(job));
  } else {
    if (job->run) {  // it has no slot
      result = finish(*job, {.kind = host::CallResult::Kind::kInterrupted, .exit_code = 0, .trap = {}});
      job->instance.reset();
    }
    result.id = job->request.id;
    result.status = CallStatus::kFailed;
    result.error = prepared.error();
  }
  here.seat_.end_call();
  if (job->instance) pool_.give(std::move(job->instance), here.serial_);

  JobPtr next;
  Endings stopped;
  bool more = false;
  {
    auto state = state_.lock();
    if (result.status == CallStatus::kTimedOut && here.running_.cancelled) result.status = CallStatus::kCancelled;
    const auto now = Clock::now();
    leave_seat(*state, here, *job, now);
    job->request.function->history->add(job->seat_time);
    state->queue.leave(*job);
    result.duration = duration_cast<microseconds>(now - job->submitted) + job->request.loading;
    next = settle(*state, *job, result, stopped);
    if (next && may_hand_on(*state, *next)) {
      occupy(*state, here, *next, now);
    } else if (next) {
      enqueue(*state, std::move(next), now);
      next = seat_next(*state, here, now);
    }
    if (!short_of_memory_) try_held(*state, 1, now);
    more = state->queue.has_ready() && state->running < options_.seats;
  }
  if (more) wake_();
  if (!stopped.empty()) end(std::move(stopped));
  if (job->parent && hooks_.ended) hooks_.ended(result, *job->request.function, job->input_bytes);
  if (job->done) job->done(std::move(result));
  return next;
}

Result<void> Worker::prepare(Attachment& here, Job& job) {
  if (!job.run) {
    job.started = Clock::now();
    TRY(find_faaslet(here, job));
    return begin(here, job);
  }
  // What it did not hold while it waited may have gone to others.
  faaslet::Faaslet& faaslet = job.instance->faaslet();
  job.short_of = faaslet.cover_memory();
  if (job.short_of != MemoryAccount::Refusal::kNone) return std::unexpected(memory_error(job));
  job.memory_deadline = {};
  if (faaslet.has_slot()) return {};
  parked_bytes_ -= faaslet.parked_bytes();
  return pool_.give_slot(*job.instance);
}

Result<void> Worker::find_faaslet(Attachment& here, Job& job) {
  job.short_of = MemoryAccount::Refusal::kNone;
  // Those who wait for a chained call have memory, which it helps to give back.
  if (short_of_memory_.load(std::memory_order_relaxed) && !job.parent) {
    job.short_of = MemoryAccount::Refusal::kHost;
    return std::unexpected(memory_error(job));
  }
  job.start = StartKind::kWarm;
  job.instance = pool_.take(*job.request.function, here.serial_);
  if (!job.instance) {
    job.start = job.request.loading.count() > 0 ? StartKind::kCold : StartKind::kRestored;
    ASSIGN_OR_RETURN(job.instance, pool_.restore(*job.request.function));
  }
  job.short_of = job.instance->faaslet().cover_memory();
  if (job.short_of == MemoryAccount::Refusal::kNone) {
    job.memory_deadline = {};
    return {};
  }
  job.instance.reset();
  job.start = StartKind::kNone;
  return std::unexpected(memory_error(job));
}

Result<void> Worker::begin(Attachment& here, Job& job) {
  const functions::LoadedFunction& function = *job.request.function;
  const functions::FunctionConfig& config = function.version.config;
  job.input_bytes = job.request.input.size();
  host::CallSetup setup;
  setup.arguments = config.arguments(function.id.name);
  std::ranges::move(job.request.arguments, std::back_inserter(setup.arguments));
  setup.environment = config.environment();
  std::ranges::move(job.request.environment, std::back_inserter(setup.environment));
  ASSIGN_OR_RETURN(setup.preopens, file_view(function.id, config, options_.file_roots));
  setup.local_layer = {.bytes_max = config.local_bytes_max, .files_max = config.local_files_max};
  setup.input = std::move(job.request.input);
  setup.limits.output_bytes_max = config.output_max_bytes;
  if (job.request.streams) {
    setup.call_streams = job.request.streams.get();
    setup.streams.in = job.request.streams->input();
    setup.limits.output_held_max = kOutputHeldMax;
  }
  setup.limits.log_bytes_max = options_.log_bytes_max;
  if (config.network && options_.make_network)
    setup.network = options_.make_network(function);
  else if (config.network && function.network && options_.network)
    setup.network = std::make_shared<CallNetwork>(*options_.network, function.network, options_.resolver);
  if (setup.network) {
    setup.limits.sockets_max = config.network->sockets_max;
  }
  setup.state_services = options_.state;
  setup.makers = options_.makers;
  setup.tenant = function.id.tenant;
  setup.call_key.assign(job.request.id.bytes.begin(), job.request.id.bytes.end());
  setup.push_on_success = config.push == functions::StatePush::kOnSuccess && options_.state;
  setup.deadline = job.deadline;
  if (config.cpu_ms) setup.cpu_time_max = std::chrono::milliseconds(config.cpu_ms);
  setup.cpu_quota = function.cpu_quota.get();
  setup.memory = job.instance->account();
  setup.buffers = std::move(job.buffers);
  if (options_.precise_clocks.contains(function.id.tenant)) setup.clock_step_ns = 1;
  ASSIGN_OR_RETURN(auto state, host::HostState::make(std::move(setup)));
  if (job.instance->may_call() || job.parent) job.children = std::make_shared<Children>(*this, job);
  state.children = job.children;
  job.instance->state() = std::move(state);
  job.run.emplace(job.instance->faaslet(), job.instance->state(), job.self ? *job.self : job.instance->entry(),
                  function.proto->initialised());
  job.starting = duration_cast<microseconds>(Clock::now() - job.started) + job.request.loading;
  return {};
}

Worker::Park Worker::park(Attachment& here, JobPtr& job, JobPtr& next) {
  const faaslet::Wait& wait = job->run->wait();
  bool more = false;
  {
    auto state = state_.lock();
    const auto& running = here.running_;
    if (running.timed_out || running.cancelled) return Park::kRefused;
    if (wait.child && job->children->woken_) return Park::kGoesOn;
    if (!wait.child && !wait.preempted && state->parked.size() + state->parked_outside.size() >= options_.parked_max)
      return Park::kRefused;
    if (wait.fd >= 0 && !begin_fd_wait(*state, *job, wait)) return Park::kRefused;
    if (wait.preempted && !state->queue.has_ready() && state->running <= options_.seats) {
      here.running_.preempted.reset();
      return Park::kGoesOn;
    }
    const auto now = Clock::now();
    here.seat_.end_call();
    leave_seat(*state, here, *job, now);
    if (wait.preempted) {
      enqueue(*state, std::move(job), now);
      next = seat_next(*state, here, now);
      return Park::kParked;
    }
    job->ready_at = wait.deadline.value_or(Clock::time_point::max());
    const auto wakes_at = job->wakes_at();
    watch(*state, wakes_at);
    if (wait.child) {
      state->queue.leave(*job);
      job->children->awaits_ = job.get();
      if (Job* child = may_hand_on(*state, *job) ? job->children->first_that_waits() : nullptr) {
        next = state->queue.take(*child);
        occupy(*state, here, *next, now);
      }
    }
    Job& parked = *job;
    if (options_.memory) state->unsettled.push_back(parked);
    parked.place = Job::Place::kParked;
    parked.parked_at = state->parked.emplace(wakes_at, std::move(job));
    more = state->queue.has_ready() && state->running < options_.seats;
  }
  if (more) wake_();
  return Park::kParked;
}

// Of a job that is parked, whatever it waits for: it is so no longer.
JobPtr Worker::take_parked(State& state, Job& job) {
  Parked& parked = job.place == Job::Place::kParked ? state.parked : state.parked_outside;
  JobPtr owned = std::move(parked.extract(job.parked_at).mapped());
  job.Unsettled::unlink();
  job.place = Job::Place::kNowhere;
  if (job.run->wait().child) {
    job.children->awaits_ = nullptr;
    state.queue.enter_again(job);
  }
  return owned;
}

bool Worker::begin_fd_wait(State& state, Job& job, const faaslet::Wait& wait) {
  const uint64_t number = state.last_fd_wait + 1;
  epoll_event event{
      .events = (wait.events & POLLIN ? EPOLLIN : 0u) | (wait.events & POLLOUT ? EPOLLOUT : 0u) | EPOLLONESHOT,
      .data = {.u64 = number}};
  if (::epoll_ctl(waits_.get(), EPOLL_CTL_ADD, wait.fd, &event) != 0) return false;
  job.fd_wait = state.last_fd_wait = number;
  state.fd_waits.emplace(number, &job);
  return true;
}

void Worker::end_fd_wait(State& state, Job& job) {
  if (job.fd_wait == 0) return;
  state.fd_waits.erase(std::exchange(job.fd_wait, 0));
  ::epoll_ctl(waits_.get(), EPOLL_CTL_DEL, job.run->wait().fd, nullptr);
}

CallResult Worker::finish(Job& job, host::CallResult ended) {
  CallResult result;
  result.id = job.request.id;
  result.start = job.start;
  result.queued = duration_cast<microseconds>(job.started - job.submitted);
  result.starting = job.starting;
  host::HostState& state = job.instance->state();
  job.cpu_time = state.cpu_time_before;
  result.usage.cpu = duration_cast<microseconds>(job.cpu_time);
  result.usage.sent_bytes = state.sent_bytes;
  result.usage.received_bytes = state.received_bytes;
  if (job.instance->faaslet().has_slot()) result.usage.memory_bytes = job.instance->faaslet().memory_bytes();
  switch (ended.kind) {
    case host::CallResult::Kind::kExited:
      result.exit_code = ended.exit_code;
      result.status = ended.exit_code == 0 ? CallStatus::kOk : CallStatus::kExited;
      break;
    case host::CallResult::Kind::kTrapped:
      result.status = state.output_overflow ? CallStatus::kOutputTooLarge : CallStatus::kTrapped;
      break;
    case host::CallResult::Kind::kInterrupted: result.status = CallStatus::kTimedOut; break;
    case host::CallResult::Kind::kOutOfCpuTime: result.status = CallStatus::kOutOfCpuTime; break;
    case host::CallResult::Kind::kNotPushed:
      result.status = CallStatus::kNotPushed;
      result.error = std::move(ended.error);
      break;
  }
  result.trap = std::move(ended.trap);
  result.output = std::move(state.output);
  result.output_streamed = state.output_streamed;
  result.log = std::move(state.log);
  result.log_truncated = state.log_truncated;
  if (state.locks_taken)
    state.state_services->locks->release_all(state.call_key, ended.kind != host::CallResult::Kind::kExited);
  state.close_all();
  state.children.reset();
  return result;
}

std::optional<faaslet::Slot> Worker::reclaim_slot() {
  auto state = state_.lock();
  if (parked_bytes_ >= options_.parked_bytes_max) return std::nullopt;
  const auto give_up = [&](Job& job) -> std::optional<faaslet::Slot> {
    faaslet::Faaslet& waits = job.instance->faaslet();
    if (!waits.has_slot() || !waits.can_move()) return std::nullopt;
    auto slot = waits.move_out();
    if (!slot) return std::nullopt;
    parked_bytes_ += waits.parked_bytes();
    return std::move(*slot);
  };
  for (auto it = state->parked.end(); it != state->parked.begin();) {
    --it;
    Job& job = *it->second;
    auto slot = give_up(job);
    if (!slot) continue;
    job.place = Job::Place::kParkedOutside;
    job.parked_at = state->parked_outside.insert(state->parked.extract(it));
    return slot;
  }
  // Those that could go on but have no seat yet.
  std::optional<faaslet::Slot> slot;
  state->queue.for_each([&](Job& job) {
    if (!slot && job.run) slot = give_up(job);
  });
  return slot;
}

// ---- deadlines ------------------------------------------------------------------------------------------------------

void Worker::watch(State& state, Clock::time_point time) {
  if (time >= state.watching_until) return;
  state.watching_until = time;
  ::eventfd_write(watchdog_wakes_.get(), 1);
}

void Worker::watch_deadline(State& state, Clock::time_point deadline) {
  state.deadline = std::min(state.deadline, deadline);
  watch(state, deadline);
}

// Sleeps until `until`, or until a parked call's descriptor is ready, or something changed. How many events there are.
size_t Worker::wait_for_events(Clock::time_point until, std::span<epoll_event> events) {
  timespec timeout{};
  if (until != Clock::time_point::max()) {
    const auto left = std::max(std::chrono::nanoseconds(0), std::chrono::nanoseconds(until - Clock::now()));
    timeout.tv_sec = static_cast<time_t>(left.count() / 1'000'000'000);
    timeout.tv_nsec = static_cast<long>(left.count() % 1'000'000'000);
  }
  const int count = ::epoll_pwait2(waits_.get(), events.data(), static_cast<int>(events.size()),
                                   until == Clock::time_point::max() ? nullptr : &timeout, nullptr);
  eventfd_t ignored;
  ::eventfd_read(watchdog_wakes_.get(), &ignored);
  return static_cast<size_t>(std::max(count, 0));
}

void Worker::watchdog_loop() {
  if (options_.cpu_groups) {
    if (const auto entered = options_.cpu_groups->watchdog().enter(); !entered)
      spdlog::error("guests that compute can delay the end of others' calls: {}", entered.error().message);
  }
  std::array<epoll_event, 64> events;
  size_t events_count = 0;
  ask_for_short_time_slices();
  auto state = state_.lock();
  while (!state->stopping) {
    size_t ready = 0;
    for (const epoll_event& event : std::span(events).first(std::exchange(events_count, 0))) {
      const auto waits = state->fd_waits.find(uint64_t{event.data.u64});
      if (waits == state->fd_waits.end()) continue;
      Job& job = *waits->second;
      end_fd_wait(*state, job);
      enqueue(*state, take_parked(*state, job), Clock::now());
      ++ready;
    }
    const auto now = Clock::now();
    auto next = Clock::time_point::max();
    for (Attachment* attachment : state->attachments) {
      auto& running = attachment->running_;
      if (!running.job || running.timed_out) continue;
      if (running.job->deadline <= now) {
        running.timed_out = true;
        attachment->seat_.interrupt(running.generation);
        continue;
      }
      next = std::min(next, running.job->deadline);
      if (running.offers_core) continue;
      if (const auto at = computes_at(*running.job); at <= now)
        attachment->offer_core(true);
      else
        next = std::min(next, at);
    }
    std::vector<Job*> expired;
    if (state->deadline <= now) {
      state->deadline = Clock::time_point::max();
      const auto look_at = [&](Job& job) {
        if (job.deadline <= now)
          expired.push_back(&job);
        else
          state->deadline = std::min(state->deadline, job.deadline);
      };
      state->queue.for_each(look_at);
      std::ranges::for_each(state->loading, [&](const JobPtr& job) { look_at(*job); });
    }
    next = std::min(next, state->deadline);
    Endings late;
    for (Job* job : expired) {
      stop(*state, *job, late);
      late_for_memory(late.back(), now);
    }
    ready += look_at_held(*state, now, late);
    for (Parked* parked : {&state->parked, &state->parked_outside}) {
      while (!parked->empty() && parked->begin()->first <= now) {
        Job& job = *parked->begin()->second;
        if (job.deadline <= now) {
          stop(*state, job, late);
          late.back().status = CallStatus::kTimedOut;
          continue;
        }
        end_fd_wait(*state, job);
        next = std::min(next, job.deadline);
        enqueue(*state, take_parked(*state, job), now);
        ++ready;
      }
      if (!parked->empty()) next = std::min(next, parked->begin()->first);
    }
    next = std::min(next, make_way(*state, now));
    if (!state->held.empty()) next = std::min(next, now + kTryHeldEvery);
    state->watching_until = next;
    if (!late.empty() || ready) {
      state.lock().unlock();
      end(std::move(late));
      for (; ready; --ready) wake_();
      state.lock().lock();
      continue;
    }
    state.lock().unlock();
    events_count = wait_for_events(next, events);
    state.lock().lock();
  }
}

}  // namespace spore::worker

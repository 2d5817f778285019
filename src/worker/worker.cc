#include "worker/worker.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "host/run.h"
#include "worker/call_network.h"

namespace spore::worker {

using std::chrono::duration_cast;
using std::chrono::microseconds;

namespace {

constexpr uint64_t kOutputHeldMax = 256 << 10;  // of a call whose output can go to a stream
constexpr auto kTryHeldEvery = std::chrono::milliseconds(20);
// Of parked calls that may be charged for more than they hold: how many are asked for, and looked at for whose they
// are.
constexpr size_t kSettledAtOnce = 64;
constexpr size_t kUnsettledLooks = 1'000;

thread_local Worker::Attachment* attached_here = nullptr;

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

CallStatus status_of(MemoryAccount::Refusal refusal) {
  return refusal == MemoryAccount::Refusal::kHost ? CallStatus::kHostMemory : CallStatus::kTenantMemory;
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
  if (options_.registry) functions_.emplace(*options_.registry);
  watchdog_ = std::thread([this] { watchdog_loop(); });
}

Worker::~Worker() {
  functions_.reset();
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
    return job->done(refused(job->request.id, status_of(job->short_of), memory_error(*job)));
  Attachment* here = current_attachment();
  bool wake = false;
  std::optional<CallStatus> refusal;
  {
    auto state = state_.lock();
    if (state->draining) {
      refusal = CallStatus::kDraining;
    } else if (here && !here->running_.job && state->running < options_.seats && !state->queue.has_ready() &&
               state->queue.enter(*job)) {
      occupy(*state, *here, *job);
    } else {
      here = nullptr;
      refusal = refusal_of(*state, job->tenant(), job->waiting_bytes());
      if (!refusal) {
        watch(*state, job->deadline);
        state->queue.add(std::move(job));
        wake = state->running < options_.seats && state->queue.has_ready();
      }
    }
  }
  if (refusal) return job->done(refused(job->request.id, *refusal));
  if (here) return run(*here, std::move(job));
  if (wake) wake_();
}

void Worker::run_queued() {
  Attachment* here = current_attachment();
  CHECK(here != nullptr);
  JobPtr job;
  {
    auto state = state_.lock();
    if (here->running_.job || state->running >= options_.seats) return;
    job = state->queue.next();
    if (!job) return;
    occupy(*state, *here, *job);
  }
  run(*here, std::move(job));
}

void Worker::occupy(State& state, Attachment& here, Job& job) {
  ++state.running;
  here.running_ = {.job = &job, .generation = here.seat_.begin_call(), .timed_out = false, .cancelled = false};
  job.place = Job::Place::kRunning;
  job.seat = &here;
  watch(state, job.deadline);
}

// ---- ending from outside --------------------------------------------------------------------------------------------

std::vector<Job*> Worker::all_jobs(const State& state) {
  std::vector<Job*> jobs;
  for (const Attachment* attachment : state.attachments)
    if (attachment->running_.job) jobs.push_back(attachment->running_.job);
  state.queue.for_each([&](Job& job) { jobs.push_back(&job); });
  for (const JobPtr& job : state.loading) jobs.push_back(job.get());
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

CallResult Worker::finish_early(Job& job, const Ending& ending) {
  const bool began = job.run.has_value();
  CallResult result;
  if (began) {
    result = finish(job, {.kind = host::CallResult::Kind::kInterrupted, .exit_code = 0, .trap = {}});
  } else {
    result.id = job.request.id;
    result.queued = duration_cast<microseconds>(Clock::now() - job.submitted);
  }
  result.status = ending.status;
  result.error = ending.error;
  result.trap.kind = wasm::TrapKind::kInterrupted;
  result.trap.message = began ? "the call ended while it waited" : "the call ended before it could start";
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
      if (JobPtr parent = settle(*state, job, result, endings)) state->queue.add(std::move(parent));
      wake = state->queue.has_ready() && state->running < options_.seats;
    }
    if (wake) wake_();
    if (job.instance) parked_bytes_ -= job.instance->faaslet().parked_bytes();
    job.instance.reset();
    if (job.parent && hooks_.ended && job.request.function)
      hooks_.ended(result, *job.request.function, job.request.input.size());
    if (job.done) job.done(std::move(result));
  }
}

void Worker::drain() { state_.lock()->draining = true; }

WorkerStats Worker::stats() const {
  auto state = state_.lock();
  return {.seats = options_.seats,
          .running = state->running,
          .waiting = state->queue.size() + state->loading.size() + state->held.size(),
          .parked = state->parked.size() + state->parked_outside.size(),
          .parked_bytes = parked_bytes_,
          .held = state->held.size(),
          .held_in_all = state->held_in_all,
          .short_of_memory = short_of_memory_,
          .draining = state->draining,
          .pool = pool_.stats(),
          .state = options_.state ? options_.state->tier->stats() : state::LocalTierStats{}};
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
  const Result<void> prepared = prepare(here, *job);
  CallResult result;
  if (prepared) {
    auto ended = job->run->go(here.seat_);
    while (!ended) {
      JobPtr next;
      switch (park(here, job, next)) {
        case Park::kParked: return next;
        case Park::kGoesOn: ended = job->run->go(here.seat_); break;
        case Park::kRefused: ended = job->run->finish(here.seat_, {.deadline = job->deadline}); break;
      }
    }
    result = finish(*job, std::move(*ended));
  } else if (job->short_of != MemoryAccount::Refusal::kNone && !job->run) {
    hold(here, std::move(job));
    return nullptr;
  } else {
    if (job->run) {
      result = finish(*job, {.kind = host::CallResult::Kind::kInterrupted, .exit_code = 0, .trap = {}});
      job->instance.reset();
    }
    result.id = job->request.id;
    result.status = CallStatus::kFailed;
    result.error = prepared.error();
  }
  here.seat_.end_call();
  if (job->instance) pool_.give(std::move(job->instance), here.serial_);

  JobPtr parent;
  Endings stopped;
  bool more = false;
  {
    auto state = state_.lock();
    if (result.status == CallStatus::kTimedOut && here.running_.cancelled) result.status = CallStatus::kCancelled;
    here.running_.job = nullptr;
    job->place = Job::Place::kNowhere;
    --state->running;
    state->queue.leave(*job);
    result.duration = duration_cast<microseconds>(Clock::now() - job->submitted) + job->request.loading;
    parent = settle(*state, *job, result, stopped);
    if (parent) occupy(*state, here, *parent);
    if (!short_of_memory_) try_held(*state, 1);
    more = state->queue.has_ready() && state->running < options_.seats;
  }
  if (more) wake_();
  if (!stopped.empty()) end(std::move(stopped));
  if (job->parent && hooks_.ended) hooks_.ended(result, *job->request.function, job->input_bytes);
  if (job->done) job->done(std::move(result));
  return parent;
}

Result<void> Worker::prepare(Attachment& here, Job& job) {
  if (!job.run) {
    job.started = Clock::now();
    TRY(find_faaslet(here, job));
    return begin(here, job);
  }
  faaslet::Faaslet& faaslet = job.instance->faaslet();
  if (!faaslet.has_slot()) parked_bytes_ -= faaslet.parked_bytes();
  // What it did not hold while it waited may have gone to others.
  job.short_of = faaslet.cover_memory();
  if (job.short_of != MemoryAccount::Refusal::kNone) return std::unexpected(memory_error(job));
  if (faaslet.has_slot()) return {};
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
  if (job.short_of == MemoryAccount::Refusal::kNone) return {};
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
  if (config.network && function.network && options_.network) {
    setup.network = std::make_shared<CallNetwork>(*options_.network, function.network, options_.resolver);
    setup.limits.sockets_max = config.network->sockets_max;
  }
  setup.state_services = options_.state;
  setup.tenant = function.id.tenant;
  setup.call_key.assign(job.request.id.bytes.begin(), job.request.id.bytes.end());
  setup.push_on_success = config.push == functions::StatePush::kOnSuccess && options_.state;
  setup.deadline = job.deadline;
  if (config.cpu_ms) setup.cpu_time_max = std::chrono::milliseconds(config.cpu_ms);
  setup.cpu_quota = function.cpu_quota.get();
  setup.memory = job.instance->account();
  setup.buffers = std::move(job.buffers);
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
    if (!wait.child && state->parked.size() + state->parked_outside.size() >= options_.parked_max)
      return Park::kRefused;
    if (wait.fd >= 0 && !begin_fd_wait(*state, *job, wait)) return Park::kRefused;
    here.seat_.end_call();
    here.running_.job = nullptr;
    --state->running;
    job->ready_at = wait.deadline.value_or(Clock::time_point::max());
    const auto wakes_at = job->wakes_at();
    watch(*state, wakes_at);
    if (wait.child) {
      state->queue.leave(*job);
      job->children->awaits_ = job.get();
      if (Job* child = job->children->first_that_waits()) {
        next = state->queue.take(*child);
        occupy(*state, here, *next);
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
  result.usage.cpu = duration_cast<microseconds>(state.cpu_time_before);
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

// ---- memory ---------------------------------------------------------------------------------------------------------

MemoryAccount::Refusal Worker::charge_input(Job& job, const std::string& tenant) const {
  const uint64_t bytes = job.waiting_bytes();
  if (!options_.memory || bytes <= host::kBuffersFreeBytes) return MemoryAccount::Refusal::kNone;
  job.buffers = MemoryCharge(options_.memory->account_of(tenant), MemoryKind::kBuffers);
  return job.buffers.cover(bytes);
}

Error Worker::memory_error(const Job& job) const {
  const auto mib = [](uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
  Error error{.code = ErrorCode::kResourceExhausted, .message = {}};
  if (job.short_of == MemoryAccount::Refusal::kTenant) {
    const MemoryAccountPtr account = options_.memory->account_of(job.tenant());
    error.message = "of the " + mib(account->total().bytes_max()) + " that tenant " + job.tenant() +
                    " may have here, " + mib(account->total().bytes()) +
                    " are in use; this call needs more than the rest";
  } else if (short_of_memory_) {
    error.message = "this machine is short of memory";
  } else {
    error.message = "of the " + mib(options_.memory->total().bytes_max()) + " that this host may use, " +
                    mib(options_.memory->total().bytes()) + " are in use; this call needs more than the rest";
  }
  return error;
}

void Worker::hold(Attachment& here, JobPtr job) {
  const auto now = Clock::now();
  here.seat_.end_call();
  Endings stopped;
  bool more = false;
  {
    auto state = state_.lock();
    const auto running = std::exchange(here.running_, {});
    --state->running;
    state->queue.leave(*job);
    job->started = {};
    if (job->memory_deadline == Clock::time_point{}) {
      job->memory_deadline = now + options_.memory_wait;
      ++state->held_in_all;
    }
    if (running.timed_out || running.cancelled) {  // whoever said so found it running
      job->place = Job::Place::kNowhere;
      stopped.push_back({.job = std::move(job),
                         .status = running.cancelled ? CallStatus::kCancelled : CallStatus::kTimedOut,
                         .error = {}});
    } else {
      watch(*state, std::min({job->deadline, job->memory_deadline, now + kTryHeldEvery}));
      state->held.add(std::move(job));
    }
    more = state->queue.has_ready() && state->running < options_.seats;
  }
  if (more) wake_();
  end(std::move(stopped));
}

size_t Worker::try_held(State& state, size_t count) {
  size_t tried = 0;
  while (tried < count) {
    JobPtr job = state.held.take_first();
    if (!job) break;
    state.queue.add(std::move(job));
    ++tried;
  }
  return tried;
}

void Worker::set_short_of_memory(bool is_short) {
  if (short_of_memory_.exchange(is_short) == is_short || is_short) return;
  size_t tried = 0;
  {
    auto state = state_.lock();
    tried = try_held(*state, options_.seats);
  }
  for (; tried; --tried) wake_();
}

void Worker::make_room(const MemoryAccount* of, uint64_t bytes) {
  if (!options_.memory) return;
  const MemoryTotal& total = of ? of->total() : options_.memory->total();
  pool_.settle_idle(of);
  if (total.room() >= bytes) return;
  {
    // Calls that wait inside the guest touch nothing meanwhile.
    auto state = state_.lock();
    size_t asked = 0, looks = 0;
    for (auto at = state->unsettled.begin(); at != state->unsettled.end() && total.room() < bytes;) {
      if (asked == kSettledAtOnce || ++looks > kUnsettledLooks) break;
      Job& job = *at;
      if (of && job.instance->account().get() != of) {
        ++at;
        continue;
      }
      at = state->unsettled.erase(at);
      job.instance->faaslet().settle_memory();
      ++asked;
    }
  }
  if (const uint64_t room = total.room(); room < bytes) pool_.shed(of, bytes - room);
}

// ---- deadlines ------------------------------------------------------------------------------------------------------

void Worker::watch(State& state, Clock::time_point deadline) {
  if (deadline >= state.watching_until) return;
  state.watching_until = deadline;
  ::eventfd_write(watchdog_wakes_.get(), 1);
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
  std::array<epoll_event, 64> events;
  size_t events_count = 0;
  auto try_held_at = Clock::time_point::min();
  auto state = state_.lock();
  while (!state->stopping) {
    size_t ready = 0;
    for (const epoll_event& event : std::span(events).first(std::exchange(events_count, 0))) {
      const auto waits = state->fd_waits.find(uint64_t{event.data.u64});
      if (waits == state->fd_waits.end()) continue;
      Job& job = *waits->second;
      end_fd_wait(*state, job);
      state->queue.add(take_parked(*state, job));
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
      } else {
        next = std::min(next, running.job->deadline);
      }
    }
    std::vector<Job*> expired;
    const auto look_at = [&](Job& job) {
      if (job.deadline <= now)
        expired.push_back(&job);
      else
        next = std::min(next, job.deadline);
    };
    state->queue.for_each(look_at);
    std::ranges::for_each(state->loading, [&](const JobPtr& job) { look_at(*job); });
    std::vector<Job*> without_memory;
    state->held.for_each([&](Job& job) {
      const auto until = std::min(job.deadline, job.memory_deadline);
      if (until <= now)
        without_memory.push_back(&job);
      else
        next = std::min({next, until, now + kTryHeldEvery});
    });
    Endings late;
    for (Job* job : expired) {
      stop(*state, *job, late);
      late.back().status = CallStatus::kTimedOut;
    }
    for (Job* job : without_memory) {
      stop(*state, *job, late);
      late.back().status = status_of(job->short_of);
      late.back().error = memory_error(*job);
    }
    if (!short_of_memory_ && now >= try_held_at) {
      ready += try_held(*state, 2 * options_.seats);
      try_held_at = now + kTryHeldEvery;
    }
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
        state->queue.add(take_parked(*state, job));
        ++ready;
      }
      if (!parked->empty()) next = std::min(next, parked->begin()->first);
    }
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

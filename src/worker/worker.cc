#include "worker/worker.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "host/run.h"

namespace spore::worker {

using std::chrono::duration_cast;
using std::chrono::microseconds;

namespace {

constexpr uint64_t kOutputHeldMax = 256 << 10;  // of a call whose output can go to a stream

thread_local Worker::Attachment* attached_here = nullptr;

// What a call holds while it waits.
uint64_t bytes_of(const CallRequest& request) {
  uint64_t bytes = request.input.size();
  for (const auto* texts : {&request.arguments, &request.environment})
    for (const std::string& text : *texts) bytes += text.size();
  return bytes;
}

CallResult refused(const CallId& id, CallStatus status) {
  CallResult result;
  result.id = id;
  result.status = status;
  return result;
}

}  // namespace

// ---- attached threads -----------------------------------------------------------------------------------------------

Worker::Attachment::Attachment(Worker& worker) : worker_(worker), serial_(seat_.serial()) {
  CHECK(attached_here == nullptr);
  attached_here = this;
  worker_.state_.lock()->attachments.push_back(this);
}

Worker::Attachment::~Attachment() {
  std::erase(worker_.state_.lock()->attachments, this);
  attached_here = nullptr;
}

Worker::Attachment* Worker::current_attachment() {
  return attached_here && &attached_here->worker_ == this ? attached_here : nullptr;
}

// ---- intake ---------------------------------------------------------------------------------------------------------

Worker::Worker(WorkerOptions options, std::function<void()> wake)
    : options_(std::move(options)),
      wake_(std::move(wake)),
      pool_(options_.pool, [this] { return reclaim_slot(); }),
      waits_(::epoll_create1(EPOLL_CLOEXEC)),
      watchdog_wakes_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(waits_.valid() && watchdog_wakes_.valid(), errno);
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
  CHECK(::epoll_ctl(waits_.get(), EPOLL_CTL_ADD, watchdog_wakes_.get(), &event) == 0, errno);
  watchdog_ = std::thread([this] { watchdog_loop(); });
}

Worker::~Worker() {
  std::deque<Job> waiting;
  Parked parked;
  {
    auto state = state_.lock();
    CHECK(state->attachments.empty(), state->attachments.size());
    state->stopping = true;
  }
  ::eventfd_write(watchdog_wakes_.get(), 1);
  watchdog_.join();
  {
    auto state = state_.lock();
    waiting.swap(state->queue);
    parked.swap(state->parked);
    parked.merge(state->parked_outside);
  }
  for (Job& job : waiting) end_early(std::move(job), job.run ? CallStatus::kCancelled : CallStatus::kDraining);
  for (auto& [wakes_at, job] : parked) end_early(std::move(job), CallStatus::kCancelled);
}

void Worker::submit(CallRequest request, CallDone done) {
  const auto now = Clock::now();
  std::chrono::milliseconds timeout(request.function->version.config.timeout_ms);
  if (request.timeout) timeout = std::min(timeout, *request.timeout);
  Job job{std::move(request), std::move(done), now, now + timeout};
  Attachment* here = current_attachment();
  bool wake = false;
  std::optional<CallStatus> refusal;
  {
    auto state = state_.lock();
    if (state->draining) {
      refusal = CallStatus::kDraining;
    } else if (here && !here->running_.active && state->running < options_.seats && state->queue.empty()) {
      occupy(*state, *here, job);
    } else if (state->queue.size() >= options_.queue_max ||
               bytes_of(job.request) > options_.queue_bytes_max - state->queue_bytes) {
      refusal = CallStatus::kQueueFull;
    } else {
      const auto of_tenant = state->waiting_of_tenant.find(job.request.function->id.tenant);
      if ((of_tenant == state->waiting_of_tenant.end() ? 0 : of_tenant->second) >= options_.queue_per_tenant_max) {
        refusal = CallStatus::kTenantQueueFull;
      } else {
        watch(*state, job.deadline);
        wake = state->running < options_.seats;
        put_job(*state, std::move(job), Place::kLast);
        here = nullptr;
      }
    }
    if (refusal) here = nullptr;
  }
  if (refusal) return job.done(refused(job.request.id, *refusal));
  if (here) return run(*here, std::move(job));
  if (wake) wake_();
}

void Worker::run_queued() {
  Attachment* here = current_attachment();
  CHECK(here != nullptr);
  std::optional<Job> job;
  {
    auto state = state_.lock();
    if (here->running_.active || state->running >= options_.seats || state->queue.empty()) return;
    job = take_job(*state, state->queue.begin());
    occupy(*state, *here, *job);
  }
  run(*here, std::move(*job));
}

void Worker::put_job(State& state, Job job, Place place) {
  ++state.waiting_of_tenant[job.request.function->id.tenant];
  state.queue_bytes += bytes_of(job.request);
  state.queue.insert(place == Place::kFirst ? state.queue.begin() : state.queue.end(), std::move(job));
}

Worker::Job Worker::take_job(State& state, std::deque<Job>::iterator at) {
  Job job = std::move(*at);
  state.queue.erase(at);
  state.queue_bytes -= bytes_of(job.request);
  const auto of_tenant = state.waiting_of_tenant.find(job.request.function->id.tenant);
  if (--of_tenant->second == 0) state.waiting_of_tenant.erase(of_tenant);
  return job;
}

void Worker::occupy(State& state, Attachment& here, const Job& job) {
  ++state.running;
  here.running_ = {.active = true,
                   .id = job.request.id,
                   .generation = here.seat_.begin_call(),
                   .deadline = job.deadline,
                   .timed_out = false,
                   .cancelled = false};
  watch(state, job.deadline);
}

bool Worker::cancel(const CallId& id) {
  std::optional<Job> ended;
  {
    auto state = state_.lock();
    for (Attachment* attachment : state->attachments) {
      auto& running = attachment->running_;
      if (!running.active || running.id != id) continue;
      running.cancelled = true;
      attachment->seat_.interrupt(running.generation);
      return true;
    }
    const auto id_of = [](const Job& job) { return job.request.id; };
    if (const auto waits = std::ranges::find(state->queue, id, id_of); waits != state->queue.end())
      ended = take_job(*state, waits);
    const auto id_of_parked = [](const auto& entry) { return entry.second.request.id; };
    for (Parked* parked : {&state->parked, &state->parked_outside}) {
      const auto found = ended ? parked->end() : std::ranges::find(*parked, id, id_of_parked);
      if (found == parked->end()) continue;
      ended = std::move(found->second);
      parked->erase(found);
      end_fd_wait(*state, *ended);
    }
  }
  if (!ended) return false;
  end_early(std::move(*ended), CallStatus::kCancelled);
  return true;
}

// A call that runs on no seat now, and will not again.
void Worker::end_early(Job job, CallStatus status) {
  const auto now = Clock::now();
  const bool began = job.run.has_value();
  CallResult result;
  if (began) {
    result = finish(job, {.kind = host::CallResult::Kind::kInterrupted, .exit_code = 0, .trap = {}});
  } else {
    result.id = job.request.id;
    result.queued = duration_cast<microseconds>(now - job.submitted);
  }
  result.status = status;
  result.duration = duration_cast<microseconds>(now - job.submitted);
  result.trap.kind = wasm::TrapKind::kInterrupted;
  result.trap.message = began ? "the call ended while it waited" : "the call ended before it could start";
  if (job.instance) parked_bytes_ -= job.instance->faaslet().parked_bytes();
  job.instance.reset();
  job.done(std::move(result));
}

void Worker::cancel_all() {
  std::vector<CallId> ids;
  {
    auto state = state_.lock();
    for (const Job& job : state->queue) ids.push_back(job.request.id);
    for (const Parked* parked : {&state->parked, &state->parked_outside})
      for (const auto& [wakes_at, job] : *parked) ids.push_back(job.request.id);
    for (const Attachment* attachment : state->attachments) {
      if (attachment->running_.active) ids.push_back(attachment->running_.id);
    }
  }
  for (const CallId& id : ids) cancel(id);
}

void Worker::drain() { state_.lock()->draining = true; }

WorkerStats Worker::stats() const {
  auto state = state_.lock();
  return {.seats = options_.seats,
          .running = state->running,
          .waiting = state->queue.size(),
          .parked = state->parked.size() + state->parked_outside.size(),
          .parked_bytes = parked_bytes_,
          .draining = state->draining,
          .pool = pool_.stats(),
          .state = options_.state ? options_.state->tier->stats() : state::LocalTierStats{}};
}

// ---- running --------------------------------------------------------------------------------------------------------

void Worker::run(Attachment& here, Job job) {
  const Result<void> prepared = prepare(here, job);
  CallResult result;
  if (prepared) {
    auto ended = job.run->go(here.seat_);
    if (!ended) {
      if (park(here, job)) return;
      ended = job.run->finish(here.seat_, {.deadline = job.deadline});
    }
    result = finish(job, std::move(*ended));
  } else {
    result = refused(job.request.id, CallStatus::kFailed);
    result.error = prepared.error();
  }
  here.seat_.end_call();
  if (job.instance) pool_.give(std::move(job.instance), here.serial_);

  bool more = false;
  {
    auto state = state_.lock();
    if (result.status == CallStatus::kTimedOut && here.running_.cancelled) result.status = CallStatus::kCancelled;
    here.running_.active = false;
    --state->running;
    more = !state->queue.empty();
  }
  if (more) wake_();
  result.duration = duration_cast<microseconds>(Clock::now() - job.submitted) + job.request.loading;
  job.done(std::move(result));
}

Result<void> Worker::prepare(Attachment& here, Job& job) {
  if (job.run) {
    if (job.instance->faaslet().has_slot()) return {};
    parked_bytes_ -= job.instance->faaslet().parked_bytes();
    return pool_.give_slot(*job.instance);
  }
  job.started = Clock::now();
  const functions::LoadedFunction& function = *job.request.function;
  const functions::FunctionConfig& config = function.version.config;
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
  setup.state_services = options_.state;
  setup.tenant = function.id.tenant;
  setup.call_key.assign(job.request.id.bytes.begin(), job.request.id.bytes.end());
  setup.push_on_success = config.push == functions::StatePush::kOnSuccess && options_.state;
  setup.deadline = job.deadline;
  ASSIGN_OR_RETURN(auto state, host::HostState::make(std::move(setup)));

  job.start = StartKind::kWarm;
  job.instance = pool_.take(function, here.serial_);
  if (!job.instance) {
    job.start = job.request.loading.count() > 0 ? StartKind::kCold : StartKind::kRestored;
    ASSIGN_OR_RETURN(job.instance, pool_.restore(function));
  }
  job.instance->state() = std::move(state);
  job.run.emplace(job.instance->faaslet(), job.instance->state(), job.instance->entry(), function.proto->initialised());
  job.starting = duration_cast<microseconds>(Clock::now() - job.started) + job.request.loading;
  return {};
}

bool Worker::park(Attachment& here, Job& job) {
  const faaslet::Wait& wait = job.run->wait();
  job.ready_at = wait.deadline.value_or(Clock::time_point::max());
  bool more = false;
  {
    auto state = state_.lock();
    const auto& running = here.running_;
    if (running.timed_out || running.cancelled) return false;
    if (state->parked.size() + state->parked_outside.size() >= options_.parked_max) return false;
    if (wait.fd >= 0 && !begin_fd_wait(*state, job, wait)) return false;
    here.seat_.end_call();
    here.running_.active = false;
    --state->running;
    const auto wakes_at = job.wakes_at();
    watch(*state, wakes_at);
    state->parked.emplace(wakes_at, std::move(job));
    more = !state->queue.empty();
  }
  if (more) wake_();
  return true;
}

bool Worker::begin_fd_wait(State& state, Job& job, const faaslet::Wait& wait) {
  const uint64_t number = state.last_fd_wait + 1;
  epoll_event event{
      .events = (wait.events & POLLIN ? EPOLLIN : 0u) | (wait.events & POLLOUT ? EPOLLOUT : 0u) | EPOLLONESHOT,
      .data = {.u64 = number}};
  if (::epoll_ctl(waits_.get(), EPOLL_CTL_ADD, wait.fd, &event) != 0) return false;
  job.fd_wait = state.last_fd_wait = number;
  state.fd_waits.emplace(number, job.wakes_at());
  return true;
}

void Worker::end_fd_wait(State& state, Job& job) {
  if (job.fd_wait == 0) return;
  state.fd_waits.erase(std::exchange(job.fd_wait, 0));
  ::epoll_ctl(waits_.get(), EPOLL_CTL_DEL, job.run->wait().fd, nullptr);
}

std::optional<Worker::Job> Worker::take_fd_wait(State& state, uint64_t number) {
  const auto known = state.fd_waits.find(number);
  if (known == state.fd_waits.end()) return std::nullopt;
  for (Parked* parked : {&state.parked, &state.parked_outside}) {
    const auto [begin, end] = parked->equal_range(known->second);
    for (auto it = begin; it != end; ++it)
      if (it->second.fd_wait == number) return std::move(parked->extract(it).mapped());
  }
  return std::nullopt;
}

CallResult Worker::finish(Job& job, host::CallResult ended) {
  CallResult result;
  result.id = job.request.id;
  result.start = job.start;
  result.queued = duration_cast<microseconds>(job.started - job.submitted);
  result.starting = job.starting;
  host::HostState& state = job.instance->state();
  switch (ended.kind) {
    case host::CallResult::Kind::kExited:
      result.exit_code = ended.exit_code;
      result.status = ended.exit_code == 0 ? CallStatus::kOk : CallStatus::kExited;
      break;
    case host::CallResult::Kind::kTrapped:
      result.status = state.output_overflow ? CallStatus::kOutputTooLarge : CallStatus::kTrapped;
      break;
    case host::CallResult::Kind::kInterrupted: result.status = CallStatus::kTimedOut; break;
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
    auto slot = give_up(it->second);
    if (!slot) continue;
    state->parked_outside.insert(state->parked.extract(it));
    return slot;
  }
  // Those that could go on but have no seat yet.
  for (auto job = state->queue.rbegin(); job != state->queue.rend(); ++job) {
    if (!job->run) continue;
    if (auto slot = give_up(*job)) return slot;
  }
  return std::nullopt;
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
  auto state = state_.lock();
  while (!state->stopping) {
    size_t ready = 0;
    for (const epoll_event& event : std::span(events).first(std::exchange(events_count, 0))) {
      auto job = take_fd_wait(*state, event.data.u64);
      if (!job) continue;
      end_fd_wait(*state, *job);
      put_job(*state, std::move(*job), Place::kFirst);
      ++ready;
    }
    const auto now = Clock::now();
    auto next = Clock::time_point::max();
    for (Attachment* attachment : state->attachments) {
      auto& running = attachment->running_;
      if (!running.active || running.timed_out) continue;
      if (running.deadline <= now) {
        running.timed_out = true;
        attachment->seat_.interrupt(running.generation);
      } else {
        next = std::min(next, running.deadline);
      }
    }
    std::vector<Job> late;
    for (auto job = state->queue.begin(); job != state->queue.end();) {
      if (job->deadline <= now) {
        const auto index = job - state->queue.begin();
        late.push_back(take_job(*state, job));
        job = state->queue.begin() + index;
      } else {
        next = std::min(next, job->deadline);
        ++job;
      }
    }
    for (Parked* parked : {&state->parked, &state->parked_outside}) {
      while (!parked->empty() && parked->begin()->first <= now) {
        Job job = std::move(parked->extract(parked->begin()).mapped());
        end_fd_wait(*state, job);
        if (job.deadline <= now) {
          late.push_back(std::move(job));
          continue;
        }
        next = std::min(next, job.deadline);
        put_job(*state, std::move(job), Place::kFirst);
        ++ready;
      }
      if (!parked->empty()) next = std::min(next, parked->begin()->first);
    }
    state->watching_until = next;
    if (!late.empty() || ready) {
      state.lock().unlock();
      for (Job& job : late) end_early(std::move(job), CallStatus::kTimedOut);
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

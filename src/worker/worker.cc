#include "worker/worker.h"

#include <algorithm>

#include "base/check.h"
#include "host/imports.h"
#include "host/run.h"

namespace spore::worker {

using std::chrono::duration_cast;
using std::chrono::microseconds;

namespace {

thread_local Worker::Attachment* attached_here = nullptr;

CallResult refused(const CallId& id, CallStatus status) {
  CallResult result;
  result.id = id;
  result.status = status;
  return result;
}

CallResult timed_out_waiting(const CallId& id, Clock::time_point submitted, Clock::time_point now) {
  CallResult result = refused(id, CallStatus::kTimedOut);
  result.trap.kind = wasm::TrapKind::kInterrupted;
  result.trap.message = "the call timed out before it could start";
  result.queued = result.duration = duration_cast<microseconds>(now - submitted);
  return result;
}

}  // namespace

// ---- attached threads -----------------------------------------------------------------------------------------------

Worker::Attachment::Attachment(Worker& worker) : worker_(worker) {
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
    : options_(options), wake_(std::move(wake)), watchdog_([this] { watchdog_loop(); }) {}

Worker::~Worker() {
  std::deque<Job> left;
  {
    auto state = state_.lock();
    CHECK(state->attachments.empty(), state->attachments.size());
    state->stopping = true;
    left.swap(state->queue);
    watchdog_wakes_.notify_one();
  }
  watchdog_.join();
  for (Job& job : left) job.done(refused(job.request.id, CallStatus::kDraining));
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
               job.request.input.size() > options_.queue_bytes_max - state->queue_bytes) {
      refusal = CallStatus::kQueueFull;
    } else {
      size_t& of_tenant = state->waiting_of_tenant[job.request.function->id.tenant];
      if (of_tenant >= options_.queue_per_tenant_max) {
        refusal = CallStatus::kTenantQueueFull;
      } else {
        ++of_tenant;
        state->queue_bytes += job.request.input.size();
        watch(*state, job.deadline);
        wake = state->running < options_.seats;
        state->queue.push_back(std::move(job));
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

Worker::Job Worker::take_job(State& state, std::deque<Job>::iterator at) {
  Job job = std::move(*at);
  state.queue.erase(at);
  state.queue_bytes -= job.request.input.size();
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
                   .forgotten = state.forgotten,
                   .timed_out = false,
                   .cancelled = false};
  watch(state, job.deadline);
}

bool Worker::cancel(const CallId& id) {
  std::optional<Job> waiting;
  {
    auto state = state_.lock();
    for (Attachment* attachment : state->attachments) {
      auto& running = attachment->running_;
      if (!running.active || running.id != id) continue;
      running.cancelled = true;
      attachment->seat_.interrupt(running.generation);
      return true;
    }
    const auto found = std::ranges::find(state->queue, id, [](const Job& job) { return job.request.id; });
    if (found == state->queue.end()) return false;
    waiting = take_job(*state, found);
  }
  CallResult result = refused(id, CallStatus::kCancelled);
  result.queued = result.duration = duration_cast<microseconds>(Clock::now() - waiting->submitted);
  waiting->done(std::move(result));
  return true;
}

void Worker::cancel_all() {
  std::vector<CallId> ids;
  {
    auto state = state_.lock();
    for (const Job& job : state->queue) ids.push_back(job.request.id);
    for (const Attachment* attachment : state->attachments) {
      if (attachment->running_.active) ids.push_back(attachment->running_.id);
    }
  }
  for (const CallId& id : ids) cancel(id);
}

void Worker::drain() { state_.lock()->draining = true; }

WorkerStats Worker::stats() const {
  auto state = state_.lock();
  return {.running = state->running, .waiting = state->queue.size(), .draining = state->draining};
}

// ---- running --------------------------------------------------------------------------------------------------------

void Worker::run(Attachment& here, Job job) {
  const auto started = Clock::now();
  Result<CallResult> ran = run_in_faaslet(here, job, here.kept_);
  here.seat_.end_call();
  CallResult result = ran ? std::move(*ran) : refused(job.request.id, CallStatus::kFailed);
  if (!ran) result.error = std::move(ran).error();

  bool more = false;
  Keeper dropped;  // destroyed outside the lock
  {
    auto state = state_.lock();
    if (result.status == CallStatus::kTimedOut && here.running_.cancelled) result.status = CallStatus::kCancelled;
    here.running_.active = false;
    --state->running;
    if (state->forgotten != here.running_.forgotten) std::swap(dropped, here.kept_);
    more = !state->queue.empty();
  }
  if (more) wake_();
  result.id = job.request.id;
  result.queued = duration_cast<microseconds>(started - job.submitted);
  result.duration = duration_cast<microseconds>(Clock::now() - job.submitted);
  job.done(std::move(result));
}

Result<CallResult> Worker::run_in_faaslet(Attachment& here, Job& job, Keeper& kept) {
  const functions::LoadedFunction& function = *job.request.function;
  const functions::FunctionConfig& config = function.version.config;

  host::CallSetup setup;
  setup.arguments.reserve(1 + config.args.size() + job.request.arguments.size());
  setup.arguments.push_back(function.id.name);
  setup.arguments.insert(setup.arguments.end(), config.args.begin(), config.args.end());
  std::ranges::move(job.request.arguments, std::back_inserter(setup.arguments));
  setup.environment.reserve(config.env.size() + job.request.environment.size());
  for (const auto& [name, value] : config.env) setup.environment.push_back(name + "=" + value);
  std::ranges::move(job.request.environment, std::back_inserter(setup.environment));
  setup.input = std::move(job.request.input);
  setup.limits.output_bytes_max = config.output_max_bytes;
  setup.limits.log_bytes_max = options_.log_bytes_max;
  ASSIGN_OR_RETURN(auto state, host::HostState::make(std::move(setup)));

  CallResult result;
  if (kept.faaslet && kept.proto == function.proto) {
    result.start = StartKind::kWarm;
    *kept.state = std::move(state);
  } else {
    result.start = StartKind::kRestored;
    ASSIGN_OR_RETURN(auto slot, empty_slot(kept));
    ASSIGN_OR_RETURN(kept.program, program_of(function.proto->object()));
    kept.state = std::make_unique<host::HostState>(std::move(state));
    ASSIGN_OR_RETURN(kept.faaslet, faaslet::Faaslet::restore(std::move(slot), function.proto, kept.program->links,
                                                             kept.state.get()));
    kept.proto = function.proto;
  }

  host::CallResult ended =
      host::run(*kept.faaslet, *kept.state, here.seat_, kept.program->entry, {.deadline = job.deadline});

  switch (ended.kind) {
    case host::CallResult::Kind::kExited:
      result.exit_code = ended.exit_code;
      result.status = ended.exit_code == 0 ? CallStatus::kOk : CallStatus::kExited;
      break;
    case host::CallResult::Kind::kTrapped:
      result.status = kept.state->output_overflow ? CallStatus::kOutputTooLarge : CallStatus::kTrapped;
      break;
    case host::CallResult::Kind::kInterrupted: result.status = CallStatus::kTimedOut; break;
  }
  result.trap = std::move(ended.trap);
  result.output = std::move(kept.state->output);
  result.log = std::move(kept.state->log);
  result.log_truncated = kept.state->log_truncated;
  *kept.state = {};  // closes its files
  // What cannot be reset is given up, slot and all.
  if (!kept.faaslet->reset()) kept = {};
  return result;
}

Result<faaslet::Slot> Worker::empty_slot(Keeper& kept) {
  if (!kept.faaslet) return faaslet::Slot::reserve();
  faaslet::Slot slot = kept.faaslet->take_slot();
  kept = {};
  TRY(slot.clear());
  return slot;
}

void Worker::forget_idle() {
  std::vector<Keeper> dropped;  // destroyed outside the lock
  auto state = state_.lock();
  ++state->forgotten;
  for (Attachment* attachment : state->attachments) {
    if (!attachment->running_.active) dropped.push_back(std::exchange(attachment->kept_, {}));
  }
  state.lock().unlock();
}

Result<std::shared_ptr<const Worker::Program>> Worker::program_of(
    const std::shared_ptr<const faaslet::LoadedObject>& object) {
  {
    auto programs = programs_.lock();
    const auto found = programs->find(object.get());
    // An entry of a module that is gone may lie under the address of a new one.
    if (found != programs->end() && found->second.object.lock() == object) return found->second.program;
  }
  auto program = std::make_shared<Program>();
  ASSIGN_OR_RETURN(program->links, host::link(object->module()));
  ASSIGN_OR_RETURN(program->entry, host::find_entry(object->module()));
  auto programs = programs_.lock();
  std::erase_if(*programs, [](const auto& entry) { return entry.second.object.expired(); });
  (*programs)[object.get()] = {object, program};
  return program;
}

// ---- deadlines ------------------------------------------------------------------------------------------------------

void Worker::watch(State& state, Clock::time_point deadline) {
  if (deadline >= state.watching_until) return;
  state.watching_until = deadline;
  watchdog_wakes_.notify_one();
}

void Worker::watchdog_loop() {
  auto state = state_.lock();
  while (!state->stopping) {
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
    state->watching_until = next;
    if (!late.empty()) {
      state.lock().unlock();
      for (Job& job : late) job.done(timed_out_waiting(job.request.id, job.submitted, now));
      state.lock().lock();
      continue;
    }
    if (next == Clock::time_point::max()) {
      watchdog_wakes_.wait(state.lock());
    } else {
      watchdog_wakes_.wait_until(state.lock(), next);
    }
  }
}

}  // namespace spore::worker

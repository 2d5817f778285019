// What calls take of memory: charging it, waiting for it, making room (worker.h).
#include "worker/worker.h"

namespace spore::worker {

namespace {

// Of parked calls that may be charged for more than they hold: how many are asked at once, and looked at for whose they
// are.
constexpr size_t kSettledAtOnce = 64;
constexpr size_t kUnsettledLooks = 1'000;

}  // namespace

CallStatus Worker::memory_status(MemoryAccount::Refusal refusal) {
  return refusal == MemoryAccount::Refusal::kHost ? CallStatus::kHostMemory : CallStatus::kTenantMemory;
}

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

JobPtr Worker::hold(Attachment& here, JobPtr job) {
  here.seat_.end_call();
  JobPtr next;
  Endings stopped;
  bool more = false;
  {
    auto state = state_.lock();
    const auto now = Clock::now();
    const auto running = here.running_;
    leave_seat(*state, here, *job, now);
    if (!job->run) {
      state->queue.leave(*job);
      job->started = {};
    }
    if (job->memory_deadline == Clock::time_point{}) {
      job->memory_deadline = now + options_.memory_wait;
      ++state->held_in_all;
    }
    if (running.timed_out || running.cancelled) {  // whoever said so found it running
      stopped.push_back({.job = std::move(job), .status = CallStatus::kCancelled, .error = {}});
      if (!running.cancelled) late_for_memory(stopped.back(), now);
    } else {
      watch(*state, now + kTryHeldEvery);
      state->held.add(std::move(job));
    }
    next = seat_next(*state, here, now);
    more = state->queue.has_ready() && state->running < options_.seats;
  }
  if (more) wake_();
  end(std::move(stopped));
  return next;
}

size_t Worker::try_held(State& state, size_t count, Clock::time_point now) {
  size_t tried = 0;
  for (; tried < count && !state.held.empty(); ++tried) enqueue(state, state.held.take_first(), now);
  return tried;
}

void Worker::late_for_memory(Ending& ending, Clock::time_point now) const {
  const Job& job = *ending.job;
  if (job.short_of == MemoryAccount::Refusal::kNone || (job.run && job.deadline <= now)) {
    ending.status = CallStatus::kTimedOut;
    return;
  }
  ending.status = job.run ? CallStatus::kFailed : memory_status(job.short_of);
  ending.error = memory_error(job);
}

size_t Worker::look_at_held(State& state, Clock::time_point now, Endings& late) {
  std::vector<Job*> over;
  state.held.for_each([&](Job& job) {
    if (std::min(job.deadline, job.memory_deadline) <= now) over.push_back(&job);
  });
  for (Job* job : over) {
    stop(state, *job, late);
    late_for_memory(late.back(), now);
  }
  if (short_of_memory_ || now < state.try_held_at) return 0;
  state.try_held_at = now + kTryHeldEvery;
  return try_held(state, 2 * options_.seats, now);
}

void Worker::set_short_of_memory(bool is_short) {
  if (short_of_memory_.exchange(is_short) == is_short || is_short) return;
  size_t tried = 0;
  {
    auto state = state_.lock();
    tried = try_held(*state, options_.seats, Clock::now());
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

}  // namespace spore::worker

#include "host/run.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "host/state_call.h"

namespace spore::host {

namespace {

using faaslet::Clock;
using faaslet::Faaslet;
using faaslet::Outcome;
using faaslet::Seat;
using faaslet::Wait;

std::chrono::nanoseconds thread_cpu_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

// Counts the guest's CPU time while it runs on this thread.
class CpuTime {
 public:
  explicit CpuTime(HostState& state) : state_(state) { state_.cpu_time_base = thread_cpu_time(); }
  ~CpuTime() {
    const auto now = thread_cpu_time();
    state_.cpu_time_before += now - state_.cpu_time_base;
    state_.cpu_time_base = now;
  }

 private:
  HostState& state_;
};

enum class Woken { kReady, kInterrupted, kDeadline };

// An interrupt sets its flag and signals this thread. All signals are held back from the look at the flag until ppoll()
// lets them in, so none can come unnoticed in between.
Woken wait_here(const Seat& seat, const Wait& wait, std::optional<Clock::time_point> call_deadline) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  const auto woken = [&] {
    while (true) {
      if (seat.interrupted()) return Woken::kInterrupted;
      const auto now = Clock::now();
      if (call_deadline && now >= *call_deadline) return Woken::kDeadline;
      if (wait.deadline && now >= *wait.deadline) return Woken::kReady;

      std::optional<Clock::time_point> until = wait.deadline;
      if (call_deadline && (!until || *call_deadline < *until)) until = call_deadline;
      timespec timeout{};
      if (until) {
        const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(*until - now);
        timeout.tv_sec = static_cast<time_t>(left.count() / 1'000'000'000);
        timeout.tv_nsec = static_cast<long>(left.count() % 1'000'000'000);
      }
      pollfd entry{wait.fd, wait.events, 0};  // a negative descriptor is left out
      if (::ppoll(&entry, 1, until ? &timeout : nullptr, &before) > 0) return Woken::kReady;
    }
  }();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return woken;
}

CallResult interrupted(std::string_view why) {
  CallResult result;
  result.kind = CallResult::Kind::kInterrupted;
  result.trap.kind = wasm::TrapKind::kInterrupted;
  result.trap.message = why;
  return result;
}

CallResult out_of_cpu_time(const HostState& state, faaslet::Trap trap) {
  CallResult result;
  result.kind = CallResult::Kind::kOutOfCpuTime;
  result.trap = std::move(trap);
  result.trap.message =
      "the call used up its " +
      std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(*state.cpu_time_max).count()) +
      " ms of CPU time";
  return result;
}

CallResult trapped(faaslet::Trap trap) {
  CallResult result;
  result.kind = trap.kind == wasm::TrapKind::kInterrupted ? CallResult::Kind::kInterrupted : CallResult::Kind::kTrapped;
  result.trap = std::move(trap);
  return result;
}

CallResult exited(int32_t code) {
  CallResult result;
  result.exit_code = code;
  return result;
}

}  // namespace

std::optional<CallResult> Run::ended(CallResult result) {
  if (result.exit_code != 0 || !state_->push_on_success || state_->written.empty()) return result;
  exited_ = std::move(result);
  push_ = push_written(*state_);
  return pushed();
}

std::optional<CallResult> Run::pushed() {
  parked_ = false;
  const auto fails = [&](const Error& error) {
    CallResult result;
    result.kind = CallResult::Kind::kNotPushed;
    result.error = {error.code, "what the call wrote to state is not pushed: " + error.message};
    return result;
  };
  if (!push_->ended()) {
    wait_ = {.fd = push_->fd(), .events = POLLIN};
    if (wait_.fd < 0) return fails({ErrorCode::kResourceExhausted, "no descriptor is left to wait for the store"});
    parked_ = true;
    return std::nullopt;
  }
  const auto result = push_->result();
  if (!result) return fails(result.error());
  return std::move(exited_);
}

Outcome Run::enter(Seat& seat, bool& out_of_cpu_time) {
  const CpuTime counted(*state_);
  faaslet::CpuLimit limit{.quota = state_->cpu_quota};
  if (state_->cpu_time_max) limit.left = *state_->cpu_time_max - state_->cpu_time_before;
  if (limit.any()) {
    if (const auto limited = seat.limit_cpu(limit); !limited) {
      Outcome outcome;
      outcome.kind = Outcome::Kind::kTrapped;
      outcome.trap = {.kind = wasm::TrapKind::kHostCall, .message = limited.error().message, .stack = {}};
      return outcome;
    }
  }
  Outcome outcome = std::exchange(parked_, false) ? faaslet_->resume(seat) : faaslet_->start(seat, functions_[next_]);
  if (limit.any()) out_of_cpu_time = seat.end_cpu_limit();
  return outcome;
}

std::optional<CallResult> Run::go(Seat& seat) {
  if (push_) return pushed();
  if (state_->cpu_quota) {
    const auto now = Clock::now();
    const auto runs_again = state_->cpu_quota->runs_again(now);
    owes_cpu_time_ = runs_again > now;
    if (owes_cpu_time_) {
      wait_ = {.deadline = runs_again};
      return std::nullopt;
    }
  }
  for (; next_ < functions_.size(); ++next_) {
    bool used_up = false;
    Outcome outcome = enter(seat, used_up);
    if (used_up && outcome.kind == Outcome::Kind::kTrapped && outcome.trap.kind == wasm::TrapKind::kInterrupted)
      return out_of_cpu_time(*state_, std::move(outcome.trap));
    switch (outcome.kind) {
      case Outcome::Kind::kReturned: break;
      case Outcome::Kind::kTrapped: return trapped(std::move(outcome.trap));
      case Outcome::Kind::kExited: {
        CallResult result = exited(outcome.exit_code);
        result.called_exit = true;
        return ended(std::move(result));
      }
      case Outcome::Kind::kParked:
        parked_ = true;
        wait_ = outcome.wait;
        return std::nullopt;
    }
  }
  return ended(exited(entry_->has_exit_code ? static_cast<int32_t>(faaslet_->result(0).low) : 0));
}

CallResult Run::finish(Seat& seat, const RunLimits& limits) {
  while (true) {
    if (parked_ || owes_cpu_time_) {
      switch (wait_here(seat, wait_, limits.deadline)) {
        case Woken::kReady: break;
        case Woken::kInterrupted: return interrupted("interrupted while waiting");
        case Woken::kDeadline: return interrupted("the deadline passed while waiting");
      }
    }
    if (auto ended = go(seat)) return std::move(*ended);
  }
}

CallResult run(Faaslet& faaslet, HostState& state, Seat& seat, const Entry& entry, const RunLimits& limits) {
  return Run(faaslet, state, entry, false).finish(seat, limits);
}

}  // namespace spore::host

#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "host/call_streams.h"
#include "host/streams.h"
#include "host/wasi.h"

namespace spore::host::wasi {

namespace {

using faaslet::Clock;
using Kind = Descriptor::Kind;

constexpr uint32_t kSubscriptionsMax = 4096;

// What one subscription comes to at this moment: an event, or something to wait for.
struct Answer {
  std::optional<Event> event;
  std::optional<Clock::time_point> deadline;
  int fd = -1;
  short events = 0;
};

Event event_of(const Subscription& subscription, Errno error = Errno::kSuccess) {
  Event event;
  event.userdata = subscription.userdata;
  event.type = subscription.tag;
  event.error = static_cast<uint16_t>(error);
  return event;
}

// When a clock subscription is due, on the clock that we wait by; a time too far to be told is the end of time.
std::expected<Clock::time_point, Errno> due_time(const Subscription& subscription, Clock::time_point started) {
  const bool absolute = subscription.clock.flags & kClockAbsolute;
  if (subscription.clock.flags & ~kClockAbsolute) return std::unexpected(Errno::kInval);
  clockid_t clock = CLOCK_MONOTONIC;
  switch (static_cast<ClockId>(subscription.clock.id)) {
    case ClockId::kRealtime: clock = CLOCK_REALTIME; break;
    case ClockId::kMonotonic: break;
    case ClockId::kProcessCpu:
    case ClockId::kThreadCpu: return std::unexpected(Errno::kNotSup);  // it stands still while the guest waits
    default: return std::unexpected(Errno::kInval);
  }
  Clock::time_point from = started;
  uint64_t wait = subscription.clock.timeout;
  if (absolute) {
    from = Clock::now();
    timespec now{};
    if (::clock_gettime(clock, &now) != 0) return std::unexpected(errno_of(errno));
    const uint64_t now_ns = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
    wait -= std::min(wait, now_ns);
  }
  const auto room = static_cast<uint64_t>((Clock::time_point::max() - from).count());
  return wait >= room ? Clock::time_point::max() : from + std::chrono::nanoseconds(static_cast<int64_t>(wait));
}

// Descriptors that are never waited for: buffers, files, directories.
Event event_at_once(const Subscription& subscription, const HostState& state, const Descriptor& descriptor) {
  Event event = event_of(subscription);
  const bool reads = subscription.tag == static_cast<uint8_t>(EventType::kFdRead);
  if (reads && descriptor.kind == Kind::kStdin) {
    event.nbytes = state.input.size() - state.input_offset;
    if (event.nbytes == 0) event.flags = kEventHangup;
  } else if (reads && descriptor.kind == Kind::kState) {
    const uint64_t size = descriptor.replica->size_bytes();
    event.nbytes = size - std::min(size, descriptor.offset);
  } else if (reads && descriptor.kind == Kind::kFile) {
    struct stat info;
    if (::fstat(descriptor.fd.get(), &info) == 0 && info.st_size > 0) {
      const auto size = static_cast<uint64_t>(info.st_size);
      event.nbytes = size - std::min(size, descriptor.offset);
    }
  }
  return event;
}

// The descriptor of the host to wait for; -1 where nothing has to be waited for.
int waiting_fd(const HostState& state, const Descriptor& descriptor) {
  int fd = -1;
  switch (descriptor.kind) {
    case Kind::kStdin: fd = state.input_complete ? -1 : state.streams.in; break;
    case Kind::kStdout: fd = state.streams.out; break;
    case Kind::kStderr: fd = state.streams.err; break;
    case Kind::kFile: return descriptor.seekable ? -1 : descriptor.fd.get();
    case Kind::kSocket: return descriptor.fd.get();
    case Kind::kDirectory:
    case Kind::kState:
    case Kind::kCall: return -1;
  }
  return fd >= 0 && stream_type(fd) != StreamType::kRegularFile ? fd : -1;
}

Answer answer_descriptor(const Subscription& subscription, HostState& state) {
  const auto found = find_unopened(state, subscription.readwrite.fd, rights::kPollFdReadwrite);
  if (!found) return {.event = event_of(subscription, found.error())};
  const bool reads = subscription.tag == static_cast<uint8_t>(EventType::kFdRead);
  if ((*found)->kind == Kind::kCall) {
    const CallReadiness ready = readiness_of_call(state, **found, reads);
    if (ready.wait_fd >= 0) return {.fd = ready.wait_fd, .events = POLLIN};
    Event event = event_of(subscription, ready.error);
    event.nbytes = ready.bytes;
    return {.event = event};
  }
  const int fd = waiting_fd(state, **found);
  if (fd < 0) return {.event = event_at_once(subscription, state, **found)};
  pollfd entry{fd, static_cast<short>(reads ? POLLIN : POLLOUT), 0};
  if (::poll(&entry, 1, 0) <= 0) return {.fd = fd, .events = entry.events};
  Event event = event_of(subscription);
  event.nbytes = 1;  // at least
  if ((*found)->kind == Kind::kSocket) {
    // No hang-up: of one wasi-libc's poll() tells POLLHUP alone, where Linux has POLLIN or POLLOUT with it, and
    // programs wait for those. What there is to read, and then the end or the error, is what they get.
    int waiting = 0;
    if (reads && ::ioctl(fd, FIONREAD, &waiting) == 0) event.nbytes = static_cast<uint64_t>(waiting);
  } else if (entry.revents & (POLLHUP | POLLERR)) {
    event.flags = kEventHangup;
  }
  return {.event = event};
}

Answer answer(const Subscription& subscription, HostState& state, Clock::time_point started) {
  switch (static_cast<EventType>(subscription.tag)) {
    case EventType::kClock: {
      const auto due = due_time(subscription, started);
      if (!due) return {.event = event_of(subscription, due.error())};
      if (*due <= Clock::now()) return {.event = event_of(subscription)};
      return {.deadline = *due};
    }
    case EventType::kFdRead:
    case EventType::kFdWrite: return answer_descriptor(subscription, state);
  }
  return {.event = event_of(subscription, Errno::kInval)};
}

// One descriptor is waited for itself; several through an epoll set, which is ready when any of them is.
class WaitSet {
 public:
  Errno add(int fd, short events) {
    if (fd_ < 0) {
      fd_ = fd;
      events_ = events;
      return Errno::kSuccess;
    }
    if (!set_.valid()) {
      set_.reset(::epoll_create1(EPOLL_CLOEXEC));
      if (!set_.valid()) return errno_of(errno);
      if (const Errno error = add_to_set(fd_, events_); error != Errno::kSuccess) return error;
    }
    return add_to_set(fd, events);
  }
  int fd() const { return set_.valid() ? set_.get() : fd_; }
  short events() const { return set_.valid() ? POLLIN : events_; }
  UniqueFd take_set() { return std::move(set_); }

 private:
  // The same descriptor may be subscribed to twice: the events add up.
  Errno add_to_set(int fd, short events) {
    static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT);
    const auto known = std::find_if(members_.begin(), members_.end(), [&](const auto& m) { return m.first == fd; });
    epoll_event event{};
    event.data.fd = fd;
    if (known != members_.end()) {
      known->second = static_cast<short>(known->second | events);
      event.events = static_cast<uint32_t>(known->second);
      return ::epoll_ctl(set_.get(), EPOLL_CTL_MOD, fd, &event) == 0 ? Errno::kSuccess : errno_of(errno);
    }
    members_.emplace_back(fd, events);
    event.events = static_cast<uint32_t>(events);
    return ::epoll_ctl(set_.get(), EPOLL_CTL_ADD, fd, &event) == 0 ? Errno::kSuccess : errno_of(errno);
  }

  UniqueFd set_;
  std::vector<std::pair<int, short>> members_;
  int fd_ = -1;
  short events_ = 0;
};

Status finish(HostState& state, Errno error) {
  state.pending = {};
  return error;
}

}  // namespace

Status poll_oneoff(HostCall& call, GuestPtr<Subscription> in, GuestPtr<Event> out, uint32_t count,
                   GuestPtr<uint32_t> events_out) {
  HostState& state = state_of(call);
  const GuestMemory memory(call);
  if (count == 0 || count > kSubscriptionsMax) return finish(state, Errno::kInval);
  // Relative times count from the first dispatch, however often the call is dispatched again.
  if (!state.pending.active) {
    state.pending.active = true;
    state.pending.started = Clock::now();
  }
  std::vector<Subscription> subscriptions(count);
  if (!in.copy_in(memory, std::span(subscriptions)) || !out.range(memory, count)) return finish(state, Errno::kFault);

  std::vector<Event> events;
  std::optional<Clock::time_point> deadline;
  WaitSet waits;
  for (const Subscription& subscription : subscriptions) {
    Answer current = answer(subscription, state, state.pending.started);
    if (current.event) {
      events.push_back(*current.event);
    } else if (current.fd >= 0) {
      if (const Errno error = waits.add(current.fd, current.events); error != Errno::kSuccess) {
        return finish(state, error);
      }
    } else if (!deadline || *current.deadline < *deadline) {
      deadline = current.deadline;
    }
  }
  if (!events.empty()) {
    state.pending = {};
    const bool ok = out.copy_out(memory, std::span<const Event>(events)) &&
                    events_out.copy_out(memory, static_cast<uint32_t>(events.size()));
    return ok ? Errno::kSuccess : Errno::kFault;
  }
  faaslet::Wait wait{.deadline = deadline, .fd = waits.fd(), .events = waits.events()};
  state.pending.wait_fd = waits.take_set();
  return call.park(wait);
}

}  // namespace spore::host::wasi

#include <sched.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>

#include "host/wasi.h"

namespace spore::host::wasi {

namespace {

// Fills so many bytes in one dispatch; then the call lets an interrupt in and goes on.
constexpr uint64_t kRandomBytesPerDispatch = 8ull << 20;

Errno sizes_of(HostCall& call, const std::vector<std::string>& texts, GuestPtr<uint32_t> count,
               GuestPtr<uint32_t> bytes) {
  const GuestMemory memory(call);
  uint64_t sum = 0;  // at most kArgumentsBytesMax
  for (const auto& text : texts) sum += text.size() + 1;
  const bool ok =
      count.copy_out(memory, static_cast<uint32_t>(texts.size())) && bytes.copy_out(memory, static_cast<uint32_t>(sum));
  return ok ? Errno::kSuccess : Errno::kFault;
}

// An array of addresses, and the texts they point to, each with a NUL behind it.
Errno texts_to_guest(HostCall& call, const std::vector<std::string>& texts, GuestPtr<uint32_t> pointers,
                     Bytes8 buffer) {
  const GuestMemory memory(call);
  std::vector<uint32_t> addresses;
  std::vector<uint8_t> bytes;
  addresses.reserve(texts.size());
  for (const auto& text : texts) {
    // May wrap only where the copy of all bytes below fails.
    addresses.push_back(buffer.address() + static_cast<uint32_t>(bytes.size()));
    bytes.insert(bytes.end(), text.begin(), text.end());
    bytes.push_back(0);
  }
  const bool ok = pointers.copy_out(memory, std::span<const uint32_t>(addresses)) &&
                  buffer.copy_out(memory, std::span<const uint8_t>(bytes));
  return ok ? Errno::kSuccess : Errno::kFault;
}

std::optional<clockid_t> host_clock(ClockId id) {
  switch (id) {
    case ClockId::kRealtime: return CLOCK_REALTIME;
    case ClockId::kMonotonic: return CLOCK_MONOTONIC;
    // The process is the guest, and it has one thread: that of its seat, as long as it is on it.
    case ClockId::kProcessCpu:
    case ClockId::kThreadCpu: return CLOCK_THREAD_CPUTIME_ID;
  }
  return std::nullopt;
}

uint64_t nanoseconds_of(const timespec& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

Status args_get(HostCall& call, GuestPtr<uint32_t> argv, Bytes8 argv_buf) {
  return texts_to_guest(call, state_of(call).arguments, argv, argv_buf);
}

Status args_sizes_get(HostCall& call, GuestPtr<uint32_t> count, GuestPtr<uint32_t> bytes) {
  return sizes_of(call, state_of(call).arguments, count, bytes);
}

Status environ_get(HostCall& call, GuestPtr<uint32_t> environ, Bytes8 environ_buf) {
  return texts_to_guest(call, state_of(call).environment, environ, environ_buf);
}

Status environ_sizes_get(HostCall& call, GuestPtr<uint32_t> count, GuestPtr<uint32_t> bytes) {
  return sizes_of(call, state_of(call).environment, count, bytes);
}

Status clock_res_get(HostCall& call, ClockId id, GuestPtr<uint64_t> resolution) {
  const auto clock = host_clock(id);
  if (!clock) return Errno::kInval;
  timespec time{};
  if (::clock_getres(*clock, &time) != 0) return errno_of(errno);
  const uint64_t step = std::max(nanoseconds_of(time), state_of(call).clock_step_ns);
  return resolution.copy_out(GuestMemory(call), step) ? Errno::kSuccess : Errno::kFault;
}

Status clock_time_get(HostCall& call, ClockId id, uint64_t precision, GuestPtr<uint64_t> time) {
  const auto clock = host_clock(id);
  if (!clock) return Errno::kInval;
  timespec now{};
  if (::clock_gettime(*clock, &now) != 0) return errno_of(errno);
  uint64_t value = nanoseconds_of(now);
  if (*clock == CLOCK_THREAD_CPUTIME_ID) {
    const HostState& state = state_of(call);
    value = value - static_cast<uint64_t>(state.cpu_time_base.count()) +
            static_cast<uint64_t>(state.cpu_time_before.count());
  }
  value -= value % state_of(call).clock_step_ns;
  return time.copy_out(GuestMemory(call), value) ? Errno::kSuccess : Errno::kFault;
}

Status still_clock_time_get(HostCall& call, ClockId id, uint64_t precision, GuestPtr<uint64_t> time) {
  if (!host_clock(id)) return Errno::kInval;
  const uint64_t since = kStillClockStepNs * ++state_of(call).still_clock_looks;
  return time.copy_out(GuestMemory(call), (id == ClockId::kRealtime ? kStillClockNs : 0) + since) ? Errno::kSuccess
                                                                                                  : Errno::kFault;
}

Status random_get(HostCall& call, Bytes8 buf, uint32_t len) {
  const auto range = buf.range(GuestMemory(call), len);
  if (!range) return Errno::kFault;
  PendingCall& pending = state_of(call).pending;
  auto* to = static_cast<uint8_t*>(range->iov_base);
  uint64_t done = pending.active ? pending.bytes_done : 0;
  const uint64_t end = std::min<uint64_t>(len, done + kRandomBytesPerDispatch);
  while (done < end) {
    const ssize_t got = ::getrandom(to + done, end - done, 0);
    if (got < 0 && errno != EINTR) {
      const Errno error = errno_of(errno);
      pending = {};
      return error;
    }
    if (got > 0) done += static_cast<uint64_t>(got);
  }
  if (done == len) {
    pending = {};
    return Errno::kSuccess;
  }
  pending.active = true;
  pending.bytes_done = done;
  return call.park({.deadline = faaslet::Clock::now()});
}

Reply<void> proc_exit(HostCall& call, int32_t code) { return call.exit(code); }

// A guest has no signals; wasi-libc's raise() does without this.
Status proc_raise(HostCall&, uint32_t) { return Errno::kNoSys; }

Status sched_yield(HostCall&) {
  ::sched_yield();
  return Errno::kSuccess;
}

}  // namespace spore::host::wasi

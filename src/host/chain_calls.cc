#include "host/chain_calls.h"

#include <poll.h>

#include <algorithm>
#include <cstring>

#include "host/child_calls.h"
#include "host/state_access.h"

namespace spore::host::calls {

namespace {

using faaslet::Clock;
using wasi::Errno;

HostState& state_of(HostCall& call) { return call.state<HostState>(); }
ChildCalls* children_of(HostCall& call) { return state_of(call).children.get(); }

int64_t failed(Errno error) { return -static_cast<int64_t>(error); }

int64_t failed(HostCall& call, std::string_view function, const Error& error) {
  state_of(call).append_log(as_bytes(std::string(function) + ": " + error.message + "\n"));
  switch (error.code) {
    case ErrorCode::kNotFound: return failed(Errno::kNoEnt);
    case ErrorCode::kInvalidArgument: return failed(Errno::kInval);
    case ErrorCode::kResourceExhausted: return failed(Errno::kAgain);
    case ErrorCode::kUnavailable: return failed(Errno::kNotSup);
    default: return failed(Errno::kIo);
  }
}

HostResult out_of_bounds(HostCall& call, std::string_view function) {
  return call.trap(wasm::TrapKind::kMemoryOutOfBounds, std::string(function) + ": a pointer is outside memory");
}

// A copy of guest bytes; nothing where they are outside memory.
template <class Container>
std::optional<Container> copy_of(HostCall& call, GuestPtr<uint8_t> from, uint32_t size) {
  const GuestMemory memory(call);
  if (!from.range(memory, size)) return std::nullopt;  // before there is room for it here
  Container bytes(size, typename Container::value_type{});
  if (!from.copy_in(memory, std::span(reinterpret_cast<uint8_t*>(bytes.data()), size))) return std::nullopt;
  return bytes;
}

// How a request comes out of guest memory; where it cannot, `reply` says what the guest gets.
struct Taken {
  std::optional<ChildRequest> request;
  Reply<int64_t> reply = 0;
};

Taken take_request(HostCall& call, std::string_view function, GuestPtr<uint8_t> name, uint32_t name_len,
                   GuestPtr<uint8_t> input, uint32_t input_len) {
  if (!children_of(call)) return {{}, failed(Errno::kNotSup)};
  if (name_len == 0 || name_len > kFunctionNameBytesMax) return {{}, failed(Errno::kInval)};
  if (input_len > state_of(call).limits.input_bytes_max) return {{}, failed(Errno::k2Big)};
  auto text = copy_of<std::string>(call, name, name_len);
  if (!text) return {{}, out_of_bounds(call, function)};
  auto bytes = copy_of<Bytes>(call, input, input_len);
  if (!bytes) return {{}, out_of_bounds(call, function)};
  return {ChildRequest{.function = std::move(*text), .table_index = {}, .input = std::move(*bytes)}};
}

int64_t begin(HostCall& call, std::string_view function, ChildRequest request) {
  const auto handle = children_of(call)->begin(std::move(request));
  return handle ? static_cast<int64_t>(*handle) : failed(call, function, handle.error());
}

// Parks until one of them has ended, or the time is up. Nothing: it is time to look at them.
std::optional<Reply<int64_t>> wait_for(HostCall& call, std::span<const uint32_t> handles, uint32_t timeout_ms) {
  PendingCall& pending = state_of(call).pending;
  const auto now = Clock::now();
  if (!pending.active) {
    pending.active = true;
    pending.started = now;
  }
  std::optional<Clock::time_point> until;
  if (timeout_ms != kNoTimeout) until = pending.started + std::chrono::milliseconds(timeout_ms);
  if (until && now >= *until) {
    pending = {};
    return failed(Errno::kAgain);
  }
  if (!children_of(call)->await(handles)) return std::nullopt;
  return call.park({.deadline = until, .child = true});
}

}  // namespace

Reply<int64_t> call(HostCall& call, GuestPtr<uint8_t> name, uint32_t name_len, GuestPtr<uint8_t> input,
                    uint32_t input_len) {
  Taken taken = take_request(call, "call", name, name_len, input, input_len);
  if (!taken.request) return taken.reply;
  return begin(call, "call", std::move(*taken.request));
}

Reply<int64_t> call_self(HostCall& call, uint32_t table_index, GuestPtr<uint8_t> input, uint32_t input_len) {
  if (!children_of(call)) return failed(Errno::kNotSup);
  if (input_len > state_of(call).limits.input_bytes_max) return failed(Errno::k2Big);
  auto bytes = copy_of<Bytes>(call, input, input_len);
  if (!bytes) return out_of_bounds(call, "call_self");
  return begin(call, "call_self", {.function = {}, .table_index = table_index, .input = std::move(*bytes)});
}

Reply<int64_t> call_detached(HostCall& call, GuestPtr<uint8_t> name, uint32_t name_len, GuestPtr<uint8_t> input,
                             uint32_t input_len, GuestPtr<uint8_t> id) {
  HostState& state = state_of(call);
  PendingCall& pending = state.pending;
  if (!id.range(GuestMemory(call), kCallIdChars)) return out_of_bounds(call, "call_detached");
  if (!pending.operation) {
    Taken taken = take_request(call, "call_detached", name, name_len, input, input_len);
    if (!taken.request) return taken.reply;
    if (!state.state_services) return failed(Errno::kNotSup);
    pending.answer = std::make_shared<Bytes>();
    pending.operation = state.state_services->pool->start(
        state.tenant,
        [children = state.children, answer = pending.answer, once = state.next_once(),
         request = std::move(*taken.request)]() -> Result<int64_t> {
          ASSIGN_OR_RETURN(const std::string text, children->begin_detached(request, once));
          answer->assign(text.begin(), text.end());
          return 0;
        });
  }
  if (!pending.operation->ended()) {
    const int fd = pending.operation->fd();
    if (fd >= 0) return call.park({.fd = fd, .events = POLLIN});
    pending = {};
    return failed(Errno::kNfile);
  }
  const auto result = pending.operation->result();
  const auto answer = std::move(pending.answer);
  pending = {};
  if (!result) return failed(call, "call_detached", result.error());
  CHECK(answer->size() == kCallIdChars, answer->size());
  if (!id.copy_out(GuestMemory(call), std::span<const uint8_t>(*answer))) return out_of_bounds(call, "call_detached");
  return 0;
}

Reply<int64_t> call_await(HostCall& call, uint32_t handle, uint32_t timeout_ms) {
  ChildCalls* children = children_of(call);
  if (!children) return failed(Errno::kNotSup);
  while (true) {
    switch (children->status(handle)) {
      case ChildCalls::Status::kUnknown: state_of(call).pending = {}; return failed(Errno::kBadf);
      case ChildCalls::Status::kEnded: state_of(call).pending = {}; return children->result(handle).code();
      case ChildCalls::Status::kRunning: break;
    }
    if (const auto reply = wait_for(call, {&handle, 1}, timeout_ms)) return *reply;
  }
}

Reply<int64_t> call_await_any(HostCall& call, GuestPtr<uint32_t> handles, uint32_t count, uint32_t timeout_ms) {
  ChildCalls* children = children_of(call);
  if (!children) return failed(Errno::kNotSup);
  if (count == 0 || count > kAwaitedMax) return failed(Errno::kInval);
  std::vector<uint32_t> awaited(count);
  if (!handles.copy_in(GuestMemory(call), awaited)) return out_of_bounds(call, "call_await_any");
  while (true) {
    for (uint32_t i = 0; i < count; ++i) {
      const auto status = children->status(awaited[i]);
      if (status == ChildCalls::Status::kRunning) continue;
      state_of(call).pending = {};
      return status == ChildCalls::Status::kEnded ? static_cast<int64_t>(i) : failed(Errno::kBadf);
    }
    if (const auto reply = wait_for(call, awaited, timeout_ms)) return *reply;
  }
}

namespace {

// The bytes of `what` from `offset` on, as many as there is room for.
Reply<int64_t> read_of(HostCall& call, std::string_view function, uint32_t handle, uint64_t offset,
                       GuestPtr<uint8_t> to, uint32_t size, ByteSpan (*what)(const ChildResult&)) {
  ChildCalls* children = children_of(call);
  if (!children) return failed(Errno::kNotSup);
  const GuestMemory memory(call);
  if (!to.range(memory, size)) return out_of_bounds(call, function);
  switch (children->status(handle)) {
    case ChildCalls::Status::kUnknown: return failed(Errno::kBadf);
    case ChildCalls::Status::kRunning: return failed(Errno::kAgain);
    case ChildCalls::Status::kEnded: break;
  }
  const ByteSpan bytes = what(children->result(handle));
  const size_t begin = static_cast<size_t>(std::min<uint64_t>(offset, bytes.size()));
  const size_t count = std::min<size_t>(size, bytes.size() - begin);
  if (!to.copy_out(memory, bytes.subspan(begin, count))) return out_of_bounds(call, function);
  return static_cast<int64_t>(count);
}

}  // namespace

Reply<int64_t> call_output_size(HostCall& call, uint32_t handle) {
  ChildCalls* children = children_of(call);
  if (!children) return failed(Errno::kNotSup);
  switch (children->status(handle)) {
    case ChildCalls::Status::kUnknown: return failed(Errno::kBadf);
    case ChildCalls::Status::kRunning: return failed(Errno::kAgain);
    case ChildCalls::Status::kEnded: break;
  }
  return static_cast<int64_t>(children->result(handle).output.size());
}

Reply<int64_t> call_output_read(HostCall& call, uint32_t handle, uint64_t offset, GuestPtr<uint8_t> to, uint32_t size) {
  return read_of(call, "call_output_read", handle, offset, to, size,
                 [](const ChildResult& result) { return ByteSpan(result.output); });
}

Reply<int64_t> call_message(HostCall& call, uint32_t handle, GuestPtr<uint8_t> to, uint32_t size) {
  return read_of(call, "call_message", handle, 0, to, size,
                 [](const ChildResult& result) { return as_bytes(result.message); });
}

Reply<int64_t> call_cancel(HostCall& call, uint32_t handle) {
  ChildCalls* children = children_of(call);
  if (!children) return failed(Errno::kNotSup);
  return children->cancel(handle) ? 0 : failed(Errno::kBadf);
}

Reply<int64_t> call_close(HostCall& call, uint32_t handle) {
  ChildCalls* children = children_of(call);
  if (!children) return failed(Errno::kNotSup);
  return children->close(handle) ? 0 : failed(Errno::kBadf);
}

}  // namespace spore::host::calls

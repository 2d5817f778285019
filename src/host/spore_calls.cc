#include "host/spore_calls.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "host/streams.h"

namespace spore::host::calls {

namespace {

HostState& state_of(HostCall& call) { return call.state<HostState>(); }

HostResult out_of_bounds(HostCall& call, std::string_view what, uint32_t address, uint32_t size) {
  return call.trap(wasm::TrapKind::kMemoryOutOfBounds, std::string(what) + ": [" + std::to_string(address) + ", +" +
                                                           std::to_string(size) + ") is outside memory");
}

// Where standard input is a stream: reads it to its end into state.input. kDone when it is all there.
HostResult complete_input(HostCall& call) {
  HostState& state = state_of(call);
  constexpr size_t kChunkBytes = 64 << 10;
  while (!state.input_complete) {
    const size_t before = state.input.size();
    state.input.resize(before + kChunkBytes);
    const iovec chunk{state.input.data() + before, kChunkBytes};
    const IoResult result = read_without_blocking(state.streams.in, {&chunk, 1});
    state.input.resize(before + result.count);
    if (result.error == EAGAIN) return call.park({.fd = state.streams.in, .events = POLLIN});
    if (result.error) {
      return call.trap(wasm::TrapKind::kHostCall, std::string("read standard input: ") + std::strerror(result.error));
    }
    if (state.input.size() > state.limits.input_bytes_max) {
      return call.trap(wasm::TrapKind::kHostCall,
                       "the input is larger than " + std::to_string(state.limits.input_bytes_max) + " bytes");
    }
    if (state.call_streams && !state.call_streams->hold_input(state.input.size())) {
      return call.trap(wasm::TrapKind::kHostCall, "the memory set aside for inputs is all in use");
    }
    if (!state.cover_buffers(0, kChunkBytes)) {
      return call.trap(wasm::TrapKind::kHostCall,
                       "out of memory: there is no room for the input in what the tenant "
                       "may have");
    }
    state.input_complete = result.count == 0;
  }
  return HostResult::kDone;
}

HostResult write_to_stream(HostCall& call, int fd, iovec bytes) {
  PendingCall& pending = state_of(call).pending;
  uint64_t done = pending.active ? std::min<uint64_t>(pending.bytes_done, bytes.iov_len) : 0;
  while (done < bytes.iov_len) {
    const iovec rest{static_cast<uint8_t*>(bytes.iov_base) + done, bytes.iov_len - done};
    const IoResult result = write_without_blocking(fd, {&rest, 1});
    done += result.count;
    if (result.error == EAGAIN) {
      pending.active = true;
      pending.bytes_done = done;
      return call.park({.fd = fd, .events = POLLOUT});
    }
    if (result.error) {
      pending = {};
      return call.trap(wasm::TrapKind::kHostCall, std::string("write the output: ") + std::strerror(result.error));
    }
  }
  pending = {};
  return HostResult::kDone;
}

HostResult bad_page(HostCall& call) {
  return call.trap(wasm::TrapKind::kMemoryOutOfBounds, "a page of the memory to be written is not there");
}

}  // namespace

HostResult write_whole(HostCall& call, Descriptor::Kind to, iovec bytes) {
  HostState& state = state_of(call);
  if (to != Descriptor::Kind::kStdout) {
    if (state.streams.err >= 0) return write_to_stream(call, state.streams.err, bytes);
    const auto room = state.extend_log(bytes.iov_len);
    if (!room.empty() && !faaslet::guarded_copy(room.data(), bytes.iov_base, room.size())) return bad_page(call);
    if (room.size() < bytes.iov_len) state.truncate_log();
    return HostResult::kDone;
  }
  int stream = -1;
  if (!state.direct_output(bytes.iov_len, stream)) {
    return call.trap(wasm::TrapKind::kHostCall, state.output_refusal());
  }
  if (stream >= 0) {
    const HostResult result = write_to_stream(call, stream, bytes);
    if (result == HostResult::kDone) state.output_streamed += bytes.iov_len;
    return result;
  }
  const size_t before = state.output.size();
  const auto room = state.extend_output(bytes.iov_len);
  if (bytes.iov_len > 0 && !faaslet::guarded_copy(room.data(), bytes.iov_base, bytes.iov_len)) {
    state.output.resize(before);
    return bad_page(call);
  }
  return HostResult::kDone;
}

Reply<uint32_t> input_size(HostCall& call) {
  if (const HostResult ready = complete_input(call); ready != HostResult::kDone) return ready;
  return static_cast<uint32_t>(std::min<uint64_t>(state_of(call).input.size(), UINT32_MAX));
}

Reply<uint32_t> input_read(HostCall& call, uint32_t offset, GuestPtr<uint8_t> to, uint32_t size) {
  const GuestMemory memory(call);
  if (!to.range(memory, size)) return out_of_bounds(call, "input_read", to.address(), size);
  if (const HostResult ready = complete_input(call); ready != HostResult::kDone) return ready;
  const Bytes& input = state_of(call).input;
  const size_t begin = std::min<size_t>(offset, input.size());
  const size_t count = std::min<size_t>(size, input.size() - begin);
  if (!to.copy_out(memory, std::span(input).subspan(begin, count))) {
    return out_of_bounds(call, "input_read", to.address(), size);
  }
  return static_cast<uint32_t>(count);
}

Reply<uint32_t> output_write(HostCall& call, GuestPtr<uint8_t> from, uint32_t size) {
  const auto range = from.range(GuestMemory(call), size);
  if (!range) return out_of_bounds(call, "output_write", from.address(), size);
  if (const HostResult result = write_whole(call, Descriptor::Kind::kStdout, *range); result != HostResult::kDone) {
    return result;
  }
  return size;
}

}  // namespace spore::host::calls

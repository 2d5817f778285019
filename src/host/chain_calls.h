// Spore's functions for calling other functions, import module "spore" (docs/chaining.md). A handle is a number from 1
// on, of this call alone.
//
// Each returns a number that is not negative, or minus one of WASI's error numbers:
//
//   EINVAL   a name that cannot be; no such entry in the table, or of another signature; no or too many handles
//   ENOENT   the tenant has no such function, or it has no such version
//   EAGAIN   a limit is reached (depth, children, calls and bytes of the whole tree, the host's queue): later perhaps;
//            the time to wait is up and the child still runs; output or message of a child that still runs
//   E2BIG    the input is larger than this host takes
//   EBADF    no such handle
//   ENOTSUP  whoever runs this function runs no others
//
// A child that did not end by itself gives, from call_await():
//
//   ETIMEDOUT  its time was up                     EOVERFLOW  its output was larger than it may be
//   ECANCELED  it was cancelled                    EBUSY      there was no room for it on the host
//   ECHILD     it trapped                          EIO        the host could not run it
//
// What an error says in words goes to the call's log, and for a child is its message. A pointer outside memory traps.
#pragma once

#include "host/binding.h"
#include "host/host_state.h"

namespace spore::host::calls {

constexpr uint32_t kFunctionNameBytesMax = 128;  // "name@version"
constexpr uint32_t kNoTimeout = UINT32_MAX;      // until the call's own deadline
constexpr uint32_t kAwaitedMax = 65'536;         // handles of one call_await_any
constexpr uint32_t kCallIdChars = 32;            // of the text of a call's id

Reply<int64_t> call(HostCall&, GuestPtr<uint8_t> name, uint32_t name_len, GuestPtr<uint8_t> input, uint32_t input_len);
Reply<int64_t> call_self(HostCall&, uint32_t table_index, GuestPtr<uint8_t> input, uint32_t input_len);
Reply<int64_t> call_detached(HostCall&, GuestPtr<uint8_t> name, uint32_t name_len, GuestPtr<uint8_t> input,
                             uint32_t input_len, GuestPtr<uint8_t> id);
Reply<int64_t> call_await(HostCall&, uint32_t handle, uint32_t timeout_ms);
Reply<int64_t> call_await_any(HostCall&, GuestPtr<uint32_t> handles, uint32_t count, uint32_t timeout_ms);
Reply<int64_t> call_output_size(HostCall&, uint32_t handle);
Reply<int64_t> call_output_read(HostCall&, uint32_t handle, uint64_t offset, GuestPtr<uint8_t> to, uint32_t size);
Reply<int64_t> call_message(HostCall&, uint32_t handle, GuestPtr<uint8_t> to, uint32_t size);
Reply<int64_t> call_cancel(HostCall&, uint32_t handle);
Reply<int64_t> call_close(HostCall&, uint32_t handle);

}  // namespace spore::host::calls

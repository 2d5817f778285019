// Spore's own functions on state, import module "spore". A value is named by a key in the guest's memory.
//
// Each returns a number that is not negative, or minus one of WASI's error numbers:
//
//   EINVAL    a key of no or more than 512 bytes, with a NUL, not UTF-8; a size or range that cannot be; unknown flags
//   ENOENT    no such value
//   ENOMEM    no room: in the function's address space, for a replica on this host, or in the queue for the store
//   ENOSPC    the store is full
//   EFBIG     behind the end of the value
//   EAGAIN    push_if: the value is not at that version
//   ESTALE    the lock was lost to somebody else; what was pushed under it is refused
//   ETIMEDOUT, EHOSTUNREACH   the store did not answer in time, or cannot be reached
//   EDEADLK   the lock would wait for itself: this call or one that waits for it holds it, or it was lost
//   ENOTSUP   the host has no state, or its kernel cannot map it
//
// What an error says in words goes to the call's log. A pointer outside memory traps.
#pragma once

#include "host/binding.h"
#include "host/host_state.h"

namespace spore::host::calls {

using Key = GuestPtr<uint8_t>;

struct GuestVersion {  // as in state::Version
  uint64_t epoch = 0;
  uint64_t number = 0;
};

constexpr uint32_t kMapReadOnly = 1;
constexpr uint32_t kLockWrite = 1;
constexpr uint32_t kLockGlobal = 2;

Reply<int64_t> state_map(HostCall&, Key key, uint32_t key_len, uint64_t size, uint32_t flags);
Reply<int64_t> state_unmap(HostCall&, Key key, uint32_t key_len);
Reply<int64_t> state_read(HostCall&, Key key, uint32_t key_len, uint64_t offset, GuestPtr<uint8_t> to, uint32_t size);
Reply<int64_t> state_write(HostCall&, Key key, uint32_t key_len, uint64_t offset, GuestPtr<uint8_t> from,
                           uint32_t size);
Reply<int64_t> state_append(HostCall&, Key key, uint32_t key_len, GuestPtr<uint8_t> from, uint32_t size);
Reply<int64_t> state_size(HostCall&, Key key, uint32_t key_len);
Reply<int64_t> state_resize(HostCall&, Key key, uint32_t key_len, uint64_t size);
Reply<int64_t> state_delete(HostCall&, Key key, uint32_t key_len);
Reply<int64_t> state_list(HostCall&, GuestPtr<uint8_t> prefix, uint32_t prefix_len, GuestPtr<uint8_t> after,
                          uint32_t after_len, GuestPtr<uint8_t> to, uint32_t size);
Reply<int64_t> state_push(HostCall&, Key key, uint32_t key_len, uint64_t offset, uint64_t size);
Reply<int64_t> state_push_if(HostCall&, Key key, uint32_t key_len, GuestPtr<GuestVersion> version);
Reply<int64_t> state_pull(HostCall&, Key key, uint32_t key_len, uint64_t offset, uint64_t size);
Reply<int64_t> state_merge(HostCall&, Key key, uint32_t key_len, uint32_t op, uint32_t element);
Reply<int64_t> state_version(HostCall&, Key key, uint32_t key_len, GuestPtr<GuestVersion> version);

// 0, or 1 where the last holder died with it.
Reply<int64_t> state_lock(HostCall&, Key key, uint32_t key_len, uint32_t flags, uint32_t timeout_ms);
Reply<int64_t> state_unlock(HostCall&, Key key, uint32_t key_len, uint32_t flags);

}  // namespace spore::host::calls

// Faasm's names for what Spore offers, import module "env": functions that were written for Faasm run as they are
// (docs/faasm.md). The names in C, with "__faasm_" in front, and the parameters are those of faasm/host_interface.h.
//
// Texts end with a NUL. A call's id is its handle. What goes wrong ends the call with a trap that says what, as these
// functions have no way to tell; but a child that fails only gives a code that is not 0, and its message to the log.
#pragma once

#include "host/binding.h"
#include "host/host_state.h"

namespace spore::host::faasm {

using Data = GuestPtr<uint8_t>;
using Key = GuestPtr<uint8_t>;

constexpr uint32_t kChildFailed = 1;  // what awaiting gives where it did not end by itself

// As much of the input as fits; how many bytes. size 0: how many there are.
Reply<uint32_t> read_input(HostCall&, Data to, uint32_t size);
// Takes the place of all output before.
Reply<void> write_output(HostCall&, Data from, uint32_t size);

Reply<uint32_t> chain_name(HostCall&, GuestPtr<uint8_t> name, Data input, uint32_t size);
Reply<uint32_t> chain_ptr(HostCall&, uint32_t table_index, Data input, uint32_t size);
Reply<uint32_t> await_call(HostCall&, uint32_t id);
// The output in memory that the module's exported malloc() gives, with a NUL behind it: its address and its size.
Reply<uint32_t> await_call_output(HostCall&, uint32_t id, GuestPtr<uint32_t> output, GuestPtr<uint32_t> size);

// Into a buffer that has room for all of it; the value's size. size 0: only that, 0 where there is no value.
Reply<uint32_t> read_state(HostCall&, Key key, Data to, uint32_t size);
// Mapped, made of zeros where there is none; its address.
Reply<uint32_t> read_state_ptr(HostCall&, Key key, uint32_t total);
Reply<void> read_state_offset(HostCall&, Key key, uint32_t total, uint32_t offset, Data to, uint32_t size);
Reply<uint32_t> read_state_offset_ptr(HostCall&, Key key, uint32_t total, uint32_t offset, uint32_t size);
// The value is these bytes and no others afterwards.
Reply<void> write_state(HostCall&, Key key, Data from, uint32_t size);
Reply<void> write_state_offset(HostCall&, Key key, uint32_t total, uint32_t offset, Data from, uint32_t size);
Reply<void> push_state(HostCall&, Key key);
Reply<void> push_state_partial(HostCall&, Key key);
Reply<void> pull_state(HostCall&, Key key, uint32_t total);  // total 0: whatever size it has

// A list of elements beside the value: the value of key "KEY/appended", each with its size in front, 4 bytes.
Reply<void> append_state(HostCall&, Key key, Data from, uint32_t size);
// The first `count` of them, one behind the other.
Reply<void> read_appended_state(HostCall&, Key key, Data to, uint32_t size, uint32_t count);
Reply<void> clear_appended_state(HostCall&, Key key);

// What is written to mapped state is known without them; they only check what they are given.
Reply<void> flag_state_dirty(HostCall&, Key key, uint32_t total);
Reply<void> flag_state_offset_dirty(HostCall&, Key key, uint32_t total, uint32_t offset, uint32_t size);

// Among the calls of this host; `global`: for writing, among those of all hosts. They wait as long as the call may.
Reply<void> lock_state_read(HostCall&, Key key);
Reply<void> unlock_state_read(HostCall&, Key key);
Reply<void> lock_state_write(HostCall&, Key key);
Reply<void> unlock_state_write(HostCall&, Key key);
Reply<void> lock_state_global(HostCall&, Key key);
Reply<void> unlock_state_global(HostCall&, Key key);

}  // namespace spore::host::faasm

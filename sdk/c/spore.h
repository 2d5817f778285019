// Spore's functions for programs written in C: the input of a call, and its output.
//
//   #include <spore.h>
//
//   SPORE_FUNCTION {
//     uint32_t size = spore_input_size();
//     ...
//     spore_output_write(text, length);
//     return 0;  // the exit code: 0 is success
//   }
//
// Build (sdk/c/README.md has the details):
//
//   clang-19 --target=wasm32-wasi -mexec-model=reactor -O2 -s -I sdk/c function.c -o function.wasm
//
// A program with a main() needs none of this: its standard input is the call's input, its standard output the call's
// output, its standard error the call's log. A function may use those too (spore_output_write and standard output are
// one stream of bytes), but must flush stdout before it returns, as nothing does it afterwards.
#ifndef SPORE_H
#define SPORE_H

#include <stdint.h>

#if !defined(__wasm__)
#error "spore.h is for functions that run in Spore: compile with --target=wasm32-wasi"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define SPORE_IMPORT(name) __attribute__((import_module("spore"), import_name(#name)))

// Bytes of the input.
SPORE_IMPORT(input_size) uint32_t spore_input_size(void);

// Copies at most `size_bytes` bytes of the input, from `offset` on, to `to`; returns how many. 0: `offset` is at or
// past the end. Any part may be read any number of times.
SPORE_IMPORT(input_read) uint32_t spore_input_read(uint32_t offset, void* to, uint32_t size_bytes);

// Appends to the output; returns size_bytes. A call whose output passes the function's limit ends there, as failed.
SPORE_IMPORT(output_write) uint32_t spore_output_write(const void* from, uint32_t size_bytes);

// ---- calls of other functions of the same tenant (docs/chaining.md) ----
//
// A call that is begun runs beside this one, and is named by a handle; what still runs when this one ends is cancelled.
// Every function here returns a number that is not negative, or minus an error number of <errno.h>: -EINVAL (a name
// that cannot be, or what the table does not have), -ENOENT (no such function or version), -EAGAIN (a limit is reached;
// or it still runs), -E2BIG (the input), -EBADF (no such handle), -ENOTSUP (not offered here). The call's log says
// more.
//
//   const char name[] = "resize";
//   const int64_t call = spore_call(name, sizeof(name) - 1, picture, picture_bytes);
//   ...                                                                  // does something else meanwhile
//   if (call < 0 || spore_call_await(call, SPORE_AWAIT_FOREVER) != 0) return 1;
//   const int64_t size = spore_call_output_size(call);
//   spore_call_output_read(call, 0, to, size);
//   spore_call_close(call);

// Begins a call of the function "name" or "name@version"; its handle, from 1 on.
SPORE_IMPORT(call)
int64_t spore_call(const char* name, uint32_t name_bytes, const void* input, uint32_t input_bytes);
// The same of this module itself, in its image as it was before this call, entered at that function of its table. Use
// spore_call_self().
SPORE_IMPORT(call_self) int64_t spore_call_self_(uint32_t table_index, const void* input, uint32_t input_bytes);
// Begins a durable call, which nobody awaits and which outlives this one: its id, 32 characters, goes to `id`.
#define SPORE_CALL_ID_BYTES 32
SPORE_IMPORT(call_detached)
int64_t spore_call_detached(const char* name, uint32_t name_bytes, const void* input, uint32_t input_bytes, char* id);

// Waits for its end: 0, or its exit code. -EAGAIN: the time is up, and it still runs. -ECHILD: it trapped. -ETIMEDOUT:
// its time was up. -EOVERFLOW: its output was larger than it may be. -ECANCELED, -EBUSY (no room for it), -EIO.
#define SPORE_AWAIT_FOREVER UINT32_MAX  // as long as this call may run
SPORE_IMPORT(call_await) int64_t spore_call_await(uint32_t handle, uint32_t timeout_ms);
// Waits until one of them has ended: its position among the handles.
SPORE_IMPORT(call_await_any)
int64_t spore_call_await_any(const uint32_t* handles, uint32_t count, uint32_t timeout_ms);

// Of one that has ended, whatever its exit code. Reading copies at most `size_bytes` bytes; how many, 0 at the end.
SPORE_IMPORT(call_output_size) int64_t spore_call_output_size(uint32_t handle);
SPORE_IMPORT(call_output_read)
int64_t spore_call_output_read(uint32_t handle, uint64_t offset, void* to, uint32_t size_bytes);
// What went wrong, as text without a NUL: how many bytes, at most `size_bytes`. 0: nothing.
SPORE_IMPORT(call_message) int64_t spore_call_message(uint32_t handle, char* to, uint32_t size_bytes);

// Ends it, with all that it has called.
SPORE_IMPORT(call_cancel) int64_t spore_call_cancel(uint32_t handle);
// Gives back handle and output; cancels it where it has not ended.
SPORE_IMPORT(call_close) int64_t spore_call_close(uint32_t handle);

// spore_call_self_() of a function of this program, which gets `input` as its input and whose result is the exit code.
static inline int64_t spore_call_self(int (*function)(void), const void* input, uint32_t input_bytes) {
  return spore_call_self_((uint32_t)(uintptr_t)function, input, input_bytes);
}

// ---- state: byte arrays that outlive calls, shared by the functions of a tenant (docs/state.md) ----
//
// A key is 1 to 512 bytes of UTF-8. Every function here returns a number that is not negative, or minus an error number
// of <errno.h>: -EINVAL, -ENOENT (no such value), -ENOMEM (no room on this host), -ENOSPC (the store is full), -EFBIG
// (behind the end), -EAGAIN, -ESTALE, -ETIMEDOUT, -EHOSTUNREACH, -ENOTSUP. The call's log says more.

// The value in memory, shared with everybody on this host who maps it: its address. Makes one of `size_bytes` zeros
// where there is none; with size 0, as large as it is. It stays until the call ends. Use spore_state_map().
#define SPORE_STATE_READ_ONLY 1u
SPORE_IMPORT(state_map)
int64_t spore_state_map_(const char* key, uint32_t key_bytes, uint64_t size_bytes, uint32_t flags);
SPORE_IMPORT(state_unmap) int64_t spore_state_unmap(const char* key, uint32_t key_bytes);

// Copies out of and into the value, without mapping it. How many bytes; reading gives 0 at the end.
SPORE_IMPORT(state_read)
int64_t spore_state_read(const char* key, uint32_t key_bytes, uint64_t offset, void* to, uint32_t size_bytes);
SPORE_IMPORT(state_write)
int64_t spore_state_write(const char* key, uint32_t key_bytes, uint64_t offset, const void* from, uint32_t size_bytes);
// Behind the value's end, in the global tier at once; makes the value where there is none. The offset of these bytes.
SPORE_IMPORT(state_append)
int64_t spore_state_append(const char* key, uint32_t key_bytes, const void* from, uint32_t size_bytes);

SPORE_IMPORT(state_size) int64_t spore_state_size(const char* key, uint32_t key_bytes);
SPORE_IMPORT(state_resize) int64_t spore_state_resize(const char* key, uint32_t key_bytes, uint64_t size_bytes);
SPORE_IMPORT(state_delete) int64_t spore_state_delete(const char* key, uint32_t key_bytes);
// Keys that begin with the prefix and come after `after`, each with a NUL behind it; how many bytes, 0: no more. Room
// for at least 513.
SPORE_IMPORT(state_list)
int64_t spore_state_list(const char* prefix, uint32_t prefix_bytes, const char* after, uint32_t after_bytes, char* to,
                         uint32_t size_bytes);

// Publishes what has changed on this host in the pages of 4 KiB that the range touches; size 0: to the end.
SPORE_IMPORT(state_push)
int64_t spore_state_push(const char* key, uint32_t key_bytes, uint64_t offset, uint64_t size_bytes);
// Takes over the newest version and fetches that range of it; what is not pushed yet stays.
SPORE_IMPORT(state_pull)
int64_t spore_state_pull(const char* key, uint32_t key_bytes, uint64_t offset, uint64_t size_bytes);

// From now on, on this host, pushes of the value merge what was changed into what is there: they add the difference, or
// take the smaller or larger of both. Everything written before must be pushed, else -ESTALE.
enum { SPORE_OVERWRITE, SPORE_SUM, SPORE_MIN, SPORE_MAX };
enum { SPORE_I32, SPORE_I64, SPORE_F32, SPORE_F64 };
SPORE_IMPORT(state_merge)
int64_t spore_state_merge(const char* key, uint32_t key_bytes, uint32_t op, uint32_t element);

// Compare and set: publishes only if the global tier still has that version, else -EAGAIN.
struct spore_state_version {
  uint64_t epoch;
  uint64_t number;
};
SPORE_IMPORT(state_version)
int64_t spore_state_version(const char* key, uint32_t key_bytes, struct spore_state_version* version);
SPORE_IMPORT(state_push_if)
int64_t spore_state_push_if(const char* key, uint32_t key_bytes, const struct spore_state_version* version);

// Locks by key, among the calls of this host or (SPORE_LOCK_GLOBAL) of all hosts; there need be no value. Many calls
// may hold one for reading, or one for writing. Waits for it; what is still held when the call ends is given back. 0,
// or 1 where the last holder for writing died with it and the value may be half changed. -ETIMEDOUT; -EDEADLK: this
// call, or one that waits for it, holds it already. Pushes made under a global lock that was lost meanwhile are
// refused: -ESTALE.
#define SPORE_LOCK_WRITE 1u
#define SPORE_LOCK_GLOBAL 2u
SPORE_IMPORT(state_lock)
int64_t spore_state_lock(const char* key, uint32_t key_bytes, uint32_t flags, uint32_t timeout_ms);
// With the flags it was taken with. -ENOENT: not held.
SPORE_IMPORT(state_unlock) int64_t spore_state_unlock(const char* key, uint32_t key_bytes, uint32_t flags);

// spore_state_map_() for a key that ends with a NUL; a null pointer and *error where it fails (error may be null).
static inline void* spore_state_map(const char* key, uint64_t size_bytes, uint32_t flags, int* error) {
  const int64_t mapped = spore_state_map_(key, (uint32_t)__builtin_strlen(key), size_bytes, flags);
  if (error) *error = mapped < 0 ? (int)-mapped : 0;
  return mapped < 0 ? (void*)0 : (void*)(uintptr_t)mapped;
}

#ifdef __cplusplus
}
#define SPORE_EXPORT(name) extern "C" __attribute__((export_name(name), visibility("default")))
#else
#define SPORE_EXPORT(name) __attribute__((export_name(name), visibility("default")))
#endif

// The function that a call runs. Returns the exit code.
#define SPORE_FUNCTION SPORE_EXPORT("spore_call") int spore_function(void)

// Runs once, when the function is published; every call begins with what it leaves in memory. It has arguments and
// environment, but no input, no output and no files. docs/snapshots.md says what it may do.
//
//   static struct index *index;
//   SPORE_INIT { index = build_index(); }
#define SPORE_INIT SPORE_EXPORT("spore_init") void spore_init(void)

// Run last before that memory is captured, and first in every call: to drop what need not be in it, and to draw anew
// what must not be the same in two calls, such as the seed of random numbers.
#define SPORE_BEFORE_SNAPSHOT SPORE_EXPORT("spore_before_snapshot") void spore_before_snapshot(void)
#define SPORE_AFTER_RESTORE SPORE_EXPORT("spore_after_restore") void spore_after_restore(void)

#endif

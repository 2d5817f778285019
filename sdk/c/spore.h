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

// Copies at most `size_bytes` bytes of the input, from `offset` on, to `to`; returns how many. 0: `offset` is at or past
// the end. Any part may be read any number of times.
SPORE_IMPORT(input_read) uint32_t spore_input_read(uint32_t offset, void *to, uint32_t size_bytes);

// Appends to the output; returns size_bytes. A call whose output passes the function's limit ends there, as failed.
SPORE_IMPORT(output_write) uint32_t spore_output_write(const void *from, uint32_t size_bytes);

#ifdef __cplusplus
}
#define SPORE_EXPORT(name) extern "C" __attribute__((export_name(name), visibility("default")))
#else
#define SPORE_EXPORT(name) __attribute__((export_name(name), visibility("default")))
#endif

// The function that a call runs. Returns the exit code.
#define SPORE_FUNCTION SPORE_EXPORT("spore_call") int spore_call(void)

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

// Spore for AssemblyScript: the input and output of a call, calls of other functions, and state.
//
//   import { input, write, State } from "./spore";
//
//   export function spore_call(): i32 {
//     write(input());
//     new State("visits").append(String.UTF8.encode("."));
//     return 0;
//   }
//
// One file, to lie beside the program or to be named by its path. State is byte arrays that outlive calls, shared by the
// functions of a tenant (docs/state-objects.md). Functions of one host that map a value share its bytes in memory; other
// hosts see them after a push there and a pull of their own.
//
// AssemblyScript has no exceptions, so functions give a number: 0 or more where they worked, and minus an error
// number where they failed (the constants E... below, of WASI). The call's log says more.

// @ts-ignore: decorators are AssemblyScript's
@external("spore", "input_size")
declare function input_size(): u32;
// @ts-ignore
@external("spore", "input_read")
declare function input_read(offset: u32, to: usize, size_bytes: u32): u32;
// @ts-ignore
@external("spore", "output_write")
declare function output_write(from: usize, size_bytes: u32): u32;
// @ts-ignore
@external("spore", "call")
declare function call_(name: usize, name_bytes: u32, input: usize, input_bytes: u32): i64;
// @ts-ignore
@external("spore", "call_self")
declare function call_self(table_index: u32, input: usize, input_bytes: u32): i64;
// @ts-ignore
@external("spore", "call_detached")
declare function call_detached(name: usize, name_bytes: u32, input: usize, input_bytes: u32, id: usize): i64;
// @ts-ignore
@external("spore", "call_await")
declare function call_await(handle: u32, timeout_ms: u32): i64;
// @ts-ignore
@external("spore", "call_await_any")
declare function call_await_any(handles: usize, count: u32, timeout_ms: u32): i64;
// @ts-ignore
@external("spore", "call_output_size")
declare function call_output_size(handle: u32): i64;
// @ts-ignore
@external("spore", "call_output_read")
declare function call_output_read(handle: u32, offset: u64, to: usize, size_bytes: u32): i64;
// @ts-ignore
@external("spore", "call_message")
declare function call_message(handle: u32, to: usize, size_bytes: u32): i64;
// @ts-ignore
@external("spore", "call_cancel")
declare function call_cancel(handle: u32): i64;
// @ts-ignore
@external("spore", "call_close")
declare function call_close(handle: u32): i64;
// @ts-ignore
@external("spore", "state_map")
declare function state_map(key: usize, key_bytes: u32, size_bytes: u64, flags: u32): i64;
// @ts-ignore
@external("spore", "state_unmap")
declare function state_unmap(key: usize, key_bytes: u32): i64;
// @ts-ignore
@external("spore", "state_read")
declare function state_read(key: usize, key_bytes: u32, offset: u64, to: usize, size_bytes: u32): i64;
// @ts-ignore
@external("spore", "state_write")
declare function state_write(key: usize, key_bytes: u32, offset: u64, from: usize, size_bytes: u32): i64;
// @ts-ignore
@external("spore", "state_append")
declare function state_append(key: usize, key_bytes: u32, from: usize, size_bytes: u32): i64;
// @ts-ignore
@external("spore", "state_size")
declare function state_size(key: usize, key_bytes: u32): i64;
// @ts-ignore
@external("spore", "state_resize")
declare function state_resize(key: usize, key_bytes: u32, size_bytes: u64): i64;
// @ts-ignore
@external("spore", "state_delete")
declare function state_delete(key: usize, key_bytes: u32): i64;
// @ts-ignore
@external("spore", "state_list")
declare function state_list(
  prefix: usize, prefix_bytes: u32, after: usize, after_bytes: u32, to: usize, size_bytes: u32): i64;
// @ts-ignore
@external("spore", "state_push")
declare function state_push(key: usize, key_bytes: u32, offset: u64, size_bytes: u64): i64;
// @ts-ignore
@external("spore", "state_pull")
declare function state_pull(key: usize, key_bytes: u32, offset: u64, size_bytes: u64): i64;
// @ts-ignore
@external("spore", "state_merge")
declare function state_merge(key: usize, key_bytes: u32, op: u32, element: u32): i64;
// @ts-ignore
@external("spore", "state_version")
declare function state_version(key: usize, key_bytes: u32, version: usize): i64;
// @ts-ignore
@external("spore", "state_push_if")
declare function state_push_if(key: usize, key_bytes: u32, version: usize): i64;
// @ts-ignore
@external("spore", "state_lock")
declare function state_lock(key: usize, key_bytes: u32, flags: u32, timeout_ms: u32): i64;
// @ts-ignore
@external("spore", "state_unlock")
declare function state_unlock(key: usize, key_bytes: u32, flags: u32): i64;

// The whole input of the call.
export function input(): Uint8Array {
  const bytes = new Uint8Array(input_size());
  input_read(0, bytes.dataStart, bytes.byteLength);
  return bytes;
}

// Appends to the output of the call.
export function write(bytes: Uint8Array): void {
  output_write(bytes.dataStart, bytes.byteLength);
}

// Appends a text, as UTF-8, to the output of the call.
export function print(text: string): void {
  const bytes = String.UTF8.encode(text);
  output_write(changetype<usize>(bytes), bytes.byteLength);
}

export const E2BIG: i64 = 1;          // the input of a call
export const EAGAIN: i64 = 6;         // not at the version that was expected; a limit is reached; the call still runs
export const EBADF: i64 = 8;          // there is no such call
export const EBUSY: i64 = 10;         // there was no room for the call
export const ECANCELED: i64 = 11;
export const ECHILD: i64 = 12;        // the call trapped
export const EDEADLK: i64 = 16;       // this call, or one that waits for it, holds the lock
export const EFBIG: i64 = 22;         // behind the end
export const EHOSTUNREACH: i64 = 23;  // the store cannot be reached
export const EINVAL: i64 = 28;
export const EIO: i64 = 29;           // the host could not run the call
export const ENOENT: i64 = 44;        // no such value, no such function
export const ENOMEM: i64 = 48;        // no room on this host
export const ENOSPC: i64 = 51;        // the store is full
export const ENOTSUP: i64 = 58;       // there is no state here, or functions cannot be called
export const EOVERFLOW: i64 = 61;     // the call's output was larger than it may be
export const ESTALE: i64 = 72;        // something is not pushed, or a lock is lost
export const ETIMEDOUT: i64 = 73;

export const FOREVER: u32 = u32.MAX_VALUE;  // as long as this call may run

// A call of another function of the same tenant, or of a function of this module (docs/chaining.md). It runs beside
// this one until close(), or until this one ends: it is cancelled then where it has not ended.
//
//   const call = Call.begin("thumbnail", input());
//   if (call.wait() != 0) return 1;  // call.message() says why
//   write(call.output());
//   call.close();
export class Call {
  // `handle`: or minus the error number why it was not begun, which every function then gives.
  constructor(public handle: i64) {}

  // Of the function "name" or "name@version".
  static begin(name: string, input: Uint8Array): Call {
    const text = String.UTF8.encode(name);
    return new Call(call_(changetype<usize>(text), text.byteLength, input.dataStart, input.byteLength));
  }
  // Of a function of this module, in its image as it was before this call; what it returns is the exit code.
  static self(entry: () => i32, input: Uint8Array): Call {
    if (input.length < 0) entry();  // never: a module that calls nothing through its table would be given none
    return new Call(call_self(entry.index, input.dataStart, input.byteLength));
  }
  // A durable call, which nobody awaits and which outlives this one: its id, or "".
  static detached(name: string, input: Uint8Array): string {
    const text = String.UTF8.encode(name);
    const id = new ArrayBuffer(32);
    const begun = call_detached(
      changetype<usize>(text), text.byteLength, input.dataStart, input.byteLength, changetype<usize>(id));
    return begun < 0 ? "" : String.UTF8.decode(id);
  }

  // Waits for its end: 0, or its exit code. EAGAIN: the time is up, and it still runs.
  wait(timeout_ms: u32 = FOREVER): i64 {
    return this.handle < 0 ? this.handle : call_await(<u32>this.handle, timeout_ms);
  }
  // Of one that has ended, else empty.
  output(): Uint8Array {
    const size = this.handle < 0 ? 0 : call_output_size(<u32>this.handle);
    const bytes = new Uint8Array(size < 0 ? 0 : <i32>size);
    if (size > 0) call_output_read(<u32>this.handle, 0, bytes.dataStart, bytes.byteLength);
    return bytes;
  }
  // What went wrong, in words; at most 4 KiB of it.
  message(): string {
    const text = new ArrayBuffer(4096);
    const got = this.handle < 0 ? 0 : call_message(<u32>this.handle, changetype<usize>(text), text.byteLength);
    return got <= 0 ? "" : String.UTF8.decodeUnsafe(changetype<usize>(text), <usize>got);
  }
  // Ends it, with all that it has called.
  cancel(): i64 {
    return this.handle < 0 ? this.handle : call_cancel(<u32>this.handle);
  }
  close(): i64 {
    const closed = this.handle < 0 ? this.handle : call_close(<u32>this.handle);
    this.handle = -EBADF;
    return closed;
  }
}

// The position of the first of them that has ended.
export function awaitAny(calls: Call[], timeout_ms: u32 = FOREVER): i64 {
  const handles = new Uint32Array(calls.length);
  for (let i = 0; i < calls.length; i++) handles[i] = <u32>calls[i].handle;
  return call_await_any(handles.dataStart, handles.length, timeout_ms);
}

// Calls the function once with each input, all at the same time; the calls in that order, all ended. Where a limit of
// the host is reached, waits for one that runs before it begins the next.
export function map(name: string, inputs: Uint8Array[]): Call[] {
  const calls: Call[] = [];
  let waited = 0;
  for (let i = 0; i < inputs.length; i++) {
    let call = Call.begin(name, inputs[i]);
    while (call.handle == -EAGAIN && waited < calls.length) {
      calls[waited++].wait();
      call = Call.begin(name, inputs[i]);
    }
    calls.push(call);
  }
  for (let i = 0; i < calls.length; i++) calls[i].wait();
  return calls;
}

// Of a value: it changes with every push. All zero: there is none.
export class Version {
  epoch: u64 = 0;
  number: u64 = 0;
}

export enum Merge { Overwrite, Sum, Min, Max }
export enum Element { I32, I64, F32, F64 }

// Of locks: none of them is for reading, with others that read, among the calls of this host.
export const LOCK_WRITE: u32 = 1;
export const LOCK_GLOBAL: u32 = 2;

const READ_ONLY: u32 = 1;

// A state value, by its key (1 to 512 bytes as UTF-8). There need be none of that key yet.
export class State {
  private key: ArrayBuffer;

  constructor(key: string) {
    this.key = String.UTF8.encode(key);
  }

  // The value in memory, shared with everybody on this host who maps it, until the call ends or unmap(): its address, for
  // load<T>() and store<T>(). It is outside of the collector's heap. Makes one of that many zeros where there is none;
  // EINVAL where it has another size. 0: as large as it is.
  map(size_bytes: u64 = 0): i64 {
    return state_map(this.at, this.length, size_bytes, 0);
  }
  // The same where writing to it ends the call.
  mapReadOnly(): i64 {
    return state_map(this.at, this.length, 0, READ_ONLY);
  }
  unmap(): i64 {
    return state_unmap(this.at, this.length);
  }

  // Copies without mapping: how many bytes, 0 at the end.
  read(offset: u64, to: Uint8Array): i64 {
    return state_read(this.at, this.length, offset, to.dataStart, to.byteLength);
  }
  // All of it, or EFBIG.
  write(offset: u64, from: Uint8Array): i64 {
    return state_write(this.at, this.length, offset, from.dataStart, from.byteLength);
  }
  // Puts the bytes behind the value's end, for everybody at once; makes it where there is none. Their offset.
  append(from: ArrayBuffer): i64 {
    return state_append(this.at, this.length, changetype<usize>(from), from.byteLength);
  }

  size(): i64 {
    return state_size(this.at, this.length);
  }
  resize(size_bytes: u64): i64 {
    return state_resize(this.at, this.length, size_bytes);
  }
  // Removes the value, everywhere and at once.
  remove(): i64 {
    return state_delete(this.at, this.length);
  }

  // Publishes what has changed on this host in the pages of 4 KiB that the range touches; size 0: to the end.
  push(offset: u64 = 0, size_bytes: u64 = 0): i64 {
    return state_push(this.at, this.length, offset, size_bytes);
  }
  // Takes over the newest version, and fetches that range of it. What is not pushed yet stays.
  pull(offset: u64 = 0, size_bytes: u64 = 0): i64 {
    return state_pull(this.at, this.length, offset, size_bytes);
  }

  // From now on, on this host, pushes of the value merge. What was written before must be pushed, else ESTALE.
  merge(op: Merge, element: Element): i64 {
    return state_merge(this.at, this.length, <u32>op, <u32>element);
  }
  // That this host has.
  version(to: Version): i64 {
    return state_version(this.at, this.length, changetype<usize>(to));
  }
  // Publishes if nobody has pushed since that version, else EAGAIN.
  pushIf(version: Version): i64 {
    return state_push_if(this.at, this.length, changetype<usize>(version));
  }

  // Waits for the lock of this key; there need be no value. It is held until unlock() with the same flags, or the call's
  // end. 1: the last who held it for writing died with it, and what it guards may be half changed. ETIMEDOUT, EDEADLK.
  // Pushes made under a global lock that was lost meanwhile are refused: ESTALE.
  lock(flags: u32, timeout_ms: u32): i64 {
    return state_lock(this.at, this.length, flags, timeout_ms);
  }
  unlock(flags: u32): i64 {
    return state_unlock(this.at, this.length, flags);
  }

  private get at(): usize {
    return changetype<usize>(this.key);
  }
  private get length(): u32 {
    return this.key.byteLength;
  }
}

// The tenant's keys that begin with the prefix, sorted, into `to`; 0, or an error.
export function keys(prefix: string, to: string[]): i64 {
  const begins = String.UTF8.encode(prefix);
  const page = new ArrayBuffer(16 << 10);
  let after = new ArrayBuffer(0);
  let bytes: i64 = 0;
  do {
    bytes = state_list(
      changetype<usize>(begins), begins.byteLength, changetype<usize>(after), after.byteLength,
      changetype<usize>(page), page.byteLength);
    for (let at: i32 = 0; at < <i32>bytes;) {
      let end = at;
      while (load<u8>(changetype<usize>(page) + end) != 0) ++end;
      after = page.slice(at, end);
      to.push(String.UTF8.decode(after));
      at = end + 1;
    }
  } while (bytes > 0);
  return bytes;
}

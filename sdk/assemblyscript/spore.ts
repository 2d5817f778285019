// Spore for AssemblyScript: the input and output of a call, and state.
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
// AssemblyScript has no exceptions, so functions on state give a number: 0 or more where they worked, and minus an error
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

export const EAGAIN: i64 = 6;         // not at the version that was expected
export const EDEADLK: i64 = 16;       // this call, or one that waits for it, holds the lock
export const EFBIG: i64 = 22;         // behind the end
export const EHOSTUNREACH: i64 = 23;  // the store cannot be reached
export const EINVAL: i64 = 28;
export const ENOENT: i64 = 44;        // no such value
export const ENOMEM: i64 = 48;        // no room on this host
export const ENOSPC: i64 = 51;        // the store is full
export const ENOTSUP: i64 = 58;       // there is no state here
export const ESTALE: i64 = 72;        // something is not pushed, or a lock is lost
export const ETIMEDOUT: i64 = 73;

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

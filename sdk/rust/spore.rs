//! Spore for Rust: the input and output of a call, calls of other functions, and state.
//!
//!     mod spore;  // this file, beside the program
//!
//!     fn main() {
//!         let mut text = spore::input();
//!         text.make_ascii_uppercase();
//!         spore::output(&text);
//!         let visits = spore::State::new("visits");
//!         visits.append(b".").unwrap();
//!         let call = spore::Call::new("thumbnail", &text).unwrap();
//!         spore::output(&call.result().unwrap());
//!     }
//!
//! One file without dependencies, for rustc 1.63 and later and the target wasm32-wasi (later called wasm32-wasip1);
//! sdk/rust/README.md says how to build. A program's standard input and output are the call's input and output too.
//!
//! State: byte arrays that outlive calls, shared by the functions of a tenant (docs/state-objects.md). Functions of one host
//! that map a value share its bytes in memory; other hosts see them after a push there and a pull of their own.
#![allow(dead_code)]

use std::fmt;

mod raw {
    #[link(wasm_import_module = "spore")]
    extern "C" {
        pub fn input_size() -> u32;
        pub fn input_read(offset: u32, to: *mut u8, size_bytes: u32) -> u32;
        pub fn output_write(from: *const u8, size_bytes: u32) -> u32;
        pub fn call(name: *const u8, name_bytes: u32, input: *const u8, input_bytes: u32) -> i64;
        pub fn call_self(table_index: u32, input: *const u8, input_bytes: u32) -> i64;
        pub fn call_detached(
            name: *const u8, name_bytes: u32, input: *const u8, input_bytes: u32, id: *mut u8,
        ) -> i64;
        pub fn call_await(handle: u32, timeout_ms: u32) -> i64;
        pub fn call_await_any(handles: *const u32, count: u32, timeout_ms: u32) -> i64;
        pub fn call_output_size(handle: u32) -> i64;
        pub fn call_output_read(handle: u32, offset: u64, to: *mut u8, size_bytes: u32) -> i64;
        pub fn call_message(handle: u32, to: *mut u8, size_bytes: u32) -> i64;
        pub fn call_cancel(handle: u32) -> i64;
        pub fn call_close(handle: u32) -> i64;
        pub fn state_map(key: *const u8, key_bytes: u32, size_bytes: u64, flags: u32) -> i64;
        pub fn state_unmap(key: *const u8, key_bytes: u32) -> i64;
        pub fn state_read(key: *const u8, key_bytes: u32, offset: u64, to: *mut u8, size_bytes: u32) -> i64;
        pub fn state_write(key: *const u8, key_bytes: u32, offset: u64, from: *const u8, size_bytes: u32) -> i64;
        pub fn state_append(key: *const u8, key_bytes: u32, from: *const u8, size_bytes: u32) -> i64;
        pub fn state_size(key: *const u8, key_bytes: u32) -> i64;
        pub fn state_resize(key: *const u8, key_bytes: u32, size_bytes: u64) -> i64;
        pub fn state_delete(key: *const u8, key_bytes: u32) -> i64;
        pub fn state_list(
            prefix: *const u8, prefix_bytes: u32, after: *const u8, after_bytes: u32, to: *mut u8, size_bytes: u32,
        ) -> i64;
        pub fn state_push(key: *const u8, key_bytes: u32, offset: u64, size_bytes: u64) -> i64;
        pub fn state_pull(key: *const u8, key_bytes: u32, offset: u64, size_bytes: u64) -> i64;
        pub fn state_merge(key: *const u8, key_bytes: u32, op: u32, element: u32) -> i64;
        pub fn state_version(key: *const u8, key_bytes: u32, version: *mut super::Version) -> i64;
        pub fn state_lock(key: *const u8, key_bytes: u32, flags: u32, timeout_ms: u32) -> i64;
        pub fn state_unlock(key: *const u8, key_bytes: u32, flags: u32) -> i64;
        pub fn state_push_if(key: *const u8, key_bytes: u32, version: *const super::Version) -> i64;
    }
}

/// The whole input of the call.
pub fn input() -> Vec<u8> {
    let mut bytes = vec![0; unsafe { raw::input_size() } as usize];
    let read = input_read(0, &mut bytes);
    bytes.truncate(read);
    bytes
}

/// Copies at most as many bytes of the input as `to` takes, from `offset` on; how many. 0: at the end.
pub fn input_read(offset: u32, to: &mut [u8]) -> usize {
    unsafe { raw::input_read(offset, to.as_mut_ptr(), to.len() as u32) as usize }
}

/// Appends to the output of the call, behind what is flushed of standard output.
pub fn output(bytes: &[u8]) {
    unsafe { raw::output_write(bytes.as_ptr(), bytes.len() as u32) };
}

/// An error number, as WASI counts them. The call's log says more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error(pub i32);

impl Error {
    pub const TOO_BIG: Error = Error(1); // the input of a call
    pub const AGAIN: Error = Error(6); // not at the version that was expected; a limit is reached; the call still runs
    pub const BAD_HANDLE: Error = Error(8); // there is no such call
    pub const BUSY: Error = Error(10); // there was no room for the call
    pub const CANCELED: Error = Error(11);
    pub const TRAPPED: Error = Error(12); // the call
    pub const DEADLOCK: Error = Error(16); // this call, or one that waits for it, holds the lock
    pub const FILE_TOO_BIG: Error = Error(22); // behind the end
    pub const HOST_UNREACHABLE: Error = Error(23); // the store cannot be reached
    pub const INVALID: Error = Error(28);
    pub const IO: Error = Error(29); // the host could not run the call
    pub const NO_ENTRY: Error = Error(44); // no such value, no such function
    pub const NO_MEMORY: Error = Error(48); // no room on this host
    pub const NO_SPACE: Error = Error(51); // the store is full
    pub const NOT_SUPPORTED: Error = Error(58); // there is no state here, or functions cannot be called
    pub const OVERFLOW: Error = Error(61); // the call's output was larger than it may be
    pub const STALE: Error = Error(72); // something is not pushed, or a lock is lost
    pub const TIMED_OUT: Error = Error(73);
}

impl fmt::Debug for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Error::TOO_BIG => "TOO_BIG",
            Error::BAD_HANDLE => "BAD_HANDLE",
            Error::BUSY => "BUSY",
            Error::CANCELED => "CANCELED",
            Error::TRAPPED => "TRAPPED",
            Error::IO => "IO",
            Error::OVERFLOW => "OVERFLOW",
            Error::AGAIN => "AGAIN",
            Error::DEADLOCK => "DEADLOCK",
            Error::FILE_TOO_BIG => "FILE_TOO_BIG",
            Error::HOST_UNREACHABLE => "HOST_UNREACHABLE",
            Error::INVALID => "INVALID",
            Error::NO_ENTRY => "NO_ENTRY",
            Error::NO_MEMORY => "NO_MEMORY",
            Error::NO_SPACE => "NO_SPACE",
            Error::NOT_SUPPORTED => "NOT_SUPPORTED",
            Error::STALE => "STALE",
            Error::TIMED_OUT => "TIMED_OUT",
            Error(number) => return write!(to, "errno {}", number),
        };
        to.write_str(name)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "spore: {:?}", self)
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

fn checked(result: i64) -> Result<u64> {
    if result < 0 {
        Err(Error(-result as i32))
    } else {
        Ok(result as u64)
    }
}

/// A call of another function of the same tenant, or of a function of this program (docs/chaining.md). It runs beside
/// this one until it is dropped, which cancels it where it has not ended.
#[derive(Debug)]
pub struct Call {
    handle: u32,
}

/// Of `wait`: as long as this call may run.
pub const FOREVER: u32 = u32::MAX;

impl Call {
    /// Begins a call of the function "name" or "name@version". NO_ENTRY: there is none; AGAIN: a limit is reached.
    pub fn new(function: &str, input: &[u8]) -> Result<Call> {
        Call::begun(unsafe { raw::call(function.as_ptr(), function.len() as u32, input.as_ptr(), input.len() as u32) })
    }
    /// Of this program, in its image as it was before this call; what `function` returns is the exit code.
    pub fn of_this(function: extern "C" fn() -> i32, input: &[u8]) -> Result<Call> {
        Call::begun(unsafe { raw::call_self(function as usize as u32, input.as_ptr(), input.len() as u32) })
    }
    fn begun(result: i64) -> Result<Call> {
        checked(result).map(|handle| Call { handle: handle as u32 })
    }

    /// Waits for its end: 0, or its exit code. AGAIN: it still runs; TRAPPED, TIMED_OUT, OVERFLOW, CANCELED, BUSY, IO.
    pub fn wait(&self, timeout_ms: u32) -> Result<i32> {
        checked(unsafe { raw::call_await(self.handle, timeout_ms) }).map(|code| code as u32 as i32)
    }
    /// Of one that has ended, whatever its exit code.
    pub fn output(&self) -> Result<Vec<u8>> {
        let size = checked(unsafe { raw::call_output_size(self.handle) })? as usize;
        let mut bytes = vec![0; size];
        let got = unsafe { raw::call_output_read(self.handle, 0, bytes.as_mut_ptr(), size as u32) };
        bytes.truncate(checked(got)? as usize);
        Ok(bytes)
    }
    /// What went wrong, in words; at most 4 KiB of it.
    pub fn message(&self) -> String {
        let mut text = vec![0; 4096];
        let got = unsafe { raw::call_message(self.handle, text.as_mut_ptr(), text.len() as u32) };
        text.truncate(checked(got).unwrap_or(0) as usize);
        String::from_utf8_lossy(&text).into_owned()
    }
    /// Waits for its end: its output, or what went wrong.
    pub fn result(&self) -> std::result::Result<Vec<u8>, String> {
        match self.wait(FOREVER) {
            Ok(0) => self.output().map_err(|error| error.to_string()),
            Ok(_) => Err(self.message()),
            Err(error) => Err(format!("{:?}: {}", error, self.message())),
        }
    }
    /// Ends it, with all that it has called.
    pub fn cancel(&self) {
        unsafe { raw::call_cancel(self.handle) };
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        unsafe { raw::call_close(self.handle) };
    }
}

/// The position of one that has ended, the first of them; AGAIN where none has in that time.
pub fn await_any(calls: &[Call], timeout_ms: u32) -> Result<usize> {
    let handles: Vec<u32> = calls.iter().map(|call| call.handle).collect();
    let first = unsafe { raw::call_await_any(handles.as_ptr(), handles.len() as u32, timeout_ms) };
    checked(first).map(|position| position as usize)
}

/// Calls the function once with each input, all at the same time; what they gave, in that order. Where a limit of the
/// host is reached, waits for one that runs before it begins the next.
pub fn map<T: AsRef<[u8]>>(function: &str, inputs: &[T]) -> Vec<std::result::Result<Vec<u8>, String>> {
    let mut calls: Vec<Result<Call>> = Vec::new();
    let mut first_running = 0;
    for input in inputs {
        let mut call = Call::new(function, input.as_ref());
        while matches!(call, Err(Error::AGAIN)) && first_running < calls.len() {
            if let Ok(running) = &calls[first_running] {
                let _ = running.wait(FOREVER);
            }
            first_running += 1;
            call = Call::new(function, input.as_ref());
        }
        calls.push(call);
    }
    calls.into_iter().map(|call| call.map_err(|error| error.to_string())?.result()).collect()
}

/// Begins a durable call, which nobody awaits and which outlives this one: its id.
pub fn call_detached(function: &str, input: &[u8]) -> Result<String> {
    let mut id = [0; 32];
    let result = unsafe {
        raw::call_detached(
            function.as_ptr(), function.len() as u32, input.as_ptr(), input.len() as u32, id.as_mut_ptr(),
        )
    };
    checked(result).map(|_| String::from_utf8_lossy(&id).into_owned())
}

/// Of a value: it changes with every push. All zero: there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    pub epoch: u64,
    pub number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    Overwrite,
    Sum,
    Min,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    I32,
    I64,
    F32,
    F64,
}

/// What a lock excludes: others that write, or all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Read,
    Write,
}

/// Among which calls a lock excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Host,
    Global,
}

/// A lock that is held: given back when this is dropped, at the latest when the call ends.
#[derive(Debug)]
pub struct Lock {
    state: State,
    flags: u32,
    /// The last who held it for writing died with it: what it guards may be half changed.
    pub poisoned: bool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        unsafe { raw::state_unlock(self.state.at(), self.state.length(), self.flags) };
    }
}

/// A value in memory, until the call ends or it is unmapped. Others may change the bytes at any time, so they are read and
/// written by copies and raw pointers; references to them are for those who know that nobody does.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    at: *mut u8,
    size: usize,
}

impl Mapped {
    pub fn len(&self) -> usize {
        self.size
    }
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }
    pub fn as_ptr(&self) -> *mut u8 {
        self.at
    }
    /// Copies bytes out. Panics where the range is not inside the value.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        assert!(offset <= self.size && to.len() <= self.size - offset, "reads behind the end of state");
        unsafe { std::ptr::copy(self.at.add(offset), to.as_mut_ptr(), to.len()) }
    }
    /// Copies bytes in. Panics where the range is not inside the value; ends the call where it is mapped read-only.
    pub fn write(&self, offset: usize, from: &[u8]) {
        assert!(offset <= self.size && from.len() <= self.size - offset, "writes behind the end of state");
        unsafe { std::ptr::copy(from.as_ptr(), self.at.add(offset), from.len()) }
    }
    /// As a slice of elements, as many as fit.
    ///
    /// # Safety
    /// Any bytes must be a T, and nobody may write to the value meanwhile, here or in another function of this host.
    pub unsafe fn slice<T: Copy>(&self) -> &[T] {
        std::slice::from_raw_parts(self.at as *const T, self.size / std::mem::size_of::<T>())
    }
    /// # Safety
    /// As for slice(); nobody may read it either, nor may there be another slice of it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut<T: Copy>(&self) -> &mut [T] {
        std::slice::from_raw_parts_mut(self.at as *mut T, self.size / std::mem::size_of::<T>())
    }
}

/// A state value, by its key (1 to 512 bytes). There need be none of that key yet.
#[derive(Clone, Debug)]
pub struct State {
    key: String,
}

const READ_ONLY: u32 = 1;
const ROUNDS_MAX: u32 = 16;

impl State {
    pub fn new(key: impl Into<String>) -> State {
        State { key: key.into() }
    }
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value in memory, shared with everybody on this host who maps it. Makes one of that many zeros where there is
    /// none; INVALID where it has another size.
    pub fn map(&self, size_bytes: u64) -> Result<Mapped> {
        if size_bytes == 0 {
            return Err(Error::INVALID);
        }
        self.map_as(size_bytes, 0)
    }
    /// The same, as large as it is; NO_ENTRY where there is none.
    pub fn map_all(&self) -> Result<Mapped> {
        self.map_as(0, 0)
    }
    /// The same where writing to it ends the call.
    pub fn map_read_only(&self) -> Result<Mapped> {
        self.map_as(0, READ_ONLY)
    }
    pub fn unmap(&self) -> Result<()> {
        checked(unsafe { raw::state_unmap(self.at(), self.length()) }).map(drop)
    }

    /// Copies without mapping; fewer bytes than `to` takes at the value's end.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<usize> {
        let got = unsafe { raw::state_read(self.at(), self.length(), offset, to.as_mut_ptr(), to.len() as u32) };
        checked(got).map(|got| got as usize)
    }
    /// All of it, or FILE_TOO_BIG.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        checked(unsafe { raw::state_write(self.at(), self.length(), offset, from.as_ptr(), from.len() as u32) }).map(drop)
    }
    /// Puts the bytes behind the value's end, for everybody at once; makes it where there is none. Their offset.
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        checked(unsafe { raw::state_append(self.at(), self.length(), bytes.as_ptr(), bytes.len() as u32) })
    }

    pub fn size(&self) -> Result<u64> {
        checked(unsafe { raw::state_size(self.at(), self.length()) })
    }
    pub fn resize(&self, size_bytes: u64) -> Result<()> {
        checked(unsafe { raw::state_resize(self.at(), self.length(), size_bytes) }).map(drop)
    }
    /// Removes the value, everywhere and at once.
    pub fn delete(&self) -> Result<()> {
        checked(unsafe { raw::state_delete(self.at(), self.length()) }).map(drop)
    }

    /// Publishes what has changed on this host.
    pub fn push(&self) -> Result<()> {
        self.push_range(0, 0)
    }
    /// The same in the pages of 4 KiB that the range touches; size 0: to the end.
    pub fn push_range(&self, offset: u64, size_bytes: u64) -> Result<()> {
        checked(unsafe { raw::state_push(self.at(), self.length(), offset, size_bytes) }).map(drop)
    }
    /// Takes over the newest version, and fetches it. What is not pushed yet stays.
    pub fn pull(&self) -> Result<()> {
        self.pull_range(0, 0)
    }
    /// Takes over the newest version, and fetches that range of it; size 0: to the end.
    pub fn pull_range(&self, offset: u64, size_bytes: u64) -> Result<()> {
        checked(unsafe { raw::state_pull(self.at(), self.length(), offset, size_bytes) }).map(drop)
    }

    /// From now on, on this host, pushes of the value merge. What was written before must be pushed, else STALE.
    pub fn merge(&self, op: Merge, element: Element) -> Result<()> {
        checked(unsafe { raw::state_merge(self.at(), self.length(), op as u32, element as u32) }).map(drop)
    }
    /// That this host has.
    pub fn version(&self) -> Result<Version> {
        let mut version = Version::default();
        checked(unsafe { raw::state_version(self.at(), self.length(), &mut version) }).map(|_| version)
    }
    /// Publishes if nobody has pushed since that version, else AGAIN.
    pub fn push_if(&self, version: Version) -> Result<()> {
        checked(unsafe { raw::state_push_if(self.at(), self.length(), &version) }).map(drop)
    }

    /// Waits for the lock of this key; there need be no value. TIMED_OUT; DEADLOCK. Pushes made under a global lock that was
    /// lost meanwhile are refused: STALE.
    pub fn lock(&self, mode: Mode, scope: Scope, timeout_ms: u32) -> Result<Lock> {
        let flags = (mode == Mode::Write) as u32 | ((scope == Scope::Global) as u32) << 1;
        let locked = checked(unsafe { raw::state_lock(self.at(), self.length(), flags, timeout_ms) })?;
        Ok(Lock { state: self.clone(), flags, poisoned: locked == 1 })
    }

    fn at(&self) -> *const u8 {
        self.key.as_ptr()
    }
    fn length(&self) -> u32 {
        self.key.len() as u32
    }
    fn map_as(&self, size_bytes: u64, flags: u32) -> Result<Mapped> {
        let mut round = 0;
        loop {
            let size = if size_bytes == 0 { self.size()? } else { size_bytes };
            if size == 0 {
                return Err(Error::INVALID);
            }
            match checked(unsafe { raw::state_map(self.at(), self.length(), size, flags) }) {
                Ok(at) => return Ok(Mapped { at: at as usize as *mut u8, size: size as usize }),
                // Somebody may have changed its size since it was asked for.
                Err(Error::INVALID) if size_bytes == 0 && round < ROUNDS_MAX => round += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// The tenant's keys that begin with the prefix, sorted.
pub fn keys(prefix: &str) -> Result<Vec<String>> {
    let mut keys: Vec<String> = Vec::new();
    let mut page = vec![0; 16 << 10];
    loop {
        let after = keys.last().cloned().unwrap_or_default();
        let bytes = checked(unsafe {
            raw::state_list(
                prefix.as_ptr(), prefix.len() as u32, after.as_ptr(), after.len() as u32, page.as_mut_ptr(),
                page.len() as u32,
            )
        })? as usize;
        if bytes == 0 {
            return Ok(keys);
        }
        for key in page[..bytes - 1].split(|&byte| byte == 0) {
            keys.push(String::from_utf8_lossy(key).into_owned());
        }
    }
}

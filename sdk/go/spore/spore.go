//go:build wasip1

// Package spore is Spore for Go: the input and output of a call, calls of other functions, and state.
//
//	text := spore.Input()
//	spore.Output(bytes.ToUpper(text))
//	visits := spore.State("visits")
//	_, err := visits.Append([]byte("."))
//	picture, err := spore.Run("thumbnail", text)
//
// A program's standard input and output are the call's input and output too. State is byte arrays that outlive calls,
// shared by the functions of a tenant (docs/state-objects.md). Functions of one host that map a value share its bytes in
// memory; other hosts see them after a push there and a pull of their own.
//
// Errors are syscall.Errno. Of calls: ENOENT (no such function), EINVAL, E2BIG (the input), EAGAIN (a limit is reached,
// or the call still runs), EBADF, ENOTSUP; of a call that failed ECHILD (it trapped), ETIMEDOUT, EOVERFLOW (its output),
// ECANCELED, EBUSY (no room for it), EIO. Of state: ENOENT (no such value), EINVAL, EAGAIN (not at that version), EFBIG
// (behind the end), ENOMEM (no room on this host), ENOSPC (the store is full), ESTALE, ETIMEDOUT, EHOSTUNREACH, ENOTSUP
// (there is no state here). The call's log says more. Needs GOOS=wasip1 and Go 1.21 or later.
package spore

import (
	"bytes"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

//go:wasmimport spore input_size
func inputSize() uint32

//go:wasmimport spore input_read
func inputRead(offset uint32, to unsafe.Pointer, sizeBytes uint32) uint32

//go:wasmimport spore output_write
func outputWrite(from unsafe.Pointer, sizeBytes uint32) uint32

//go:wasmimport spore call
func call(name unsafe.Pointer, nameBytes uint32, input unsafe.Pointer, inputBytes uint32) int64

//go:wasmimport spore call_detached
func callDetached(name unsafe.Pointer, nameBytes uint32, input unsafe.Pointer, inputBytes uint32,
	id unsafe.Pointer) int64

//go:wasmimport spore call_await
func callAwait(handle uint32, timeoutMs uint32) int64

//go:wasmimport spore call_await_any
func callAwaitAny(handles unsafe.Pointer, count uint32, timeoutMs uint32) int64

//go:wasmimport spore call_output_size
func callOutputSize(handle uint32) int64

//go:wasmimport spore call_output_read
func callOutputRead(handle uint32, offset uint64, to unsafe.Pointer, sizeBytes uint32) int64

//go:wasmimport spore call_message
func callMessage(handle uint32, to unsafe.Pointer, sizeBytes uint32) int64

//go:wasmimport spore call_cancel
func callCancel(handle uint32) int64

//go:wasmimport spore call_close
func callClose(handle uint32) int64

//go:wasmimport spore state_map
func stateMap(key unsafe.Pointer, keyBytes uint32, sizeBytes uint64, flags uint32) int64

//go:wasmimport spore state_unmap
func stateUnmap(key unsafe.Pointer, keyBytes uint32) int64

//go:wasmimport spore state_read
func stateRead(key unsafe.Pointer, keyBytes uint32, offset uint64, to unsafe.Pointer, sizeBytes uint32) int64

//go:wasmimport spore state_write
func stateWrite(key unsafe.Pointer, keyBytes uint32, offset uint64, from unsafe.Pointer, sizeBytes uint32) int64

//go:wasmimport spore state_append
func stateAppend(key unsafe.Pointer, keyBytes uint32, from unsafe.Pointer, sizeBytes uint32) int64

//go:wasmimport spore state_size
func stateSize(key unsafe.Pointer, keyBytes uint32) int64

//go:wasmimport spore state_resize
func stateResize(key unsafe.Pointer, keyBytes uint32, sizeBytes uint64) int64

//go:wasmimport spore state_delete
func stateDelete(key unsafe.Pointer, keyBytes uint32) int64

//go:wasmimport spore state_list
func stateList(prefix unsafe.Pointer, prefixBytes uint32, after unsafe.Pointer, afterBytes uint32, to unsafe.Pointer,
	sizeBytes uint32) int64

//go:wasmimport spore state_push
func statePush(key unsafe.Pointer, keyBytes uint32, offset uint64, sizeBytes uint64) int64

//go:wasmimport spore state_pull
func statePull(key unsafe.Pointer, keyBytes uint32, offset uint64, sizeBytes uint64) int64

//go:wasmimport spore state_merge
func stateMerge(key unsafe.Pointer, keyBytes uint32, op uint32, element uint32) int64

//go:wasmimport spore state_version
func stateVersion(key unsafe.Pointer, keyBytes uint32, version unsafe.Pointer) int64

//go:wasmimport spore state_push_if
func statePushIf(key unsafe.Pointer, keyBytes uint32, version unsafe.Pointer) int64

//go:wasmimport spore state_lock
func stateLock(key unsafe.Pointer, keyBytes uint32, flags uint32, timeoutMs uint32) int64

//go:wasmimport spore state_unlock
func stateUnlock(key unsafe.Pointer, keyBytes uint32, flags uint32) int64

// Input is the whole input of the call.
func Input() []byte {
	to := make([]byte, inputSize())
	return to[:ReadInput(0, to)]
}

// ReadInput copies input from an offset on, as much as to takes; how many bytes, 0 at the end.
func ReadInput(offset uint32, to []byte) int {
	return int(inputRead(offset, unsafe.Pointer(unsafe.SliceData(to)), uint32(len(to))))
}

// Output appends to the output of the call.
func Output(from []byte) {
	outputWrite(unsafe.Pointer(unsafe.SliceData(from)), uint32(len(from)))
	runtime.KeepAlive(from)
}

// Call is a call of another function of the same tenant. It runs beside this one until Close, or until this one ends:
// it is cancelled then where it has not ended.
type Call struct{ handle uint32 }

// Forever is as long as this call may run.
const Forever = ^uint32(0)

const messageBytesMax = 4096

// Failed is the error of a call that ended with an exit code that is not 0.
type Failed struct {
	ExitCode int32
	Message  string
}

func (f *Failed) Error() string { return f.Message }

// Begin begins a call of the function "name" or "name@version".
func Begin(function string, input []byte) (*Call, error) {
	name, nameBytes := State(function).raw()
	handle, err := checked(call(name, nameBytes, unsafe.Pointer(unsafe.SliceData(input)), uint32(len(input))))
	runtime.KeepAlive(input)
	if err != nil {
		return nil, err
	}
	return &Call{uint32(handle)}, nil
}

// Detach begins a durable call, which nobody awaits and which outlives this one: its id.
func Detach(function string, input []byte) (string, error) {
	var id [32]byte
	name, nameBytes := State(function).raw()
	err := failed(callDetached(name, nameBytes, unsafe.Pointer(unsafe.SliceData(input)), uint32(len(input)),
		unsafe.Pointer(&id)))
	runtime.KeepAlive(input)
	if err != nil {
		return "", err
	}
	return string(id[:]), nil
}

// Wait waits for its end: its exit code. EAGAIN: the time is up, and it still runs.
func (c *Call) Wait(timeoutMs uint32) (int32, error) {
	code, err := checked(callAwait(c.handle, timeoutMs))
	return int32(code), err
}

// Output is that of one that has ended, whatever its exit code.
func (c *Call) Output() ([]byte, error) {
	size, err := checked(callOutputSize(c.handle))
	if err != nil {
		return nil, err
	}
	to := make([]byte, size)
	got, err := checked(callOutputRead(c.handle, 0, unsafe.Pointer(unsafe.SliceData(to)), uint32(len(to))))
	return to[:got], err
}

// Message is what went wrong, in words; at most 4 KiB of it.
func (c *Call) Message() string {
	text := make([]byte, messageBytesMax)
	got, _ := checked(callMessage(c.handle, unsafe.Pointer(unsafe.SliceData(text)), uint32(len(text))))
	return string(text[:got])
}

// Result waits for its end: its output. An exit code that is not 0 is a *Failed.
func (c *Call) Result() ([]byte, error) {
	code, err := c.Wait(Forever)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, c.Message())
	}
	if code != 0 {
		return nil, &Failed{code, c.Message()}
	}
	return c.Output()
}

// Cancel ends it, with all that it has called.
func (c *Call) Cancel() { callCancel(c.handle) }

// Close gives its output back.
func (c *Call) Close() { callClose(c.handle) }

// AwaitAny waits until one of them has ended: its position.
func AwaitAny(calls []*Call, timeoutMs uint32) (int, error) {
	handles := make([]uint32, len(calls))
	for i, c := range calls {
		handles[i] = c.handle
	}
	first, err := checked(callAwaitAny(unsafe.Pointer(unsafe.SliceData(handles)), uint32(len(handles)), timeoutMs))
	runtime.KeepAlive(handles)
	return int(first), err
}

// Run calls the function and waits for its output.
func Run(function string, input []byte) ([]byte, error) {
	c, err := Begin(function, input)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Result()
}

// Map calls the function once with each input, all at the same time: their outputs in that order, or the first error.
// Where a limit of the host is reached, it waits for one that runs before it begins the next.
func Map(function string, inputs [][]byte) ([][]byte, error) {
	calls := make([]*Call, 0, len(inputs))
	defer func() {
		for _, c := range calls {
			c.Close()
		}
	}()
	waited := 0
	for _, input := range inputs {
		c, err := Begin(function, input)
		for ; err == syscall.EAGAIN && waited < len(calls); waited++ {
			calls[waited].Wait(Forever)
			c, err = Begin(function, input)
		}
		if err != nil {
			return nil, err
		}
		calls = append(calls, c)
	}
	outputs := make([][]byte, len(calls))
	for i, c := range calls {
		var err error
		if outputs[i], err = c.Result(); err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

// State is a state value, by its key (1 to 512 bytes of UTF-8). There need be none of that key yet.
type State string

// Version changes with every push. All zero: there is no value.
type Version struct{ Epoch, Number uint64 }

// MergeOp is how pushes meet what is there.
type MergeOp uint32

const (
	Overwrite MergeOp = iota
	Sum
	Min
	Max
)

// Element is what pushes merge by.
type Element uint32

const (
	Int32 Element = iota
	Int64
	Float32
	Float64
)

// LockFlags say what a lock excludes: none is for reading, with others that read, among the calls of this host.
type LockFlags uint32

const (
	ForWriting LockFlags = 1 << iota // alone
	Global                           // among the calls of all hosts
)

const readOnly = 1
const roundsMax = 16

func (s State) raw() (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(string(s))), uint32(len(s))
}

func checked(result int64) (uint64, error) {
	if result < 0 {
		return 0, syscall.Errno(-result)
	}
	return uint64(result), nil
}

func failed(result int64) error {
	_, err := checked(result)
	return err
}

// Map is the value in memory, shared with everybody on this host who maps it, until the call ends or Unmap. It makes one
// of that many zeros where there is none; EINVAL where it has another size. Size 0: as large as it is, ENOENT where there
// is none.
//
// The slice lies outside of Go's heap: the garbage collector neither moves, frees nor scans it. Keep no pointers to Go's
// memory in it, and do not append to it in place.
func (s State) Map(sizeBytes uint64) ([]byte, error) { return s.mapAs(sizeBytes, 0) }

// MapReadOnly is the same, as large as it is, where writing to it ends the call.
func (s State) MapReadOnly() ([]byte, error) { return s.mapAs(0, readOnly) }

func (s State) mapAs(sizeBytes uint64, flags uint32) ([]byte, error) {
	key, keyBytes := s.raw()
	for round := 0; ; round++ {
		size := sizeBytes
		if size == 0 {
			var err error
			if size, err = s.Size(); err != nil {
				return nil, err
			}
			if size == 0 {
				return nil, syscall.EINVAL
			}
		}
		at, err := checked(stateMap(key, keyBytes, size, flags))
		if err == nil {
			return mapped(uintptr(at), int(size)), nil
		}
		// Somebody may have changed its size since it was asked for.
		if err != syscall.EINVAL || sizeBytes != 0 || round == roundsMax {
			return nil, err
		}
	}
}

// Through a pointer to the address, as an address alone is none of Go's.
func mapped(at uintptr, size int) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), size)[:size:size]
}

// Unmap takes the value out of memory: slices of it must not be used any more.
func (s State) Unmap() error {
	key, keyBytes := s.raw()
	return failed(stateUnmap(key, keyBytes))
}

// Read copies without mapping; fewer bytes than to takes at the value's end.
func (s State) Read(offset uint64, to []byte) (int, error) {
	key, keyBytes := s.raw()
	got, err := checked(stateRead(key, keyBytes, offset, unsafe.Pointer(unsafe.SliceData(to)), uint32(len(to))))
	return int(got), err
}

// Write copies all of it, or gives EFBIG.
func (s State) Write(offset uint64, from []byte) error {
	key, keyBytes := s.raw()
	return failed(stateWrite(key, keyBytes, offset, unsafe.Pointer(unsafe.SliceData(from)), uint32(len(from))))
}

// Append puts the bytes behind the value's end, for everybody at once, and makes it where there is none. Their offset.
func (s State) Append(from []byte) (uint64, error) {
	key, keyBytes := s.raw()
	return checked(stateAppend(key, keyBytes, unsafe.Pointer(unsafe.SliceData(from)), uint32(len(from))))
}

// Size is the value's size in bytes on this host.
func (s State) Size() (uint64, error) {
	key, keyBytes := s.raw()
	return checked(stateSize(key, keyBytes))
}

// Resize makes the value longer, by zeros, or shorter.
func (s State) Resize(sizeBytes uint64) error {
	key, keyBytes := s.raw()
	return failed(stateResize(key, keyBytes, sizeBytes))
}

// Delete removes the value, everywhere and at once.
func (s State) Delete() error {
	key, keyBytes := s.raw()
	return failed(stateDelete(key, keyBytes))
}

// Push publishes what has changed on this host.
func (s State) Push() error { return s.PushRange(0, 0) }

// PushRange publishes it in the pages of 4 KiB that the range touches; size 0: to the end.
func (s State) PushRange(offset, sizeBytes uint64) error {
	key, keyBytes := s.raw()
	return failed(statePush(key, keyBytes, offset, sizeBytes))
}

// Pull takes over the newest version, and fetches it. What is not pushed yet stays.
func (s State) Pull() error { return s.PullRange(0, 0) }

// PullRange takes over the newest version, and fetches that range of it; size 0: to the end.
func (s State) PullRange(offset, sizeBytes uint64) error {
	key, keyBytes := s.raw()
	return failed(statePull(key, keyBytes, offset, sizeBytes))
}

// Merge makes pushes of the value merge, on this host and from now on. What was written before must be pushed, else
// ESTALE.
func (s State) Merge(op MergeOp, element Element) error {
	key, keyBytes := s.raw()
	return failed(stateMerge(key, keyBytes, uint32(op), uint32(element)))
}

// Version is the one that this host has.
func (s State) Version() (Version, error) {
	var version Version
	key, keyBytes := s.raw()
	err := failed(stateVersion(key, keyBytes, unsafe.Pointer(&version)))
	return version, err
}

// PushIf publishes if nobody has pushed since that version, else gives EAGAIN.
func (s State) PushIf(version Version) error {
	key, keyBytes := s.raw()
	return failed(statePushIf(key, keyBytes, unsafe.Pointer(&version)))
}

// Lock waits for the lock of this key; there need be no value. It is held until Unlock with the same flags, or the call's
// end. Poisoned: the last who held it for writing died with it, and what it guards may be half changed. ETIMEDOUT;
// EDEADLK: this call, or one that waits for it, holds it. Pushes made under a global lock that was lost meanwhile are
// refused: ESTALE.
func (s State) Lock(flags LockFlags, timeoutMs uint32) (poisoned bool, err error) {
	key, keyBytes := s.raw()
	locked, err := checked(stateLock(key, keyBytes, uint32(flags), timeoutMs))
	return locked == 1, err
}

// Unlock gives the lock back; ENOENT where it is not held.
func (s State) Unlock(flags LockFlags) error {
	key, keyBytes := s.raw()
	return failed(stateUnlock(key, keyBytes, uint32(flags)))
}

// Keys are the tenant's that begin with the prefix, sorted.
func Keys(prefix string) ([]string, error) {
	var keys []string
	page := make([]byte, 16<<10)
	for after := ""; ; after = keys[len(keys)-1] {
		size, err := checked(stateList(unsafe.Pointer(unsafe.StringData(prefix)), uint32(len(prefix)),
			unsafe.Pointer(unsafe.StringData(after)), uint32(len(after)), unsafe.Pointer(unsafe.SliceData(page)),
			uint32(len(page))))
		if err != nil || size == 0 {
			return keys, err
		}
		for _, key := range bytes.Split(page[:size-1], []byte{0}) {
			keys = append(keys, string(key))
		}
	}
}

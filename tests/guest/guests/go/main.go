// The Go binding: every call of it, in the three steps of bindings_test.cc; and a heap that grows beside mapped state.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"reflect"
	"runtime"
	"strings"
	"syscall"

	"spore/spore"
)

func check(what string, holds bool) {
	if !holds {
		fmt.Fprintln(os.Stderr, what, "does not hold")
		os.Exit(100)
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func as[T any](value T, err error) T {
	must(err)
	return value
}

func read(state spore.State, offset uint64, size int) string {
	to := make([]byte, size)
	return string(to[:as(state.Read(offset, to))])
}

func first() {
	value := spore.State("go/value")
	_, err := value.Map(0)
	check("no value", err == syscall.ENOENT)
	mapped := as(value.Map(10_000))
	check("size", len(mapped) == 10_000 && cap(mapped) == 10_000 && as(value.Size()) == 10_000)
	_, err = value.Map(10_001)
	check("another size", err == syscall.EINVAL)
	copy(mapped, "through memory")
	must(value.Write(9_000, []byte("by the host")))
	check("memory is state", read(value, 0, 14) == "through memory")
	check("state is memory", string(mapped[9_000:9_011]) == "by the host")
	check("reads to the end", read(value, 9_995, 14) == "\x00\x00\x00\x00\x00" && read(value, 10_000, 14) == "")
	check("writes behind the end", value.Write(9_999, []byte("ab")) == syscall.EFBIG)
	readOnly := as(value.MapReadOnly())
	check("read-only", &readOnly[0] != &mapped[0] && bytes.Equal(readOnly, mapped))
	check("not pushed", as(value.Version()).Number == 0)
	must(value.PushRange(0, 1))
	version := as(value.Version())
	check("pushed", version.Number == 1 && version.Epoch != 0)
	copy(mapped[5_000:], "ab")
	must(value.PushIf(version))
	mapped[1] = 'H'
	check("another version", value.PushIf(version) == syscall.EAGAIN)
	check("pushed twice", as(value.Version()).Number == 2)

	log := spore.State("go/log")
	check("appends", as(log.Append([]byte("one, "))) == 0 && as(log.Append([]byte("two, "))) == 5)
	sum := spore.State("go/sum")
	elements := as(sum.Map(8))
	must(sum.Merge(spore.Sum, spore.Int64))
	binary.LittleEndian.PutUint64(elements, 5)
	sized := spore.State("go/sized")
	as(sized.Map(10))
	must(sized.Resize(20))
	check("resized", as(sized.Size()) == 20)
	must(sized.Unmap())
	check("unmapped", sized.Unmap() == syscall.ENOENT)
	gone := spore.State("go/gone")
	as(gone.Map(10))
	must(gone.Push())
	must(gone.Delete())
	check("deleted", gone.Pull() == syscall.ENOENT)
	check("keys", reflect.DeepEqual(as(spore.Keys("go/")), []string{"go/log", "go/sized", "go/sum", "go/value"}))
	for _, scope := range []spore.LockFlags{0, spore.Global} {
		check("locked", !as(value.Lock(spore.ForWriting|scope, 1000)))
		_, err = value.Lock(scope, 1000)
		check("locked twice", err == syscall.EDEADLK)
		must(value.Unlock(spore.ForWriting | scope))
		check("unlocked", value.Unlock(spore.ForWriting|scope) == syscall.ENOENT)
	}
	_, err = spore.State("").Size()
	check("a bad key", err == syscall.EINVAL)
}

func second() {
	value := spore.State("go/value")
	must(value.PullRange(0, 14))
	check("pushed", read(value, 0, 14) == "through memory")
	mapped := as(value.Map(0))
	check("pushed later", string(mapped[5_000:5_002]) == "ab")
	check("pushed with it", read(value, 9_000, 14) == "by the host\x00\x00\x00")
	copy(mapped[4_500:], "from the other host")
	must(value.Push())
	sum := spore.State("go/sum")
	elements := as(sum.Map(8))
	must(sum.Merge(spore.Sum, spore.Int64))
	binary.LittleEndian.PutUint64(elements, 7)
	must(sum.Push())
	check("appends", as(spore.State("go/log").Append([]byte("three"))) == 10)
	_, err := spore.State("go/sized").Size()
	check("not pushed", err == syscall.ENOENT)
}

func third() {
	value := spore.State("go/value")
	check("not pulled", read(value, 4_500, 3) == "\x00\x00\x00")
	must(value.Pull())
	check("pulled", read(value, 4_500, 19) == "from the other host")
	check("kept", read(value, 0, 7) == "tHrough")
	sum := spore.State("go/sum")
	must(sum.Push())
	must(sum.Pull())
	check("sum", binary.LittleEndian.Uint64(as(sum.MapReadOnly())) == 12)
	log := spore.State("go/log")
	must(log.Pull())
	check("log", read(log, 0, 100) == "one, two, three")
}

var kept [][]byte

// Maps 10 MiB, and lets the heap grow by 500 MiB that are used, with collections meanwhile.
func grow() {
	mapped := as(spore.State("go/large").Map(10 << 20))
	for i := range mapped {
		mapped[i] = byte(i*7 + i>>12)
	}
	before := crc32.ChecksumIEEE(mapped)
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	began := stats.HeapSys
	for len(kept) < 500 {
		chunk := make([]byte, 1<<20)
		for i := 0; i < len(chunk); i += 4096 {
			chunk[i] = 0xff
		}
		kept = append(kept, chunk)
		if len(kept)%100 == 0 {
			runtime.GC()
		}
	}
	runtime.ReadMemStats(&stats)
	check("the heap has grown", stats.HeapSys-began >= 500<<20)
	check("the checksum is the same", crc32.ChecksumIEEE(mapped) == before)
	kept = nil
	runtime.GC()
	check("it still is", crc32.ChecksumIEEE(mapped) == before)
	must(spore.State("go/large").Push())
	spore.Output([]byte(fmt.Sprintf("%08x", before)))
}

func calls() {
	echo := as(spore.Begin("echo", []byte("hello")))
	check("echo", as(echo.Wait(spore.Forever)) == 0 && string(as(echo.Output())) == "hello" && echo.Message() == "")
	fails := as(spore.Begin("fail", nil))
	check("fail", as(fails.Wait(spore.Forever)) == 3 && len(as(fails.Output())) == 7)
	_, err := fails.Result()
	var failed *spore.Failed
	check("failed", errors.As(err, &failed) && failed.ExitCode == 3 && err.Error() == "it exited with code 3")
	_, err = spore.Run("trap", nil)
	check("trap", errors.Is(err, syscall.ECHILD) && strings.HasSuffix(err.Error(), "it trapped: unreachable"))
	for name, wanted := range map[string]error{"nobody": syscall.ENOENT, "full": syscall.EAGAIN, "..": syscall.EINVAL} {
		_, err = spore.Begin(name, nil)
		check(name, err == wanted)
	}
	_, err = spore.Begin("echo", make([]byte, 101))
	check("too big", err == syscall.E2BIG)
	never := as(spore.Begin("never", nil))
	_, err = never.Wait(5)
	check("still runs", err == syscall.EAGAIN)
	check("any", as(spore.AwaitAny([]*spore.Call{never, echo}, spore.Forever)) == 1)
	_, err = spore.AwaitAny([]*spore.Call{never}, 5)
	check("none", err == syscall.EAGAIN)
	never.Cancel()
	_, err = never.Wait(spore.Forever)
	check("cancelled", err == syscall.ECANCELED)
	for _, call := range []*spore.Call{echo, fails, never} {
		call.Close()
	}
	_, err = echo.Output()
	check("closed", err == syscall.EBADF)
	check("later", string(as(spore.Run("later", []byte("x")))) == "x")
	outputs := as(spore.Map("echo", [][]byte{[]byte("a"), []byte("b")}))
	check("map", string(outputs[0])+string(outputs[1]) == "ab")
	_, err = spore.Map("full", [][]byte{nil})
	check("map of none", err == syscall.EAGAIN)
	check("detached", as(spore.Detach("echo", nil)) == strings.Repeat("d", 32))
}

func main() {
	input := spore.Input()
	tail := make([]byte, 4)
	if len(input) > 2 {
		check("input", string(tail[:spore.ReadInput(2, tail)]) == string(input[2:]))
	}
	switch os.Args[1] {
	case "first":
		first()
	case "second":
		second()
	case "third":
		third()
	case "grow":
		grow()
	case "calls":
		calls()
	default:
		os.Exit(98)
	}
	spore.Output(input)
}

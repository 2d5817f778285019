// The AssemblyScript binding: every call of it, in the three steps of bindings_test.cc. The first word of the input says
// which; the exit code is the line that does not hold.
import {
  input, write, print, keys, awaitAny, map, Call, State, Version, Merge, Element, LOCK_WRITE, LOCK_GLOBAL,
  E2BIG, EAGAIN, EBADF, ECANCELED, ECHILD, EDEADLK, EFBIG, EINVAL, ENOENT,
} from "../../../sdk/assemblyscript/spore";

let failed: i32 = 0;

function check(number: i32, holds: bool): void {
  if (!holds && failed == 0) failed = number;
}

function bytes(text: string): Uint8Array {
  return Uint8Array.wrap(String.UTF8.encode(text));
}

function read(state: State, offset: u64, size: i32): string {
  const to = new Uint8Array(size);
  const got = state.read(offset, to);
  return got < 0 ? "failed" : String.UTF8.decodeUnsafe(to.dataStart, <usize>got);
}

function first(): void {
  const value = new State("as/value");
  check(1, value.map() == -ENOENT);
  const at = <usize>value.map(10000);
  check(2, at > 0 && value.size() == 10000);
  check(3, value.map(10001) == -EINVAL);
  String.UTF8.encodeUnsafe(changetype<usize>("through memory"), 14, at);
  check(4, value.write(9000, bytes("by the host")) == 11);
  check(5, read(value, 0, 14) == "through memory");
  check(6, String.UTF8.decodeUnsafe(at + 9000, 11) == "by the host");
  check(7, value.read(9995, new Uint8Array(14)) == 5 && value.read(10000, new Uint8Array(14)) == 0);
  check(8, value.write(9999, bytes("ab")) == -EFBIG);
  const readOnly = value.mapReadOnly();
  check(9, readOnly > 0 && <usize>readOnly != at && load<u8>(<usize>readOnly) == 0x74);
  const version = new Version();
  check(10, value.version(version) == 0 && version.number == 0);
  check(11, value.push(0, 1) == 0);
  check(12, value.version(version) == 0 && version.number == 1 && version.epoch != 0);
  store<u16>(at + 5000, 0x6261);
  check(13, value.pushIf(version) == 0);
  store<u8>(at + 1, 0x48);
  check(14, value.pushIf(version) == -EAGAIN);
  check(15, value.version(version) == 0 && version.number == 2);

  const log = new State("as/log");
  check(16, log.append(String.UTF8.encode("one, ")) == 0 && log.append(String.UTF8.encode("two, ")) == 5);
  const sum = new State("as/sum");
  const element = <usize>sum.map(8);
  check(17, sum.merge(Merge.Sum, Element.I64) == 0);
  store<i64>(element, 5);
  const sized = new State("as/sized");
  check(18, sized.map(10) > 0 && sized.resize(20) == 0 && sized.size() == 20);
  check(19, sized.unmap() == 0 && sized.unmap() == -ENOENT);
  const gone = new State("as/gone");
  check(20, gone.map(10) > 0 && gone.push() == 0 && gone.remove() == 0 && gone.pull() == -ENOENT);
  const names: string[] = [];
  check(21, keys("as/", names) == 0 && names.join(" ") == "as/log as/sized as/sum as/value");
  for (let scope: u32 = 0; scope <= LOCK_GLOBAL; scope += LOCK_GLOBAL) {
    check(23, value.lock(LOCK_WRITE | scope, 1000) == 0 && value.lock(scope, 1000) == -EDEADLK);
    check(24, value.unlock(LOCK_WRITE | scope) == 0 && value.unlock(LOCK_WRITE | scope) == -ENOENT);
  }
  check(22, new State("").size() == -EINVAL);
}

function second(): void {
  const value = new State("as/value");
  check(1, value.pull(0, 14) == 0 && read(value, 0, 14) == "through memory");
  const at = <usize>value.map();
  check(2, load<u16>(at + 5000) == 0x6261);
  check(3, read(value, 9000, 11) == "by the host");
  String.UTF8.encodeUnsafe(changetype<usize>("from the other host"), 19, at + 4500);
  check(4, value.push() == 0);
  const sum = new State("as/sum");
  const element = <usize>sum.map(8);
  check(5, sum.merge(Merge.Sum, Element.I64) == 0);
  store<i64>(element, 7);
  check(6, sum.push() == 0);
  check(7, new State("as/log").append(String.UTF8.encode("three")) == 10);
  check(8, new State("as/sized").size() == -ENOENT);
}

function third(): void {
  const value = new State("as/value");
  check(1, read(value, 4500, 3) == "\0\0\0");
  check(2, value.pull() == 0 && read(value, 4500, 19) == "from the other host");
  check(3, read(value, 0, 7) == "tHrough");
  const sum = new State("as/sum");
  check(4, sum.push() == 0 && sum.pull() == 0 && load<i64>(<usize>sum.mapReadOnly()) == 12);
  const log = new State("as/log");
  check(5, log.pull() == 0 && read(log, 0, 100) == "one, two, three");
}

function ownEntry(): i32 {
  return 0;
}

function text(bytes: Uint8Array): string {
  return String.UTF8.decodeUnsafe(bytes.dataStart, bytes.length);
}

function calls(): void {
  const none = new Uint8Array(0);
  const echo = Call.begin("echo", bytes("hello"));
  check(1, echo.wait() == 0 && text(echo.output()) == "hello" && echo.message() == "");
  const fails = Call.begin("fail", none);
  check(2, fails.wait() == 3 && fails.output().length == 7 && fails.message() == "it exited with code 3");
  const traps = Call.begin("trap", none);
  check(3, traps.wait() == -ECHILD && traps.output().length == 0);
  check(4, Call.begin("nobody", none).handle == -ENOENT && Call.begin("full", none).wait() == -EAGAIN);
  check(5, Call.begin("..", none).cancel() == -EINVAL && Call.begin("echo", new Uint8Array(101)).handle == -E2BIG);
  const never = Call.begin("never", none);
  check(6, never.wait(5) == -EAGAIN && never.output().length == 0);
  check(7, awaitAny([never, echo]) == 1 && awaitAny([never], 5) == -EAGAIN);
  check(8, never.cancel() == 0 && never.wait() == -ECANCELED);
  check(9, echo.close() == 0 && echo.wait() == -EBADF && echo.close() == -EBADF);
  check(14, fails.close() == 0 && traps.close() == 0 && never.close() == 0);
  const later = Call.begin("later", bytes("x"));
  check(10, later.wait() == 0 && text(later.output()) == "x" && later.close() == 0);
  const own = Call.self(ownEntry, none);
  check(11, own.wait() == 0 && own.output().length == 4 && own.close() == 0);
  const all = map("echo", [bytes("a"), bytes("b")]);
  check(12, text(all[0].output()) + text(all[1].output()) == "ab" && map("full", [none])[0].handle == -EAGAIN);
  check(13, Call.detached("echo", none) == "d".repeat(32) && Call.detached("..", none) == "");
}

export function spore_call(): i32 {
  const step = String.UTF8.decode(input().buffer);
  if (step == "first") first();
  else if (step == "second") second();
  else if (step == "third") third();
  else if (step == "calls") calls();
  else failed = 98;
  write(bytes(step));
  print("");
  return failed;
}

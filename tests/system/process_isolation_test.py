"""Tenants in processes of their own: that their functions work there as elsewhere, what those processes hold and reach,
and what is left when one of them, or the host, dies."""

import json
import os
import signal
import time
import unittest

from host import DEADLINE_S, ECHO, ENDLESS, NOOP, SANITIZED, Background, SystemTest, says
from files_test import PROGRAM as FILES
from state_guest import ENOENT, StateGuestTest
from web_test import built

ROOT = os.geteuid() == 0

TRAPS = '(module (func (export "spore_call") unreachable))'
# For half a minute.
SLEEPS = """(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "spore_call")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 30000000000))
    (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"""
# Calls the function that its input names, and gives its output.
CALLS = """(module
  (import "spore" "input_size" (func $size (result i32)))
  (import "spore" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
  (import "spore" "call" (func $call (param i32 i32 i32 i32) (result i64)))
  (import "spore" "call_await" (func $await (param i32 i32) (result i64)))
  (import "spore" "call_output_size" (func $output_size (param i32) (result i64)))
  (import "spore" "call_output_read" (func $output_read (param i32 i64 i32 i32) (result i64)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (func (export "spore_call") (local $n i32) (local $child i64) (local $code i64)
    (local.set $n (call $read (i32.const 0) (i32.const 0) (call $size)))
    (local.set $child (call $call (i32.const 0) (local.get $n) (i32.const 0) (local.get $n)))
    (if (i64.lt_s (local.get $child) (i64.const 0))
      (then (call $exit (i32.wrap_i64 (i64.sub (i64.const 0) (local.get $child))))))
    (local.set $code (call $await (i32.wrap_i64 (local.get $child)) (i32.const -1)))
    (if (i64.ne (local.get $code) (i64.const 0)) (then (call $exit (i32.const 99))))
    (local.set $n (i32.wrap_i64 (call $output_read (i32.wrap_i64 (local.get $child)) (i64.const 0) (i32.const 65536)
      (i32.wrap_i64 (call $output_size (i32.wrap_i64 (local.get $child)))))))
    (drop (call $write (i32.const 65536) (local.get $n)))))"""


def processes_below(pid):
    """The processes that `pid` has started, and those that these have."""
    below = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                below.setdefault(int(file.read().rsplit(")", 1)[1].split()[1]), []).append(int(name))
        except OSError:
            continue
    found, todo = [], [pid]
    while todo:
        for child in below.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


def arguments_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def apart(host):
    """The processes of tenants of this host."""
    return [pid for pid in processes_below(host.process.pid) if b"tenant-process" in arguments_of(pid)]


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def memory_of(pid):
    """All that is mapped, by range, as far as it can be read."""
    with open(f"/proc/{pid}/maps") as file:
        ranges = [tuple(int(at, 16) for at in line.split()[0].split("-")) for line in file if " r" in line[:60]]
    with open(f"/proc/{pid}/mem", "rb") as memory, open(f"/proc/{pid}/pagemap", "rb") as pages:
        for begin, end in ranges:
            # Reservations are terabytes: only pages that are there.
            page = begin
            while page < end:
                count = min((end - page) // 4096, 65536)
                pages.seek(page // 4096 * 8)
                entries = pages.read(count * 8)
                if not any(entries):
                    page += count * 4096
                    continue
                for i in range(len(entries) // 8):
                    if not entries[i * 8 + 7] & 0xC0:
                        continue
                    try:
                        memory.seek(page + i * 4096)
                        yield memory.read(4096)
                    except (OSError, ValueError, OverflowError):
                        continue
                page += count * 4096


@unittest.skipUnless(ROOT, "processes apart take root")
class Apart(SystemTest):
    def published_apart(self, name, text, host=None, **config):
        self.published(name, text, host)
        answer = (host or self.host).configure(name, isolation="process", **config)
        self.assertEqual(answer.status, 200, answer.body)


class Calls(Apart):
    def test_a_call_runs_in_the_process_of_its_tenant_and_answers_as_any(self):
        self.published_apart("one/echo", ECHO)
        first = self.host.call("one/echo", b"hello")
        self.assertEqual((first.status, first.body), (200, b"hello"))
        self.assertEqual(first.headers["Spore-Start"], "cold")
        second = self.host.call("one/echo", b"x" * 1_000_000)
        self.assertEqual((second.status, second.body), (200, b"x" * 1_000_000))
        self.assertEqual(second.headers["Spore-Start"], "warm")
        self.published_apart("two/echo", ECHO)
        before = set(apart(self.host))
        self.assertEqual(self.host.call("two/echo", b"hello").body, b"hello")
        self.assertEqual(len(set(apart(self.host)) - before), 1, "each tenant has its own")
        self.assertGreaterEqual(self.host.metric("spore_tenant_processes"), 2)
        self.published("one/shared", says("here"))
        self.assertEqual(self.host.call("one/shared").body, b"here")

    def test_errors_are_those_of_any_call(self):
        self.published_apart("e/traps", TRAPS)
        document = self.assertProblem(self.host.call("e/traps"), 500, "trap")
        self.assertEqual(document["code"], "unreachable")
        self.assertTrue(document["stack"])
        self.published_apart("e/endless", ENDLESS, timeout_ms=300)
        began = time.monotonic()
        self.assertProblem(self.host.call("e/endless"), 504, "timeout")
        self.assertLess(time.monotonic() - began, 10)
        self.published_apart("e/cpu", ENDLESS, cpu_ms=50)
        self.assertProblem(self.host.call("e/cpu"), 504, "out_of_cpu_time")
        self.published_apart("e/large", ECHO, output_max_bytes=10)
        self.assertProblem(self.host.call("e/large", b"x" * 11), 502, "output_too_large")
        log = self.host.ask("GET", "/v1/functions/e/cpu/logs").json()["calls"][0]
        self.assertEqual(log["outcome"], "out_of_cpu_time")

    def test_a_new_version_is_what_later_calls_get_chained_ones_too(self):
        self.published_apart("v/answer", says("one"))
        self.published_apart("v/calls", CALLS)
        self.assertEqual(self.host.call("v/calls", b"answer").body, b"one")
        for text in ("two", "three"):
            self.published("v/answer", says(text))
            self.assertEqual(self.host.call("v/answer").body, text.encode())
            self.assertEqual(self.host.call("v/calls", b"answer").body, text.encode())
        self.assertEqual(self.host.call("v/calls", b"answer@2").body, b"one")
        self.assertEqual(self.host.call("v/calls", b"nothing").json()["exit_code"], ENOENT)
        self.assertEqual(self.host.ask("DELETE", "/v1/functions/v/answer").status, 204)
        self.assertEqual(self.host.call("v/calls", b"answer").json()["exit_code"], ENOENT)

    def test_chains_cross_into_the_process_and_stay_there(self):
        self.published_apart("c/apart", says("from apart"))
        self.published("c/calls", CALLS)
        self.assertEqual(self.host.call("c/calls", b"apart").body, b"from apart")
        self.published("c/shared", says("from shared"))
        self.published_apart("c/calls-apart", CALLS)
        self.assertEqual(self.host.call("c/calls-apart", b"shared").body, b"from shared")
        logged = self.host.ask("GET", "/v1/functions/c/shared/logs").json()["calls"]
        self.assertEqual([call["outcome"] for call in logged], ["ok"])

    def test_a_cancelled_call_is_cancelled_in_the_process(self):
        self.published_apart("s/sleeps", SLEEPS)
        self.published("s/calls", CALLS)
        accepted = self.host.call("s/sleeps", query="?async=1")
        self.assertEqual(accepted.status, 202, accepted.body)
        call = accepted.json()["id"]
        self.wait_for(lambda: self.host.ask("GET", f"/v1/calls/{call}").json()["status"] == "running")
        self.assertEqual(self.host.ask("DELETE", f"/v1/calls/{call}").status, 200)
        self.wait_for(lambda: self.host.metric("spore_tenant_calls") == 0)
        # A parent's end, too.
        self.host.configure("s/calls", timeout_ms=300)
        self.assertProblem(self.host.call("s/calls", b"sleeps"), 504, "timeout")
        self.wait_for(lambda: self.host.metric("spore_tenant_calls") == 0)

    def test_many_at_once(self):
        self.published_apart("m/echo", ECHO)
        def calls(n):
            return [self.host.call("m/echo", b"%d-%d" % (n, i)).body for i in range(20)]
        for n, work in enumerate([Background(calls, n) for n in range(8)]):
            self.assertEqual(work.result(), [b"%d-%d" % (n, i) for i in range(20)])


class Deaths(Apart):
    def test_calls_of_a_killed_process_end_and_the_next_one_serves(self):
        host = self.own_host()
        self.published_apart("t/sleeps", SLEEPS, host)
        self.published_apart("t/echo", ECHO, host)
        self.published_apart("u/echo", ECHO, host)
        self.assertEqual(host.call("u/echo", b"u").body, b"u")
        others = apart(host)
        self.assertEqual(host.call("t/echo", b"first").body, b"first")  # the process is there
        waits = Background(host.call, "t/sleeps")
        self.wait_for(lambda: len(apart(host)) == 2 and host.metric("spore_tenant_calls") == 1)
        [victim] = [pid for pid in apart(host) if pid not in others]
        os.kill(victim, signal.SIGKILL)
        document = self.assertProblem(waits.result(), 502, "process_ended")
        self.assertIn("signal 9", document["detail"])
        self.assertEqual(host.call("t/echo", b"again").body, b"again")
        self.assertEqual(host.call("u/echo", b"u").body, b"u")
        self.assertEqual(host.metric("spore_tenant_processes_died_total"), 1)
        self.assertTrue(set(others) <= set(apart(host)), "another tenant's process is the same")

    def test_an_asynchronous_call_is_run_again(self):
        host = self.own_host("--async-retry-base", "10")
        self.published_apart("t/sleeps", SLEEPS, host)
        self.published_apart("t/echo", ECHO, host)
        self.assertEqual(host.call("t/echo", b"first").body, b"first")  # one that dies at its start has run no call
        call = host.call("t/sleeps", query="?async=1").json()["id"]
        self.wait_for(lambda: host.metric("spore_tenant_calls") == 1)
        [victim] = apart(host)
        os.kill(victim, signal.SIGKILL)
        self.wait_for(lambda: host.ask("GET", f"/v1/calls/{call}").json()["attempt"] == 2)
        self.assertEqual(host.ask("GET", f"/v1/calls/{call}").json()["problem"]["type"], "urn:spore:problem:process_ended")

    def test_processes_end_with_the_host_however_that_ends(self):
        for end in ("kill", "terminate"):
            host = self.own_host()
            self.published_apart("t/sleeps", SLEEPS, host, timeout_ms=1_000)
            self.published_apart("u/echo", ECHO, host)
            self.assertEqual(host.call("u/echo", b"u").body, b"u")
            waits = Background(host.call, "t/sleeps")
            self.wait_for(lambda: len(apart(host)) == 2 and host.metric("spore_tenant_calls") == 1)
            below = processes_below(host.process.pid)
            getattr(host, end)()
            self.wait_for(lambda: not any(is_running(pid) for pid in below))
            waits.join(DEADLINE_S)

    def test_a_process_that_kills_itself_again_and_again_does_not_wear_out_the_host(self):
        host = self.own_host()
        self.published_apart("t/echo", ECHO, host)
        self.assertEqual(host.call("t/echo", b"x").status, 200)
        started = host.metric("spore_tenant_processes_started_total")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for pid in apart(host):
                os.kill(pid, signal.SIGKILL)
            host.ask("POST", "/v1/functions/t/echo/call?timeout_ms=200", b"x")
        self.assertLess(host.metric("spore_tenant_processes_started_total") - started, 8, "pauses double")
        self.wait_for(lambda: host.call("t/echo", b"x").status == 200)

    def test_an_idle_process_ends_and_the_next_call_begins_one(self):
        host = self.own_host("--process-idle", "1")
        self.published_apart("t/echo", ECHO, host)
        self.assertEqual(host.call("t/echo", b"x").status, 200)
        self.wait_for(lambda: not apart(host))
        self.assertEqual(host.call("t/echo", b"x").status, 200)
        self.assertEqual(host.metric("spore_tenant_processes_died_total"), 0)

    def test_where_there_are_as_many_as_there_may_be_the_idle_one_goes(self):
        host = self.own_host("--processes", "1")
        for tenant in ("a", "b", "a"):
            self.published_apart(f"{tenant}/echo", ECHO, host)
            self.assertEqual(host.call(f"{tenant}/echo", b"x").status, 200)
            self.assertEqual(len(apart(host)), 1)


class State(StateGuestTest):
    @unittest.skipUnless(ROOT, "processes apart take root")
    def test_state_is_the_tenants_and_only_that(self):
        host = self.host
        self.prepare(host, ("bump", "n"), ("put", "k", "mine"), ("push", "k"), ("get", "k"), tenant="a",
                     isolation="process")
        self.prepare(host, ("get", "k"), tenant="b", isolation="process")
        self.assertEqual([self.output(host, "bump", "n", tenant="a") for _ in range(3)], ["1", "2", "3"])
        self.assertEqual(host.ask("GET", "/v1/state/a/n").body, (3).to_bytes(8, "little"))
        self.assertEqual(self.run_command(host, "put", "k", "mine", tenant="a").status, 200)
        self.assertEqual(self.run_command(host, "push", "k", tenant="a").status, 200)
        self.assertEqual(self.output(host, "get", "k", tenant="a"), "mine")
        self.assertEqual(host.ask("GET", "/v1/state/a/k").body, b"mine")
        self.assertExit(self.run_command(host, "get", "k", tenant="b"), ENOENT)

    @unittest.skipUnless(ROOT, "processes apart take root")
    def test_what_is_not_pushed_keeps_an_idle_process(self):
        host = self.own_host("--process-idle", "1")
        self.prepare(host, ("put", "k", "x"), ("push", "k"), ("get", "k"), isolation="process")
        self.assertEqual(self.run_command(host, "put", "k", "x").status, 200)
        [before] = apart(host)
        time.sleep(3)
        self.assertEqual(apart(host), [before])
        self.assertEqual(self.output(host, "get", "k"), "x")
        self.assertEqual(self.run_command(host, "push", "k").status, 200)
        self.wait_for(lambda: not apart(host))
        self.assertEqual(self.output(host, "get", "k"), "x")


class Confinement(Apart):
    SECRET = "secret-of-another-tenant-7f3a"

    def test_a_process_holds_and_reaches_nothing_of_others(self):
        keys = os.path.join(self.host.folder, "keys.json")
        with open(keys, "w") as file:
            json.dump({"keys": []}, file)
        os.environ["SPORE_TEST_SECRET"] = self.SECRET + "-environment"
        self.addCleanup(os.environ.pop, "SPORE_TEST_SECRET")
        host = self.own_host("--isolate-tenant", "quiet")
        self.published("other/says", says(self.SECRET), host)
        self.assertEqual(host.call("other/says", self.SECRET.encode()).status, 200)
        self.assertEqual(host.ask("PUT", "/v1/state/other/k", self.SECRET.encode()).status, 201)
        self.assertEqual(host.ask("PUT", f"/v1/files/other/{self.SECRET}", self.SECRET.encode()).status, 201)
        self.published_apart("other2/says", says(self.SECRET), host)
        self.assertEqual(host.call("other2/says", self.SECRET.encode()).status, 200)
        [other] = apart(host)
        self.published("quiet/echo", ECHO, host)
        self.assertEqual(host.call("quiet/echo", b"own-bytes-of-quiet").status, 200)
        [pid] = [pid for pid in apart(host) if pid != other]

        # The scan finds what is there: in the other's process, and this tenant's own in its own.
        def holds(process, text):
            return any(text in page for page in memory_of(process))
        with open(os.path.join(host.data, "key"), "rb") as file:
            key = file.read()
        if not SANITIZED:  # whose memory is not read so
            self.assertTrue(holds(other, self.SECRET.encode()))
            self.assertTrue(holds(pid, b"quiet"))
            self.assertFalse(holds(pid, self.SECRET.encode()))
            self.assertFalse(holds(pid, key[-32:]))

        with open(f"/proc/{pid}/environ", "rb") as file:
            self.assertEqual(file.read(), b"")
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            # "/": the file system of a call, which is mounted nowhere.
            self.assertRegex(target, r"^(/dev/null|socket:.*|pipe:.*|anon_inode:.*|/memfd:.*|/proc/1/pagemap|/)$")
        sockets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        self.assertEqual(len([target for target in sockets if target.startswith("socket:")]), 1)
        with open(f"/proc/{pid}/maps") as file:
            maps = file.read()
        self.assertNotIn(host.data, maps)

        namespaces = lambda process: {name: os.readlink(f"/proc/{process}/ns/{name}") for name in ("pid", "mnt", "net",
                                                                                                    "ipc", "uts")}
        mine, its = namespaces(host.process.pid), namespaces(pid)
        self.assertFalse([name for name in mine if mine[name] == its[name]])
        self.assertEqual(sorted(os.listdir(f"/proc/{pid}/root")), ["files", "proc"])
        self.assertEqual(os.listdir(f"/proc/{pid}/root/files/tenants"), ["quiet"])
        with open(f"/proc/{pid}/mountinfo") as file:
            self.assertTrue(all(line.split()[5].startswith("ro") for line in file))
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
                self.assertEqual(int(status[name], 16), 0, (task, name))
            self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
            # Where the kernel lets a process give these up.
            self.assertNotIn(status.get("SpeculationIndirectBranch"), ("conditional enabled", "conditional disabled"))
            self.assertNotIn(status.get("Speculation_Store_Bypass"), ("thread vulnerable", "thread mitigated"))

    def test_shared_files_are_the_tenants(self):
        host = self.own_host("--isolation", "process")
        for tenant in ("a", "b"):
            self.assertEqual(host.ask("PUT", f"/v1/files/{tenant}/d/name", tenant.encode()).status, 201)
            self.published(f"{tenant}/files", built(FILES), host)
            self.assertEqual(host.configure(f"{tenant}/files", mounts={"/in": "files:d"}).status, 200)
            answer = host.call(f"{tenant}/files", b"cat /in/name\nput /own x\ncat /own\nput /in/name y\nls /in\n")
            self.assertEqual(answer.body.decode().split("\n")[:3], [tenant, "ok", "x"])
            self.assertIn("errno", answer.body.decode().split("\n")[3])


class Refusals(SystemTest):
    def test_where_it_cannot_be_had_it_is_refused(self):
        host = self.own_host("--lockdown", "false") if not ROOT else self.own_host()
        self.published("t/noop", NOOP, host)
        answer = host.configure("t/noop", isolation="cell")
        self.assertEqual(answer.status, 400)
        self.assertIn("isolation", answer.json()["detail"])
        if not ROOT:
            document = self.assertProblem(host.configure("t/noop", isolation="process"), 503, "unavailable")
            self.assertIn("CAP_SYS_ADMIN", document["detail"])
            return
        self.assertIn(b"process: enforced", host.ask("GET", "/readyz").body)
        document = self.assertProblem(host.configure("t/noop", isolation="process", require=["cpu"]), 503,
                                      "unavailable")
        self.assertIn("CPU weights", document["detail"])
        # Initialisers run in the process, and nowhere else.
        bad = '(module (func (export "_initialize") unreachable) (func (export "spore_call")))'
        self.published("t/bad", '(module (func (export "spore_call")))', host)
        self.assertEqual(host.configure("t/bad", isolation="process").status, 200)
        answer = host.publish("t/bad", bad)
        self.assertEqual(answer.status, 201, "they are run when it is loaded")
        answer = host.call("t/bad")
        self.assertEqual(answer.status, 422, answer.body)
        self.assertIn("_initialize", answer.json()["detail"])


if __name__ == "__main__":
    unittest.main()

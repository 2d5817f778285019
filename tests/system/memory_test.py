"""What tenants can take of the machine's memory: limits, who waits, and that the host lives through it.

The figures in /metrics are held against what the kernel says of the process. What is promised there: with calls that
have touched all their memory, what is charged for Faaslets is at least what the kernel counts as anonymous, and at most
a tenth and 8 MiB for each call more (a call's stack, which it need not touch).
"""

import contextlib
import os
import re
import struct
import time
import unittest

from host import Background, ECHO, SANITIZED, SystemTest
from isolation_test import boundaries

MIB = 1 << 20

# Grows by 1 MiB, and touches it, until it cannot, or has as many as the input says; then sleeps for as many ns as the
# input says. Exit code 0; its output is how many MiB it has got.
HOG = """(module
  (import "spore" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "spore_call") (local $mib i32) (local $at i32)
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 16)))
    (block $full (loop $more
      (br_if $full (i32.eq (local.get $mib) (i32.load (i32.const 8))))
      (local.set $at (memory.grow (i32.const 16)))
      (br_if $full (i32.eq (local.get $at) (i32.const -1)))
      (memory.fill (i32.mul (local.get $at) (i32.const 65536)) (i32.const 1) (i32.const 1048576))
      (local.set $mib (i32.add (local.get $mib) (i32.const 1)))
      (br $more)))
    (i32.store (i32.const 48) (i32.const 1))
    (i64.store (i32.const 56) (i64.load (i32.const 0)))
    (if (call $poll (i32.const 32) (i32.const 128) (i32.const 1) (i32.const 192)) (then unreachable))
    (i32.store (i32.const 16) (local.get $mib))
    (drop (call $write (i32.const 16) (i32.const 4)))))"""

# 64 KiB of memory, so that it always finds room.
SMALL = """(module
  (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 0) "ok")
  (func (export "spore_call") (drop (call $write (i32.const 0) (i32.const 2)))))"""


def hog_input(mib, sleep_s):
    return struct.pack("<qi", int(sleep_s * 1e9), mib)


def metrics_of(host, name):
    """All samples of that name: a dictionary of the label's value, or "", and the sample's."""
    found = {}
    for line in host.ask("GET", "/metrics").body.decode().splitlines():
        match = re.fullmatch(re.escape(name) + r'(?:\{\w+="([^"]*)"\})? (\S+)', line)
        if match:
            found[match[1] or ""] = float(match[2])
    return found


class Cgroup:
    """A control group of its own with a limit of memory, of whichever version is here; skips the test where neither."""

    def __init__(self, test, limit_bytes):
        name = f"spore-test-memory-{os.getpid()}"
        for root, limit, self.kills in (("/sys/fs/cgroup", "memory.max", "memory.events"),
                                        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control")):
            self.path = os.path.join(root, name)
            with contextlib.suppress(OSError):
                os.mkdir(self.path)
                if os.path.exists(os.path.join(self.path, limit)):
                    self.write(limit, limit_bytes)
                    break
                os.rmdir(self.path)
        else:
            test.skipTest("no control group with a limit of memory can be made here")
        test.addCleanup(self.close)

    def write(self, setting, value):
        with open(os.path.join(self.path, setting), "w") as file:
            file.write(str(value))

    def enter(self):
        self.write("cgroup.procs", os.getpid())

    def killed(self):
        with open(os.path.join(self.path, self.kills)) as file:
            return int(re.search(r"^oom_kill (\d+)", file.read(), re.MULTILINE)[1])

    def close(self):
        for _ in range(500):  # the broker ends a moment after its host
            with contextlib.suppress(OSError):
                return os.rmdir(self.path)
            time.sleep(0.02)
        raise AssertionError(f"{self.path} stays in use")


class Tenants(SystemTest):
    FLAGS = ("--memory", "600MB", "--tenant-memory", "200MB", "--tenant-memory-of", "modest=40MB", "--memory-wait", "400",
             "--seats", "4")

    def test_a_tenant_that_allocates_to_the_limit_takes_nothing_from_others(self):
        self.published("hostile/hog", HOG)
        self.published("good/small", SMALL)
        before = self.host.status("RssAnon")
        refused, most, got = [], 0, []

        def attack():
            answer = self.host.call("hostile/hog", hog_input(1_000, 0.1))
            (got if answer.status == 200 else refused).append(answer)

        times = []
        for _ in range(5):
            calls = [Background(attack) for _ in range(24)]
            while any(call.is_alive() for call in calls):
                begun = time.monotonic()
                answer = self.host.call("good/small")
                times.append(time.monotonic() - begun)
                self.assertEqual((answer.status, answer.body), (200, b"ok"))
                most = max(most, self.host.status("RssAnon") - before)
            for call in calls:
                call.result()
        times.sort()
        print(f"memory: {len(times)} calls beside a tenant at its limit, p50 {times[len(times) // 2] * 1e3:.1f} ms, "
              f"p99 {times[len(times) * 99 // 100] * 1e3:.1f} ms; {len(got)} of its calls ran, {len(refused)} refused; "
              f"the host grew by {most >> 10} MiB")
        self.assertTrue(got)
        for answer in got:
            self.assertLess(struct.unpack("<i", answer.body)[0], 200)
        for answer in refused:
            # 503: it had begun, waited, and could not go on.
            document = self.assertProblem(answer, 503, "internal") if answer.status == 503 else \
                self.assertProblem(answer, 429, "tenant_memory")
            self.assertIn("of the 200 MiB that tenant hostile may have here", document["detail"])
            self.assertEqual(answer.headers["Retry-After"], "1")
        # What the limit has no room for, however long it waits, is refused.
        self.published("hostile/large", '(module (memory 512) (func (export "spore_call")))')
        holds = Background(self.host.call, "hostile/hog", hog_input(1_000, 2))
        self.wait_for(lambda: metrics_of(self.host, "spore_memory_refused_total")["tenant"] > 0 and
                      self.host.metric("spore_calls_parked") == 1)
        self.assertProblem(self.host.call("hostile/large"), 429, "tenant_memory")
        self.assertEqual(holds.result().status, 200)
        if not SANITIZED:
            self.assertLess(most, 220 << 10)
        self.assertGreater(metrics_of(self.host, "spore_memory_refused_total")["tenant"], 0)
        self.assertEqual(metrics_of(self.host, "spore_memory_refused_total")["host"], 0)
        # It is given back: another of its functions can have as much at once.
        self.published("hostile/other", HOG)
        self.assertGreater(struct.unpack("<i", self.host.call("hostile/other", hog_input(1_000, 0)).body)[0], 170)

    def test_a_tenant_can_have_a_limit_of_its_own(self):
        self.published("modest/hog", HOG)
        got = struct.unpack("<i", self.host.call("modest/hog", hog_input(1_000, 0)).body)[0]
        self.assertTrue(30 <= got < 40, got)

    def test_readyz_and_the_start_say_what_the_limits_are(self):
        said = boundaries(self.host)["memory"]
        self.assertRegex(said, "^enforced: 600 MiB for guests, 200 MiB for a tenant, of .* MiB that .* has; ")
        if os.path.exists("/proc/pressure/memory"):
            self.assertIn("the kernel tells of stalls in /proc/pressure/memory", said)
        else:
            self.assertIn("the kernel tells of no stalls", said)

    def test_wrong_limits_are_refused_by_name(self):
        for flag, value in (("--memory", "much"), ("--tenant-memory-of", "tenant"), ("--tenant-memory-of", "../x=1GB"),
                            ("--tenant-memory-of", "t=-1"), ("--tenant-memory-of", "t=1 parsec")):
            with self.assertRaisesRegex(RuntimeError, re.escape(flag)):
                self.own_host(flag, value)


class Figures(SystemTest):
    FLAGS = ("--memory", "2GB", "--tenant-memory", "2GB", "--seats", "4")

    @unittest.skipIf(SANITIZED, "memory is the sanitizer's too")
    def test_what_is_charged_is_what_the_kernel_counts(self):
        self.published("t/hog", HOG)
        calls, mib = 16, 24
        warm = self.host.call("t/hog", hog_input(1, 0))
        self.assertEqual(warm.status, 200)
        before = self.host.status("RssAnon") << 10
        charged_before = sum(metrics_of(self.host, "spore_memory_bytes").values())
        hogs = [Background(self.host.call, "t/hog", hog_input(mib, 2)) for _ in range(calls)]
        self.wait_for(lambda: self.host.metric("spore_calls_parked") == calls)
        counted = (self.host.status("RssAnon") << 10) - before
        kinds = metrics_of(self.host, "spore_memory_bytes")
        charged = sum(kinds.values()) - charged_before
        print(f"memory: {calls} calls with {mib} MiB each: charged {charged / MIB:.1f} MiB, the kernel counts "
              f"{counted / MIB:.1f} MiB; page tables charged {kinds['page_tables'] / 1024:.0f} KiB, counted "
              f"{self.host.status('VmPTE')} KiB")
        self.assertGreater(counted, 0.98 * calls * mib * MIB)
        self.assertGreaterEqual(charged, counted - 4 * MIB)
        self.assertLess(charged, 1.1 * counted + calls * 8 * MIB)
        self.assertEqual(metrics_of(self.host, "spore_memory_tenant_bytes"), {"t": sum(kinds.values())})
        for hog in hogs:
            self.assertEqual(hog.result().status, 200)
        # Idle they are charged for what they hold, which is what the kernel has for them: 16 MiB of pages at most each.
        self.wait_for(lambda: self.host.metric("spore_calls_parked") == 0)
        self.wait_for(lambda: sum(metrics_of(self.host, "spore_memory_bytes").values()) <
                      (self.host.status("RssAnon") << 10) - before + charged_before + calls * MIB)

    def test_state_and_inputs_count_by_their_size(self):
        self.assertEqual(metrics_of(self.host, "spore_memory_bytes")["buffers"], 0)
        self.published("t/echo", ECHO)
        self.assertEqual(self.host.call("t/echo", b"x" * (8 * MIB)).status, 200)
        self.wait_for(lambda: metrics_of(self.host, "spore_memory_bytes")["buffers"] == 0)


class Machine(SystemTest):
    """The host in a control group that has less memory than its guests want."""

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    @unittest.skipIf(SANITIZED, "memory is the sanitizer's too")
    def test_hostile_tenants_do_not_get_the_host_killed(self):
        group = Cgroup(self, 500 * MIB)
        host = self.own_host("--memory-wait", "300", "--seats", "4", enter=group.enter)
        said = boundaries(host)["memory"]
        self.assertIn(f"of 500 MiB that {group.path} has", said)
        limit = host.metric("spore_memory_limit_bytes")
        self.assertLess(limit, 400 * MIB)
        self.assertGreater(limit, 200 * MIB)
        for tenant in ("a", "b", "c"):
            self.published(f"{tenant}/hog", HOG, host)
        self.published("good/small", SMALL, host)
        outcomes = {}
        for _ in range(3):
            calls = [Background(host.call, f"{tenant}/hog", hog_input(1_000, 0.1))
                     for _ in range(8) for tenant in ("a", "b", "c")]
            while any(call.is_alive() for call in calls):
                self.assertEqual(host.call("good/small").status, 200)
            for call in calls:
                status = call.result().status
                outcomes[status] = outcomes.get(status, 0) + 1
        print(f"memory: three tenants want all of 500 MiB: {outcomes}")
        self.assertLessEqual(set(outcomes), {200, 429, 503})
        self.assertEqual(group.killed(), 0)
        self.wait_for(lambda: host.metric("spore_memory_level") == 0)
        self.assertEqual(host.call("good/small").status, 200)

    @unittest.skipIf(SANITIZED, "memory is the sanitizer's too")
    def test_warm_faaslets_go_when_the_group_runs_short_and_the_host_lives(self):
        group = Cgroup(self, 400 * MIB)
        # The books would let guests have more than there is: the watch alone knows.
        host = self.own_host("--memory", "8GB", "--tenant-memory", "8GB", "--memory-left-mib", "150", "--seats", "4",
                             "--idle-mib", "8000", enter=group.enter)
        names = [f"t{i}/hog" for i in range(8)]
        for name in names:
            self.published(name, HOG, host)
        for name in 2 * names:
            calls = [Background(host.call, name, hog_input(12, 0.05)) for _ in range(6)]
            for call in calls:
                self.assertEqual(call.result().status, 200)
            time.sleep(0.2)
        self.assertEqual(group.killed(), 0)
        shed = host.metric("spore_faaslets_shed_total")
        print(f"memory: {shed:.0f} warm Faaslets went, {host.metric('spore_memory_tight_total'):.0f} looks were tight")
        self.assertGreater(shed, 0)
        self.wait_for(lambda: host.metric("spore_memory_level") == 0)
        self.assertEqual(host.call(names[0], hog_input(12, 0)).status, 200)


if __name__ == "__main__":
    unittest.main()

"""What tenants can take from each other beside memory, and what the host does about it."""

import os
import unittest

from host import Background, ECHO, ENDLESS, NOOP, SystemTest, wasm

# Calls a host function without end.
ENDLESS_HOST_CALLS = """(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (func (export "spore_call") (loop $again (drop (call $yield)) (br $again))))"""


def boundaries(host):
    """What /readyz says: a dictionary of names and what is said of them."""
    lines = host.ask("GET", "/readyz").body.decode().splitlines()
    assert lines[0] == "ready", lines
    return dict(line.split(": ", 1) for line in lines[1:])


def cgroups_of(process):
    """Directories that are named after it."""
    return [os.path.join(root, name) for root, names, _ in os.walk("/sys/fs/cgroup") for name in names
            if name.startswith(f"spore-{process}-")]


class CpuTime(SystemTest):
    def test_a_call_ends_when_its_cpu_time_is_used_up(self):
        for text in (ENDLESS, ENDLESS_HOST_CALLS):
            self.published("t/spin", text)
            self.assertEqual(self.host.configure("t/spin", cpu_ms=50).status, 200)
            answer = self.host.call("t/spin")
            document = self.assertProblem(answer, 504, "out_of_cpu_time")
            self.assertEqual(document["detail"], "the call used up its 50 ms of CPU time")
            self.assertGreaterEqual(int(answer.headers["Spore-Cpu-Us"]), 50_000)
            self.assertEqual(answer.headers["Spore-Memory-Bytes"], "0")
        log = self.host.ask("GET", "/v1/functions/t/spin/logs").json()["calls"][0]
        self.assertEqual((log["outcome"], log["memory_bytes"]), ("out_of_cpu_time", 0))
        self.assertGreaterEqual(log["cpu_us"], 50_000)
        self.assertGreaterEqual(self.host.metric("spore_calls_cpu_seconds_total"), 0.1)

    def test_a_share_of_a_core_is_of_all_calls_of_a_function(self):
        self.published("t/share", ENDLESS)
        self.assertEqual(self.host.configure("t/share", cpu_percent=20, timeout_ms=2_000).status, 200)
        calls = [Background(self.host.call, "t/share") for _ in range(2)]
        used = 0
        for call in calls:
            answer = call.result()
            self.assertEqual(answer.status, 504, answer.body)
            used += int(answer.headers["Spore-Cpu-Us"])
        self.assertLess(used, 600_000)
        self.assertGreater(used, 200_000)

    def test_wrong_limits_are_refused_by_name(self):
        self.published("t/noop", NOOP)
        for field, value in (("cpu_ms", -1), ("cpu_ms", 3_600_001), ("cpu_percent", 100_001), ("cpu_weight", 0),
                             ("cpu_weight", 10_001), ("require", "cpu"), ("require", ["../x"])):
            answer = self.host.configure("t/noop", **{field: value})
            self.assertEqual(answer.status, 400, answer.body)
            self.assertIn(field, answer.json()["detail"])


class Speculation(SystemTest):
    def test_hardened_code_answers_as_any(self):
        self.published("t/echo", ECHO)
        self.assertEqual(self.host.call("t/echo", b"before").body, b"before")
        self.assertIn("spectre_hardening", self.host.configure("t/echo", spectre_hardening="yes").json()["detail"])
        answer = self.host.configure("t/echo", spectre_hardening=True)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertTrue(self.host.ask("GET", "/v1/functions/t/echo").json()["config"]["spectre_hardening"])
        def objects():
            return [name for _, _, names in os.walk(self.host.data) for name in names if "optimised" in name]
        self.assertEqual(self.host.call("t/echo", b"after").body, b"after")
        self.assertTrue(any(name.endswith("-hardened") for name in objects()), objects())
        self.assertEqual(self.host.ask("DELETE", "/v1/functions/t/echo").status, 204)
        self.assertEqual(objects(), [])


class Lockdown(SystemTest):
    @unittest.skipIf(os.environ.get("SPORE_SANITIZE") == "thread", "the sanitizer has a thread of its own")
    def test_no_thread_has_capabilities_and_all_are_filtered(self):
        self.assertEqual(boundaries(self.host)["lockdown"], "enforced")
        self.published("t/noop", NOOP)  # compilers start
        self.assertEqual(self.host.call("t/noop").status, 200)
        tasks = f"/proc/{self.host.process.pid}/task"
        filters = []
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/status") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
                if name != "CapBnd" or os.geteuid() == 0:
                    self.assertEqual(int(status[name], 16), 0, (task, name))
            self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
            filters.append(int(status["Seccomp_filters"]))
        self.assertEqual(sorted(set(filters)), [1, 2], "those that run guests have one more")


class Weights(SystemTest):
    def test_calls_share_the_machine_by_weight(self):
        host = self.own_host()  # as many seats as cores, and twice as many calls
        calls = []
        for name, weight in (("heavy", 300), ("light", 100)):
            self.published("t/" + name, ENDLESS, host)
            self.assertEqual(host.configure("t/" + name, cpu_weight=weight, timeout_ms=3_000).status, 200)
            # Loads it: who begins later runs alone at its end.
            self.assertEqual(host.call("t/" + name, query="?timeout_ms=10").status, 504)
        for name in ("heavy", "light") * len(os.sched_getaffinity(0)):
            calls.append((name, Background(host.call, "t/" + name)))
        used = {"heavy": 0, "light": 0}
        for name, call in calls:
            used[name] += int(call.result().headers["Spore-Cpu-Us"])
        self.assertGreater(used["heavy"], 1.7 * used["light"])
        self.assertLess(used["heavy"], 5 * used["light"])
        # The threads that ran them have the weight of everybody else again.
        self.published("t/echo", ECHO, host)
        self.assertEqual(host.call("t/echo", b"hi").body, b"hi")


class Leftovers(SystemTest):
    def test_no_cgroup_is_left_by_a_host_that_ends_or_is_killed(self):
        for end in ("terminate", "kill"):
            host = self.own_host()
            if boundaries(host)["cpu"] != "enforced":
                self.skipTest(boundaries(host)["cpu"])
            made = cgroups_of(host.process.pid)
            self.assertEqual(len(made), 1, made)
            getattr(host, end)()
            self.wait_for(lambda: not os.path.exists(made[0]))


class Boundaries(SystemTest):
    def test_a_function_that_requires_what_is_not_enforced_is_refused(self):
        host = self.own_host("--cpu-groups", "false")
        self.assertIn("off", boundaries(host)["cpu"])
        self.published("t/noop", NOOP, host)
        answer = host.configure("t/noop", require=["cpu"])
        document = self.assertProblem(answer, 503, "unavailable")
        self.assertIn("t/noop requires cpu, which is not enforced here: it is off", document["detail"])
        answer = host.configure("t/noop", require=["moonlight"])
        self.assertIn("this host does not know it", self.assertProblem(answer, 503, "unavailable")["detail"])
        self.assertEqual(host.call("t/noop").status, 200, "as it was before")

    def test_it_runs_where_it_is_enforced_and_not_after_a_restart_where_it_is_not(self):
        host = self.own_host()
        if boundaries(host)["cpu"] != "enforced":
            self.skipTest(boundaries(host)["cpu"])
        self.published("t/noop", NOOP, host)
        self.assertEqual(host.configure("t/noop", require=["cpu"]).status, 200)
        self.assertEqual(host.call("t/noop").status, 200)
        host.terminate()
        host.flags = ("--cpu-groups", "false")
        host.start()
        self.assertProblem(host.call("t/noop"), 503, "unavailable")


if __name__ == "__main__":
    unittest.main()

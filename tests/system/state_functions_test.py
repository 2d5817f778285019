"""State as functions use it: from call to call, from host to host, through restarts, kills and stores that stop."""

import os
import signal
import threading
import time
import unittest

from host import DEADLINE_S, ECHO, Background
from state_guest import EHOSTUNREACH, ENOENT, ENOSPC, ESTALE, ETIMEDOUT, StateGuestTest

KILLS = int(os.environ.get("SPORE_STATE_KILLS", "5"))
STOP_S = float(os.environ.get("SPORE_STATE_STOP_S", "5"))  # for how long a store that stops does so


class StateFunctions(StateGuestTest):
    def test_windows_stay_where_they_are_from_call_to_call(self):
        self.prepare(self.host, ("count",), tenant="warm")
        first, second = (self.run_command(self.host, "count", tenant="warm") for _ in range(2))
        self.assertEqual(second.headers["Spore-Start"], "warm")
        said = [answer.body.decode().split(" at ") for answer in (first, second)]
        self.assertEqual([count for count, _ in said], ["1", "2"])
        self.assertEqual(said[0][1], said[1][1])

    def test_what_is_pushed_survives_a_restart_and_what_is_not_does_not(self):
        host = self.own_host()
        self.prepare(host, ("bump", "kept"), ("put", "lost", "x"), ("get", "lost"))
        self.assertEqual([self.output(host, "bump", "kept") for _ in range(3)], ["1", "2", "3"])
        self.assertEqual(self.run_command(host, "put", "lost", "x").status, 200)
        self.assertEqual(self.output(host, "get", "lost"), "x")
        self.assertEqual(host.terminate(), 0)
        host.start()
        self.assertEqual(self.output(host, "bump", "kept"), "4")
        self.assertExit(self.run_command(host, "get", "lost"), ENOENT)
        self.assertEqual(host.ask("GET", "/v1/state/t/kept").body, (4).to_bytes(8, "little"))

    def test_kills_lose_no_acknowledged_push(self):
        host = self.own_host()
        self.prepare(host, ("bump", "n"))
        acknowledged = 0
        for _ in range(KILLS):
            started = threading.Event()

            def bump():
                last = acknowledged
                try:
                    while True:
                        last = int(self.output(host, "bump", "n"))
                        started.set()
                except OSError:
                    if not started.is_set():
                        raise
                return last

            calls = Background(bump)
            self.assertTrue(started.wait(DEADLINE_S), calls.error)
            host.kill()
            try:
                acknowledged = max(acknowledged, calls.result())
            except Exception as error:  # an answer that was cut off acknowledges nothing
                self.assertIn(type(error).__name__, ("IncompleteRead", "BadStatusLine", "RemoteDisconnected"))
            host.start()
            stored = int.from_bytes(host.ask("GET", "/v1/state/t/n").body, "little")
            self.assertGreaterEqual(stored, acknowledged)
            acknowledged = stored

    def test_another_host_sees_what_is_pushed_once_it_pulls(self):
        _, (a, b) = self.two_hosts()
        for host in (a, b):
            self.prepare(host, ("put", "k", "first"), ("put", "k", "other"), ("push", "k"), ("pull", "k"), ("get", "k"))
        self.assertEqual(self.run_command(a, "put", "k", "first").status, 200)
        self.assertExit(self.run_command(b, "get", "k"), ENOENT)
        self.assertEqual(self.run_command(a, "push", "k").status, 200)
        self.assertEqual(self.output(b, "get", "k"), "first")
        self.assertEqual(self.run_command(a, "put", "k", "other").status, 200)
        self.assertEqual(self.run_command(a, "push", "k").status, 200)
        self.assertEqual(self.output(b, "get", "k"), "first")
        self.assertEqual(self.run_command(b, "pull", "k").status, 200)
        self.assertEqual(self.output(b, "get", "k"), "other")

    def test_a_global_lock_makes_two_hosts_count_exactly(self):
        _, hosts = self.two_hosts()
        for host in hosts:
            self.prepare(host, ("bump-alone", "n"))
        rounds = 10

        def many(host):
            return [int(self.output(host, "bump-alone", "n")) for _ in range(rounds)]

        clients = [Background(many, host) for host in hosts for _ in range(2)]
        seen = sorted(number for client in clients for number in client.result())
        self.assertEqual(seen, list(range(1, 4 * rounds + 1)))

    def test_who_dies_with_a_lock_leaves_it_poisoned(self):
        _, (a, b) = self.two_hosts()
        for host in (a, b):
            self.prepare(host, ("die", "k"), ("lock", "k"))
        self.assertEqual(self.output(b, "lock", "k"), "0")
        self.assertEqual(self.run_command(a, "die", "k").status, 500)
        self.assertEqual(self.output(b, "lock", "k"), "1")
        self.assertEqual(self.output(a, "lock", "k"), "0")

    def hold(self, host):
        """A call that holds the lock "k" and waits to be told to go on."""
        call = Background(self.run_command, host, "hold", "k")
        self.wait_for(lambda: host.ask("GET", "/v1/state/t/held").status == 200)
        return call

    def test_a_host_that_was_stopped_past_its_lease_cannot_push_what_it_wrote_under_the_lock(self):
        _, (a, b) = self.two_hosts("--lock-lease", "1000")
        self.prepare(a, ("hold", "k"), ("get", "k"))
        self.prepare(b, ("lock", "k"), ("bump-alone", "k"))
        held = self.hold(a)
        a.process.send_signal(signal.SIGSTOP)
        self.addCleanup(a.process.send_signal, signal.SIGCONT)
        self.assertEqual(self.output(b, "lock", "k"), "1")  # once the lease is over, and told that somebody was lost
        self.assertEqual(self.output(b, "bump-alone", "k"), "1")
        self.assertEqual(b.ask("PUT", "/v1/state/t/k.go", b"go").status, 201)
        a.process.send_signal(signal.SIGCONT)
        self.assertExit(held.result(), ESTALE)
        self.assertEqual(b.ask("GET", "/v1/state/t/k").body, (1).to_bytes(8, "little"))
        # Its replica is dropped with what it wrote: it reads what is stored.
        self.assertEqual(self.run_command(a, "get", "k").body, (1).to_bytes(8, "little"))

    def test_who_is_killed_with_a_lock_leaves_it_poisoned(self):
        _, (a, b) = self.two_hosts("--lock-lease", "1000")
        self.prepare(a, ("hold", "k"))
        self.prepare(b, ("lock", "k"))
        self.hold(a)
        a.kill()
        self.assertEqual(self.output(b, "lock", "k"), "1")
        self.assertEqual(self.output(b, "lock", "k"), "0")

    def test_a_value_that_goes_or_shrinks_while_it_is_mapped_hurts_nobody(self):
        self.prepare(self.host, ("count",), ("pull", "counter"))
        self.assertEqual(self.run_command(self.host, "count", ).status, 200)
        for request in (("PUT", b"abc"), ("DELETE", None)):
            self.host.ask(request[0], "/v1/state/t/counter", request[1])
            self.run_command(self.host, "pull", "counter")
            self.assertIn(self.run_command(self.host, "count").status, (200, 500))
        self.assertEqual(self.host.ask("GET", "/healthz").status, 200)

    def test_a_store_that_is_killed_is_used_again_when_it_is_back(self):
        redis, (a, _) = self.two_hosts("--state-timeout", "500")
        self.prepare(a, ("bump", "n"))
        self.assertEqual(self.output(a, "bump", "n"), "1")
        redis.restart()  # empty, as it keeps nothing
        self.wait_for(lambda: self.run_command(a, "bump", "n").status == 200)
        self.assertEqual(a.ask("GET", "/v1/state/t/n").status, 200)

    def test_a_store_that_stops_under_load_fails_what_needs_it_in_time_and_nothing_else(self):
        redis, hosts = self.two_hosts("--state-timeout", "1000")
        call_s = 10
        with_store = [("bump", "n"), ("bump-alone", "l"), ("get", "absent")]
        over, loads = threading.Event(), []

        def load(outcomes, call):
            while not over.wait(0.005):
                begun = time.monotonic()
                outcomes.append((begun, call(), time.monotonic()))

        def begin(call):
            outcomes = []
            loads.append(Background(load, outcomes, call))
            return outcomes

        needy, others = [], []
        self.addCleanup(over.set)
        for name, host in zip("ab", hosts):
            commands = [(command, f"{key}-{name}" if command == "bump" else key) for command, key in with_store]
            self.prepare(host, *commands, ("count",), timeout_ms=call_s * 1000)
            self.published("t/echo", ECHO, host)
            needy += [(command, begin(lambda host=host, command=command: self.run_command(host, *command)))
                      for command in commands]
            others.append(begin(lambda host=host: host.call("t/echo", b"hello")))
            others.append(begin(lambda host=host: self.run_command(host, "count")))  # its value is here
        everything = [outcomes for _, outcomes in needy] + others
        self.wait_for(lambda: all(len(outcomes) > 3 for outcomes in everything))
        redis.send(signal.SIGSTOP)
        stopped = time.monotonic()
        direct = Background(lambda: hosts[0].ask("PUT", "/v1/state/t/direct", b"x", timeout_s=2 * DEADLINE_S))
        threading.Event().wait(STOP_S)
        redis.send(signal.SIGCONT)
        went_on = time.monotonic()
        good = lambda command, answer: answer.status == 200 or (command[0] == "get" and answer.status == 500 and
                                                                answer.json()["exit_code"] == ENOENT)
        self.wait_for(lambda: all(
            any(begun > went_on and good(command, answer) for begun, answer, _ in outcomes[-3:])
            for command, outcomes in needy))
        over.set()
        for each in loads:
            each.result()
        for command, outcomes in needy:
            failed = [answer for _, answer, _ in outcomes if not good(command, answer)]
            if command[0] != "bump-alone":  # who waits for a lock may wait for longer than the store stops
                self.assertTrue(failed, command)
            for answer in failed:
                if answer.status == 504:  # the call's own deadline came first
                    self.assertProblem(answer, 504, "timeout")
                else:
                    self.assertEqual(answer.status, 500, answer.body)
                    self.assertIn(answer.json()["exit_code"], (ETIMEDOUT, EHOSTUNREACH, ESTALE), (command, answer.body))
            for begun, answer, ended in outcomes:
                self.assertLess(ended - begun, 2 * call_s, (command, answer.body))
            if command[0] == "bump":
                seen = [int(answer.body) for _, answer, _ in outcomes if answer.status == 200]
                self.assertEqual(seen, sorted(set(seen)))
                stored = hosts[0].ask("GET", f"/v1/state/t/{command[1]}").body
                self.assertGreaterEqual(int.from_bytes(stored, "little"), seen[-1])
        for outcomes in others:
            self.assertEqual({answer.status for _, answer, _ in outcomes}, {200})
            meanwhile = sum(begun > stopped and ended < went_on for begun, _, ended in outcomes)
            self.assertGreater(meanwhile, 10)
        answer = direct.result(2 * DEADLINE_S)  # it waited, and was told where that was too long
        self.assertIn(answer.status, (200, 201, 503, 504), answer.body)
        for host in hosts:
            self.assertIsNone(host.process.poll())

    def test_what_a_call_wrote_is_pushed_at_its_end_where_it_is_configured_so(self):
        redis, (a, b) = self.two_hosts("--state-timeout", "500")
        stored = lambda key: b.ask("GET", f"/v1/state/t/{key}")
        self.prepare(a, ("put", "k", "first"), ("put", "k", "other"), ("put", "failed", "x", "3"), ("touch", "past"),
                     ("count",), push="on_success")
        self.prepare(a, ("put", "by-hand", "x"))
        self.assertEqual(self.run_command(a, "put", "k", "first").status, 200)
        self.assertEqual(stored("k").body, b"first")
        self.assertEqual(self.run_command(a, "put", "k", "other").status, 200)
        self.assertEqual(stored("k").body, b"other")
        for number in (1, 2):  # a Faaslet that was here before finds its windows again
            self.assertEqual(self.run_command(a, "count").status, 200)
            self.assertEqual(stored("counter").body, number.to_bytes(8, "little"))
        # A call that fails, or is not configured so, pushes nothing.
        self.assertExit(self.run_command(a, "put", "failed", "x", "3"), 3)
        self.assertProblem(self.run_command(a, "touch", "past"), 500, "trap")
        self.assertEqual(self.run_command(a, "put", "by-hand", "x").status, 200)
        for key in ("failed", "touched", "by-hand"):
            self.assertEqual(stored(key).status, 404, key)
        # A push that fails fails the call.
        redis.send(signal.SIGSTOP)
        document = self.assertProblem(self.run_command(a, "put", "k", "first"), 504, "state_not_pushed")
        self.assertIn('push state "k"', document["detail"])
        redis.send(signal.SIGCONT)
        self.wait_for(lambda: self.run_command(a, "put", "k", "first").status == 200)
        self.assertEqual(stored("k").body, b"first")
        self.assertProblem(a.configure("t/count", push="always"), 400, "bad_request")

    def test_a_tenant_sees_nothing_of_another(self):
        for tenant in ("one", "two"):
            self.prepare(self.host, ("bump", "n"), ("get", "n"), tenant=tenant)
        self.assertEqual(self.output(self.host, "bump", "n", tenant="one"), "1")
        self.assertExit(self.run_command(self.host, "get", "n", tenant="two"), ENOENT)
        self.assertEqual(self.output(self.host, "bump", "n", tenant="two"), "1")
        self.assertEqual(self.output(self.host, "bump", "n", tenant="one"), "2")

    def test_a_quota_of_the_store_is_told_to_the_function(self):
        host = self.own_host("--tenant-store-keys", "1")
        self.prepare(host, ("bump", "a"), ("bump", "b"))
        self.assertEqual(self.output(host, "bump", "a"), "1")
        self.assertExit(self.run_command(host, "bump", "b"), ENOSPC)
        log = host.ask("GET", "/v1/functions/t/bump-b/logs").json()["calls"][0]["log"]
        self.assertIn('tenant "t" may keep 1 values', log)
        self.assertEqual(self.output(host, "bump", "a"), "2")

    def test_what_a_host_may_hold_is_a_bound(self):
        host = self.own_host("--state-mib", "1")
        self.prepare(host, ("windows",), ("grow",), ("count",))
        self.assertEqual(self.run_command(host, "windows").status, 200)
        answer = self.run_command(host, "grow")  # 10 MiB
        self.assertEqual(answer.status, 500)
        self.assertTrue(self.output(host, "count").startswith("1 "))


if __name__ == "__main__":
    unittest.main()

"""Starting, restarting, draining, and dying in the middle of a publish."""

import http.client
import signal
import subprocess
import unittest

from host import Background, DEADLINE_S, ECHO, ENDLESS, NOOP, SANITIZED, SPORE, SystemTest, large_module, says, wasm


class Lifecycle(SystemTest):
    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def setUp(self):
        self.host = self.own_host()

    def restart(self):
        for pipe in (self.host.process.stdout, self.host.process.stderr):
            pipe.close()
        self.host.start()

    def test_functions_survive_a_restart(self):
        self.published("r/one", says("one"))
        self.published("r/two", says("old"))
        self.published("r/two", says("new"))
        self.host.configure("r/two", timeout_ms=777)
        self.host.ask("POST", "/v1/functions/r/one/rollback")
        before = self.host.ask("GET", "/v1/functions/r").json()
        self.assertEqual(self.host.terminate(), 0)
        self.restart()
        self.assertEqual(self.host.ask("GET", "/v1/functions/r").json(), before)
        self.assertEqual(self.host.call("r/one").body, b"one")
        self.assertEqual(self.host.call("r/two").body, b"new")
        self.assertEqual(self.host.call("r/two@1").body, b"old")
        self.assertEqual(self.host.ask("GET", "/v1/functions/r/two/config").json()["timeout_ms"], 777)

    def test_the_first_slot_may_be_one_that_a_call_asks_for(self):
        self.host = self.own_host("--spare-slots", "0")
        self.published("t/echo", ECHO)
        self.assertEqual(self.host.terminate(), 0)
        self.restart()  # what was published is there: nothing has made a slot before
        answer = self.host.call("t/echo", b"first")
        self.assertEqual((answer.status, answer.body), (200, b"first"))

    def test_killed_during_a_publish_it_has_the_old_function_or_the_new_one(self):
        self.published("k/f", says("old"))
        module = wasm(large_module(1000))
        connection = http.client.HTTPConnection(self.host.name, self.host.port, timeout=DEADLINE_S)
        connection.request("PUT", "/v1/functions/k/f", module, {"Accept": "text/event-stream"})
        stream = connection.getresponse()
        self.assertEqual(stream.status, 200)
        first = stream.readline()  # the compiler is at work
        self.assertEqual(first, b"event: progress\n")
        self.host.kill()
        connection.close()
        self.restart()
        self.assertEqual(self.host.call("k/f").body, b"old")
        described = self.host.ask("GET", "/v1/functions/k/f").json()
        self.assertEqual([v["version"] for v in described["versions"]], [1])
        self.assertEqual(self.host.publish("k/f", says("new")).status, 201)
        self.assertEqual(self.host.call("k/f").body, b"new")

    def test_calls_go_on_while_a_large_module_is_published(self):
        self.published("p/echo", ECHO)
        publishing = Background(self.host.publish, "p/large", wasm(large_module(1000)))
        calls = 0
        while publishing.is_alive():
            self.assertEqual(self.host.call("p/echo", b"x").status, 200)
            calls += 1
        self.assertEqual(publishing.result().status, 201)
        self.assertGreater(calls, 10)

    def test_draining_finishes_calls_refuses_new_ones_and_exits_with_zero(self):
        self.published("d/endless", ENDLESS)
        self.published("d/noop", NOOP)
        module = wasm(NOOP)
        endless = Background(self.host.call, "d/endless", b"", "?timeout_ms=8000")  # what is asked below comes before
        self.wait_for(lambda: self.host.metric("spore_calls_running") == 1)
        self.host.process.send_signal(signal.SIGTERM)
        self.wait_for(lambda: self.host.ask("GET", "/readyz").status == 503)
        self.assertEqual(self.host.ask("GET", "/healthz").status, 200)
        refused = self.host.call("d/noop")
        self.assertProblem(refused, 503, "draining")
        self.assertTrue(refused.headers["Retry-After"])
        self.assertProblem(self.host.publish("d/new", module), 503, "draining")
        self.assertProblem(endless.result(), 504, "timeout")
        self.assertEqual(self.host.wait(), 0)

    def test_what_does_not_end_is_cancelled_at_the_drain_timeout(self):
        host = self.own_host("--drain-timeout", "200")
        self.published("d/endless", ENDLESS, host)
        endless = Background(host.call, "d/endless")
        self.wait_for(lambda: host.metric("spore_calls_running") == 1)
        self.assertEqual(host.terminate(), 0)
        self.assertProblem(endless.result(), 503, "cancelled")

    def test_a_second_signal_ends_it_at_once(self):
        self.published("d/endless", ENDLESS)
        endless = Background(self.host.call, "d/endless")
        self.wait_for(lambda: self.host.metric("spore_calls_running") == 1)
        self.host.process.send_signal(signal.SIGTERM)
        self.wait_for(lambda: self.host.ask("GET", "/readyz").status == 503)
        self.host.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.host.wait(), 128 + signal.SIGTERM)
        with self.assertRaises((ConnectionError, http.client.HTTPException)):
            endless.result()

    def test_two_hosts_cannot_share_a_folder(self):
        second = subprocess.run([SPORE, "serve", "--listen", "127.0.0.1:0", "--data", self.host.data],
                                capture_output=True, text=True, timeout=DEADLINE_S)
        self.assertEqual(second.returncode, 1)
        self.assertIn(self.host.data, second.stderr)

    def test_publishing_and_removing_leaves_nothing_behind(self):
        def descriptors():
            return len(__import__("os").listdir(f"/proc/{self.host.process.pid}/fd"))

        def mappings():
            with open(f"/proc/{self.host.process.pid}/maps") as file:
                return sum(1 for _ in file)

        def cycle():
            self.published("c/f", says("cycle"))
            self.assertEqual(self.host.call("c/f").status, 200)
            self.assertEqual(self.host.ask("DELETE", "/v1/functions/c/f").status, 204)

        for _ in range(5):
            cycle()
        self.wait_for(lambda: self.host.metric("spore_connections_open") <= 1)
        before = descriptors(), mappings()
        for _ in range(30):
            cycle()
        self.wait_for(lambda: self.host.metric("spore_connections_open") <= 1)
        self.assertLessEqual(descriptors(), before[0] + 2)
        self.assertLessEqual(mappings(), before[1] + (25 if SANITIZED else 10))


if __name__ == "__main__":
    unittest.main()

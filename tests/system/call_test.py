"""Calls over HTTP: the status table, bounds, and that one call never disturbs another."""

import json
import subprocess
import unittest

from host import Background, ECHO, ENDLESS, NOOP, SPORE, SystemTest, says, wasm

TRAPS = {
    "unreachable": ("(func $inner unreachable) (func $outer (call $inner))", "unreachable", "unreachable"),
    "bounds": ("(memory 1) (func $outer (drop (i32.load (i32.const 100000))))", "memory_out_of_bounds",
               "out of bounds memory access"),
    "deep": ("(func $outer (call $outer) (call $outer))", "stack_overflow", "call stack exhausted"),
    "zero": ("(func $outer (drop (i32.div_u (i32.const 1) (i32.const 0))))", "integer_divide_by_zero",
             "integer divide by zero"),
}
WRITES_FOR_EVER = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 1000)) (i32.store (i32.const 4) (i32.const 60000))
    (loop $again (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $again))))"""

# Calls its own table's first entry twice, the second of which traps.
CALLS = """(module
  (import "spore" "input_size" (func $size (result i32)))
  (import "spore" "call_self" (func $call (param i32 i32 i32) (result i64)))
  (import "spore" "call_await" (func $await (param i32 i32) (result i64)))
  (memory (export "memory") 1) (table 1 funcref) (elem (i32.const 0) $leaf)
  (func $leaf (if (call $size) (then unreachable)))
  (func (export "spore_call")
    (drop (call $await (i32.wrap_i64 (call $call (i32.const 0) (i32.const 0) (i32.const 0))) (i32.const -1)))
    (drop (call $await (i32.wrap_i64 (call $call (i32.const 0) (i32.const 0) (i32.const 5))) (i32.const -1)))))"""


class Outcomes(SystemTest):
    def test_exit_code_zero_gives_the_output(self):
        self.published("t/echo", ECHO)
        for body in (b"", b"hi", bytes(range(256)) * 1000, b"x" * (10 << 20)):
            answer = self.host.call("t/echo", body)
            self.assertEqual((answer.status, answer.body == body), (200, True))
            self.assertRegex(answer.headers["Spore-Call-Id"], "^[0-9a-f]{32}$")
            self.assertIn(answer.headers["Spore-Start"], ("restored", "warm", "cold"))
            self.assertGreaterEqual(int(answer.headers["Spore-Duration-Us"]), int(answer.headers["Spore-Start-Us"]))
            self.assertGreaterEqual(int(answer.headers["Spore-Queued-Us"]), 0)

    def test_who_called_whom(self):
        self.published("t/calls", CALLS)
        answer = self.host.call("t/calls")
        self.assertEqual(answer.status, 200, answer.body)
        id = answer.headers["Spore-Call-Id"]
        graph = json.loads(self.host.ask("GET", f"/v1/calls/{id}/graph").body)
        self.assertEqual(graph["tenant"], "t")
        root, first, second = graph["calls"]
        self.assertEqual((root["id"], root["depth"], root["status"]), (id, 0, "ok"))
        self.assertNotIn("parent", root)
        for call, status, size in ((first, "ok", 0), (second, "trapped", 5)):
            self.assertEqual((call["parent"], call["depth"], call["status"], call["function"], call["input_bytes"]),
                             (id, 1, status, "calls", size))
            self.assertLessEqual(call["submitted_us"], call["started_us"])
            self.assertLessEqual(call["ended_us"], root["ended_us"])
        self.assertLessEqual(first["ended_us"], second["submitted_us"])
        self.assertProblem(self.host.ask("GET", f"/v1/calls/{'0' * 32}/graph"), 404, "not_found")
        self.assertProblem(self.host.ask("GET", "/v1/calls/x/graph"), 404, "not_found")
        done = subprocess.run([SPORE, "call", "t/calls", "--graph", "-d", "", "--server",
                               f"http://{self.host.name}:{self.host.port}"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"(?m)^calls  ok  from \d+ to \d+ us\n  calls  ok  .*\n  calls  trapped  ")
        # What its calls said and how they ended is in the function's log, as of any call.
        logs = json.loads(self.host.ask("GET", "/v1/functions/t/calls/logs").body)["calls"]
        self.assertEqual(sorted(call["outcome"] for call in logs), ["ok", "ok", "ok", "ok", "trapped", "trapped"])

    def test_another_exit_code_is_500(self):
        self.published("t/exits", '(module (func (export "spore_call") (result i32) (i32.const 42)))')
        document = self.assertProblem(self.host.call("t/exits"), 500, "exit")
        self.assertEqual((document["code"], document["exit_code"]), ("exit", 42))

    def test_traps_are_500_with_code_message_and_stack(self):
        for name, (body, code, message) in TRAPS.items():
            with self.subTest(name):
                self.published("t/" + name, f'(module {body} (func $top (export "spore_call") (call $outer)))')
                document = self.assertProblem(self.host.call("t/" + name), 500, "trap")
                self.assertEqual(document["code"], code)
                self.assertIn(message, document["message"])
                self.assertEqual(document["function"], "t/" + name)
                functions = [frame["function"] for frame in document["stack"]]
                self.assertTrue(functions, document)
                self.assertTrue({"inner", "outer", "top"} & set(functions), functions)

    def test_an_endless_call_is_504_and_its_core_is_free_again(self):
        self.published("t/endless", ENDLESS)
        self.host.configure("t/endless", timeout_ms=200)
        document = self.assertProblem(self.host.call("t/endless"), 504, "timeout")
        self.assertEqual(document["code"], "timeout")
        self.assertEqual([frame["function"] for frame in document["stack"]][-1], "spin")
        self.assertEqual(self.host.metric("spore_calls_running"), 0)
        self.published("t/noop", NOOP)
        self.assertEqual(self.host.call("t/noop").status, 200)

    def test_a_caller_can_shorten_the_timeout(self):
        self.published("t/endless", ENDLESS)
        self.host.configure("t/endless", timeout_ms=200)
        self.assertProblem(self.host.call("t/endless", query="?timeout_ms=10"), 504, "timeout")
        self.assertProblem(self.host.call("t/endless", query="?timeout_ms=x"), 400, "bad_request")

    def test_endless_output_is_502(self):
        self.published("t/writes", WRITES_FOR_EVER)
        self.assertProblem(self.host.call("t/writes"), 502, "output_too_large")
        self.host.configure("t/writes", output_max_bytes=100000)
        document = self.assertProblem(self.host.call("t/writes"), 502, "output_too_large")
        self.assertIn("100000", document["detail"])

    def test_memory_stops_growing_at_the_functions_limit(self):
        self.published("t/grows", """(module
          (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "spore_call")
            (block $full (loop $again
              (br_if $full (i32.eq (memory.grow (i32.const 1)) (i32.const -1))) (br $again)))
            (i32.store (i32.const 0) (memory.size))
            (drop (call $write (i32.const 0) (i32.const 4)))))""")
        self.host.configure("t/grows", memory_max_bytes=10 << 20)
        answer = self.host.call("t/grows")
        self.assertEqual(int.from_bytes(answer.body, "little"), (10 << 20) // 65536)

    def test_what_is_not_there_is_404(self):
        self.assertProblem(self.host.call("t/nobody"), 404, "not_found")
        self.assertProblem(self.host.call("nobody/nobody"), 404, "not_found")
        self.assertProblem(self.host.call("t/..%2f"), 404, "not_found")

    def test_logs_tell_of_calls_and_what_they_wrote(self):
        self.published("logs/talks", """(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1) (data (i32.const 100) "to the log\\0a")
          (func (export "_start")
            (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 11))
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
            unreachable))""")
        answer = self.host.call("logs/talks", b"12345")
        calls = self.host.ask("GET", "/v1/functions/logs/talks/logs").json()["calls"]
        self.assertEqual(len(calls), 1)
        self.assertEqual(calls[0]["id"], answer.headers["Spore-Call-Id"])
        self.assertEqual((calls[0]["log"], calls[0]["outcome"]), ("to the log\n", "trapped"))
        self.assertEqual((calls[0]["input_bytes"], calls[0]["version"]), (5, 1))
        self.host.call("logs/talks")
        self.assertEqual(len(self.host.ask("GET", "/v1/functions/logs/talks/logs?limit=1").json()["calls"]), 1)
        self.assertProblem(self.host.ask("GET", "/v1/functions/logs/none/logs"), 404, "not_found")


class Bounds(SystemTest):
    FLAGS = ("--seats", "1", "--preempt", "false", "--queue", "2", "--tenant-queue", "1", "--input-mib", "1")

    def test_too_much_input_is_413(self):
        self.published("b/echo", ECHO)
        self.assertEqual(self.host.call("b/echo", b"x" * (1 << 20)).status, 200)
        self.assertProblem(self.host.call("b/echo", b"x" * ((1 << 20) + 1)), 413, "too_large")

    def test_full_queues_are_429_and_503_while_everything_else_is_answered(self):
        self.published("b/endless", ENDLESS)
        self.host.configure("b/endless", timeout_ms=30000)
        self.published("b/noop", NOOP)
        self.published("c/noop", NOOP)
        self.published("d/noop", NOOP)
        endless = Background(self.host.call, "b/endless", b"", "?timeout_ms=4000")
        self.wait_for(lambda: self.host.metric("spore_calls_running") == 1)
        waiting = [Background(self.host.call, "b/noop")]
        self.wait_for(lambda: self.host.metric("spore_calls_waiting") == 1)
        full = self.host.call("b/noop")
        self.assertProblem(full, 429, "tenant_queue_full")
        self.assertTrue(full.headers["Retry-After"])
        waiting.append(Background(self.host.call, "c/noop"))
        self.wait_for(lambda: self.host.metric("spore_calls_waiting") == 2)
        full = self.host.call("d/noop")
        self.assertProblem(full, 503, "host_full")
        self.assertTrue(full.headers["Retry-After"])
        self.assertEqual(self.host.ask("GET", "/healthz").status, 200)
        self.assertEqual(self.host.publish("d/other", says("meanwhile")).status, 201)
        self.assertProblem(endless.result(), 504, "timeout")
        self.assertEqual([call.result().status for call in waiting], [200, 200])


# Some ten milliseconds.
BRIEF = """(module (memory 1) (func (export "spore_call") (local $i i32)
  (loop $again
    (i32.store (i32.const 0) (i32.mul (i32.add (i32.load (i32.const 0)) (local.get $i)) (i32.const 1664525)))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $again (i32.lt_u (local.get $i) (i32.const 10000000))))))"""


class Priorities(SystemTest):
    def test_of_those_that_wait_the_highest_goes_first(self):
        host = self.own_host("--seats", "1", "--preempt", "false")
        self.published("p/endless", ENDLESS, host)
        self.published("p/noop", BRIEF, host)  # long enough that the log has them in the order in which they ran
        endless = Background(host.call, "p/endless", b"", "?timeout_ms=3000")
        self.wait_for(lambda: host.metric("spore_calls_running") == 1)
        stored = host.ask("POST", "/v1/functions/p/noop/call?async=1&priority=low").json()["id"]
        waiting = {}
        for count, priority in enumerate(("low", "normal", "high"), start=2):
            waiting[priority] = Background(host.call, "p/noop", b"", "?priority=" + priority)
            self.wait_for(lambda count=count: host.metric("spore_calls_waiting") == count)
        self.assertProblem(endless.result(), 504, "timeout")
        priorities = {call.result().headers["Spore-Call-Id"]: priority for priority, call in waiting.items()}
        log = host.ask("GET", "/v1/functions/p/noop/logs").json()["calls"]  # newest first
        self.assertEqual([priorities[call["id"]] for call in log if call["id"] in priorities], ["low", "normal", "high"])
        self.assertEqual(host.ask("GET", f"/v1/calls/{stored}?wait=30s").json()["status"], "succeeded")
        for wrong in ("", "highest"):
            self.assertProblem(host.call("p/noop", b"", "?priority=" + wrong), 400, "bad_request")


class Versions(SystemTest):
    def test_a_call_keeps_the_version_it_began_with(self):
        self.published("v/f", ENDLESS)
        endless = Background(self.host.call, "v/f", b"", "?timeout_ms=3000")
        self.wait_for(lambda: self.host.metric("spore_calls_running") == 1)
        self.published("v/f", says("two"))
        self.assertEqual(self.host.call("v/f").body, b"two")
        self.assertEqual(self.host.ask("DELETE", "/v1/functions/v/f").status, 204)
        self.assertProblem(self.host.call("v/f"), 404, "not_found")
        document = self.assertProblem(endless.result(), 504, "timeout")
        self.assertEqual(document["version"], 1)

    def test_publishing_over_a_function_that_is_called_loses_no_call(self):
        self.published("v/busy", says("0"))
        stop = []

        def call_until_stopped():
            seen = set()
            while not stop:
                answer = self.host.call("v/busy")
                self.assertEqual(answer.status, 200, answer.body)
                seen.add(answer.body)
            return seen

        callers = [Background(call_until_stopped) for _ in range(4)]
        for number in range(1, 6):
            self.published("v/busy", says(str(number)))
        self.wait_for(lambda: self.host.call("v/busy").body == b"5")
        stop.append(True)
        self.assertIn(b"5", set().union(*(caller.result() for caller in callers)) | {self.host.call("v/busy").body})


if __name__ == "__main__":
    unittest.main()

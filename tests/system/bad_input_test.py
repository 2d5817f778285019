"""Modules and clients that mean harm: each is answered with its cause, and the host serves on."""

import random
import socket
import unittest

from host import DEADLINE_S, ECHO, NOOP, SANITIZED, Host, SystemTest, large_module, says, wasm

SEED = 20240917


class Modules(SystemTest):
    def tearDown(self):
        self.assertEqual(self.host.ask("GET", "/healthz").status, 200)
        self.assertIsNone(self.host.process.poll())

    def rejected(self, module):
        return self.assertProblem(self.host.publish("bad/module", module), 422, "module_rejected")

    def test_what_is_no_module(self):
        for module in (b"", b"\0", b"\0asm", b"\0asm\1\0\0\0\xff", b"not wasm at all", b"\0asm\2\0\0\0"):
            self.assertTrue(self.rejected(module)["detail"])

    def test_truncated_modules(self):
        module = wasm(ECHO)
        for size in range(9, len(module) - 1, 11):
            answer = self.host.publish("bad/module", module[:size])
            # Cut at the end of a section the rest may be a module, but never one with an entry.
            self.assertProblem(answer, 422, "module_rejected")

    def test_random_bytes_and_flipped_bits(self):
        chance = random.Random(SEED)
        for _ in range(20):
            self.rejected(b"\0asm\1\0\0\0" + chance.randbytes(chance.randrange(1, 2000)))
        module = wasm(ECHO)
        for _ in range(60):
            changed = bytearray(module)
            changed[chance.randrange(8, len(module))] ^= 1 << chance.randrange(8)
            answer = self.host.publish("bad/flipped", bytes(changed))
            self.assertIn(answer.status, (200, 201, 422), answer.body)
            if answer.status != 422:
                self.host.call("bad/flipped", b"x", "?timeout_ms=200")

    def test_an_invalid_module_names_offset_and_reason(self):
        module = bytearray(wasm('(module (func (export "spore_call") (drop (i32.add (i32.const 1) (i32.const 2)))))'))
        module[module.index(b"\x6a")] = 0x7c  # i64.add
        detail = self.rejected(bytes(module))["detail"]
        self.assertRegex(detail, "type mismatch")
        self.assertRegex(detail, "(0x)?[0-9a-f]+")

    def test_every_unknown_import_is_named(self):
        detail = self.rejected(wasm("""(module
          (import "env" "launch_missiles" (func (param i32)))
          (import "spore" "no_such_call" (func (result i64)))
          (import "wasi_snapshot_preview1" "fd_write" (func (param i64)))
          (import "env" "memory" (memory 1))
          (func (export "spore_call")))"""))["detail"]
        for name in ("launch_missiles", "no_such_call", "fd_write", "memory"):
            self.assertIn(name, detail)

    def test_a_missing_entry_is_named(self):
        self.assertIn("spore_call", self.rejected(wasm('(module (func (export "other")))'))["detail"])
        self.assertIn("spore_call", self.rejected(wasm('(module (func (export "spore_call") (param i32)))'))["detail"])

    def test_a_module_that_wants_too_much_memory(self):
        answer = self.host.publish("bad/memory", '(module (memory 32768) (func (export "spore_call")))')
        document = self.assertProblem(answer, 422, "resource_exhausted")
        self.assertIn("memory", document["detail"])
        self.assertProblem(self.host.call("bad/memory"), 404, "not_found")

    def test_a_module_that_exhausts_the_compiler_fails_with_the_limit(self):
        host = Host("--compiler-mib", "256", "--compiler-seconds", "2")
        self.addCleanup(host.close)
        answer = host.publish("bad/module", wasm(large_module(60_000)))
        document = self.assertProblem(answer, 422, "resource_exhausted")
        # Which of its limits it meets first depends on the machine.
        self.assertRegex(document["detail"], r"memory|took longer than 2 s|CPU time \(limit 2 s\)")
        self.published("good/noop", NOOP, host)
        self.assertEqual(host.call("good/noop").status, 200)

    def test_a_rejected_module_leaves_the_function_as_it_was(self):
        self.published("bad/kept", says("kept"))
        self.assertEqual(self.host.publish("bad/kept", b"\0asm\1\0\0\0\xff").status, 422)
        self.assertEqual(self.host.call("bad/kept").body, b"kept")


class Clients(SystemTest):
    FLAGS = ("--header-timeout", "1500", "--module-mib", "8")

    def tearDown(self):
        self.assertEqual(self.host.ask("GET", "/healthz").status, 200)

    def test_a_gibibyte_announced_is_413_at_once(self):
        for method, path in (("PUT", "/v1/functions/b/f"), ("POST", "/v1/functions/b/f/call")):
            with self.host.connect() as connection:
                connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
                                   f"Content-Length: {1 << 30}\r\n\r\n".encode())
                self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 413 "))

    def test_a_gibibyte_streamed_is_413_and_costs_no_gibibyte(self):
        chunk = b"%x\r\n" % (1 << 20) + b"x" * (1 << 20) + b"\r\n"
        for method, path in (("PUT", "/v1/functions/b/f"), ("POST", "/v1/functions/b/f/call")):
            before = self.host.status("VmRSS")
            with self.host.connect() as connection:
                connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
                                   "Transfer-Encoding: chunked\r\n\r\n".encode())
                sent = 0
                try:
                    for sent in range(1024):
                        connection.sendall(chunk)
                except (ConnectionResetError, BrokenPipeError):
                    pass  # it has heard enough
                answer = connection.recv(100)
                self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), (sent, answer))
            self.assertLess(self.host.status("VmHWM"), before + (160 << 10) * (4 if SANITIZED else 1))

    def test_a_thousand_silent_connections_cost_little_and_are_closed(self):
        before = self.host.status("VmRSS")
        connections = [self.host.connect() for _ in range(1000)]
        try:
            self.assertEqual(self.host.publish("b/while", NOOP).status, 201)
            self.assertEqual(self.host.call("b/while").status, 200)
            self.assertLess(self.host.status("VmRSS") - before, 64 << 10)
            for connection in connections:
                self.assertEqual(connection.recv(1), b"")
        finally:
            for connection in connections:
                connection.close()
        self.wait_for(lambda: self.host.metric("spore_connections_open") <= 1)

    def test_half_a_header_is_408(self):
        with self.host.connect() as connection:
            connection.sendall(b"POST /v1/functions/b/f/call HTTP/1.1\r\nHo")
            self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 408 "))

    def test_malformed_requests(self):
        chance = random.Random(SEED)
        for text in [b"\r\n\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\x00" * 500,
                     *(chance.randbytes(400) + b"\r\n\r\n" for _ in range(20))]:
            with self.host.connect() as connection:
                connection.sendall(text)
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while True:
                    try:
                        piece = connection.recv(4096)
                    except ConnectionResetError:
                        break
                    if not piece:
                        break
                    answer += piece
                self.assertTrue(answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505")), (text, answer))

    def test_clients_that_go_away_in_the_middle(self):
        self.published("b/echo", ECHO)
        for _ in range(50):
            with self.host.connect() as connection:
                connection.sendall(b"POST /v1/functions/b/echo/call HTTP/1.1\r\nHost: localhost\r\n"
                                   b"Content-Length: 1000\r\n\r\nhalf")
            with self.host.connect() as connection:
                connection.sendall(b"POST /v1/functions/b/echo/call HTTP/1.1\r\nHost: localhost\r\n"
                                   b"Content-Length: 4\r\n\r\nbody")
        self.wait_for(lambda: self.host.metric("spore_connections_open") <= 1)
        self.wait_for(lambda: self.host.metric("spore_http_memory_bytes") == 0)  # calls of theirs may run still


if __name__ == "__main__":
    unittest.main()

"""Bodies of web handlers that are larger than what is held: both ways, at once, cut, refused, and how much they cost."""

import hashlib
import http.client
import os
import unittest

from host import DEADLINE_S, NOOP, SANITIZED, Background, SystemTest
from web_test import built

# POST /sum   reads its input to the end, and tells its length and a sum
# POST /echo  sends its input back as it comes
# GET  /make?BYTES[&announce][&slow][&trap]   so many bytes that count up, perhaps with a length, pauses, and no end
# POST /none  does not read its input
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static unsigned char block[1 << 16];
static void put(const void *bytes, size_t size) {
  for (ssize_t n; size > 0; bytes = (const char *)bytes + n, size -= n)
    if ((n = write(1, bytes, size)) <= 0) exit(9);
}
static void say(const char *text) { put(text, strlen(text)); }
int main(void) {
  const char *path = getenv("PATH_INFO"), *query = getenv("QUERY_STRING");
  ssize_t n;
  if (!strcmp(path, "/sum")) {
    unsigned long long total = 0, sum = 0;
    while ((n = read(0, block, sizeof block)) > 0) {
      total += n;
      for (ssize_t i = 0; i < n; i++) sum += block[i];
    }
    printf("Content-Type: text/plain\n\n%llu %llu %s\n", total, sum, n < 0 ? "cut" : "whole");
  } else if (!strcmp(path, "/echo")) {
    say("Content-Type: a/b\n\n");
    while ((n = read(0, block, sizeof block)) > 0) put(block, n);
  } else if (!strcmp(path, "/make")) {
    unsigned long long size = strtoull(query, NULL, 10);
    char head[100];
    say("Content-Type: a/b\n");
    const char *announced = strstr(query, "announce=");
    if (announced) { snprintf(head, sizeof head, "Content-Length: %s\n", announced + 9); say(head); }
    say("\n");
    for (size_t i = 0; i < sizeof block; i++) block[i] = i * 7 + (i >> 8);
    for (; size > 0; size -= n) {
      n = size < sizeof block ? size : sizeof block;
      put(block, n);
      if (strstr(query, "slow")) usleep(50000);
    }
    if (strstr(query, "trap")) __builtin_trap();
  } else {
    puts("Content-Type: text/plain\n\nnot read");
  }
}"""
READER = r"""
#include <stdio.h>
unsigned input_size(void) __attribute__((import_module("spore"), import_name("input_size")));
__attribute__((export_name("spore_call"))) void spore_call(void) {
  printf("Content-Type: text/plain\n\n%u", input_size());
  fflush(stdout);
}"""
BLOCK = bytes((i * 7 + (i >> 8)) & 255 for i in range(1 << 16))
MIB = 1 << 20
LARGE = (8 if SANITIZED else 300) * MIB


def made(size):
    return BLOCK * (size // len(BLOCK)) + BLOCK[:size % len(BLOCK)]


class Streams(SystemTest):
    FLAGS = ("--seats", "1")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.host.publish("t/web", built(PROGRAM))
        cls.host.configure("t/web", output_max_bytes=1 << 30)

    def open(self, method, path, fields=(), version="1.1"):
        """A connection on which a request has begun."""
        connection = self.host.connect()
        self.addCleanup(connection.close)
        lines = [f"{method} /fn/t/web{path} HTTP/{version}", "Host: localhost", *fields]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection

    def answer(self, connection):
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response

    def upload(self, path, blocks, **options):
        connection = http.client.HTTPConnection(self.host.name, self.host.port, timeout=DEADLINE_S)
        self.addCleanup(connection.close)
        connection.request("POST", "/fn/t/web" + path, blocks, **options)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def last_log(self, name="t/web"):
        return self.host.ask("GET", f"/v1/functions/{name}/logs?limit=1").json()["calls"][0]

    def calls_under_way(self):
        return sum(self.host.metric(name) for name in ("spore_calls_running", "spore_calls_parked",
                                                       "spore_tenant_calls"))

    def test_a_large_body_costs_no_memory(self):
        self.upload("/sum", BLOCK * 100)
        before = self.host.status("VmRSS")
        count, total = LARGE // len(BLOCK), sum(BLOCK)
        for options in ({"headers": {"Content-Length": str(LARGE)}}, {"encode_chunked": True}):
            status, body = self.upload("/sum", iter([BLOCK] * count), **options)
            self.assertEqual((status, body), (200, f"{LARGE} {total * count} whole\n".encode()))
        if not SANITIZED:
            self.assertLess(self.host.status("VmRSS") - before, 16 << 10)

    def test_a_large_answer_costs_no_memory(self):
        self.host.ask("GET", f"/fn/t/web/make?{MIB}")
        before = self.host.status("VmRSS")
        for query in (f"{LARGE}", f"{LARGE}&announce={LARGE}"):
            connection = self.open("GET", "/make?" + query)
            answer = self.answer(connection)
            self.assertEqual((answer.status, answer.getheader("Content-Type")), (200, "a/b"))
            self.assertRegex(answer.getheader("Spore-Call-Id"), "^[0-9a-f]{32}$")
            self.assertEqual(answer.getheader("Content-Length"), str(LARGE) if "announce" in query else None)
            digest, length = hashlib.sha256(), 0
            while block := answer.read(MIB):
                digest.update(block)
                length += len(block)
            self.assertEqual(length, LARGE)
            self.assertEqual(digest.digest(), hashlib.sha256(made(LARGE)).digest())
        if not SANITIZED:
            self.assertLess(self.host.status("VmRSS") - before, 16 << 10)
        self.assertEqual(self.last_log()["output_bytes"], LARGE + len(f"Content-Type: a/b\nContent-Length: {LARGE}\n\n"))

    def test_a_connection_is_used_again_after_a_streamed_answer(self):
        connection = self.open("GET", f"/make?{MIB}")
        self.assertEqual(self.answer(connection).read(), made(MIB))
        connection.sendall(b"GET /fn/t/web/make?3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(self.answer(connection).read(), BLOCK[:3])

    def test_sizes_around_what_is_held(self):
        for size in (0, 1, (256 << 10) - 20, (256 << 10) - 19, (256 << 10) - 18, 256 << 10, (256 << 10) + 1, MIB + 1):
            self.assertEqual(self.host.ask("GET", f"/fn/t/web/make?{size}").body, made(size), size)
            self.assertEqual(self.host.ask("POST", "/fn/t/web/echo", made(size)).body, made(size), size)

    def test_both_ways_at_once(self):
        data = os.urandom(MIB) * (4 if SANITIZED else 32)
        connection = self.open("POST", "/echo", [f"Content-Length: {len(data)}"])
        sender = Background(connection.sendall, data)
        self.assertEqual(self.answer(connection).read(), data)
        sender.result()

    def test_the_old_protocol_ends_by_closing(self):
        connection = self.open("GET", f"/make?{MIB}", version="1.0")
        got = b""
        while block := connection.recv(MIB):
            got += block
        head, body = got.split(b"\r\n\r\n", 1)
        self.assertNotIn(b"chunked", head)
        self.assertEqual(body, made(MIB))

    def test_calls_that_wait_for_their_clients_hold_no_seat(self):
        self.host.publish("t/noop", NOOP)
        reads_slowly = self.open("GET", f"/make?{64 * MIB}")
        sends_slowly = [self.open("POST", "/sum", [f"Content-Length: {2 * MIB}"]) for _ in range(4)]
        for connection in sends_slowly:
            connection.sendall(b"x" * MIB)
        self.wait_for(lambda: self.calls_under_way() >= 5)
        for _ in range(20):  # on the only seat there is
            self.assertEqual(self.host.call("t/noop").status, 200)
        for connection in sends_slowly:
            connection.sendall(b"x" * MIB)
            self.assertEqual(self.answer(connection).read(), b"%d %d whole\n" % (2 * MIB, 2 * MIB * ord("x")))
        self.assertEqual(len(self.answer(reads_slowly).read()), 64 * MIB)

    def test_a_client_that_goes_away_while_it_sends_ends_the_call(self):
        for fields, sent in (([f"Content-Length: {4 * MIB}"], b"x" * MIB),
                             (["Transfer-Encoding: chunked"], b"100000\r\n" + b"x" * MIB + b"\r\n")):
            connection = self.open("POST", "/sum", fields)
            connection.sendall(sent)
            self.wait_for(lambda: self.calls_under_way() >= 1)
            connection.close()
            self.wait_for(lambda: self.calls_under_way() == 0)
            self.assertEqual(self.last_log()["outcome"], "cancelled")

    def test_a_client_that_goes_away_while_it_reads_ends_the_call(self):
        for query, outcomes in ((f"{512 * MIB}", ("cancelled", "exited")),  # it may see the broken pipe first
                                (f"{512 * MIB}&slow", ("cancelled",))):
            connection = self.open("GET", "/make?" + query)
            connection.recv(MIB)
            connection.close()
            self.wait_for(lambda: self.calls_under_way() == 0)
            self.assertIn(self.last_log()["outcome"], outcomes)

    def test_a_body_that_is_not_read_is_answered(self):
        connection = self.open("POST", "/none", [f"Content-Length: {64 * MIB}"])
        sender = Background(self.send_what_goes, connection, b"x" * 64 * MIB)
        answer = self.answer(connection)
        self.assertEqual((answer.status, answer.read()), (200, b"not read\n"))
        connection.close()
        sender.result()

    @staticmethod
    def send_what_goes(connection, data):
        try:
            connection.sendall(data)
        except OSError:
            pass

    def test_an_answer_that_breaks_off_is_broken_for_the_client_too(self):
        for query in (f"{MIB}&trap", f"{MIB}&announce={MIB + 1}", f"{MIB}&announce={MIB - 1}"):
            answer = self.answer(self.open("GET", "/make?" + query))
            self.assertEqual(answer.status, 200)
            with self.assertRaises((http.client.IncompleteRead, ConnectionResetError), msg=query):
                while answer.read(MIB):
                    pass
                if answer.length:
                    raise http.client.IncompleteRead(b"")

    def test_the_limit_of_the_output_is_that_of_the_stream_too(self):
        host = self.own_host()
        self.published("t/web", built(PROGRAM), host)
        host.configure("t/web", output_max_bytes=MIB)
        connection = http.client.HTTPConnection(host.name, host.port, timeout=DEADLINE_S)
        self.addCleanup(connection.close)
        connection.request("GET", f"/fn/t/web/make?{2 * MIB}")
        answer = connection.getresponse()
        with self.assertRaises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()
        self.assertEqual(host.ask("GET", "/v1/functions/t/web/logs").json()["calls"][0]["outcome"], "output_too_large")

    def test_bodies_are_bounded_where_they_stream(self):
        host = self.own_host("--web-body-mib", "1")
        self.published("t/web", built(PROGRAM), host)
        connection = http.client.HTTPConnection(host.name, host.port, timeout=DEADLINE_S)
        self.addCleanup(connection.close)
        connection.request("POST", "/fn/t/web/sum", iter([BLOCK] * 17), encode_chunked=True)
        answer = connection.getresponse()
        self.assertEqual((answer.status, answer.read().count(b"too_large")), (413, 1))

    def test_a_malformed_chunk_in_the_midst_is_400(self):
        connection = self.open("POST", "/sum", ["Transfer-Encoding: chunked"])
        connection.sendall(b"100000\r\n" + b"x" * MIB + b"\r\n")
        self.wait_for(lambda: self.calls_under_way() >= 1)
        connection.sendall(b"zz\r\n")
        self.assertEqual(self.answer(connection).status, 400)
        self.wait_for(lambda: self.calls_under_way() == 0)

    def test_who_sends_nothing_more_is_cut_off_in_time(self):
        host = self.own_host()
        self.published("t/web", built(PROGRAM), host)
        host.configure("t/web", timeout_ms=1000)
        with host.connect() as connection:
            connection.sendall(f"POST /fn/t/web/sum HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MIB}\r\n\r\nx".encode())
            self.assertEqual(self.answer(connection).status, 504)

    def test_a_reactor_takes_a_large_body_whole(self):
        self.published("t/reader", built(READER, "-mexec-model=reactor"))
        answer = self.host.ask("POST", "/fn/t/reader", made(8 * MIB))
        self.assertEqual((answer.status, answer.body), (200, str(8 * MIB).encode()))
        self.assertEqual(self.host.ask("POST", "/fn/t/reader", made(65 * MIB)).status, 500)
        self.assertIn("larger than", self.last_log("t/reader")["detail"])

    def test_what_streams_hold_is_bounded_too(self):
        host = self.own_host("--memory-mib", "4")
        self.published("t/reader", built(READER, "-mexec-model=reactor"), host)
        self.assertEqual(host.ask("POST", "/fn/t/reader", made(2 * MIB)).status, 200)
        self.assertEqual(host.ask("POST", "/fn/t/reader", made(8 * MIB)).status, 500)
        log = host.ask("GET", "/v1/functions/t/reader/logs").json()["calls"][0]
        self.assertIn("memory set aside", log["detail"])
        self.assertEqual(host.ask("POST", "/fn/t/reader", made(2 * MIB)).status, 200)

    def test_many_at_once(self):
        def one(i):
            data = bytes([i]) * (600_000 + i)
            self.assertEqual(self.host.ask("POST", "/fn/t/web/echo", data).body, data)

        for _ in range(3):
            work = [Background(one, i) for i in range(16)]
            for thread in work:
                thread.result()

    def test_nothing_is_left_behind(self):
        def open_now():
            return len(os.listdir(f"/proc/{self.host.process.pid}/fd"))

        def rounds(count):
            for i in range(count):
                self.upload("/sum", BLOCK * 10)
                self.host.ask("GET", f"/fn/t/web/make?{MIB}")
                connection = self.open("POST", "/echo", [f"Content-Length: {4 * MIB}"])
                connection.sendall(b"x" * MIB)
                connection.close()
            self.wait_for(lambda: self.calls_under_way() == 0)

        rounds(5)
        self.wait_for(lambda: self.host.metric("spore_connections_open") <= 1)
        before = open_now()
        rounds(30)
        self.wait_for(lambda: open_now() <= before + 2)


if __name__ == "__main__":
    unittest.main()

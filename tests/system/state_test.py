"""State values over HTTP and with `spore state`, in the store that a host has."""

import json
import os
import signal
import subprocess
import tempfile
import unittest
import urllib.parse

from host import DEADLINE_S, SANITIZED, SPORE, Background, Host, SystemTest
from redis_server import Redis

VALUE_BYTES_MAX = (4 << 30) - (64 << 10)


def path_of(key, tenant="t"):
    return f"/v1/state/{tenant}/{urllib.parse.quote(key, safe='')}"


def pattern(size, seed=1):
    """Bytes that differ from piece to piece, as fast as they can be made."""
    block = b"".join((i * 2654435761 + seed & 0xFFFFFFFF).to_bytes(4, "little") for i in range(1 << 14))
    return (block * (size // len(block) + 1))[:size]


class StateTest(SystemTest):
    def put(self, key, body, host=None, **headers):
        return (host or self.host).ask("PUT", path_of(key), body, {k.replace("_", "-"): v for k, v in headers.items()})

    def get(self, key, host=None, **headers):
        return (host or self.host).ask("GET", path_of(key), None, {k.replace("_", "-"): v for k, v in headers.items()})

    def made(self, key, body, host=None):
        answer = self.put(key, body, host)
        self.assertIn(answer.status, (200, 201), answer.body)
        self.assertEqual(answer.json()["size_bytes"], len(body))
        self.assertEqual(answer.headers["ETag"], '"%s"' % answer.json()["version"])
        return answer.headers["ETag"]

    def gone(self, key):
        self.assertProblem(self.get(key), 404, "not_found")

    # ---- values and their keys ----

    def test_a_value_is_made_read_replaced_and_removed(self):
        self.gone("life")
        first = self.put("life", b"one")
        self.assertEqual((first.status, first.json()["key"]), (201, "life"))
        answer = self.get("life")
        self.assertEqual((answer.status, answer.body, answer.headers["ETag"]), (200, b"one", first.headers["ETag"]))
        self.assertEqual(answer.headers["Content-Type"], "application/octet-stream")
        self.assertEqual(answer.headers["Accept-Ranges"], "bytes")
        second = self.put("life", b"longer")
        self.assertEqual(second.status, 200)
        self.assertNotEqual(second.headers["ETag"], first.headers["ETag"])
        self.assertEqual(self.get("life").body, b"longer")
        self.put("life", b"short")  # nothing of what was longer is left
        self.assertEqual(self.get("life").body, b"short")
        self.assertEqual(self.host.ask("DELETE", path_of("life")).status, 204)
        self.gone("life")
        self.assertProblem(self.host.ask("DELETE", path_of("life")), 404, "not_found")
        again = self.put("life", b"one")
        self.assertEqual(again.status, 201)
        self.assertNotEqual(again.headers["ETag"], first.headers["ETag"])  # never taken for the one that was removed

    def test_keys_are_any_utf8(self):
        keys = ["/", "a/b", "a//b", "a/", "/a", "a%2Fb", "%", "%00", "{}", "a}b", "a b", "a+b", "..", "../x", ".", "a?b",
                "a#b", "a@1", "é", "日本語", "\U0001f600", "\x01\n\x7f", "k" * 512, "é" * 256, "call", "?append"]
        for number, key in enumerate(keys):
            self.made(key, b"value %d" % number)
        for number, key in enumerate(keys):
            self.assertEqual(self.get(key).body, b"value %d" % number, key)
        listed = [value["key"] for value in self.all_values("t")]
        for key in keys:
            self.assertEqual(listed.count(key), 1, key)
        for key in keys:
            self.assertEqual(self.host.ask("DELETE", path_of(key)).status, 204, key)

    def test_slashes_may_stand_as_they_are(self):
        self.made("raw/a//b/../c/", b"x")
        self.assertEqual(self.host.ask("GET", "/v1/state/t/raw/a//b/../c/").body, b"x")
        self.assertEqual(self.host.ask("GET", "/v1/state/t/raw%2Fa//b/%2e%2E/c/").body, b"x")

    def test_keys_that_are_none_are_refused_and_told_why(self):
        for raw, words in (("", "empty"), ("k" * 513, "513 bytes"), ("%00", "NUL"), ("a%00b", "byte 1"), ("%ff", "UTF-8"),
                           ("%ed%a0%80", "UTF-8"), ("%c0%af", "UTF-8"), ("%zz", "hexadecimal"), ("a%", "hexadecimal"),
                           ("%C3%A9" * 256 + "x", "513 bytes")):
            for method in ("GET", "HEAD", "PUT", "DELETE"):
                answer = self.host.ask(method, f"/v1/state/t/{raw}", b"x" if method == "PUT" else None)
                if method == "HEAD":
                    self.assertEqual(answer.status, 400)
                    continue
                self.assertIn(words, self.assertProblem(answer, 400, "bad_request")["detail"], raw)
        for tenant in ("a%2Fb", "x" * 65, ".hidden", "%00"):
            self.assertProblem(self.host.ask("PUT", f"/v1/state/{tenant}/k", b"x"), 400, "bad_request")
        for path in ("/v1/state", "/v1/state/", "/v1/state//k"):
            self.assertProblem(self.host.ask("GET", path), 404, "not_found")
        self.assertProblem(self.host.ask("PUT", "/v1/state/t", b"x"), 405, "method_not_allowed")

    def test_an_empty_value_is_a_value(self):
        tag = self.made("empty", b"")
        answer = self.get("empty")
        self.assertEqual((answer.status, answer.body, answer.headers["ETag"]), (200, b"", tag))
        self.assertEqual(answer.headers["Content-Length"], "0")
        self.assertProblem(self.get("empty", Range="bytes=0-0"), 416, "range_not_satisfiable")
        self.assertEqual(self.get("empty", Range="bytes=-1").status, 200)
        self.assertEqual(self.host.ask("POST", path_of("empty") + "?append", b"x").json()["size_bytes"], 1)

    def test_head_tells_size_and_version_alone(self):
        tag = self.made("head", b"12345")
        answer = self.host.ask("HEAD", path_of("head"), None, {"Range": "bytes=0-1"})
        self.assertEqual((answer.status, answer.body, answer.headers["ETag"]), (200, b"", tag))
        self.assertEqual(answer.headers["Content-Length"], "5")
        self.assertEqual(self.host.ask("HEAD", path_of("head/none")).status, 404)

    # ---- parts ----

    def test_ranges(self):
        data = pattern(1_000_000)
        tag = self.made("ranges", data)
        for text, begin, end in (("0-0", 0, 1), ("0-999999", 0, 10**6), ("999999-", 999_999, 10**6), ("-1", 999_999, 10**6),
                                 ("4095-4096", 4095, 4097), ("262143-262144", 262143, 262145), ("-2000000", 0, 10**6),
                                 ("10-99999999999999999999999", 10, 10**6), ("1-700000", 1, 700_001)):
            answer = self.get("ranges", Range=f"bytes={text}")
            self.assertEqual((answer.status, answer.headers["Content-Range"], answer.headers["ETag"]),
                             (206, f"bytes {begin}-{end - 1}/1000000", tag), text)
            self.assertEqual(answer.headers["Content-Length"], str(end - begin))
            self.assertTrue(answer.body == data[begin:end], text)
        for text in ("1000000-", "1000000-1000001", "99999999999999999999-", "-0"):
            answer = self.get("ranges", Range=f"bytes={text}")
            self.assertProblem(answer, 416, "range_not_satisfiable")
            self.assertEqual(answer.headers["Content-Range"], "bytes */1000000")
        for text in ("bytes=5-2", "bytes=0-0,5-6", "lines=0-1", "bytes=x-y", "bytes=", "0-5"):
            answer = self.get("ranges", Range=text)
            self.assertEqual((answer.status, len(answer.body)), (200, 10**6), text)
        for condition, status in ((tag, 206), ('"0-1"', 200), ("W/" + tag, 200), ("Fri, 27 Nov 2026 00:00:00 GMT", 200)):
            self.assertEqual(self.get("ranges", Range="bytes=0-9", If_Range=condition).status, status, condition)

    def test_parts_are_written_where_the_offset_says(self):
        self.made("parts", b"0123456789")
        put = lambda offset, body, **headers: self.host.ask(
            "PUT", f"{path_of('parts')}?offset={offset}", body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = put(3, b"abc")
        self.assertEqual((answer.status, answer.json()["size_bytes"]), (200, 10))
        self.assertEqual(self.get("parts").body, b"012abc6789")
        self.assertEqual(answer.headers["ETag"], self.get("parts").headers["ETag"])
        self.assertEqual(put(8, b"wxyz").json()["size_bytes"], 12)  # it grows
        self.assertEqual(put(14, b"!").json()["size_bytes"], 15)    # zeros between
        self.assertEqual(self.get("parts").body, b"012abc67wxyz\0\0!")
        tag = self.get("parts").headers["ETag"]
        self.assertEqual(put(5, b"").headers["ETag"], tag)  # nothing to write: no new version
        self.assertProblem(put(0, b"x", If_Match='"1-1"'), 412, "precondition_failed")
        self.assertEqual(put(0, b"x", If_Match=tag).status, 200)
        self.assertProblem(put(VALUE_BYTES_MAX, b"x"), 413, "too_large")
        self.assertProblem(put("9223372036854775807", b"x"), 413, "too_large")
        self.assertEqual(self.host.ask("PUT", path_of("none") + "?offset=0", b"x").status, 404)
        for query in ("offset=-1", "offset=x", "offset=", "offset", "offset=1.5", "offset=%zz", "ofset=1", "offset=1&size=2",
                      "offset=99999999999999999999"):
            answer = self.host.ask("PUT", f"{path_of('parts')}?{query}", b"lost")
            self.assertProblem(answer, 400, "bad_request")
        answer = self.put("parts", b"lost", Content_Range="bytes 0-3/15")
        self.assertIn("offset", self.assertProblem(answer, 400, "bad_request")["detail"])
        self.assertEqual(self.get("parts").body, b"x12abc67wxyz\0\0!")

    def test_appending(self):
        post = lambda key, body, **headers: self.host.ask(
            "POST", path_of(key) + "?append", body, {k.replace("_", "-"): v for k, v in headers.items()})
        self.assertEqual(post("log", b"a").status, 201)
        answer = post("log", b"bc")
        self.assertEqual((answer.status, answer.json()["size_bytes"]), (200, 3))
        self.assertProblem(post("log", b"d", If_Match='"1-1"'), 412, "precondition_failed")
        self.assertEqual(post("log", b"d", If_Match=answer.headers["ETag"]).status, 200)
        self.assertProblem(post("log", b"e", If_None_Match="*"), 412, "precondition_failed")
        self.assertEqual(self.get("log").body, b"abcd")
        self.assertIn("append", self.assertProblem(self.host.ask("POST", path_of("log"), b"x"), 400, "bad_request")["detail"])
        writers = [Background(lambda name=name: [post("log/all", bytes([name]) * 10).status for _ in range(20)])
                   for name in b"abcd"]
        for writer in writers:
            self.assertTrue(set(writer.result()) <= {200, 201})
        body = self.get("log/all").body
        self.assertEqual(len(body), 4 * 20 * 10)
        self.assertTrue(all(len(set(body[i:i + 10])) == 1 for i in range(0, len(body), 10)))

    # ---- versions ----

    def test_conditions_guard_every_change(self):
        self.assertProblem(self.put("guard", b"x", If_Match="*"), 412, "precondition_failed")
        self.assertProblem(self.put("guard", b"x", If_Match='"1-1"'), 412, "precondition_failed")
        tag = self.put("guard", b"one", If_None_Match="*")
        self.assertEqual(tag.status, 201)
        tag = tag.headers["ETag"]
        answer = self.put("guard", b"x", If_None_Match="*")
        self.assertProblem(answer, 412, "precondition_failed")
        self.assertEqual(answer.headers["ETag"], tag)
        self.assertProblem(self.put("guard", b"x", If_Match="W/" + tag), 412, "precondition_failed")
        two = self.put("guard", b"two", If_Match=f'"0-0", {tag}')
        self.assertEqual(two.status, 200)
        two = two.headers["ETag"]
        self.assertProblem(self.put("guard", b"x", If_Match=tag), 412, "precondition_failed")
        self.assertEqual(self.put("guard", b"three", If_Match="*").status, 200)
        self.assertEqual(self.get("guard").body, b"three")
        tag = self.get("guard").headers["ETag"]
        self.assertEqual(self.get("guard", If_None_Match=tag).status, 304)
        self.assertEqual(self.get("guard", If_None_Match=tag).headers["ETag"], tag)
        self.assertEqual(self.get("guard", If_None_Match="W/" + tag, Range="bytes=0-0").status, 304)
        self.assertEqual(self.get("guard", If_None_Match=two).body, b"three")
        self.assertProblem(self.get("guard", If_Match=two), 412, "precondition_failed")
        delete = lambda **headers: self.host.ask("DELETE", path_of("guard"), None, {k.replace("_", "-"): v for k, v in headers.items()})
        self.assertProblem(delete(If_Match=two), 412, "precondition_failed")
        self.assertEqual(delete(If_Match=tag).status, 204)
        self.assertProblem(delete(If_Match=tag), 412, "precondition_failed")
        self.gone("guard")

    def test_of_many_who_set_a_version_one_wins_each_time(self):
        self.made("count", b"0")

        def count(times):
            for _ in range(times):
                while True:
                    now = self.get("count")
                    done = self.put("count", b"%d" % (int(now.body) + 1), If_Match=now.headers["ETag"])
                    if done.status == 200:
                        break
                    self.assertEqual(done.status, 412, done.body)

        for counter in [Background(count, 25) for _ in range(4)]:
            counter.result()
        self.assertEqual(self.get("count").body, b"100")

    # ---- lists ----

    def all_values(self, tenant, query="limit=1000", host=None):
        values, cursor = [], ""
        while True:
            page = (host or self.host).ask("GET", f"/v1/state/{tenant}?{query}" + (f"&cursor={urllib.parse.quote(cursor, safe='')}" if cursor else "")).json()
            values += page["values"]
            cursor = page.get("cursor", "")
            if not cursor:
                return values

    def test_lists_come_in_pages(self):
        keys = sorted(f"{'ab'[i % 2]}/%{i:04}}}" for i in range(1500))
        share = len(keys) // 4

        def make(part):
            for key in part:
                answer = self.host.ask("PUT", path_of(key, "pages"), key.encode())
                self.assertEqual(answer.status, 201, answer.body)

        for maker in [Background(make, keys[i * share:(i + 1) * share]) for i in range(4)]:
            maker.result()
        page = self.host.ask("GET", "/v1/state/pages").json()
        self.assertEqual([value["key"] for value in page["values"]], keys[:100])
        self.assertEqual(page["values"][0]["size_bytes"], len(keys[0]))
        tag = self.host.ask("HEAD", path_of(keys[0], "pages")).headers["ETag"]
        self.assertEqual('"%s"' % page["values"][0]["version"], tag)
        for limit in (1000, 999, 500, 7 if not SANITIZED else 250):
            self.assertEqual([v["key"] for v in self.all_values("pages", f"limit={limit}")], keys, limit)
        self.assertEqual([v["key"] for v in self.all_values("pages", "prefix=b/%2500")],
                         [key for key in keys if key.startswith("b/%00")])
        self.assertEqual(self.all_values("pages", "prefix=none"), [])
        self.assertEqual(self.all_values("nobody"), [])
        for query in ("prefx=a", "prefix=%zz", "cursor=%25zz"):
            self.assertProblem(self.host.ask("GET", f"/v1/state/pages?{query}"), 400, "bad_request")

    # ---- who may ----

    def test_keys_decide_who_sees_what(self):
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "keys.json")
            with open(name, "w") as file:
                json.dump({"keys": [
                    {"token": "owner-0123456789abc", "tenant": "t", "scopes": ["read", "publish"]},
                    {"token": "reader-0123456789abc", "tenant": "t", "scopes": ["read"]},
                    {"token": "caller-0123456789abc", "tenant": "t", "scopes": ["call"]},
                    {"token": "other-0123456789abc", "tenant": "other", "scopes": ["admin"]}]}, file)
            os.chmod(name, 0o600)
            host = self.own_host("--keys", name)
            ask = lambda who, method, path, body=None: host.ask(
                method, path, body, {"Authorization": f"Bearer {who}-0123456789abc"} if who else {})
            self.assertEqual(ask("owner", "PUT", path_of("secret"), b"x").status, 201)
            self.assertEqual(ask("reader", "GET", path_of("secret")).body, b"x")
            self.assertEqual(len(ask("reader", "GET", "/v1/state/t").json()["values"]), 1)
            for method in ("PUT", "DELETE", "POST"):
                body = b"y" if method != "DELETE" else None
                self.assertProblem(ask("reader", method, path_of("secret"), body), 403, "forbidden")
                self.assertProblem(ask("other", method, path_of("secret"), body), 404, "not_found")
                self.assertProblem(ask(None, method, path_of("secret"), body), 401, "unauthenticated")
            self.assertProblem(ask("caller", "GET", path_of("secret")), 403, "forbidden")
            for path in (path_of("secret"), path_of("none"), "/v1/state/t"):
                self.assertProblem(ask("other", "GET", path), 404, "not_found")
            there, missing = (ask("other", "GET", path_of(key)).json()["detail"] for key in ("secret", "none"))
            self.assertEqual(there, missing)
            self.assertEqual(ask("other", "GET", path_of("secret", "other")).status, 404)
            self.assertEqual(ask("owner", "GET", path_of("secret")).body, b"x")

    # ---- size, endurance, want of room ----

    def test_a_large_value_costs_the_host_little_memory(self):
        size, piece = 100 << 20, 4 << 20
        data = pattern(size)
        host = self.own_host()
        self.made("large", b"", host)
        for offset in range(0, size, piece):
            answer = host.ask("PUT", f"{path_of('large')}?offset={offset}", data[offset:offset + piece])
            self.assertEqual(answer.status, 200, answer.body)
        self.assertTrue(host.ask("GET", path_of("large"), None, {"Range": "bytes=-70000"}).body == data[-70000:])
        peak = host.status("VmHWM")
        readers = [Background(self.get, "large", host) for _ in range(4)]
        for reader in readers:
            self.assertTrue(reader.result().body == data)
        if not SANITIZED:
            self.assertLess(host.status("VmHWM") - peak, 48 << 10)  # one copy would be 100 MiB

    def test_the_largest_value(self):
        self.made("largest", b"first")
        end = f"{path_of('largest')}?offset={VALUE_BYTES_MAX - 4}"
        self.assertEqual(self.host.ask("PUT", end, b"last").json()["size_bytes"], VALUE_BYTES_MAX)
        self.assertProblem(self.host.ask("PUT", end, b"last!"), 413, "too_large")
        self.assertProblem(self.host.ask("POST", path_of("largest") + "?append", b"!"), 413, "too_large")
        self.assertEqual(self.host.ask("HEAD", path_of("largest")).headers["Content-Length"], str(VALUE_BYTES_MAX))
        self.assertEqual(self.get("largest", Range="bytes=-6").body, b"\0\0last")
        self.assertEqual(self.get("largest", Range="bytes=0-5").body, b"first\0")
        middle = self.get("largest", Range="bytes=2147483000-2149483000")
        self.assertEqual((middle.status, middle.body.count(b"\0"), len(middle.body)), (206, 2_000_001, 2_000_001))

    def test_clients_that_do_not_read_hold_nobody_up(self):
        self.made("slow", pattern(24 << 20))
        clients = []
        for _ in range(12):  # more than there are threads
            client = self.host.connect()
            self.addCleanup(client.close)
            client.sendall(b"GET " + path_of("slow").encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertEqual(client.recv(17), b"HTTP/1.1 200 OK\r\n")
            clients.append(client)
        self.assertEqual(self.put("slow/other", b"x").status, 201)
        # What they read is the version that they asked for, whatever happens to the value.
        self.made("slow", b"replaced")
        for client in clients[:2]:
            with client.makefile("rb") as answer:
                while answer.readline() != b"\r\n":
                    pass
                self.assertTrue(answer.read(24 << 20) == pattern(24 << 20))
        for client in clients:
            client.close()
        self.assertEqual(self.get("slow").body, b"replaced")

    def test_streams_end_with_their_clients_and_with_the_host(self):
        host = self.own_host("--drain-timeout", "10000")
        self.made("slow", pattern(24 << 20), host)

        def begin():
            client = host.connect()
            client.sendall(b"GET " + path_of("slow").encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertEqual(client.recv(17), b"HTTP/1.1 200 OK\r\n")
            return client

        for _ in range(20):
            begin().close()
        host.process.send_signal(signal.SIGTERM)
        said = host.process.communicate(timeout=DEADLINE_S)[1]
        self.assertEqual(host.process.returncode, 0, said)
        self.assertNotIn("still run", said)  # nothing of those who went away was left
        host.flags = ("--drain-timeout", "100")
        host.start()
        with begin() as client:
            self.assertEqual(host.terminate(), 0)
            client.settimeout(DEADLINE_S)
            got = b""
            while piece := client.recv(1 << 20):
                got += piece
            self.assertLess(len(got), 24 << 20)

    def test_bodies_have_a_limit(self):
        host = self.own_host("--value-mib", "1")
        self.made("limit", bytes(1 << 20), host)
        self.assertProblem(self.put("limit", bytes((1 << 20) + 1), host), 413, "too_large")
        self.assertEqual(len(self.get("limit", host).body), 1 << 20)

    def test_everything_is_there_after_a_restart_and_after_a_crash(self):
        host = self.own_host()
        data = pattern(3_000_000)
        small, large = self.made("kept/small", b"x", host), self.made("kept/large", data, host)
        self.assertEqual(host.terminate(), 0)
        host.start()
        self.assertEqual(self.get("kept/small", host).headers["ETag"], small)
        last = self.made("kept/small", b"yy", host)
        host.kill()
        host.start()
        answer = self.get("kept/small", host)
        self.assertEqual((answer.body, answer.headers["ETag"]), (b"yy", last))
        answer = self.get("kept/large", host)
        self.assertTrue(answer.body == data)
        self.assertEqual(answer.headers["ETag"], large)

    def test_a_tenant_keeps_no_more_than_its_quota(self):
        redis = Redis()
        self.addCleanup(redis.close)
        for store in ("rocksdb", redis.url()):
            host = self.own_host("--state", store, "--tenant-store-keys", "3", "--tenant-store-mib", "1")
            for key in "abc":
                self.made(f"quota/{key}", b"x", host)
            document = self.assertProblem(self.put("quota/d", b"x", host), 507, "store_full")
            self.assertIn('tenant "t" may keep 3 values', document["detail"])
            self.assertEqual(host.ask("PUT", path_of("d", "other"), b"x").status, 201)
            self.made("quota/a", bytes((1 << 20) - 2), host)
            document = self.assertProblem(self.put("quota/b", b"xx", host), 507, "store_full")
            self.assertIn(f"may keep {1 << 20} bytes", document["detail"])
            append = host.ask("POST", path_of("quota/a") + "?append", b"x")
            self.assertProblem(append, 507, "store_full")
            self.made("quota/b", b"y", host)
            self.assertEqual(host.ask("PUT", path_of("quota/a") + "?offset=9", b"yy").status, 200)
            self.assertEqual(host.ask("DELETE", path_of("quota/a")).status, 204)
            self.made("quota/d", bytes(1000), host)
            self.assertEqual([value["key"] for value in self.all_values("t", host=host)],
                             ["quota/b", "quota/c", "quota/d"])

    def test_a_full_store_refuses_and_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True).returncode != 0:
                self.skipTest("a file system of its own takes root")
            host = Host("--state", f"rocksdb:{folder}")
            try:
                self.made("full/small", b"x", host)
                refusal = None
                for number in range(64):
                    answer = self.put(f"full/{number}", os.urandom(4 << 20), host)
                    if answer.status != 201:
                        refusal = answer
                        break
                self.assertIsNotNone(refusal)
                self.assertIn(refusal.status, (503, 507), refusal.body)
                self.wait_for(lambda: self.put("full/more", os.urandom(4 << 20), host).status == 507)
                self.assertProblem(self.put("full/more", os.urandom(4 << 20), host), 507, "store_full")
                self.assertEqual(self.get("full/small", host).body, b"x")
                self.assertEqual(host.ask("GET", "/healthz").status, 200)
            finally:
                host.close()
                subprocess.run(["umount", folder], check=True)

    def test_stores_that_cannot_be_opened_are_told_at_the_start(self):
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "file")
            open(file, "w").close()
            for name, words in (("rocks", "names no store"), ("rocksdb:", "names no store"), (f"rocksdb:{file}", file),
                                ("http://u:geheim@h", "names no store"), ("", "names no store")):
                with self.assertRaises(RuntimeError) as raised:
                    Host("--state", name)
                self.assertIn(words, str(raised.exception))
                self.assertNotIn("geheim", str(raised.exception))

    # ---- on the command line ----

    def spore(self, command, *arguments, host=None, data=b""):
        host = host or self.host
        server = [] if command == "copy" else ["--server", f"http://{host.name}:{host.port}"]
        return subprocess.run([SPORE, "state", command, *server, *arguments], input=data, capture_output=True, timeout=120)

    def spore_does(self, *arguments, **options):
        done = self.spore(*arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def spore_fails(self, words, *arguments, **options):
        done = self.spore(*arguments, **options)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(words, done.stderr.decode())

    def test_values_on_the_command_line(self):
        self.assertIn(b"a/b  5 B  ", self.spore_does("put", "cli", "a/b", data=b"01234"))
        self.assertEqual(self.spore_does("get", "cli", "a/b"), b"01234")
        self.assertEqual(self.spore_does("get", "cli", "a/b", "--range", "1-2"), b"12")
        self.assertEqual(self.spore_does("get", "cli", "a/b", "--range=-2"), b"34")
        self.spore_fails("FIRST-LAST", "get", "cli", "a/b", "--range", "5")
        self.spore_fails("nothing in that range", "get", "cli", "a/b", "--range", "9-")
        self.spore_does("put", "cli", "a/b", "--offset", "1", data=b"xy")
        self.spore_does("put", "cli", "a/b", "--append", data=b"!")
        self.assertEqual(self.spore_does("get", "cli", "a/b"), b"0xy34!")
        self.spore_does("put", "cli", "a\nb \x1b[2J", data=b"")
        rows = [line.split() for line in self.spore_does("ls", "cli").decode().splitlines()]
        self.assertEqual(rows[0], ["KEY", "SIZE", "VERSION"])
        self.assertEqual(rows[1][:3], ["a\\x0ab", "\\x1b[2J", "0"])
        self.assertEqual(rows[2][:3], ["a/b", "6", "B"])
        version = rows[2][3]
        self.assertEqual(json.loads(self.spore_does("ls", "cli", "a/", "--json"))[0]["version"], version)
        self.spore_fails("If-None-Match", "put", "cli", "a/b", "--if-version", "none", data=b"x")
        self.spore_fails("If-Match", "put", "cli", "a/b", "--if-version", "1-1", data=b"x")
        self.spore_does("put", "cli", "a/b", "--if-version", version, data=b"x")
        self.spore_fails("If-Match", "rm", "cli", "a/b", "--if-version", version)
        self.spore_does("rm", "cli", "a/b", "a\nb \x1b[2J")
        self.spore_fails("no such", "get", "cli", "a/b")
        self.spore_fails("tenant", "get", "../x", "a")
        self.spore_fails("empty", "put", "cli", "")

    def test_files_on_the_command_line(self):
        data = pattern(150 << 20 if not SANITIZED else 1 << 20)
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(folder, "source"), os.path.join(folder, "target")
            with open(source, "wb") as file:
                file.write(data)
            self.spore_does("put", "cli", "file", source)
            self.spore_does("get", "cli", "file", "-o", target)
            with open(target, "rb") as file:
                self.assertTrue(file.read() == data)
            self.spore_fails("no such", "get", "cli", "none", "-o", os.path.join(folder, "none"))
            self.assertEqual(sorted(os.listdir(folder)), ["source", "target"])
            self.spore_fails("No such file", "put", "cli", "file", os.path.join(folder, "none"))

    def test_copying_from_store_to_store(self):
        with tempfile.TemporaryDirectory() as folder:
            host = self.own_host()
            large = pattern(20 << 20) + bytes(17 << 20) + pattern(123, 7)
            values = {"empty": b"", "a/%": b"x", "large": large}
            for key, body in values.items():
                self.made(key, body, host)
            source, target = f"rocksdb:{host.data}/state", f"rocksdb:{folder}/copy"
            self.spore_fails("LOCK", "copy", "--from", source, "--to", target, "--tenant", "t")  # the host has it open
            self.spore_fails("no store at", "copy", "--from", source + "x", "--to", target, "--tenant", "t")
            self.assertEqual(host.terminate(), 0)
            said = self.spore_does("copy", "--from", source, "--to", target, "--tenant", "t", "nobody")
            self.assertEqual(said.decode().splitlines()[0][:12], "t  3 values,")
            self.assertEqual(said.decode().splitlines()[1], "nobody  0 values, 0 B")
            self.spore_fails("a/%", "copy", "--from", source, "--to", target, "--tenant", "t")  # it is there already
            self.spore_does("copy", "--from", source, "--to", target, "--tenant", "t", "--replace")
            self.spore_fails("directory", "copy", "--from", "rocksdb", "--to", target, "--tenant", "t")
            copy = self.own_host("--state", target)
            for key, body in values.items():
                self.assertTrue(self.get(key, copy).body == body, key)
            self.assertEqual(len(self.all_values("t", host=copy)), 3)


if __name__ == "__main__":
    unittest.main()

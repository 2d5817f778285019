"""Web handlers: requests to /fn/TENANT/NAME/... as a CGI program sees them, and what becomes of its answers."""

import functools
import http.client
import json
import os
import subprocess
import tempfile
import unittest

from host import DEADLINE_S, ENDLESS, Host, NOOP, Response, SystemTest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# Answers with its environment and its input (/env), with its input as it is (anything else), or not at all.
MIRROR = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
extern char **environ;
int main(void) {
  const char *path = getenv("PATH_INFO");
  static char buffer[1 << 20];
  if (path && !strncmp(path, "/exit", 5)) { puts("Content-Type: text/plain\n\nlost"); return 3; }
  if (path && !strncmp(path, "/trap", 5)) __builtin_trap();
  if (!path || !strncmp(path, "/env", 4)) {
    printf("Content-Type: text/plain\r\n\r\n");
    getenv("NOTHING");
    for (char **e = environ; *e; e++) printf("%s\n", *e);
    puts("");
  }
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, stdin)) > 0;) fwrite(buffer, 1, n, stdout);
  return 0;
}"""
# A reactor whose initialiser reads the environment: what is in it then is in the image.
REACTOR = r"""
#include <stdio.h>
#include <stdlib.h>
#include <wasi/libc-environ.h>
static int initialised;
__attribute__((constructor)) static void begin(void) { initialised = READS && getenv("REQUEST_METHOD") == NULL; }
__attribute__((export_name("spore_call"))) void spore_call(void) {
  if (FORGETS) __wasilibc_deinitialize_environ();
  const char *method = getenv("REQUEST_METHOD"), *own = getenv("OWN");
  printf("Content-Type: text/plain\n\n%d %s %s", initialised, method ? method : "-", own ? own : "-");
  fflush(stdout);
}"""


@functools.lru_cache(maxsize=None)
def built(source, *flags):
    """The module that clang makes of a C program."""
    with tempfile.TemporaryDirectory() as folder:
        text, target = os.path.join(folder, "m.c"), os.path.join(folder, "m.wasm")
        with open(text, "w") as file:
            file.write(source)
        subprocess.run(["clang-19", "--target=wasm32-wasi", "-O2", *flags, text, "-o", target], check=True)
        with open(target, "rb") as file:
            return file.read()


def reactor(**macros):
    return built(REACTOR, "-mexec-model=reactor", *(f"-D{name}={value}" for name, value in macros.items()))


def variables(answer):
    """The environment that /env answered with, and the body behind it."""
    head, body = answer.body.split(b"\n\n", 1)
    pairs = [line.split("=", 1) for line in head.decode().split("\n")]
    assert len(pairs) == len(dict(pairs)), pairs
    return dict(pairs), body


class WebTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.host.publish("t/web", built(MIRROR))

    def raw(self, answer, path="/fn/t/web/raw", method="POST"):
        """The response where the guest answers with these bytes."""
        return self.host.ask(method, path, answer)


class Requests(WebTest):
    def test_any_method_and_any_path_reach_the_function(self):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "BREW"):
            got, _ = variables(self.host.ask(method, "/fn/t/web/env"))
            self.assertEqual(got["REQUEST_METHOD"], method)
        for path, info in (("/env/a%2Fb", "/env/a/b"), ("/env/../x/./y//", "/env/../x/./y//"), ("/env/%2e%2E/", "/env/../"),
                           ("/env/%C3%A4 +".replace(" ", "%20"), "/env/ä +"), ("/env/..%2f..%2fetc", "/env/../../etc")):
            got, _ = variables(self.host.ask("GET", "/fn/t/web" + path))
            self.assertEqual((got["PATH_INFO"], got["SCRIPT_NAME"]), (info, "/fn/t/web"))
            self.assertEqual(got["REQUEST_URI"], "/fn/t/web" + path)
        for path in ("/fn/t/web", "/fn/t/web/", "/fn/t/web?x", "/fn/t/web@1", "/fn/t/web@1/x"):
            self.assertEqual(self.raw(b"Content-Type: a/b\n\nroot", path).body, b"root")

    def test_variables_are_those_of_rfc_3875(self):
        got, body = variables(self.host.ask("POST", "/fn/t/web/env?a=%20&b", b"hello", {
            "Content-Type": "text/x", "X-One": "1", "Cookie": "a=1", "Proxy": "http://evil", "Authorization": "Basic eA==",
            "Spore-Config": "{}", "X_Underscore": "1", "Connection": "close"}))
        self.assertEqual(body, b"hello")
        self.assertEqual(got, {
            "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "Spore", "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": "127.0.0.1", "SERVER_PORT": str(self.host.port), "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": "POST", "REQUEST_URI": "/fn/t/web/env?a=%20&b", "SCRIPT_NAME": "/fn/t/web",
            "PATH_INFO": "/env", "QUERY_STRING": "a=%20&b", "CONTENT_TYPE": "text/x", "CONTENT_LENGTH": "5",
            "HTTP_HOST": f"127.0.0.1:{self.host.port}", "HTTP_ACCEPT_ENCODING": "identity", "HTTP_X_ONE": "1",
            "HTTP_COOKIE": "a=1", "HTTP_AUTHORIZATION": "Basic eA=="})

    def test_the_functions_own_environment_comes_first(self):
        self.published("t/own", built(MIRROR))
        self.host.configure("t/own", env={"OWN": "1", "HTTP_X_FORCED": "mine"})
        answer = self.host.ask("GET", "/fn/t/own/env", headers={"X-Forced": "theirs"})
        lines = answer.body.decode().split("\n")
        self.assertIn("OWN=1", lines)
        self.assertLess(lines.index("HTTP_X_FORCED=mine"), lines.index("HTTP_X_FORCED=theirs"))
        self.assertLess(lines.index("OWN=1"), lines.index("REQUEST_METHOD=GET"))

    def test_one_request_leaves_nothing_to_the_next(self):
        connection = http.client.HTTPConnection(self.host.name, self.host.port, timeout=DEADLINE_S)

        def ask(method, path, body=None, headers=None):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())

        for value in ("one", "two"):
            got, body = variables(ask("POST", "/fn/t/web/env", value, {"X-" + value: value}))
            self.assertEqual([name for name in got if name.startswith("HTTP_X_")], ["HTTP_X_" + value.upper()])
            self.assertEqual(body, value.encode())
        got, body = variables(ask("GET", "/fn/t/web/env"))
        self.assertEqual((body, "CONTENT_LENGTH" in got, "HTTP_X_ONE" in got), (b"", False, False))
        # A call on the same connection is given nothing of a request.
        answer = ask("POST", "/v1/functions/t/web/call?x=1", b"input", {"X-One": "1"})
        self.assertEqual(answer.body, b"Content-Type: text/plain\r\n\r\n\ninput")
        connection.close()

    def test_bodies_arrive_whole_also_in_chunks(self):
        body = bytes(range(256)) * 20000
        self.assertEqual(self.raw(b"Content-Type: a/b\n\n" + body).body, body)
        chunks = iter([b"Content-Type: a/b\n\n", body[:100], body[100:]])
        connection = http.client.HTTPConnection(self.host.name, self.host.port, timeout=DEADLINE_S)
        connection.request("POST", "/fn/t/web/raw", chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        self.assertEqual(connection.getresponse().read(), body)
        connection.close()

    def test_what_is_no_such_function_or_path_is_refused(self):
        self.assertProblem(self.host.ask("GET", "/fn/t/nothing"), 404, "not_found")
        for path in ("/fn", "/fn/", "/fn/t", "/fn/t/", "/fn//web", "/fn/t/web@x", "/fn/%zz/web"):
            self.assertProblem(self.host.ask("GET", path), 404, "not_found")
        self.assertIn("zero byte", self.assertProblem(self.host.ask("GET", "/fn/t/web/a%00"), 400, "bad_request")["detail"])
        self.assertIn("hexadecimal", self.assertProblem(self.host.ask("GET", "/fn/t/web/%"), 400, "bad_request")["detail"])

    def test_headers_and_targets_are_bounded(self):
        self.assertProblem(self.host.ask("GET", "/fn/t/web/env", headers={"X": "x" * (33 << 10)}), 431, "header_too_large")
        many = {f"X-{i}": "1" for i in range(129)}
        self.assertProblem(self.host.ask("GET", "/fn/t/web/env", headers=many), 431, "header_too_large")
        self.assertProblem(self.host.ask("GET", "/fn/t/web/env?" + "x" * 9000), 414, "target_too_long")
        fits = {f"X-{i}": "1" * 200 for i in range(120)}
        got, _ = variables(self.host.ask("GET", "/fn/t/web/env", headers=fits))
        self.assertEqual(sum(name.startswith("HTTP_X_") for name in got), 120)

    def test_bodies_are_bounded(self):
        host = self.own_host("--web-body-mib", "1")
        self.published("t/web", built(MIRROR), host)
        self.assertProblem(host.ask("POST", "/fn/t/web/raw", b"x" * ((1 << 20) + 1)), 413, "too_large")


class Answers(WebTest):
    def test_status_fields_and_body_are_the_guests(self):
        answer = self.raw(b"Status: 404 Not Here\r\nContent-Type: text/x; charset=utf-8\r\nX-Mine: 1\r\n\r\nbody\n")
        self.assertEqual((answer.status, answer.body), (404, b"body\n"))
        self.assertEqual((answer.headers["Content-Type"], answer.headers["X-Mine"]), ("text/x; charset=utf-8", "1"))
        self.assertRegex(answer.headers["Spore-Call-Id"], "^[0-9a-f]{32}$")

    def test_a_location_redirects(self):
        answer = self.raw(b"Location: https://example.org/\n\n")
        self.assertEqual((answer.status, answer.headers["Location"]), (302, "https://example.org/"))
        self.assertEqual(self.raw(b"Status: 308\nLocation: /x\n\n").status, 308)

    def test_several_cookies_pass(self):
        answer = self.raw(b"Set-Cookie: a=1\nSet-Cookie: b=2; HttpOnly\nContent-Type: a/b\n\n")
        self.assertEqual(answer.headers.get_all("Set-Cookie"), ["a=1", "b=2; HttpOnly"])

    def test_no_body_to_head_204_and_304_and_the_connection_goes_on(self):
        connection = http.client.HTTPConnection(self.host.name, self.host.port, timeout=DEADLINE_S)
        for method, answer, status, length in (
                ("HEAD", b"Content-Type: a/b\n\nbody", 200, "4"), ("POST", b"Status: 204\n\nbody", 204, None),
                ("POST", b"Status: 304\nETag: \"x\"\n\nbody", 304, None), ("POST", b"Status: 205\n\nbody", 205, "0"),
                ("HEAD", b"Content-Type: a/b\nContent-Length: 9\n\n", 200, "9"),
                ("POST", b"Content-Type: a/b\n\nbody", 200, "4")):
            connection.request(method, "/fn/t/web/raw", answer)
            got = connection.getresponse()
            self.assertEqual((got.status, got.headers["Content-Length"]), (status, length), answer)
            self.assertEqual(got.read(), b"body" if method == "POST" and status == 200 else b"")
        connection.close()

    def test_what_is_the_hosts_to_say_is_left_out(self):
        answer = self.raw(b"Content-Type: a/b\nConnection: close\nUpgrade: x\nSpore-Call-Id: mine\nSpore-Start: mine\n"
                          b"Service-Worker-Allowed: /\nClear-Site-Data: *\n\nhi")
        self.assertEqual(answer.body, b"hi")
        self.assertNotIn("mine", answer.headers.get_all("Spore-Call-Id") + answer.headers.get_all("Spore-Start"))
        for name in ("Connection", "Upgrade", "Service-Worker-Allowed", "Clear-Site-Data"):
            self.assertNotIn(name, answer.headers)

    def test_what_is_no_answer_is_502_and_says_why(self):
        for output, why in (
                (b"", "it is empty"), (b"hello", "no empty line"), (b"hello\n\n", "line 1 of the header has no colon"),
                (b"\nhello", "none of Content-Type, Location and Status"), (b"X: 1\n\n", "none of Content-Type"),
                (b"Content-Type: a/b\rSet-Cookie: x=1\n\n", "line 1 of the header holds a control character"),
                (b"Content-Type: a/b\nX: a\0b\n\n", "line 2 of the header holds a control character"),
                (b"Content-Type: a/b\n folded\n\n", "line 2 of the header has no colon"),
                (b"Content-Type: a/b\nStatus: 99\n\n", "Status is a number"),
                (b"Content-Type: a/b\nStatus: 101\n\n", "Status is a number"),
                (b"Content-Type: a/b\nStatus: 1000\n\n", "Status is a number"),
                (b"Content-Type: a/b\nContent-Length: 3\n\nhi", "its Content-Length is 3, but its body has 2 bytes"),
                (b"Content-Type: a/b\nTransfer-Encoding: chunked\n\n0\r\n\r\n", "Transfer-Encoding"),
                (b"Content-Type: a/b\nX: " + b"x" * (64 << 10) + b"\n\n", "within its first 65536 bytes"),
                (b"Content-Type: a/b\n" + b"X: 1\n" * 300 + b"\n", "more than 256 lines")):
            with self.subTest(output[:60]):
                document = self.assertProblem(self.raw(output), 502, "bad_answer")
                self.assertIn("t/web", document["detail"])
                self.assertIn(why, document["detail"])
        logged = self.host.ask("GET", "/v1/functions/t/web/logs?limit=1").json()["calls"][0]
        self.assertIn("more than 256 lines", logged["detail"])

    def test_traps_exits_timeouts_and_endless_output_are_as_for_calls(self):
        document = self.assertProblem(self.raw(b"", "/fn/t/web/exit"), 500, "exit")
        self.assertEqual((document["exit_code"], document["function"]), (3, "t/web"))
        self.assertEqual(self.assertProblem(self.raw(b"", "/fn/t/web/trap"), 500, "trap")["code"], "unreachable")
        self.published("t/endless", ENDLESS)
        self.host.configure("t/endless", timeout_ms=100)
        self.assertProblem(self.host.ask("GET", "/fn/t/endless"), 504, "timeout")
        self.published("t/small", built(MIRROR))
        self.host.configure("t/small", output_max_bytes=1000)
        self.assertProblem(self.raw(b"Content-Type: a/b\n\n" + b"x" * 1000, "/fn/t/small/raw"), 502, "output_too_large")
        self.published("t/noop", NOOP)
        self.assertProblem(self.host.ask("GET", "/fn/t/noop"), 502, "bad_answer")


class Examples(SystemTest):
    """The handlers that docs/web.md shows; both know the same pages."""

    def check(self, name):
        for method, path, status, body in (("GET", "/hello/Ada%2F", 200, b"<p>Hello, Ada/!</p>\n"),
                                           ("POST", "/upper", 200, b"ABC"), ("GET", "/upper", 405, b"use POST\n"),
                                           ("GET", "/nope", 404, b"there is no such page\n")):
            answer = self.host.ask(method, f"/fn/{name}{path}", b"abc")
            self.assertEqual((answer.status, answer.body), (status, body))
        self.assertNotIn(b"<b>", self.host.ask("GET", f"/fn/{name}/hello/%3Cb%3E").body)
        answer = self.host.ask("GET", f"/fn/{name}/old")
        self.assertEqual((answer.status, answer.headers["Location"]), (302, f"/fn/{name}/new"))

    def test_c(self):
        with open(os.path.join(ROOT, "examples/c/web.c")) as file:
            self.published("t/c", built(file.read()))
        self.check("t/c")

    def test_javascript(self):
        interpreter = os.path.join(ROOT, "build/examples/quickjs.wasm")
        if not os.path.exists(interpreter):
            self.skipTest("build/examples/quickjs.wasm is not built (make examples)")
        with open(interpreter, "rb") as file, open(os.path.join(ROOT, "examples/javascript/web.js")) as script:
            self.published("t/js", file.read())
            self.assertEqual(self.host.configure("t/js", args=["-e", script.read()]).status, 200)
        self.check("t/js")
        answer = self.host.ask("GET", "/fn/t/js?a=%20b", headers={"User-Agent": "me"})
        self.assertEqual(answer.json(), {"method": "GET", "query": {"a": " b"}, "agent": "me"})


class Reactors(SystemTest):
    def test_a_reactor_sees_the_request_where_its_initialisers_did_not_look(self):
        self.published("t/lazy", reactor(READS=0, FORGETS=0))
        self.host.configure("t/lazy", env={"OWN": "x"})
        for method in ("GET", "PUT", "GET"):
            self.assertEqual(self.host.ask(method, "/fn/t/lazy").body.decode(), f"0 {method} x")

    def test_an_environment_that_an_initialiser_read_is_read_anew_when_the_library_forgets_it(self):
        self.published("t/eager", reactor(READS=1, FORGETS=0))
        self.assertEqual(self.host.ask("GET", "/fn/t/eager").body, b"1 - -")
        self.published("t/forgets", reactor(READS=1, FORGETS=1))
        self.host.configure("t/forgets", env={"OWN": "x"})
        for method in ("GET", "PUT", "GET"):
            self.assertEqual(self.host.ask(method, "/fn/t/forgets").body.decode(), f"1 {method} x")


class Origins(WebTest):
    def test_foreign_hosts_and_origins_are_refused_without_keys(self):
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            self.assertProblem(self.host.ask("POST", "/fn/t/web/env", headers=headers), 403, "forbidden")

    def test_pages_from_the_apis_own_address_are_kept_in_a_sandbox(self):
        answer = self.raw(b"Content-Type: text/html\nContent-Security-Policy: default-src *\n\n<p>")
        policies = answer.headers.get_all("Content-Security-Policy")
        self.assertEqual([policy.split()[0] for policy in policies], ["default-src", "sandbox"])
        self.assertNotIn("allow-same-origin", policies[1])

    def test_an_address_of_their_own_parts_handlers_and_api(self):
        host = self.own_host("--web-listen", "127.0.0.1:0")
        line = host.process.stdout.readline()
        self.assertRegex(line, r"web handlers at http://127\.0\.0\.1:\d+/fn/")
        web_port = int(line.split("127.0.0.1:", 1)[1].split("/", 1)[0])
        self.published("t/web", built(MIRROR), host)

        def ask_web(method, path, body=None):
            connection = http.client.HTTPConnection(host.name, web_port, timeout=DEADLINE_S)
            connection.request(method, path, body)
            answer = connection.getresponse()
            out = Response(answer.status, answer.headers, answer.read())
            connection.close()
            return out

        self.assertProblem(host.ask("GET", "/fn/t/web/env"), 404, "not_found")
        answer = ask_web("GET", "/fn/t/web/env")
        self.assertEqual(variables(answer)[0]["SERVER_PORT"], str(web_port))
        self.assertNotIn("Content-Security-Policy", answer.headers)
        for path in ("/", "/v1/functions", "/v1/functions/t/web/call", "/healthz", "/metrics", "/v1/openapi.json"):
            self.assertProblem(ask_web("GET", path), 404, "not_found")
        for origin in (f"http://127.0.0.1:{web_port}", f"http://localhost:{web_port}"):
            answer = host.ask("POST", "/v1/functions/t/web/call", headers={"Origin": origin})
            self.assertIn("web handlers", self.assertProblem(answer, 403, "forbidden")["detail"])
        own = {"Origin": f"http://127.0.0.1:{host.port}"}
        self.assertEqual(host.ask("GET", "/v1/functions", headers=own).status, 200)

    def test_the_address_is_checked_as_the_first_is(self):
        for address, why in (("nowhere", "--web-listen nowhere"), ("0.0.0.0:0", "without keys")):
            with self.assertRaisesRegex(RuntimeError, why):
                Host("--web-listen", address).close()


class Keys(SystemTest):
    def test_a_key_for_calls_is_needed_and_stays_with_the_host(self):
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "keys.json")
            with open(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as out:
                json.dump({"keys": [
                    {"token": "administrator-key", "tenant": "*", "scopes": ["admin"]},
                    {"token": "caller-of-tenant-t", "tenant": "t", "scopes": ["call"]},
                    {"token": "reader-of-tenant-t", "tenant": "t", "scopes": ["read"]},
                    {"token": "caller-of-tenant-u", "tenant": "u", "scopes": ["call"]}]}, out)
            host = self.own_host("--keys", file)
        bearer = lambda token: {"Authorization": "Bearer " + token}  # noqa: E731
        self.assertEqual(host.ask("PUT", "/v1/functions/t/web", built(MIRROR), bearer("administrator-key")).status, 201)
        self.assertProblem(host.ask("GET", "/fn/t/web/env"), 401, "unauthenticated")
        self.assertProblem(host.ask("GET", "/fn/t/web/env", headers=bearer("wrong")), 401, "unauthenticated")
        self.assertProblem(host.ask("GET", "/fn/t/web/env", headers=bearer("reader-of-tenant-t")), 403, "forbidden")
        self.assertProblem(host.ask("GET", "/fn/t/web/env", headers=bearer("caller-of-tenant-u")), 404, "not_found")
        answer = host.ask("GET", "/fn/t/web/env", headers=bearer("caller-of-tenant-t"))
        self.assertNotIn(b"caller-of-tenant-t", answer.body)
        self.assertEqual(variables(answer)[0]["AUTH_TYPE"], "Bearer")


if __name__ == "__main__":
    unittest.main()

"""What the system tests share: a real `spore serve` on a free loopback port, and modules written as text.

Every host gets a data folder of its own, is ended by its process id, and leaves nothing behind.
"""

import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

SPORE = os.environ.get("SPORE_BINARY", "spore")
SANITIZED = bool(os.environ.get("SPORE_SANITIZE"))  # memory and mappings are the sanitizer's too
DEADLINE_S = 60  # for anything that a test waits for; only a failure takes that long


@functools.lru_cache(maxsize=None)
def wasm(text):
    """The module that the text says, with the names of its functions."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "m.wat"), os.path.join(folder, "m.wasm")
        with open(source, "w") as file:
            file.write(text)
        subprocess.run(["wat2wasm", "--debug-names", source, "-o", target], check=True)
        with open(target, "rb") as file:
            return file.read()


NOOP = '(module (func (export "spore_call")))'
ECHO = """(module
  (import "spore" "input_size" (func $size (result i32)))
  (import "spore" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1100)
  (func (export "spore_call") (local $n i32)
    (local.set $n (call $read (i32.const 0) (i32.const 0) (call $size)))
    (drop (call $write (i32.const 0) (local.get $n)))))"""
ENDLESS = '(module (func $spin (export "spore_call") (loop $again (br $again))))'


def says(text):
    """A module whose output is `text`."""
    return f"""(module
      (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "{text}")
      (func (export "spore_call") (drop (call $write (i32.const 0) (i32.const {len(text)})))))"""


def large_module(functions):
    """A module whose compilation takes a while."""
    body = " ".join(
        f"(func $f{i} (param i32) (result i32) (local $x i32) (local.set $x (local.get 0))"
        f" (loop $again (local.set $x (i32.mul (i32.add (local.get $x) (i32.const {i})) (i32.const {2 * i + 1})))"
        f" (br_if $again (i32.and (local.get $x) (i32.const 64)))) (i32.add (local.get $x) (call $f{max(i - 1, 0)}"
        f" (local.get $x))))"
        for i in range(functions))
    return f'(module {body} (func (export "spore_call")))'


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Host:
    """A running `spore serve`. `enter`: called in its process before that becomes the host."""

    PROCESS = {}  # options of subprocess.Popen

    def __init__(self, *flags, data=None, enter=None):
        self.folder = None if data else tempfile.mkdtemp(prefix="spore-system-test-")
        self.data = data or os.path.join(self.folder, "data")
        self.flags = flags
        self.enter = enter
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [SPORE, "serve", "--listen", "127.0.0.1:0", "--data", self.data, *self.flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=self.enter,
            **self.PROCESS)
        line = self.process.stdout.readline()
        if "listening on http://" not in line:
            error = self.process.communicate(timeout=DEADLINE_S)[1]
            raise RuntimeError(f"spore serve did not start: {line}{error}")
        address = line.split("http://", 1)[1].split(" ", 1)[0]
        self.name, port = address.rsplit(":", 1)
        self.port = int(port)

    def kill(self):
        """As a power cut: nothing is tidied up."""
        self.process.kill()
        self.wait()

    def terminate(self):
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        said = self.process.communicate(timeout=DEADLINE_S)[1]
        for sign in ("ThreadSanitizer", "AddressSanitizer", "LeakSanitizer", "runtime error:"):
            if sign in said:
                raise AssertionError(said)
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdout, self.process.stderr):
            pipe.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, method, path, body=None, headers=None, timeout_s=DEADLINE_S):
        connection = http.client.HTTPConnection(self.name, self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())

    def publish(self, name, text, **headers):
        body = text if isinstance(text, bytes) else wasm(text)
        return self.ask("PUT", f"/v1/functions/{name}", body, {k.replace("_", "-"): v for k, v in headers.items()})

    def configure(self, name, **config):
        return self.ask("PUT", f"/v1/functions/{name}/config", json.dumps(config))

    def call(self, name, body=b"", query=""):
        return self.ask("POST", f"/v1/functions/{name}/call{query}", body)

    def connect(self):
        return socket.create_connection((self.name, self.port), timeout=DEADLINE_S)

    def metric(self, name):
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)

    def status(self, field):
        """A field of /proc/PID/status, in kB where it is a size."""
        with open(f"/proc/{self.process.pid}/status") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
        raise KeyError(field)


class Background(threading.Thread):
    """Runs something beside the test; result() waits for it, and raises what it raised."""

    def __init__(self, work, *arguments):
        super().__init__(daemon=True)
        self.work, self.arguments = work, arguments
        self.value, self.error = None, None
        self.start()

    def run(self):
        try:
            self.value = self.work(*self.arguments)
        except Exception as error:  # handed on by result()
            self.error = error

    def result(self, timeout=DEADLINE_S):
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError("the background work does not end")
        if self.error:
            raise self.error
        return self.value


class SystemTest(unittest.TestCase):
    """A test with one host, which stays up through the class unless a test starts its own."""

    FLAGS = ()

    @classmethod
    def setUpClass(cls):
        cls.host = Host(*cls.FLAGS)

    @classmethod
    def tearDownClass(cls):
        cls.host.close()

    def own_host(self, *flags, **options):
        host = Host(*flags, **options)
        self.addCleanup(host.close)
        return host

    def published(self, name, text, host=None):
        answer = (host or self.host).publish(name, text)
        self.assertIn(answer.status, (200, 201), answer.body)
        return answer

    def assertProblem(self, answer, status, name):
        """The answer is a problem document of that status and type; gives the document."""
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
        document = answer.json()
        self.assertEqual(document["status"], status)
        self.assertEqual(document["type"], "urn:spore:problem:" + name)
        self.assertTrue(document["title"])
        return document

    def wait_for(self, condition):
        """Asks again until it holds."""
        pause = threading.Event()
        for _ in range(DEADLINE_S * 50):
            if condition():
                return
            pause.wait(0.02)
        self.fail("what the test waits for does not come")

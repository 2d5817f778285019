"""A host for scripts and benchmarks: `spore serve` on a free port of the loopback, with its data in a temporary folder.

    with Host(program) as host:
        host.publish("try/echo", wasm)
        answer = host.call("try/echo", b"hello")

A refusal is a HostError that carries the host's own words. The process is stopped, and its folder removed, when the
block ends. Python's standard library only.
"""

import http.client
import json
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 30


class HostError(Exception):
    pass


class Answer:
    def __init__(self, status, headers, body, seconds):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds


class Host:
    def __init__(self, program, options=()):
        self.program, self.options = str(program), list(options)

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="spore-host-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log_path = self.folder / "log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [self.program, "serve", "--listen", f"127.0.0.1:{self.port}", "--data", str(self.folder / "data")]
                + self.options,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            if self.process.poll() is not None:
                raise HostError(f"the host ended with code {self.process.returncode}:\n{self.log()}")
            try:
                if self.request("GET", "/readyz", timeout=5).status == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise HostError(f"the host did not become ready within {START_SECONDS_MAX} s:\n{self.log()}")
            time.sleep(0.02)

    def log(self):
        return self.log_path.read_text(errors="replace")

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def request(self, method, path, body=None, headers=None, timeout=600):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        begin = time.monotonic()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return Answer(response.status, response.headers, content, time.monotonic() - begin)

    def expect(self, method, path, body=None, headers=None):
        answer = self.request(method, path, body, headers)
        if answer.status // 100 != 2:
            raise HostError(f"{method} {path}: {answer.status}\n{answer.body.decode(errors='replace')}")
        return answer

    def publish(self, function, wasm):
        return self.expect("PUT", f"/v1/functions/{function}", wasm, {"Content-Type": "application/wasm"})

    def configure(self, function, **fields):
        """Changes the fields named; the others keep what they have."""
        config = json.loads(self.expect("GET", f"/v1/functions/{function}/config").body)
        config.update(fields)
        return self.expect(
            "PUT", f"/v1/functions/{function}/config", json.dumps(config), {"Content-Type": "application/json"}
        )

    def describe(self, function):
        return json.loads(self.expect("GET", f"/v1/functions/{function}").body)

    def call(self, function, body=b""):
        return self.expect("POST", f"/v1/functions/{function}/call", body)

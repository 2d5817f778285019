"""State from Python functions: through plain files, and through the module `spore` (sdk/python/spore.py)."""

import pathlib
import unittest

from host import SystemTest
from redis_server import Redis

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / "build" / "examples" / "python.wasm"
PLAIN = """
import os, sys
os.makedirs("/spore/state/a/b", exist_ok=True)
path = "/spore/state/a/b/seen"
try:
    seen = open(path).read()
except FileNotFoundError:
    seen = ""
with open(path, "w") as file:
    file.write(seen + sys.stdin.read())
    file.flush()
    os.fsync(file.fileno())
print(seen, os.path.getsize(path), os.path.isfile(path), os.path.isdir("/spore/state"), os.listdir("/spore/state"))
with open("/spore/state/scratch", "xb") as file:
    file.write(bytes(100000))
with open("/spore/state/scratch", "r+b") as file:
    file.seek(-3, 2)
    file.write(b"end")
    file.seek(0, 1)
    file.truncate(99999)
with open("/spore/state/scratch", "ab") as file:
    assert file.tell() == 99999
    file.write(b"!")
with open("/spore/state/scratch", "rb") as file:
    assert file.read()[-4:] == b"\\0en!"
for wrong, error in (("..", PermissionError), ("none", FileNotFoundError), ("scratch/", NotADirectoryError)):
    try:
        open("/spore/state/" + wrong)
    except error:
        continue
    raise AssertionError(wrong)
os.remove("/spore/state/scratch")
assert not os.path.exists("/spore/state/scratch")
"""


@unittest.skipUnless(PYTHON.exists(), "there is no python.wasm: make -C examples python")
class PythonState(SystemTest):
    @classmethod
    def setUpClass(cls):
        redis = Redis()
        cls.addClassCleanup(redis.close)
        cls.FLAGS = ("--state", redis.url())
        super().setUpClass()
        cls.module = PYTHON.read_bytes()

    def prepare(self, host, name, script):
        answer = host.ask("PUT", f"/v1/functions/{name}", self.module, timeout_s=300)  # what compiles is large
        self.assertIn(answer.status, (200, 201), answer.body)
        answer = host.configure(name, args=["-c", script], mounts={"/lib": "files:lib"}, env={"PYTHONPATH": "/lib"})
        self.assertEqual(answer.status, 200, answer.body)

    def with_module(self, host, tenant):
        text = (ROOT / "sdk" / "python" / "spore.py").read_bytes()
        self.assertIn(host.ask("PUT", f"/v1/files/{tenant}/lib/spore.py", text).status, (200, 201, 204))

    def output(self, host, name, text):
        answer = host.call(name, text.encode())
        self.assertEqual(answer.status, 200, answer.body)
        return answer.body.decode()

    def test_files_of_state_are_files_to_cpython(self):
        self.with_module(self.host, "files")
        self.prepare(self.host, "files/plain", PLAIN)
        self.assertEqual(self.output(self.host, "files/plain", "one "), " 4 True True ['a%2Fb%2Fseen']\n")
        self.assertEqual(self.output(self.host, "files/plain", "two"), "one  7 True True ['a%2Fb%2Fseen']\n")
        self.assertEqual(self.host.ask("GET", "/v1/state/files/a%2Fb%2Fseen").body, b"one two")

    def test_a_dictionary_is_kept_across_calls_and_hosts(self):
        hosts = [self.host, self.own_host(*self.FLAGS)]
        example = (ROOT / "examples" / "python" / "counter.py").read_text()
        for host in hosts:
            self.with_module(host, "words")
            self.prepare(host, "words/counter", example)
        self.assertEqual(self.output(hosts[0], "words/counter", "to be or not to be"), "2 be\n2 to\n1 not\n1 or\n")
        self.assertEqual(self.output(hosts[1], "words/counter", "be"), "3 be\n2 to\n1 not\n1 or\n")
        self.assertEqual(self.output(hosts[0], "words/counter", "or or"), "3 be\n3 or\n2 to\n1 not\n")
        self.assertEqual(hosts[1].ask("GET", "/v1/state/words/words").body, b'{"to":2,"be":3,"or":3,"not":1}')


if __name__ == "__main__":
    unittest.main()

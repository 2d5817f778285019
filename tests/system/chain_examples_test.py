"""Functions that call functions, in every language: one example each, and three larger ones across languages, files and
state. What has not been built (make -C examples) is skipped."""

import array
import json
import pathlib
import random
import re
import unittest
from collections import Counter

from host import ECHO, ENDLESS, SystemTest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "build" / "examples"
EXAMPLES = ROOT / "examples"
PRIMES = {0: 0, 2: 0, 3: 1, 100: 25, 5000: 669}
INTERPRETERS = {"python": ("python.wasm", "-c", "py"), "javascript": ("quickjs.wasm", "-e", "js")}
TRAPS = '(module (func $deep (export "spore_call") unreachable))'
DETACHES = """(module
  (import "spore" "call_detached" (func $detach (param i32 i32 i32 i32 i32) (result i64)))
  (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 0) "echohello")
  (func (export "spore_call") (result i32)
    (local $error i32)
    (local.set $error (i32.wrap_i64 (call $detach
      (i32.const 0) (i32.const 4) (i32.const 4) (i32.const 5) (i32.const 100))))
    (drop (call $write (i32.const 100) (i32.const 32)))
    (i32.sub (i32.const 0) (local.get $error))))"""
EXITS = '(module (func (export "spore_call") (result i32) (i32.const 3)))'
# Of "echo", "endless", "traps", "exits": the same steps in two languages.
PYTHON_TOLD = """
import errno
import spore

def told(work):
    try:
        return work()
    except spore.CallError as error:
        return f"{errno.errorcode[error.errno]} {error.exit_code} {error.strerror.splitlines()[0]}"
    except OSError as error:
        return type(error).__name__

data = bytes(range(256)) * 1000
print(spore.call("echo", data).result() == data, spore.call("echo", "text").result())
for name in ("traps", "exits", "nobody", "echo@7", "a b", "..", "a/b", "n" * 200):
    print(name[:10], told(lambda: spore.call(name).result()))
with spore.call("endless") as endless:
    print(endless.wait(0.01), spore.await_any([endless], 0), spore.await_any([endless, spore.call("echo")]).function)
done = spore.call("echo@1", b"x")
print(done.wait(), done.wait(), done.result(), done.result(), done.wait())
done.close()
print(told(lambda: spore.map("exits", "ab")), spore.map("echo", []), spore.map("echo", ["a", b"b"]))
print(told(lambda: spore.call("echo", bytes(70 << 20))))
"""
PYTHON_SAID = """True b'text'
traps ECHILD None it trapped: unreachable
exits EIO 3 exit code 3
nobody FileNotFoundError
echo@7 FileNotFoundError
a b EINVAL None the function's name may only hold letters, digits, '.', '_' and '-'
.. PermissionError
a/b NotADirectoryError
nnnnnnnnnn OSError
False None echo
True True b'x' b'x' True
EIO 3 exit code 3 [] [b'a', b'b']
EFBIG None its input: File too large
"""
JAVASCRIPT_TOLD = """
function told(work) {
  try {
    return work();
  } catch (error) {
    return `${error.message.split('\\n')[0]} (${error.code})`;
  }
}
const data = Uint8Array.from({ length: 1000 }, (_, i) => i);
print(Spore.call('echo', data).resultBytes().every((byte, i) => byte === data[i]), Spore.call('echo', 'über').result());
for (const name of ['traps', 'exits', 'nobody', 'echo@7', 'a b', '..'])
  print(name, told(() => Spore.call(name).result()));
const endless = Spore.call('endless');
print(endless.wait(10), Spore.awaitAny([endless], 0), Spore.awaitAny([endless, Spore.call('echo')]));
print(told(() => endless.output()));
endless.cancel();
print(endless.wait(), endless.message());
endless.close();
print(endless.wait(), told(() => Spore.map('exits', ['a'])), Spore.map('echo', ['a', 'b']).join(''));
"""
JAVASCRIPT_SAID = """true über
traps traps: it trapped: unreachable (-12)
exits exits: it exited with code 3 (3)
nobody nobody: error 44 (-44)
echo@7 echo@7: error 44 (-44)
a b a b: error 28 (-28)
.. ..: error 28 (-28)
-6 -6 1
endless: error 6 (-6)
-11 it was cancelled
-8 exits: it exited with code 3 (3) ab
"""


class ChainExamples(SystemTest):
    def prepare(self, function, language, example, **config):
        """Publishes examples/LANGUAGE/EXAMPLE as that function."""
        if language in INTERPRETERS:
            suffix = INTERPRETERS[language][2]
            return self.prepare_script(function, language, (EXAMPLES / language / f"{example}.{suffix}").read_text(), **config)
        self.prepare_module(function, f"{language}-{example}.wasm", **config)

    def prepare_script(self, function, language, script, **config):
        interpreter, option, _ = INTERPRETERS[language]
        if language == "python":
            tenant = function.split("/")[0]
            module = (ROOT / "sdk" / "python" / "spore.py").read_bytes()
            self.assertIn(self.host.ask("PUT", f"/v1/files/{tenant}/lib/spore.py", module).status, (200, 201, 204))
            config |= {"mounts": {"/lib": "files:lib"}, "env": {"PYTHONPATH": "/lib"}}
        self.prepare_module(function, interpreter, args=[option, script], **config)

    def prepare_module(self, function, module, **config):
        if not (BUILT / module).exists():
            self.skipTest(f"{BUILT / module} is not built (make -C examples)")
        answer = self.host.ask("PUT", f"/v1/functions/{function}", (BUILT / module).read_bytes(), timeout_s=300)
        self.assertIn(answer.status, (200, 201), answer.body)  # what compiles is large
        answer = self.host.configure(function, **config)
        self.assertEqual(answer.status, 200, answer.body)

    def output(self, function, data):
        answer = self.host.call(function, data.encode())
        self.assertEqual(answer.status, 200, answer.body)
        return answer.body.decode()

    def counts_primes_in_parts(self, language):
        function = f"{language}/primes"
        self.prepare(function, language, "primes", timeout_ms=60_000)
        for below, count in PRIMES.items():
            self.assertEqual(self.output(function, str(below)), f"{count}\n", below)
        answer = self.host.call(function, b"-1")
        self.assertEqual(answer.status, 500, answer.body)

    def test_c(self):
        self.counts_primes_in_parts("c")

    def test_cpp(self):
        self.counts_primes_in_parts("cpp")

    def test_rust(self):
        self.counts_primes_in_parts("rust")

    def test_go(self):
        self.counts_primes_in_parts("go")

    def test_assemblyscript(self):
        self.counts_primes_in_parts("assemblyscript")

    def test_javascript(self):
        self.counts_primes_in_parts("javascript")

    def test_python(self):
        self.counts_primes_in_parts("python")

    def test_python_tells_what_went_wrong(self):
        self.prepare_script("told-py/told", "python", PYTHON_TOLD)
        self.prepare_others("told-py")
        self.assertEqual(self.output("told-py/told", ""), PYTHON_SAID)

    def test_javascript_tells_what_went_wrong(self):
        self.prepare_script("told-js/told", "javascript", JAVASCRIPT_TOLD)
        self.prepare_others("told-js")
        self.assertEqual(self.output("told-js/told", ""), JAVASCRIPT_SAID)

    def test_a_detached_call_outlives_its_caller(self):
        self.published("detached/echo", ECHO)
        self.published("detached/detaches", DETACHES)
        call = self.output("detached/detaches", "")
        self.assertRegex(call, "^[0-9a-f]{32}$")
        answer = self.host.ask("GET", f"/v1/calls/{call}?wait=30s")
        self.assertEqual((answer.status, answer.json()["status"]), (200, "succeeded"), answer.body)
        self.assertEqual(self.host.ask("GET", f"/v1/calls/{call}/output").body, b"hello")
        self.assertEqual(self.host.ask("DELETE", "/v1/functions/detached/echo").status // 100, 2)
        answer = self.host.call("detached/detaches")
        self.assertEqual(answer.json()["exit_code"], 44, answer.body)  # ENOENT

    def prepare_others(self, tenant):
        for name, text in (("echo", ECHO), ("endless", ENDLESS), ("traps", TRAPS), ("exits", EXITS)):
            self.published(f"{tenant}/{name}", text)

    def test_matrices_are_multiplied_by_divide_and_conquer(self):
        self.prepare("matrices/matmul", "python", "matmul", timeout_ms=120_000)
        size, numbers = 16, random.Random(1)
        a, b = ([[float(numbers.randrange(-99, 100)) for _ in range(size)] for _ in range(size)] for _ in range(2))
        for key, matrix in (("a", a), ("b", b)):
            data = b"".join(array.array("d", row).tobytes() for row in matrix)
            self.assertEqual(self.host.ask("PUT", f"/v1/state/matrices/matrix%2F{key}", data).status, 201)
        self.output("matrices/matmul", json.dumps({"size": size, "leaf": 4}))
        found = array.array("d", self.host.ask("GET", "/v1/state/matrices/matrix%2Fc").body)
        wanted = [sum(x * y for x, y in zip(row, column)) for row in a for column in zip(*b)]
        self.assertEqual(found.tolist(), wanted)  # of whole numbers, so to the last bit
        keys = self.host.ask("GET", "/v1/state/matrices").body.decode()
        self.assertNotIn("matrix/c.", keys)  # the parts are gone
        for task, said in (({"size": 8, "leaf": 4}, "is no matrix of 8 rows"), ({}, "KeyError")):
            answer = self.host.call("matrices/matmul", json.dumps(task).encode())
            self.assertEqual(answer.status, 500, answer.body)

    def test_words_of_many_shared_files_are_counted_by_map_and_reduce(self):
        self.prepare("corpus/mapreduce", "rust", "mapreduce", mounts={"/corpus": "files:texts"}, timeout_ms=60_000)
        pick = random.Random(2)
        vocabulary = [f"word{i}" for i in range(200)] + ["über", "o2"]
        wanted, files = Counter(), 24
        for i in range(files):
            words = [pick.choice(vocabulary) for _ in range(300)]
            wanted.update(words)
            text = "".join(word.upper() + pick.choice((" ", ", ", "\n", "--")) for word in words)
            answer = self.host.ask("PUT", f"/v1/files/corpus/texts/{i}.txt", text.encode())
            self.assertIn(answer.status, (200, 201, 204), answer.body)
        top = sorted(wanted.items(), key=lambda entry: (-entry[1], entry[0]))[:10]
        self.assertEqual(self.output("corpus/mapreduce", ""),
                         f"{sum(wanted.values())} words, {len(wanted)} different, in {files} files\n" +
                         "".join(f"{count} {word}\n" for word, count in top))
        self.assertEqual(self.host.call("corpus/mapreduce", b"map none.txt").status, 500)

    def test_a_pipeline_goes_through_go_python_and_cpp(self):
        self.prepare("stages/pipeline", "go", "pipeline", timeout_ms=60_000)
        self.prepare("stages/summarise", "python", "summarise", timeout_ms=60_000)
        self.prepare("stages/sort", "cpp", "sort")
        self.assertEqual(self.output("stages/pipeline", "b 3\na 0.5\na -2\nb 1e3\na 1\nb 2.25\nb -1\n"),
                         "a: 3 values from -2 to 1, median 0.5\nb: 4 values from -1 to 1000, median 2.625\n")
        # A stage that fails is told through the languages before it.
        answer = self.host.call("stages/pipeline", b"a NaN")
        self.assertEqual(answer.status, 500, answer.body)
        self.assertEqual(self.host.ask("DELETE", "/v1/functions/stages/sort").status // 100, 2)
        answer = self.host.call("stages/pipeline", b"a 1")
        self.assertEqual(answer.status, 500, answer.body)
        self.assertRegex(answer.body.decode(), re.compile("exit"))


if __name__ == "__main__":
    unittest.main()

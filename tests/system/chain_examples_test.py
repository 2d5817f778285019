"""Functions that call functions, in every language: one example each, and three larger ones across languages, files and
state. What has not been built (make -C examples) is skipped."""

import array
import json
import pathlib
import random
import re
import unittest
from collections import Counter

from host import SystemTest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "build" / "examples"
EXAMPLES = ROOT / "examples"
PRIMES = {0: 0, 2: 0, 3: 1, 100: 25, 5000: 669}
INTERPRETERS = {"python": ("python.wasm", "-c", "py"), "javascript": ("quickjs.wasm", "-e", "js")}


class ChainExamples(SystemTest):
    def prepare(self, function, language, example, **config):
        """Publishes examples/LANGUAGE/EXAMPLE as that function."""
        interpreter, option, suffix = INTERPRETERS.get(language, (f"{language}-{example}.wasm", None, None))
        if not (BUILT / interpreter).exists():
            self.skipTest(f"{BUILT / interpreter} is not built (make -C examples)")
        answer = self.host.ask("PUT", f"/v1/functions/{function}", (BUILT / interpreter).read_bytes(), timeout_s=300)
        self.assertIn(answer.status, (200, 201), answer.body)  # what compiles is large
        if option:
            config["args"] = [option, (EXAMPLES / language / f"{example}.{suffix}").read_text()]
        if language == "python":
            tenant = function.split("/")[0]
            module = (ROOT / "sdk" / "python" / "spore.py").read_bytes()
            self.assertIn(self.host.ask("PUT", f"/v1/files/{tenant}/lib/spore.py", module).status, (200, 201, 204))
            config |= {"mounts": {"/lib": "files:lib"}, "env": {"PYTHONPATH": "/lib"}}
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

#!/usr/bin/env python3
"""Functions in every language, from `spore new` to `spore call`; scripts as functions; what is refused, and how."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from host import SPORE, Host

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
INTERPRETERS = ROOT / "build" / "examples"
SECONDS_MAX = 300  # CPython is large; only a failure takes that long


def has_go():
    """Debian 12's own cannot build for wasip1."""
    if not shutil.which("go"):
        return False
    version = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True).stdout
    return tuple(int(part) for part in version.strip().removeprefix("go").split(".")[:2]) >= (1, 21)


class Languages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cache = tempfile.TemporaryDirectory(prefix="spore-languages-test-")
        cls.addClassCleanup(cache.cleanup)
        cls.cache = cache.name

    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="spore-languages-test-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def spore(self, *arguments, input=b"", code=0, **environment):
        result = subprocess.run(
            [SPORE, *map(str, arguments)], input=input, capture_output=True, cwd=self.folder, timeout=SECONDS_MAX,
            env=os.environ | {"SPORE_SERVER": f"http://{self.host.name}:{self.host.port}", "SPORE_INTERPRETERS": str(INTERPRETERS),
                              "XDG_CACHE_HOME": self.cache} | environment)
        self.assertEqual(result.returncode, code, result.stderr.decode(errors="replace"))
        return result

    def refusal(self, *arguments, code=1, **environment):
        return self.spore(*arguments, code=code, **environment).stderr.decode()

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return name

    def interpreter(self, name):
        if not (INTERPRETERS / name).exists():
            self.skipTest(f"{INTERPRETERS / name} is not built (make -C examples)")

    def versions(self, function):
        return self.host.ask("GET", f"/v1/functions/{function}").json()["versions"]

    def goes_from_new_to_call(self, language, *, file=None, tool=None):
        self.spore("new", "--lang", language, "hello-" + language)
        built = self.spore("build", "hello-" + language)
        folder = self.folder / ("hello-" + language)
        if tool:
            self.assertIn(f"{tool} ", built.stderr.decode())
        else:
            self.assertIn(b"nothing is to be built", built.stdout)
        program = folder / (file or f"hello-{language}.wasm")
        self.assertEqual(self.spore("run", program, input=b"Ada").stdout, b"Hello, Ada!\n")
        self.spore("publish", folder)
        self.assertEqual(self.spore("call", "demo/hello-" + language, "-d", "Ada").stdout, b"Hello, Ada!\n")

    def test_c(self):
        self.goes_from_new_to_call("c", tool="clang-19")

    def test_cpp(self):
        self.goes_from_new_to_call("cpp", tool="clang++-19")

    def test_rust(self):
        self.goes_from_new_to_call("rust", tool="/usr/bin/rustc")

    @unittest.skipUnless(has_go(), "no go >= 1.21 here; Debian 12 has 1.19")
    def test_go(self):
        self.goes_from_new_to_call("go", tool="go build")

    def test_assemblyscript(self):
        if not (ROOT / "build/guests/node_modules/assemblyscript").exists():
            self.skipTest("no assemblyscript here (scripts/install guests)")
        os.symlink(ROOT / "build/guests/node_modules", self.folder / "node_modules")
        self.goes_from_new_to_call("assemblyscript", tool="asc.js")

    def test_javascript(self):
        self.interpreter("quickjs.wasm")
        self.goes_from_new_to_call("javascript", file="hello-javascript.js")

    def test_python(self):
        self.interpreter("python.wasm")
        self.goes_from_new_to_call("python", file="hello-python.py")

    def test_new_writes_over_nothing(self):
        (self.folder / "there").mkdir()
        self.assertIn("there already", self.refusal("new", "--lang", "c", "there"))
        self.assertEqual(list((self.folder / "there").iterdir()), [])
        self.assertIn("there are c, cpp, rust, go, assemblyscript, javascript, python",
                      self.refusal("new", "--lang", "cobol", "a"))
        self.assertIn("name must begin with", self.refusal("new", "--lang", "c", "../a"))
        self.assertIn("No such file", self.refusal("new", "--lang", "c", "a", "--dir", "none"))

    def test_a_missing_tool_is_named_with_what_brings_it(self):
        for language, tool, package in (("c", "clang-19", "clang-19"), ("cpp", "clang++-19", "clang-19"),
                                        ("rust", "wasm-ld-14", "lld-14"), ("go", "go", "https://go.dev/dl"),
                                        ("assemblyscript", "node", "nodejs")):
            self.spore("new", "--lang", language, language)
            said = self.refusal("build", language, PATH="/nowhere")
            self.assertIn(f"{tool} is needed and is not here", said)
            self.assertIn(package, said)

    def test_a_source_with_an_error_leaves_no_module(self):
        self.spore("new", "--lang", "c", "bad")
        (self.folder / "bad/bad.c").write_text("int main(void) { return nothing; }\n")
        said = self.refusal("build", "bad")
        self.assertIn("undeclared identifier", said)
        self.assertIn("was not built: clang-19 ended with exit code 1", said)
        self.assertFalse((self.folder / "bad/bad.wasm").exists())

    def test_build_refuses_what_it_cannot_build(self):
        self.write("a.toml", 'source = "a.zig"\nmodule = "a.wasm"\n')
        self.assertIn("a.zig: there is no such file", self.refusal("build", "a.toml"))
        self.write("a.zig", "")
        self.assertIn('no language is known for ".zig"', self.refusal("build", "."))
        self.write("a.toml", 'module = "a.wasm"\n')
        self.assertIn("does not say what to build", self.refusal("build"))
        self.write("b.toml", "")
        self.assertIn("several function files", self.refusal("build"))
        self.write("b.toml", '\n\nsauce = "b.c"\n')
        self.assertIn('b.toml:3:1: there is no key "sauce"', self.refusal("build", "b.toml"))

    def test_a_script_gets_arguments_and_input_and_ends_with_its_exit_code(self):
        self.interpreter("quickjs.wasm")
        script = self.write("upper.js", "print(Spore.input().toUpperCase(), 'ü')\n")
        self.assertEqual(self.spore("run", script, input=b"abc").stdout.decode(), "ABC ü\n")
        self.spore("publish", script, "--name", "demo/upper", "--env", "A=1", "--timeout", "5000")
        self.assertEqual(self.spore("call", "demo/upper", "-d", "abc").stdout.decode(), "ABC ü\n")
        self.write("fails.js", "throw new TypeError('no')\n")
        self.assertIn("TypeError: no", self.refusal("run", "fails.js"))

    def test_a_script_that_changes_keeps_its_module_and_configuration(self):
        self.interpreter("quickjs.wasm")
        self.spore("publish", self.write("a.js", "print(1)"), "--name", "demo/changing", "--timeout", "1234")
        self.spore("publish", self.write("a.js", "print(2)"), "--name", "demo/changing")
        self.assertEqual(self.spore("call", "demo/changing").stdout, b"2\n")
        first, second = self.versions("demo/changing")
        self.assertEqual(first["digest"], second["digest"])
        self.assertEqual([v["config"]["timeout_ms"] for v in (first, second)], [1234, 1234])
        self.assertIn("demo/changing", self.refusal("publish", "a.js", "--name", "demo/changing", "--new"))
        self.assertNotEqual(self.refusal("publish", "a.js", "--name", "demo/changing", "--if-match", "0" * 64), "")
        self.assertEqual(len(self.versions("demo/changing")), 2)

    def test_a_long_script_is_published_whole(self):
        self.interpreter("quickjs.wasm")
        self.write("long.js", "// a line\n" * 15_000 + "print('end')\n")
        self.spore("publish", "long.js", "--name", "demo/long")
        self.assertEqual(self.spore("call", "demo/long").stdout, b"end\n")
        self.write("long.js", " " * (200 << 10) + "\n")
        self.assertIn("long.js: a script may have 204800 bytes at most",
                      self.refusal("publish", "long.js", "--name", "demo/longer"))

    def test_a_language_that_is_not_installed(self):
        script = self.write("a.py", "print(1)")
        program = self.folder / "bin" / "spore"  # with no build of Spore beside it
        program.parent.mkdir()
        shutil.copy(SPORE, program)
        for command in (["publish", script, "--name", "demo/a"], ["run", script]):
            result = subprocess.run([program, *command], cwd=self.folder, capture_output=True, text=True,
                                    env={"SPORE_INTERPRETERS": "/nowhere", "HOME": str(self.folder)})
            self.assertNotEqual(result.returncode, 0)
            for part in ("a.py: the interpreter of Python is not here", "/nowhere/python.wasm",
                         "/usr/share/spore/interpreters/python.wasm", "make -C examples python", "--interpreter"):
                self.assertIn(part, result.stderr)
        self.assertIn("/nowhere/i.wasm", self.refusal("publish", script, "--name", "demo/a",
                                                      "--interpreter", "/nowhere/i.wasm"))

    def test_a_suffix_that_no_interpreter_has(self):
        script = self.write("a.rb", "puts 1")
        for said in (self.refusal("publish", script, "--name", "demo/a"), self.refusal("run", script, code=125)):
            self.assertIn('a.rb: no WebAssembly module, and there is no interpreter for ".rb"', said)
            self.assertIn(".py (Python), .js (JavaScript)", said)

    def test_a_script_with_a_nul_is_refused(self):
        self.interpreter("quickjs.wasm")
        self.assertIn("no NUL", self.refusal("publish", self.write("a.js", "print(1)\0print(2)"), "--name", "demo/a"))

    def test_a_malformed_function_file_names_line_and_key(self):
        for text, said in (('name = "demo/a"\ntimeout_ms = "soon"', "f.toml:2:14: timeout_ms must be"),
                           ('memory_max = "a lot"', "f.toml:1:14: memory_max must be"),
                           ("output_max = -1", "f.toml:1:14: output_max must be"),
                           ("args = 3", "f.toml:1:8: args must be"),
                           ("[env]\nA = 1", "f.toml:2:5: env.A must be"),
                           ("[mounts]\n'/a' = 1", "f.toml:2:8: mounts./a must be"),
                           ("entry = 'main'", 'f.toml:1:1: there is no key "entry"'),
                           ("name = ", "f.toml:1:")):
            self.write("f.toml", text)
            self.assertIn(said, self.refusal("publish", "f.toml"))


if __name__ == "__main__":
    unittest.main()

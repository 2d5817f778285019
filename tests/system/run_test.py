"""`spore run`: a module behaves as a native program does."""

import os
import subprocess
import tempfile
import unittest

from host import DEADLINE_S, ENDLESS, SPORE, wasm

CAT = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 1000))
    (block $end (loop $again
      (i32.store (i32.const 4) (i32.const 60000))
      (br_if $end (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $end (i32.eqz (i32.load (i32.const 8))))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $again)))))"""
# Writes its arguments, each ended by a NUL as WASI hands them over, then its environment.
ARGUMENTS = """(module
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (drop (call $args_sizes (i32.const 20) (i32.const 4)))
    (drop (call $args (i32.const 100) (i32.const 1000)))
    (i32.store (i32.const 0) (i32.const 1000))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $env_sizes (i32.const 20) (i32.const 4)))
    (drop (call $env (i32.const 100) (i32.const 1000)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
# Opens `name` below the first preopened directory and writes its content.
READS_FILE = """(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2) (data (i32.const 50) "name")
  (func (export "_start") (local $error i32)
    (local.set $error (call $open (i32.const 3) (i32.const 0) (i32.const 50) (i32.const 4) (i32.const 0)
      (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 20)))
    (if (local.get $error) (then (call $exit (local.get $error))))
    (i32.store (i32.const 0) (i32.const 1000)) (i32.store (i32.const 4) (i32.const 60000))
    (drop (call $read (i32.load (i32.const 20)) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


class Run(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="spore-run-test-")
        cls.environment = {**os.environ, "XDG_CACHE_HOME": cls.folder.name}

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_module(self, text, *arguments, flags=(), stdin=b"", environment=None):
        path = os.path.join(self.folder.name, "module.wasm")
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else wasm(text))
        return subprocess.run([SPORE, "run", *flags, path, *arguments], input=stdin, capture_output=True,
                              timeout=DEADLINE_S, env={**self.environment, **(environment or {})})

    def test_standard_input_and_output_pass_through(self):
        for data in (b"", b"hello\n", os.urandom(3_000_000)):
            done = self.run_module(CAT, stdin=data)
            self.assertEqual((done.returncode, done.stdout == data), (0, True), done.stderr)

    def test_the_exit_code_is_the_programs(self):
        exits = """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 17))))"""
        self.assertEqual(self.run_module(exits).returncode, 17)

    def test_a_trap_is_134_with_reason_and_stack(self):
        done = self.run_module('(module (func $inner unreachable) (func $outer (export "_start") (call $inner)))')
        self.assertEqual(done.returncode, 134)
        self.assertIn(b"unreachable", done.stderr)
        self.assertIn(b"at ", done.stderr)

    def test_a_timeout_is_124(self):
        done = self.run_module(ENDLESS, flags=("--timeout", "100"))
        self.assertEqual(done.returncode, 124)
        self.assertIn(b"timed out after 100 ms", done.stderr)
        self.assertIn(b"spin", done.stderr)

    def test_waiting_for_input_times_out_too(self):
        path = os.path.join(self.folder.name, "cat.wasm")
        with open(path, "wb") as file:
            file.write(wasm(CAT))
        with subprocess.Popen([SPORE, "run", "--timeout", "100", path], stdin=subprocess.PIPE,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment) as process:
            self.assertEqual(process.wait(DEADLINE_S), 124)

    def test_arguments_behind_the_file_belong_to_the_program(self):
        done = self.run_module(ARGUMENTS, "--dir", "-x", "--", "last", flags=("--env", "A=b", "--env", "PASSED"),
                               environment={"PASSED": "on", "SECRET": "kept"})
        words = done.stdout.split(b"\0")
        self.assertTrue(words[0].endswith(b"module.wasm"))
        self.assertEqual(words[1:], [b"--dir", b"-x", b"--", b"last", b"A=b", b"PASSED=on", b""])

    def test_only_given_directories_are_there(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "name"), "w") as file:
                file.write("content")
            self.assertEqual(self.run_module(READS_FILE, flags=("--dir", folder + "::/data")).stdout, b"content")
            self.assertEqual(self.run_module(READS_FILE, flags=("--dir", folder)).stdout, b"content")
            self.assertNotEqual(self.run_module(READS_FILE).returncode, 0)

    def test_what_cannot_start_is_125_with_the_reason(self):
        for text, reason in ((b"not wasm", b"module.wasm"), (wasm("(module)"), b"_start"),
                             (wasm('(module (import "x" "y" (func)) (func (export "_start")))'), b"x.y")):
            done = self.run_module(text)
            self.assertEqual(done.returncode, 125)
            self.assertIn(reason, done.stderr)
        missing = subprocess.run([SPORE, "run", "/nowhere.wasm"], capture_output=True, env=self.environment)
        self.assertEqual(missing.returncode, 125)
        self.assertIn(b"/nowhere.wasm", missing.stderr)
        self.assertNotEqual(subprocess.run([SPORE, "run"], capture_output=True, env=self.environment).returncode, 0)


if __name__ == "__main__":
    unittest.main()

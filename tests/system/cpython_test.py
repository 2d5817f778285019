"""CPython's own modules inside a Faaslet (cpython_modules.py is what runs there). Prints how many tests ran there."""

import os
import re
import subprocess
import unittest

from host import SPORE

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "examples", "python.wasm")


class CPython(unittest.TestCase):
    @unittest.skipUnless(os.path.exists(PYTHON), "there is no python.wasm: make -C examples python")
    def test_its_modules_work_on_the_files_of_a_call(self):
        with open(os.path.join(HERE, "cpython_modules.py"), encoding="utf-8") as file:
            script = file.read()
        done = subprocess.run([SPORE, "run", PYTHON, "-c", script], capture_output=True, text=True, timeout=500)
        count = re.search(r"^(\d+) ran, 0 failed$", done.stdout, re.M)
        self.assertTrue(count and done.returncode == 0, done.stdout + done.stderr)
        self.assertGreaterEqual(int(count[1]), 18)
        print(f"\ninside CPython: {count[0]}", flush=True)


if __name__ == "__main__":
    unittest.main()

"""Bad pointers and lengths on a real host: one in ten of the calls of pointer_test.cc, over HTTP, beside a tenant whose
answers stay right. The calls come from `security_test`, and so from the table of imports."""

import json
import os
import subprocess
import tempfile
import unittest

import suite
from suite import system

GENERATOR = os.environ.get("SPORE_SECURITY_TEST", os.path.join(suite.ROOT, "build", "release", "security_test"))


class Pointers(unittest.TestCase):
    def test_bad_ones_end_their_own_call_and_no_more(self):
        host = suite.Host("--tenant-state-mib", "64")
        self.addCleanup(host.close)
        with tempfile.TemporaryDirectory(prefix="spore-security-") as folder:
            subprocess.run([GENERATOR, "--gtest_filter=*BadOnes*", "--gtest_brief=1"], check=True,
                           env={**os.environ, "SPORE_SECURITY_CASES": folder}, stdout=subprocess.DEVNULL)
            cases = {}
            for name in os.listdir(folder):
                with open(os.path.join(folder, name), "rb") as file:
                    cases[name] = file.read()
        if not cases:
            self.skipTest("security_test has no cases: this user may not map state (userfaultfd)")
        config = json.dumps({"timeout_ms": 2_000, "local_bytes_max": 4 << 20})
        answer = host.publish("attacker/prober", cases.pop("prober.wasm"), Spore_Config=config)
        self.assertEqual(answer.status, 201, answer.body)
        self.assertEqual(host.publish("attacker/echo", system.ECHO).status, 201)
        self.assertEqual(host.publish("neighbour/echo", system.ECHO).status, 201)
        process, ended = host.process.pid, {}
        for number, (name, memory) in enumerate(sorted(cases.items())):
            answer = host.call("attacker/prober", memory)
            self.assertIn(answer.status, (200, 500, 504), f"{name}: {answer.body}")
            ended[answer.status] = ended.get(answer.status, 0) + 1
            self.assertIsNone(host.process.poll(), name)
            if number % 10 == 0:
                secret = os.urandom(500)
                self.assertEqual(host.call("neighbour/echo", secret).body, secret, name)
        self.assertEqual(host.process.pid, process)
        self.assertGreater(len(cases), 500)
        self.assertGreater(ended[500], 50, ended)
        print(f"  {len(cases)} calls: {ended}")
        self.assertEqual([line for line in host.said if "error" in line.lower()], [])


if __name__ == "__main__":
    unittest.main()

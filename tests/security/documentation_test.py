"""docs/isolation.md names tests that there are, and attackers that attack."""

import glob
import os
import re
import unittest

import attackers
import suite


class Documentation(unittest.TestCase):
    def test_every_test_that_is_named_exists(self):
        with open(os.path.join(suite.ROOT, "docs", "isolation.md")) as file:
            page = file.read()
        sources = ""
        for pattern in ("src/*/*_test*", "tests/*/*"):
            for name in glob.glob(os.path.join(suite.ROOT, pattern)):
                if name.endswith((".cc", ".h", ".py")):
                    with open(name) as file:
                        sources += file.read()
        there = {f"{group}.{name}" for group, name in re.findall(r"TEST(?:_[FP])?\(\s*(\w+),\s*(\w+)\)", sources)}
        there |= {name.split("DeathTest.")[0] for name in there} | set(re.findall(r"def (test_\w+)", sources))
        named = set(re.findall(r"`(\w+Test\.\w+|[A-Z]\w+\.[A-Z]\w+|test_\w+)`", page))
        self.assertGreater(len(named), 40)
        self.assertEqual({name for name in named if name not in there}, set())

        attacking = {attacker.name for attacker in attackers.ATTACKERS} | {"scan"}
        told = {name for row in re.findall(r"attackers? ((?:`\w+`(?:, )?)+)", page) for name in re.findall(r"`(\w+)`", row)}
        self.assertEqual(told - attacking, set())
        self.assertEqual(attacking - told - {"unreachable", "division", "outside", "indirect"}, set())


if __name__ == "__main__":
    unittest.main()

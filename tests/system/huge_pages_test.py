"""Where the kernel makes huge pages of shared memory, holes in a value that is not fetched yet would be filled with zeros:
no function may map state there, and the host says so. Changes a setting of the machine while it runs."""

import os
import unittest

from state_guest import StateGuestTest

SETTING = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
ENOTSUP = 58


def setting():
    with open(SETTING) as file:
        return file.read().split("[")[1].split("]")[0]


def change(value):
    with open(SETTING, "w") as file:
        file.write(value)


@unittest.skipUnless(os.geteuid() == 0 and os.access(SETTING, os.W_OK), "takes root, and a kernel with huge pages")
class HugePages(StateGuestTest):
    def test_state_cannot_be_mapped_where_shared_memory_is_in_huge_pages(self):
        before = setting()
        self.addCleanup(change, before)
        for value, can_map in (("always", False), ("within_size", False), ("advise", True), ("never", True)):
            change(value)
            host = self.own_host()
            self.prepare(host, ("bump", "n"))
            answer = self.run_command(host, "bump", "n")
            if can_map:
                self.assertEqual((answer.status, answer.body), (200, b"1"), value)
            else:
                self.assertExit(answer, ENOTSUP)
            self.assertEqual(host.ask("PUT", "/v1/state/t/other", b"bytes").status, 201)
            host.process.terminate()
            said = host.process.communicate()[1]
            self.assertEqual("functions cannot map state" in said and "shmem_enabled" in said, not can_map, said)


if __name__ == "__main__":
    unittest.main()

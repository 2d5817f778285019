"""What a host leaves behind that has made a fresh Faaslet for each of thousands of calls, and is then killed.

Nothing, at once: no cgroup, no namespace, no link, no table of rules, no process. Its files are those of its data
folder, and a host that starts there again finds all functions and state as they were.

SPORE_SECURITY_STARTS: how many Faaslets (10000).
"""

import concurrent.futures
import http.client
import json
import os
import tempfile
import threading
import time
import unittest

import attackers
import suite
from suite import system

STARTS = int(os.environ.get("SPORE_SECURITY_STARTS", "10000"))
# No Faaslet is kept for a second call.
FLAGS = ("--idle", "0", "--networks-ready", "8", "--network-reach", "10.77.0.0/24")

# Takes one of everything: a file in its layer, a state value in memory, a lock, a call of another function.
TAKES = attackers.module(f"""
    {attackers.opens("(i32.const 64)", "(i32.const 8)")}
    (drop {attackers.WRITE})
    (drop (call $map (i32.const 64) (i32.const 8) (i64.const 4096) (i32.const 0)))
    (drop (call $lock (i32.const 64) (i32.const 8) (i32.const 0) (i32.const 1000)))
    (drop (call $output (i32.const 64) (i32.const 8)))""")
# The same of the network.
CONNECTS = attackers.module("""
    (local.set $n (call $socket (i32.const 1) (i32.const 6)))
    (drop (call $bind (i32.wrap_i64 (local.get $n)) (i32.const 128)))
    (if (i64.lt_s (local.get $n) (i64.const 0)) (then unreachable))
    (drop (call $output (i32.const 64) (i32.const 8)))""", '(data (i32.const 128) "\\01")')


def mounts():
    with open("/proc/self/mountinfo") as file:
        return [line for line in file if "spore" in line]


def machine(process=None):
    """What stands on the machine that a host, of that number, could have made. Not what other hosts on it have."""
    return {
        "links": suite.links() if os.geteuid() == 0 else [],
        "tables": suite.rules() if os.geteuid() == 0 else [],
        "cgroups": suite.cgroups_of(process) if process else [],
        "mounts": mounts(),
        "shared memory": sorted(name for name in os.listdir("/dev/shm") if "spore" in name),
    }


def files_below(folder):
    """Without those of the two databases, which name their own."""
    databases = tuple(os.path.join(folder, "data", name) for name in ("state", "calls"))
    return sorted(os.path.relpath(os.path.join(root, name), folder) for root, _, names in os.walk(folder)
                  for name in names if not root.startswith(databases))


class Leftovers(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="spore-leftovers-")
        self.addCleanup(self.folder.cleanup)
        self.scratch = os.path.join(self.folder.name, "tmp")
        os.mkdir(self.scratch)
        os.environ["TMPDIR"] = self.scratch
        self.addCleanup(os.environ.pop, "TMPDIR")

    def host(self):
        host = suite.Host(*FLAGS, data=os.path.join(self.folder.name, "data"))
        self.addCleanup(host.close)
        return host

    def call(self, host, name, count):
        """Calls it so often, eight at once."""
        local, connections = threading.local(), []

        def one(_):
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=60)
                connections.append(local.connection)
            local.connection.request("POST", f"/v1/functions/{name}/call", b"")
            answer = local.connection.getresponse()
            return answer.status, answer.read()

        with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
            for answer in pool.map(one, range(count)):
                self.assertEqual(answer, (200, b"00000000"))
        for connection in connections:
            connection.close()

    def files_that_rest(self, host):
        """The files, when the host has stored what it compiles in the background."""
        files, until = None, time.monotonic() + system.DEADLINE_S
        while files != files_below(self.folder.name) or host.metric("spore_background_compiles_waiting"):
            self.assertLess(time.monotonic(), until)
            files = files_below(self.folder.name)
            time.sleep(1)
        return files

    def test_nothing_is_left_of_a_killed_host(self):
        before = machine()
        host = self.host()
        self.assertEqual(host.publish("left/takes", TAKES).status, 201)
        names = ["left/takes"]
        if "network: enforced" in host.ask("GET", "/readyz").body.decode():
            names.append("left/connects")
            answer = host.publish("left/connects", CONNECTS,
                                  Spore_Config=json.dumps({"network": {"allow": ["10.77.0.2:80"]}}))
            self.assertEqual(answer.status, 201, answer.body)
        for name in names:  # what is made once and kept
            self.call(host, name, 50)
        files = self.files_that_rest(host)
        held = suite.held_by(host)
        begin = time.monotonic()
        for name in names:
            self.call(host, name, STARTS // len(names))
        starts = int(host.metric("spore_faaslets_restored_total"))
        self.assertGreaterEqual(starts, STARTS, "each call had a Faaslet of its own")
        print(f"  {starts} cold starts of {' and '.join(names)} in {time.monotonic() - begin:.1f} s")

        # A living host has no more than after the first.
        after = suite.held_by(host)
        for name, more_max in (("descriptors", 16), ("threads", 2), ("namespaces", 16), ("processes", 0), ("cgroups", 0),
                               ("mappings", 64), ("resident", 64 << 10)):
            if not (system.SANITIZED and name in ("mappings", "resident")):
                self.assertLessEqual(after[name], held[name] + more_max, name)
        self.assertEqual(files_below(self.folder.name), files)

        process, everybody = host.process.pid, suite.processes_below(host.process.pid)
        self.assertEqual(len(everybody), 2 if os.geteuid() == 0 else 1, everybody)
        namespaces = suite.namespaces(everybody) - suite.namespaces(["self"])
        self.assertTrue(namespaces or len(names) == 1)
        host.kill()
        until = time.monotonic() + 30  # the helper sees that its host is gone, and tidies up
        while True:
            left = [other for other in everybody if os.path.exists(f"/proc/{other}")]
            after = machine(process)
            if (not left and after == before) or time.monotonic() > until:
                break
            time.sleep(0.05)
        self.assertEqual(left, [], "processes")
        self.assertEqual(after, before)
        self.assertEqual(suite.namespaces() & namespaces, set())
        self.assertEqual(files_below(self.folder.name), files)

        # The next host finds what was there, and adds nothing to it.
        host = self.host()
        for name in names:
            self.call(host, name, 10)
        self.assertEqual(files_below(self.folder.name), files)
        self.assertEqual(os.listdir(self.scratch), [])


if __name__ == "__main__":
    suite.in_own_namespace()
    unittest.main()

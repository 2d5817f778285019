"""Many hostile tenants on one real host, beside one that behaves.

As a program with no arguments it is a test. Its two clients are processes of their own, started by it, so that they do
not wait for each other: `attack` calls the attackers again as soon as they are ended, and tells how each ended;
`neighbour` calls a small function at fixed times, whatever became of the calls before (an open loop), and tells how long
each took, counted from when it was due. Both go before everybody else on the machine where they may (root), as clients on
machines of their own would: what is measured is the host.

SPORE_SECURITY_ATTACKERS: how many calls attack at once (200); SPORE_SECURITY_SECONDS: for how long (30);
SPORE_SECURITY_ONLY: names of attackers, to find out who it is.
"""

import collections
import concurrent.futures
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import unittest

import attackers
import suite
from suite import system

ATTACKS_AT_ONCE = int(os.environ.get("SPORE_SECURITY_ATTACKERS", "200"))
SECONDS = float(os.environ.get("SPORE_SECURITY_SECONDS", "30"))
RATE = 50  # calls of the neighbour in a second
TIMEOUT_MS = 1_500  # of a call that attacks
SCAN_TIMEOUT_MS = 10_000
LATE_MAX_S = 10  # after that, whatever else the machine does
# What an operator of hostile tenants would limit on a machine that has other work too. Seats, queues and trees of calls
# are as by default.
FLAGS = ("--state-mib", "512", "--tenant-state-mib", "64", "--tenant-store-mib", "128", "--tenant-store-keys", "10000",
         "--idle-mib", "64", "--async-tenant-calls", "500", "--networks-ready", "8", "--network-reach", "10.77.0.0/24")
# How a call may end: as it likes, by a fault of its own, by a limit.
STATUSES = {200, 429, 500, 502, 503, 504, 507}

# What the host may hold more than before, when the attack is over. Memory: 64 MiB of idle Faaslets (--idle-mib), as much
# in the buffers of each of its two databases.
MORE_MAX = {"resident": 192 << 10, "descriptors": 64, "threads": 8, "mappings": 2_000, "namespaces": 8, "processes": 0,
            "cgroups": 8}
if system.SANITIZED:
    del MORE_MAX["resident"], MORE_MAX["mappings"]


# ---- the clients ----------------------------------------------------------------------------------------------------

def attack(port, seconds, count):
    """Prints a JSON object: by attacker, how often its calls ended in which way, and how long the slowest took, in s."""
    until = time.monotonic() + seconds
    ended = collections.defaultdict(collections.Counter)
    slowest = collections.Counter()
    reached = []
    guard = threading.Lock()

    def note(name, how):
        with guard:
            ended[name][str(how)] += 1

    def call_again_and_again(attacker):
        path = f"/fn/{attacker.name}/self/" if attacker.web else f"/v1/functions/{attacker.name}/self/call"
        while time.monotonic() < until:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            began = time.monotonic()
            try:
                connection.request("POST", path, b"")
                answer = connection.getresponse()
                body = answer.read()
                note(attacker.name, answer.status)
                if attacker.name == "scan" and body and answer.status == 200:
                    with guard:
                        reached.append(body[:28].hex())
            except http.client.IncompleteRead:
                note(attacker.name, "cut off")  # an answer that had begun when the call was ended
            except (OSError, http.client.HTTPException) as error:
                note(attacker.name, f"{type(error).__name__}: {error}")
            finally:
                connection.close()
                with guard:
                    slowest[attacker.name] = max(slowest[attacker.name], round(time.monotonic() - began, 2))
            time.sleep(0.02)

    def speak_badly():
        """Requests that are none, and publishes of what is no module, or takes a while to compile."""
        while time.monotonic() < until:
            for text in (b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n", b"\x16\x03\x01" * 1000,
                         b"POST /v1/functions/spin/self/call HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                         b"".join(b"H%d: x\r\n" % i for i in range(10_000))):
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                        connection.sendall(text)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass
                    note("requests", "answered")
                except (ConnectionError, BrokenPipeError):
                    note("requests", "closed")
            for body in (random.randbytes(10_000), b"\0asm\1\0\0\0" + random.randbytes(1_000)):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("PUT", "/v1/functions/publisher/junk", body)
                note("publishes", connection.getresponse().status)
                connection.close()
            time.sleep(0.2)

    only = os.environ.get("SPORE_SECURITY_ONLY", "").split()
    everybody = [attacker for attacker in attackers.ATTACKERS + [attackers.Attacker("scan", "", "")]
                 if not only or attacker.name in only]
    workers = [threading.Thread(target=call_again_and_again, args=(everybody[i % len(everybody)],))
               for i in range(count)] + [threading.Thread(target=speak_badly) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps({"ended": ended, "slowest": slowest, "reached": reached}))


def neighbour(port, seconds, rate):
    """Prints a JSON object: how many calls, why some failed, and quantiles of how long they took, in ms."""
    begin = time.monotonic() + 0.1
    failed, took, queued, inside = collections.Counter(), [], [], []
    local = threading.local()

    def call(due):
        body = random.randbytes(64)
        time.sleep(max(0, due - time.monotonic()))
        try:
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            local.connection.request("POST", "/v1/functions/neighbour/echo/call", body)
            answer = local.connection.getresponse()
            said = answer.read()
            queued.append(int(answer.headers.get("Spore-Queued-Us", 0)) / 1e3)
            inside.append(int(answer.headers.get("Spore-Duration-Us", 0)) / 1e3)
            if answer.status != 200:
                failed[f"{answer.status} {said[:200]}"] += 1
            elif said != body:
                failed["a wrong answer"] += 1
        except (OSError, http.client.HTTPException) as error:
            failed[f"{type(error).__name__}: {error}"] += 1
            local.connection.close()
            del local.connection
        took.append(1e3 * (time.monotonic() - due))

    with concurrent.futures.ThreadPoolExecutor(max_workers=256) as pool:
        list(pool.map(call, [begin + i / rate for i in range(int(seconds * rate))]))

    def at(times, share):
        return round(sorted(times)[int(share * (len(times) - 1))], 2)

    # As the client sees it; as the host does, from when it has read the request; of that, in the queue.
    print(json.dumps({"calls": len(took), "failed": failed, "p50": at(took, .5), "p99": at(took, .99),
                      "max": at(took, 1), "host_p99": at(inside, .99), "queue_p99": at(queued, .99)}))


def started(role, *arguments):
    return subprocess.Popen([sys.executable, "-B", os.path.abspath(__file__), role, *map(str, arguments)],
                            stdout=subprocess.PIPE, text=True)


def said_by(process, seconds):
    return json.loads(process.communicate(timeout=seconds + 180)[0])


# ---- the test -------------------------------------------------------------------------------------------------------

class Attack(unittest.TestCase):
    def setUp(self):
        self.host = suite.Host(*FLAGS)
        self.addCleanup(self.host.close)
        self.clients = []
        self.addCleanup(lambda: [client.kill() for client in self.clients if client.poll() is None])
        self.publish("neighbour/echo", system.ECHO)
        self.boundaries = self.host.ask("GET", "/readyz").body.decode()
        for attacker in attackers.ATTACKERS:
            config = dict(attacker.config)
            if "network: enforced" not in self.boundaries:
                config.pop("network", None)
            self.publish(f"{attacker.name}/self", attacker.text, timeout_ms=TIMEOUT_MS, **config)
        # Something that could be reached, were it not forbidden.
        listener = socket.create_server(("0.0.0.0", 0))
        self.addCleanup(listener.close)
        network = {"network": {"internet": True, "allow": ["10.77.0.2:80"]}} if self.has_network() else {}
        self.publish("scan/self", attackers.scan((self.host.port, listener.getsockname()[1])), timeout_ms=SCAN_TIMEOUT_MS,
                     **network)

    def has_network(self):
        return "network: enforced" in self.boundaries

    def publish(self, name, text, **config):
        answer = self.host.publish(name, text, Spore_Config=json.dumps(config))
        self.assertEqual(answer.status, 201, answer.body)

    def client(self, role, *arguments):
        self.clients.append(started(role, self.host.port, *arguments))
        return self.clients[-1]

    def end_attack(self):
        """Removes what would go on: durable calls that make durable calls. Waits until nothing runs."""
        for attacker in attackers.ATTACKERS:
            self.assertEqual(self.host.ask("DELETE", f"/v1/functions/{attacker.name}/self").status, 204)
        busy = ("spore_calls_running", "spore_calls_waiting", "spore_calls_parked", "spore_async_calls_queued",
                "spore_async_calls_running")
        until = time.monotonic() + 60
        while True:
            left = {name: self.host.metric(name) for name in busy}
            if not any(left.values()):
                return
            self.assertLess(time.monotonic(), until, f"what attacked goes on: {left}")
            time.sleep(0.1)

    def test_a_scan_reaches_nothing(self):
        answer = self.host.call("scan/self")
        self.assertEqual((answer.status, answer.body), (200, b""), "of each address, what it reached")

    def test_the_host_and_its_neighbour_survive(self):
        process = self.host.process.pid
        self.host.call("neighbour/echo", b"hi")
        alone = said_by(self.client("neighbour", SECONDS / 3, RATE), SECONDS)
        before = suite.held_by(self.host)

        attack_client = self.client("attack", SECONDS + 2, ATTACKS_AT_ONCE)
        time.sleep(2)  # all have begun
        beside = said_by(self.client("neighbour", SECONDS, RATE), SECONDS)
        told = said_by(attack_client, SECONDS)

        for name, ended in sorted(told["ended"].items()):
            print(f"  {name:12} {dict(ended)}, the slowest after {told['slowest'].get(name, 0)} s")
        print(f"  neighbour alone  {alone}\n  neighbour beside {beside}")
        self.assertIsNone(self.host.process.poll(), "".join(self.host.said))
        self.assertEqual(self.host.process.pid, process)
        self.end_attack()

        # Each attacker was answered, each time, by what it did or by its limits.
        for name, ended in told["ended"].items():
            for how in ended:
                known = how in {"cut off", "answered", "closed"} or (how.isdigit() and int(how) in STATUSES)
                self.assertTrue(known or (name == "publishes" and how in {"400", "422"}), f"{name}: {how}")
        self.assertEqual(told["reached"], [], "what the scanner reached")
        for name in {"spin", "calls", "random", "sleep"} & set(told["ended"]):
            self.assertEqual(set(told["ended"][name]), {"504"}, name)
        for name, seconds in told["slowest"].items():
            self.assertLess(seconds, LATE_MAX_S + (SCAN_TIMEOUT_MS if name == "scan" else TIMEOUT_MS) / 1e3, name)

        self.assertEqual(beside["failed"], {})
        self.assertEqual(beside["calls"], int(SECONDS * RATE))

        pause, until = threading.Event(), time.monotonic() + 60
        while True:
            after = suite.held_by(self.host)
            after["resident"] -= int(self.host.metric("spore_state_bytes")) >> 10  # the tenants' values, within --state-mib
            after["descriptors"] -= int(self.host.metric("spore_state_replicas"))  # one each, within --state-values
            more = {name: after[name] - before[name] for name in MORE_MAX if after[name] - before[name] > MORE_MAX[name]}
            if not more or time.monotonic() > until:
                break
            pause.wait(0.5)
        print(f"  held before {before}\n  held after  {after}")
        self.assertEqual(more, {}, "what the host holds more than before")
        self.assertEqual([line for line in self.host.said if "error" in line.lower()], [])
        # The line that `make test-security` ends with.
        print(f"neighbour: {beside['calls']} calls, {sum(beside['failed'].values())} failed, p99 {alone['p99']} ms alone, "
              f"{beside['p99']} ms beside {ATTACKS_AT_ONCE} attackers", flush=True)


if __name__ == "__main__":
    # The host is to be measured, not how its clients share the machine with it.
    if sys.argv[1:2] == ["neighbour"] and os.geteuid() == 0:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    if sys.argv[1:2] == ["attack"]:
        os.nice(10)
    if sys.argv[1:2] == ["attack"]:
        attack(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["neighbour"]:
        neighbour(int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
    else:
        suite.in_own_namespace()
        unittest.main()

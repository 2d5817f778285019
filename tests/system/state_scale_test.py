"""State that is far more than a host may hold of it: many values, and values that memory is short for."""

import os
import random
import threading
import unittest
import urllib.parse

from host import SANITIZED, Background
from memory_pressure import NotHere, Reclaim, Swap, bytes_swapped_out
from state_guest import ENOENT, StateGuestTest

VALUES = int(os.environ.get("SPORE_STATE_VALUES", "10000"))


class ManyValues(StateGuestTest):
    """A tenant's, made by functions and by requests, on a host that holds at most a few of them."""

    REPLICAS_MAX = 64
    FLAGS = ("--state-values", str(REPLICAS_MAX), "--state-mib", "1")
    CLIENTS = 8

    def key(self, n):
        return f"m/{n:06}"

    def at_once(self, work):
        """All clients do their part; what the host has is looked at meanwhile. The largest of each."""
        clients = [Background(work, client) for client in range(self.CLIENTS)]
        pause, most = threading.Event(), self.holds()
        while any(client.is_alive() for client in clients):
            pause.wait(0.1)
            most = [max(pair) for pair in zip(most, self.holds())]
        for client in clients:
            client.result()
        return most

    def holds(self):
        """Descriptors, mappings, memory in KiB, replicas."""
        process = f"/proc/{self.host.process.pid}"
        with open(process + "/maps") as file:
            mappings = sum(1 for _ in file)
        return [len(os.listdir(process + "/fd")), mappings, self.host.status("VmRSS"),
                int(self.host.metric("spore_state_replicas"))]

    def listed(self):
        keys, cursor = [], ""
        while True:
            page = self.host.ask("GET", "/v1/state/t?limit=1000&prefix=m/" + (cursor and "&cursor=" + cursor)).json()
            keys += [value["key"] for value in page["values"]]
            self.assertTrue(all(value["size_bytes"] == len(value["key"]) for value in page["values"]))
            cursor = urllib.parse.quote(page.get("cursor", ""), safe="")
            if not cursor:
                return keys

    def test_they_are_made_listed_and_read_and_the_host_stays_small(self):
        by_request, by_call = VALUES // 10, 100  # the first; functions make the others, so many each time
        count = VALUES // by_call * by_call
        fill, warm, keys = ("fill", "m", str(by_call)), ("fill", "warm", str(by_call)), ("keys", "m", "4096")
        samples = [("sample", "m", str(count), "200", str(client)) for client in range(self.CLIENTS)]
        self.prepare(self.host, fill, warm, keys, *samples)
        self.at_once(lambda client: self.output(self.host, *warm, body=b"%d" % (client * by_call)))
        before, evicted_before = self.holds(), self.host.metric("spore_state_evicted_total")

        def request(client):
            for n in range(client, by_request, self.CLIENTS):
                key = self.key(n)
                self.assertEqual(self.host.ask("PUT", f"/v1/state/t/{key}", key.encode()).status, 201)

        def make(client):
            for n in range(by_request + client * by_call, count, self.CLIENTS * by_call):
                self.output(self.host, *fill, body=b"%d" % n)

        def read(client):
            self.output(self.host, *samples[client])
            chance = random.Random(client)
            for _ in range(100):
                key = self.key(chance.randrange(count))
                self.assertEqual(self.host.ask("GET", f"/v1/state/t/{key}").body, key.encode())

        most = [self.at_once(request), self.at_once(make)]
        self.assertEqual(self.listed(), [self.key(n) for n in range(count)])
        self.assertEqual(self.output(self.host, *keys), str(count))
        most.append(self.at_once(read))
        most.append(self.holds())
        descriptors, mappings, memory_kib, replicas = (max(column) for column in zip(*most))
        print(f"{count} values; most at once: {descriptors} descriptors, {mappings} mappings, {memory_kib >> 10} MiB, "
              f"{replicas} replicas; before: {before}")
        self.assertLessEqual(replicas, self.REPLICAS_MAX // 2 + self.CLIENTS)  # with those that are being opened
        made = count - by_request
        self.assertGreater(self.host.metric("spore_state_evicted_total") - evicted_before, made - self.REPLICAS_MAX)
        self.assertLess(descriptors - before[0], 2 * self.REPLICAS_MAX + self.CLIENTS)
        if not SANITIZED:
            self.assertLess(mappings - before[1], 2 * self.REPLICAS_MAX + 64)
            self.assertLess(memory_kib - before[2], 96 << 10)


class LessMemoryThanState(StateGuestTest):
    """What one host writes reaches the other by push and pull alone, while all that is clean is evicted for room."""

    CLEAN = 12  # values, each as large as the one that is written

    def dirty_pages_survive(self, pages, rounds, host_flags, before_rounds=lambda host: None):
        _, (a, b) = self.two_hosts(*host_flags)
        clean = [f"clean{n}" for n in range(self.CLEAN)]
        marks = [str(1_000_000 * (n + 1)) for n in range(rounds)]
        for host in (a, b):
            self.prepare(host, *[("mark", key, str(pages), "1", "7") for key in clean],
                         *[("marked", key, "1", "7") for key in clean],
                         *[("mark", "d", str(pages), "3", mark) for mark in marks],
                         *[("marked", "d", "3", mark) for mark in marks], ("push", "d"), ("pull", "d"),
                         *[("push", key) for key in clean], timeout_ms=120_000)
        for key in clean:
            self.assertEqual(self.run_command(b, "mark", key, str(pages), "1", "7").status, 200)
            self.assertEqual(self.run_command(b, "push", key).status, 200)
        before_rounds(a)
        all_marked = f"{(pages + 2) // 3} {pages - (pages + 2) // 3}"
        none_marked = f"0 {pages - (pages + 2) // 3}"
        for n, mark in enumerate(marks):
            evicted = a.metric("spore_state_evicted_total")
            self.assertEqual(self.run_command(a, "mark", "d", str(pages), "3", mark).status, 200)
            for key in clean:
                self.assertEqual(self.output(a, "marked", key, "1", "7"), f"{pages} 0")
            # The first round's replicas have not been here before.
            self.assertGreaterEqual(a.metric("spore_state_evicted_total") - evicted, self.CLEAN - 4)
            self.assertEqual(self.output(a, "marked", "d", "3", mark), all_marked)
            if n == 0:
                self.assertExit(self.run_command(b, "marked", "d", "3", mark), ENOENT)
            else:
                self.assertEqual(self.run_command(b, "pull", "d").status, 200)
                self.assertEqual(self.output(b, "marked", "d", "3", mark), none_marked)
                self.assertEqual(self.output(b, "marked", "d", "3", marks[n - 1]), all_marked)
            self.assertEqual(self.run_command(a, "push", "d").status, 200)
            if n > 0:
                self.assertEqual(self.output(b, "marked", "d", "3", mark), none_marked)
                self.assertEqual(self.run_command(b, "pull", "d").status, 200)
            self.assertEqual(self.output(b, "marked", "d", "3", mark), all_marked)

    def test_what_is_not_pushed_stays_and_what_is_reaches_the_other_host(self):
        # Room for the one that is written and two more.
        self.dirty_pages_survive(1024, 3, ("--state-mib", "14"))

    def test_so_it_is_where_the_kernel_swaps_the_host_out(self):
        if SANITIZED:
            self.skipTest("a sanitizer's memory is too much to be swapped")
        value_bytes = 32 << 20
        try:
            swap = Swap(1 << 30)
            self.addCleanup(swap.close)
            pressure = Reclaim()
        except (NotHere, OSError) as missing:
            self.skipTest(f"not on this machine: {missing}")
        self.addCleanup(pressure.close)
        swapped = bytes_swapped_out()
        self.dirty_pages_survive(value_bytes // 4096, 2, ("--state-mib", "112"),
                                 lambda host: pressure.begin(host.process.pid))
        self.assertGreater(bytes_swapped_out() - swapped, value_bytes)


if __name__ == "__main__":
    unittest.main()

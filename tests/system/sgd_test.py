"""Parallel stochastic gradient descent on shared state (examples/cpp/sgd.cc): workers that do not wait for each other
come to the loss of one that has everything to itself."""

import os
import pathlib
import subprocess
import unittest

from host import Background, SystemTest
from redis_server import Redis

MODULE = pathlib.Path(__file__).resolve().parent.parent.parent / "build" / "examples" / "cpp-sgd.wasm"
SERIAL = os.environ.get("SPORE_SGD_SERIAL", "sgd_serial")  # the same code, native, on one thread
POINTS, FEATURES, SEED, EPOCHS = 40_000, 2_000, 1, 4
WORKERS = 4
DATA_BYTES = 8_000_000  # at least: points and labels
TOLERANCE = 0.05  # of the serial run's loss


@unittest.skipUnless(MODULE.exists(), f"{MODULE} has not been built (make examples)")
class Sgd(SystemTest):
    def do(self, host, command):
        answer = host.call("t/sgd", command.encode())
        self.assertEqual(answer.status, 200, answer.body)
        return answer.body.decode()

    def serial(self):
        """The losses before and after."""
        result = subprocess.run([SERIAL, *map(str, (POINTS, FEATURES, SEED, EPOCHS))], capture_output=True, check=True)
        return tuple(map(float, result.stdout.split()))

    def train(self, hosts):
        """Each epoch all workers at once, spread over the hosts, each on its own points."""
        for host in hosts:
            self.published("t/sgd", MODULE.read_bytes(), host)
        self.do(hosts[0], f"generate {POINTS} {FEATURES} {SEED}")
        before = float(self.do(hosts[0], "loss"))
        share = POINTS // WORKERS
        for epoch in range(EPOCHS):
            running = [
                Background(self.do, hosts[i % len(hosts)], f"train {i * share} {share} {epoch}") for i in range(WORKERS)]
            for worker in running:
                worker.result()
        return before, float(self.do(hosts[-1], "loss"))

    def assertSameLoss(self, losses, serial):
        self.assertAlmostEqual(losses[0], serial[0], places=6)
        self.assertLess(serial[1], serial[0] / 3)
        self.assertLess(abs(losses[1] - serial[1]), TOLERANCE * serial[1], f"{losses}, and {serial} by one thread")

    def moved(self, hosts):
        """Bytes that went to the global tier, and that came from it."""
        return tuple(sum(int(host.metric(f"spore_state_{way}_bytes_total")) for host in hosts)
                     for way in ("pushed", "fetched"))

    def say(self, where, losses, serial, pushed, fetched):
        print(f"sgd: {WORKERS} workers on {where}: loss {losses[1]:.6f}; serial {serial[1]:.6f}; bytes moved: "
              f"{pushed:,} pushed, {fetched:,} fetched", flush=True)

    def test_workers_of_a_host_share_weights(self):
        serial, losses = self.serial(), self.train([self.host])
        pushed, fetched = self.moved([self.host])
        self.say("one host", losses, serial, pushed, fetched)
        self.assertSameLoss(losses, serial)
        self.assertLess(fetched, DATA_BYTES)  # it was made there
        for command in ("train 0 40001 0", "train 40001 0 0", "train", "fly", ""):
            self.assertEqual(self.host.call("t/sgd", command.encode()).json()["exit_code"], 28, command)

    def test_hosts_add_to_the_same_weights(self):
        redis = Redis()
        self.addCleanup(redis.close)
        hosts = [self.own_host("--state", redis.url()) for _ in range(2)]
        serial, losses = self.serial(), self.train(hosts)
        pushed, fetched = self.moved(hosts)
        self.say("2 hosts", losses, serial, pushed, fetched)
        self.assertSameLoss(losses, serial)
        # The data was pushed once. The host that has not made it fetched it once, not in every call; weights come on top.
        self.assertGreater(pushed, DATA_BYTES)
        self.assertGreater(fetched, DATA_BYTES // 2)
        self.assertLess(fetched, 3 * DATA_BYTES)
        for host in hosts:  # what one learned, both have
            self.assertAlmostEqual(float(self.do(host, "loss")), losses[1], places=6)

    def test_without_data_it_says_so(self):
        host = self.own_host()
        self.published("t/sgd", MODULE.read_bytes(), host)
        self.assertEqual(host.call("t/sgd", b"loss").json()["exit_code"], 44)


if __name__ == "__main__":
    unittest.main()

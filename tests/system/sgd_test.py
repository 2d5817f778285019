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

    def test_workers_of_a_host_share_weights(self):
        serial, losses = self.serial(), self.train([self.host])
        print(f"sgd: {WORKERS} workers on one host: loss {losses[1]:.6f}; serial {serial[1]:.6f}", flush=True)
        self.assertSameLoss(losses, serial)
        for command in ("train 0 40001 0", "train 40001 0 0", "train", "fly", ""):
            self.assertEqual(self.host.call("t/sgd", command.encode()).json()["exit_code"], 28, command)

    def test_hosts_add_to_the_same_weights(self):
        redis = Redis()
        self.addCleanup(redis.close)
        hosts = [self.own_host("--state", redis.url()) for _ in range(2)]
        serial, losses = self.serial(), self.train(hosts)
        pushed, pulled = (int(redis.info(f"total_net_{way}_bytes")) for way in ("input", "output"))
        data = sum(len(hosts[0].ask("GET", f"/v1/state/t/sgd%2F{key}").body) for key in ("points", "labels"))
        print(f"sgd: {WORKERS} workers on 2 hosts: loss {losses[1]:.6f}; serial {serial[1]:.6f}; bytes moved: "
              f"{pushed:,} to the store, {pulled:,} from it; the data has {data:,}", flush=True)
        self.assertSameLoss(losses, serial)
        # The data went there once; each host fetched what it trained on once, in whole chunks, and the last one all.
        self.assertGreater(pushed, data)
        self.assertLess(pulled, 4 * data)
        for host in hosts:  # what one learned, both have
            self.assertAlmostEqual(float(self.do(host, "loss")), losses[1], places=6)

    def test_without_data_it_says_so(self):
        answer = self.own_host()
        self.published("t/sgd", MODULE.read_bytes(), answer)
        self.assertEqual(answer.call("t/sgd", b"loss").json()["exit_code"], 44)


if __name__ == "__main__":
    unittest.main()

"""What tests of functions with state share: the guest tests/guest/guests/state.c, and hosts with one store."""

import os

from host import SPORE, SystemTest
from redis_server import Redis

ENOENT, ENOSPC, ESTALE, ETIMEDOUT, EHOSTUNREACH = 44, 51, 72, 73, 23

GUEST = os.environ.get("SPORE_STATE_GUEST", os.path.join(os.path.dirname(SPORE), "tests", "guest", "state.wasm"))
with open(GUEST, "rb") as file:
    MODULE = file.read()


class StateGuestTest(SystemTest):
    def prepare(self, host, *commands, tenant="t", **config):
        """A function for each command; its name is the command with dashes."""
        for command in commands:
            name = f"{tenant}/" + "-".join(command)
            self.assertIn(host.publish(name, MODULE).status, (200, 201))
            self.assertEqual(host.configure(name, args=list(command), **config).status, 200)

    def run_command(self, host, *command, tenant="t", body=b""):
        return host.call(f"{tenant}/" + "-".join(command), body)

    def output(self, host, *command, tenant="t", body=b""):
        answer = self.run_command(host, *command, tenant=tenant, body=body)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.body.decode()

    def assertExit(self, answer, code):
        self.assertEqual(answer.status, 500, answer.body)
        self.assertEqual(answer.json()["exit_code"], code, answer.body)

    def two_hosts(self, *flags):
        redis = Redis()
        self.addCleanup(redis.close)
        return redis, [self.own_host("--state", redis.url(), *flags) for _ in range(2)]

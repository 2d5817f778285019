"""Functions and the network, from publish to packet: a host in a network namespace of the test's own, and beside it one
that stands for the rest of the world."""

import contextlib
import os
import subprocess
import sys
import unittest

from host import DEADLINE_S, ECHO, Background, SystemTest

WORLD = f"spore-test-{os.getpid()}"
PAGE = b"a page from outside"


def run(*arguments, **options):
    return subprocess.run(arguments, check=True, capture_output=True, text=True, **options)


def in_own_namespace():
    """Starts this program again in a network namespace of its own; without root it says so and ends."""
    if os.environ.get("SPORE_TEST_IN_NAMESPACE"):
        return
    if os.geteuid() != 0:
        print("skipped: namespaces of the network take root")
        sys.exit(0)
    os.environ["SPORE_TEST_IN_NAMESPACE"] = "1"
    os.execvp("unshare", ["unshare", "--net", sys.executable, "-B", *sys.argv])


@contextlib.contextmanager
def world():
    """10.77.0.2 and 8.8.4.4 in a namespace that a link leads to; a web server at ports 80 and 81 there."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "netns", "add", WORLD)
    server = None
    try:
        run("ip", "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", WORLD)
        run("ip", "addr", "add", "10.77.0.1/24", "dev", "out")
        run("ip", "link", "set", "out", "up")
        run("ip", "route", "add", "default", "via", "10.77.0.2")
        for command in ("link set lo up", "link set in up", "addr add 10.77.0.2/24 dev in", "addr add 8.8.4.4/32 dev lo"):
            run("ip", "-n", WORLD, *command.split())
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")
        page = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE
        code = ("import socket, sys, threading\n"
                "def serve(listener):\n"
                "    while True:\n"
                "        client, _ = listener.accept()\n"
                "        client.recv(4096); client.sendall(bytes.fromhex(sys.argv[1])); client.close()\n"
                "listeners = [socket.create_server(('0.0.0.0', port)) for port in (80, 81)]\n"
                "print('ready', flush=True)\n"
                "threading.Thread(target=serve, args=listeners[:1], daemon=True).start()\n"
                "serve(listeners[1])\n")
        server = subprocess.Popen(["ip", "netns", "exec", WORLD, sys.executable, "-c", code, page.hex()],
                                  stdout=subprocess.PIPE, text=True)
        assert server.stdout.readline() == "ready\n"
        yield
    finally:
        if server:
            server.kill()
            server.communicate(timeout=DEADLINE_S)
        run("ip", "netns", "del", WORLD)


class Network(SystemTest):
    FLAGS = ("--network-reach", "10.77.0.0/24", "--networks-ready", "4")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.enforced = "network: enforced" in cls.host.ask("GET", "/readyz").body.decode()
        with open(os.environ["SPORE_HTTP_GUEST"], "rb") as file:
            cls.guest = file.read()

    def setUp(self):
        if not self.enforced:
            self.skipTest(self.host.ask("GET", "/readyz").body.decode())

    def fetches(self, name, address, port, **network):
        """What a function that may do that gets when it fetches that page."""
        self.published(name, self.guest)
        answer = self.host.configure(name, args=[address, str(port), "/"], network=network, timeout_ms=10_000)
        self.assertEqual(answer.status, 200, answer.body)
        return self.host.call(name)

    def assertFetched(self, answer):
        self.assertEqual(answer.status, 200, answer.body)
        self.assertTrue(answer.body.endswith(PAGE), answer.body)

    def test_it_reaches_what_its_policy_names_and_nothing_else(self):
        self.assertFetched(self.fetches("n/allowed", "10.77.0.2", 80, allow=["10.77.0.2:80"]))
        self.assertFetched(self.fetches("n/range", "10.77.0.2", 81, allow=["10.77.0.0/24:*"]))
        self.assertFetched(self.fetches("n/public", "8.8.4.4", 80, internet=True))
        for name, address, port, network in (
                ("port", "10.77.0.2", 81, {"allow": ["10.77.0.2:80"]}),
                ("protocol", "10.77.0.2", 80, {"allow": ["10.77.0.2:80/udp"]}),
                ("private", "10.77.0.2", 80, {"internet": True}),
                ("metadata", "169.254.169.254", 80, {"internet": True, "allow": ["10.77.0.0/24:*"]}),
                ("host", "10.77.0.1", self.host.port, {"internet": True}),
                ("loopback", "127.0.0.1", self.host.port, {"internet": True, "allow": ["10.77.0.0/24:*"]}),
                ("nothing", "8.8.4.4", 80, {})):
            with self.subTest(name):
                answer = self.fetches("n/" + name, address, port, **network)
                self.assertEqual(answer.status, 500, answer.body)

    def test_what_went_through_its_sockets_is_in_the_usage(self):
        answer = self.fetches("n/counted", "10.77.0.2", 80, allow=["10.77.0.2:80"])
        self.assertFetched(answer)
        self.assertGreaterEqual(int(answer.headers["Spore-Received-Bytes"]), len(answer.body))
        self.assertGreater(int(answer.headers["Spore-Sent-Bytes"]), len("GET / HTTP/1.0\r\n"))
        logged = self.host.ask("GET", "/v1/functions/n/counted/logs").json()["calls"][0]
        self.assertEqual(str(logged["received_bytes"]), answer.headers["Spore-Received-Bytes"])
        self.assertGreaterEqual(self.host.metric('spore_calls_network_bytes_total{direction="received"}'),
                                len(answer.body))

    def test_without_a_network_there_are_no_sockets(self):
        self.published("n/none", self.guest)
        self.assertEqual(self.host.configure("n/none", args=["10.77.0.2", "80", "/"]).status, 200)
        self.assertEqual(self.host.call("n/none").status, 500)

    def test_wrong_policies_are_refused_by_name(self):
        self.published("n/wrong", ECHO)
        for network, status, said in (
                ({"allow": ["169.254.169.254:80"]}, 403, "169.254.169.254"),
                ({"allow": ["192.168.0.0/16:80"]}, 403, "192.168.0.0/16"),
                ({"allow": ["10.77.0.2"]}, 400, "HOST:PORT"),
                ({"allow": ["10.77.0.2:0"]}, 400, "the port is a number"),
                ({"allow": ["10.77.0.2:80/icmp"]}, 400, "tcp or udp"),
                ({"allow": ["::1:80"]}, 400, "brackets"),
                ({"allow": ["-x_y:80"]}, 400, "no name of a host"),
                ({"egress_bits": 1}, 400, "bits per second"),
                ({"sockets_max": 0}, 400, "sockets_max"),
                ({"proxy": True}, 400, "proxy"),
                ("yes", 400, "network")):
            answer = self.host.configure("n/wrong", network=network)
            self.assertEqual(answer.status, status, answer.body)
            self.assertIn(said, answer.json()["detail"])
        config = self.host.configure("n/wrong", network={"allow": ["10.77.0.2:80-90/udp", "example.com:443"]})
        self.assertEqual(config.status, 200)
        kept = self.host.ask("GET", "/v1/functions/n/wrong/config").json()["network"]
        self.assertEqual(kept["allow"], ["10.77.0.2:80-90/udp", "example.com:443"])

    def test_many_calls_at_once_and_after_each_other(self):
        self.fetches("n/many", "10.77.0.2", 80, allow=["10.77.0.2:80"])
        for _ in range(5):
            for call in [Background(self.host.call, "n/many") for _ in range(20)]:
                self.assertFetched(call.result())

    def test_nothing_is_left_when_the_host_is_killed(self):
        host = self.own_host(*self.FLAGS)
        links = run("ip", "-o", "link").stdout
        self.assertIn("spore1", links)
        host.kill()
        self.wait_for(lambda: "spore1" not in run("ip", "-o", "link").stdout)

    def test_a_host_without_networks_says_so_and_refuses_functions_that_want_one(self):
        host = self.own_host("--network", "false")
        self.assertIn("network: not enforced: it is off", host.ask("GET", "/readyz").body.decode())
        self.published("n/echo", ECHO, host)
        answer = host.configure("n/echo", network={"internet": True})
        self.assertIn("n/echo requires network", self.assertProblem(answer, 503, "unavailable")["detail"])


if __name__ == "__main__":
    in_own_namespace()
    with world():
        unittest.main()

"""A real redis-server on a free port of loopback, with a folder of its own; ended by its process id."""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

from host import DEADLINE_S


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Redis:
    def __init__(self, *flags):
        self.folder = tempfile.mkdtemp(prefix="spore-redis-")
        self.port = free_port()
        self.flags = flags
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", "",
             *self.flags], stdout=subprocess.DEVNULL)
        pause = threading.Event()
        for _ in range(DEADLINE_S * 50):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
            pause.wait(0.02)
        raise RuntimeError("redis-server does not start")

    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def restart(self):
        self.process.kill()
        self.process.wait()
        self.start()

    def send(self, number):
        self.process.send_signal(number)

    def close(self):
        self.send(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

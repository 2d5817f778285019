"""Makes the kernel write a process's memory to swap: a control group, and a file to swap to.

Takes root, and cgroups that are there; where the machine has not got them, NotHere says what is missing.
"""

import contextlib
import os
import subprocess
import tempfile
import threading


class NotHere(Exception):
    pass


class Swap:
    """A swap file of its own; it goes when this is closed, or its process ends, however it ends."""

    def __init__(self, size_bytes):
        with tempfile.NamedTemporaryFile(prefix="spore-test-swap-", dir="/var/tmp", delete=False) as file:
            self.path = file.name
        # Out of reach of what is sent to the test's process group.
        self.guardian = subprocess.Popen(
            ["sh", "-c", f"""trap '' HUP INT TERM PIPE
              fallocate -l {size_bytes} {self.path} && mkswap {self.path} >&2 && swapon {self.path} && echo on && cat
              swapoff {self.path} 2>&- ; rm -f {self.path}"""],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})
        if self.guardian.stdout.readline() != "on\n":
            raise NotHere("a swap file: " + self.close())

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.guardian.stdin.close()
        said = self.guardian.stderr.read()
        self.guardian.wait()
        for pipe in (self.guardian.stdout, self.guardian.stderr):
            pipe.close()
        return said


class Reclaim:
    """A control group of its own, all of whose memory the kernel is asked again and again to take away."""

    def __init__(self):
        name = f"spore-test-{os.getpid()}"
        for root, setting, much in (("/sys/fs/cgroup", "memory.reclaim", "1G"),
                                    ("/sys/fs/cgroup/memory", "memory.force_empty", "0")):
            self.path, self.request = os.path.join(root, name), (setting, much)
            with contextlib.suppress(OSError):
                os.mkdir(self.path)
                if os.path.exists(os.path.join(self.path, setting)):
                    break
                os.rmdir(self.path)
        else:
            raise NotHere("a control group whose memory can be reclaimed")
        self.over = threading.Event()
        self.thread = None

    def write(self, setting, value):
        with open(os.path.join(self.path, setting), "w") as file:
            file.write(str(value))

    def begin(self, process_id):
        """What the process allocates from now on is in the group."""
        self.write("cgroup.procs", process_id)
        self.thread = threading.Thread(target=self.ask, daemon=True)
        self.thread.start()

    def ask(self):
        while not self.over.wait(0.01):
            with contextlib.suppress(OSError):  # it could not take all
                self.write(*self.request)

    def close(self):
        """When its process has ended."""
        self.over.set()
        if self.thread:
            self.thread.join()
        os.rmdir(self.path)


def bytes_swapped_out():
    """By the machine, since it was started."""
    with open("/proc/vmstat") as file:
        pages = next(int(line.split()[1]) for line in file if line.startswith("pswpout "))
    return pages * os.sysconf("SC_PAGE_SIZE")

"""Makes the kernel write a process's memory to swap: a control group with a limit, and a file to swap to.

Takes root, and cgroups that are there; where the machine has not got them, NotHere says what is missing.
"""

import contextlib
import os
import subprocess
import tempfile


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


class MemoryGroup:
    """A control group of its own, of which no more than `limit_bytes` are in memory; the rest has to be in swap."""

    def __init__(self, limit_bytes):
        name = f"spore-test-{os.getpid()}"
        for root, setting in (("/sys/fs/cgroup", "memory.high"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
            self.path = os.path.join(root, name)
            try:
                os.mkdir(self.path)
            except OSError:
                continue
            try:
                self.write(setting, limit_bytes)
                return
            except OSError:
                os.rmdir(self.path)
        raise NotHere("a control group for memory")

    def write(self, setting, value):
        with open(os.path.join(self.path, setting), "w") as file:
            file.write(str(value))

    def take(self, process_id):
        """What it allocates from now on counts here."""
        self.write("cgroup.procs", process_id)

    def close(self):
        """When its processes have ended."""
        os.rmdir(self.path)


def bytes_swapped_out():
    """By the machine, since it was started."""
    with open("/proc/vmstat") as file:
        pages = next(int(line.split()[1]) for line in file if line.startswith("pswpout "))
    return pages * os.sysconf("SC_PAGE_SIZE")

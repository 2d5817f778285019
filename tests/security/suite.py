"""What the tests of this folder share: a host with the limits of the suite, and what a host holds of the machine."""

import os
import socket
import struct
import subprocess
import sys
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
import host as system  # noqa: E402


def in_own_namespace():
    """Starts this program again in a network namespace of its own, with forwarding on, so that functions can have
    networks; without root it goes on where it is, and says so."""
    if os.environ.get("SPORE_TEST_IN_NAMESPACE"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "link", "add", "out", "type", "veth", "peer", "name", "in"], check=True)
        subprocess.run(["ip", "addr", "add", "10.77.0.1/24", "dev", "out"], check=True)
        subprocess.run(["ip", "link", "set", "out", "up"], check=True)
        subprocess.run(["ip", "link", "set", "in", "up"], check=True)
        subprocess.run(["ip", "route", "add", "default", "via", "10.77.0.2"], check=True)
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")
        return
    if os.geteuid() != 0:
        print("without root: no networks, no cgroups")
        return
    os.environ["SPORE_TEST_IN_NAMESPACE"] = "1"
    os.execvp("unshare", ["unshare", "--net", sys.executable, "-B", *sys.argv])


class Host(system.Host):
    """One whose words are read as it says them. In a session of its own, as a service is: the kernel shares CPU time
    among sessions first (sched_autogroup)."""

    PROCESS = {"start_new_session": True}

    def start(self):
        super().start()
        self.said = []
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        for line in self.process.stderr:
            self.said.append(line)

    def wait(self):
        self.process.wait(timeout=system.DEADLINE_S)
        self.listener.join(system.DEADLINE_S)
        for sign in ("Sanitizer", "runtime error:", "CHECK"):
            if sign in "".join(self.said):
                raise AssertionError("".join(self.said))
        return self.process.returncode


def cgroups_of(process):
    """Directories that are named after it."""
    return [os.path.join(root, name) for root, names, _ in os.walk("/sys/fs/cgroup") for name in names
            if name.startswith(f"spore-{process}-")]


def processes_below(process):
    """It, its children, theirs and so on: numbers, with their commands."""
    parents, names = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                text = file.read()
        except OSError:
            continue  # it has ended
        rest = text.rsplit(")", 1)[1].split()
        parents[int(name)], names[int(name)] = int(rest[1]), text.split("(", 1)[1].rsplit(")", 1)[0]
    found = {process: names.get(process, "")}
    while True:
        more = {child: names[child] for child, parent in parents.items() if parent in found and child not in found}
        if not more:
            return found
        found.update(more)


def namespaces(processes=None):
    """Network namespaces that these processes are in or hold open; of all on the machine where none are given."""
    found = set()
    for name in processes or filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.readlink(f"/proc/{name}/ns/net"))
            for descriptor in os.listdir(f"/proc/{name}/fd"):
                target = os.readlink(f"/proc/{name}/fd/{descriptor}")
                if target.startswith("net:["):
                    found.add(target)
        except OSError:
            continue  # it has ended, or has closed it
    return found


def links():
    return sorted(line.split(":", 2)[1].strip().split("@")[0]
                  for line in subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout.splitlines())


def rules():
    """Names of the tables of nf_tables in this namespace, asked of the kernel: there may be no `nft` here."""
    tables, get_table, dump = 10 << 8, 1, 0x301  # subsystem, message, flags: linux/netfilter/nf_tables.h
    names = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
        kernel.settimeout(10)
        kernel.send(struct.pack("=IHHIIBBH", 20, tables | get_table, dump, 1, 0, 0, 0, 0))
        while True:
            answer = kernel.recv(1 << 16)
            while answer:
                size, kind = struct.unpack_from("=IH", answer)
                if kind == 3:  # the end
                    return names
                assert kind != 2, "the kernel refuses to list tables"
                at = 20
                while at < size:
                    bytes_, attribute = struct.unpack_from("=HH", answer, at)
                    if attribute == 1:
                        names.append(answer[at + 4:at + bytes_ - 1].decode())
                    at += (bytes_ + 3) & ~3
                answer = answer[(size + 3) & ~3:]


def held_by(host):
    """What the host and its helper hold of the machine, by name. Memory in KiB."""
    held = {"resident": 0, "descriptors": 0, "threads": 0, "mappings": 0, "namespaces": 0}
    everybody = {process: name for process, name in processes_below(host.process.pid).items()
                 if name != "llvm-symbolizer"}  # a sanitizer's, which asks it what it is to suppress
    held["processes"] = len(everybody)
    for process in everybody:
        folder = f"/proc/{process}"
        with open(folder + "/status") as file:
            status = dict(line.rstrip("\n").split(":", 1) for line in file if ":" in line)
        held["resident"] += int(status["RssAnon"].split()[0]) + int(status["RssShmem"].split()[0])
        held["threads"] += int(status["Threads"])
        targets = []
        for descriptor in os.listdir(folder + "/fd"):
            try:
                targets.append(os.readlink(f"{folder}/fd/{descriptor}"))
            except OSError:
                continue  # closed meanwhile
        held["descriptors"] += len(targets)
        held["namespaces"] += sum(target.startswith("net:[") for target in targets)
        with open(folder + "/maps") as file:
            held["mappings"] += sum(1 for _ in file)
    held["cgroups"] = sum(len(names) for group in cgroups_of(host.process.pid) for _, names, _ in os.walk(group))
    return held

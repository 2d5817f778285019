"""The guests that attack: each takes one thing without end, by every way that the host interface has. WebAssembly text.

What they may get, and how a call of one may end, stands beside each; anything else is a failure of the host.
"""

import dataclasses

WASI = "wasi_snapshot_preview1"

# What attackers import, by the name that their code uses.
IMPORTS = {
    "$yield": (WASI, "sched_yield", "(result i32)"),
    "$random": (WASI, "random_get", "(param i32 i32) (result i32)"),
    "$path_open": (WASI, "path_open", "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)"),
    "$fd_write": (WASI, "fd_write", "(param i32 i32 i32 i32) (result i32)"),
    "$mkdir": (WASI, "path_create_directory", "(param i32 i32 i32) (result i32)"),
    "$poll": (WASI, "poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),
    "$output": ("spore", "output_write", "(param i32 i32) (result i32)"),
    "$call": ("spore", "call", "(param i32 i32 i32 i32) (result i64)"),
    "$await": ("spore", "call_await", "(param i32 i32) (result i64)"),
    "$detach": ("spore", "call_detached", "(param i32 i32 i32 i32 i32) (result i64)"),
    "$map": ("spore", "state_map", "(param i32 i32 i64 i32) (result i64)"),
    "$push": ("spore", "state_push", "(param i32 i32 i64 i64) (result i64)"),
    "$append": ("spore", "state_append", "(param i32 i32 i32 i32) (result i64)"),
    "$merge": ("spore", "state_merge", "(param i32 i32 i32 i32) (result i64)"),
    "$pull": ("spore", "state_pull", "(param i32 i32 i64 i64) (result i64)"),
    "$lock": ("spore", "state_lock", "(param i32 i32 i32 i32) (result i64)"),
    "$socket": ("spore", "sock_open", "(param i32 i32) (result i64)"),
    "$connect": ("spore", "sock_connect", "(param i32 i32) (result i64)"),
    "$option": ("spore", "sock_setsockopt", "(param i32 i32 i64) (result i64)"),
    "$bind": ("spore", "sock_bind", "(param i32 i32) (result i64)"),
    "$listen": ("spore", "sock_listen", "(param i32 i32) (result i64)"),
}

# 0: a list of one buffer, the 64 KiB at 65536; 16: results; 32, 48: names; 64: eight digits that $next counts up.
COMMON = r"""
  (memory (export "memory") 3)
  (data (i32.const 0) "\00\00\01\00\00\00\01\00")
  (data (i32.const 48) "self")
  (data (i32.const 64) "00000000")
  (func $next (local $at i32)
    (local.set $at (i32.const 71))
    (loop $carry
      (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 57))
        (then (i32.store8 (local.get $at) (i32.const 48))
              (local.set $at (i32.sub (local.get $at) (i32.const 1)))
              (br_if $carry (i32.ge_u (local.get $at) (i32.const 64))))
        (else (i32.store8 (local.get $at) (i32.add (i32.load8_u (local.get $at)) (i32.const 1)))))))
"""


def module(body, more=""):
    used = "".join(f'  (import "{where}" "{name}" (func {label} {signature}))\n'
                   for label, (where, name, signature) in IMPORTS.items() if label in body + more)
    return f'(module\n{used}{COMMON}{more}\n  (func (export "spore_call") (local $i i32) (local $n i64)\n{body}))'


def endless(body, more=""):
    return module(f"    (loop $for_ever {body} (br $for_ever))", more)


def opens(name, length, flags=1):
    """Opens a file of the call's own layer for reading and writing; the descriptor is at 16."""
    return (f"(drop (call $path_open (i32.const 3) (i32.const 0) {name} {length} (i32.const {flags})"
            " (i64.const 0x1fffffff) (i64.const 0) (i32.const 0) (i32.const 16)))")


COUNTED = "(i32.const 64)", "(i32.const 8)"
WRITE = "(call $fd_write (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 24))"

# Addresses that nobody may reach, whatever the policy: this host, its neighbours, the clouds' metadata.
FORBIDDEN = ("127.0.0.1", "127.1.2.3", "0.0.0.0", "169.254.169.254", "10.0.0.1", "10.77.0.1", "10.77.0.2", "172.16.0.1",
             "192.168.0.1", "100.64.0.1", "198.18.0.1", "198.18.0.2", "198.18.0.6", "198.19.255.1", "224.0.0.1",
             "255.255.255.255")


def scan(ports):
    """Connects to each of them at each port; what it reached is its output, 28 bytes for each."""
    places = b"".join(
        bytes([1, 0]) + port.to_bytes(2, "little") + bytes(8) + bytes(map(int, address.split("."))) + bytes(12)
        for address in FORBIDDEN for port in ports)
    data = "".join(f"\\{byte:02x}" for byte in places)
    return module(f"""
    (loop $each
      (local.set $n (call $socket (i32.const 1) (i32.const 6)))
      (if (i64.ge_s (local.get $n) (i64.const 0)) (then
        (drop (call $option (i32.wrap_i64 (local.get $n)) (i32.const 8) (i64.const 200000)))
        (if (i64.eqz (call $connect (i32.wrap_i64 (local.get $n)) (i32.add (i32.const 4096) (local.get $i))))
          (then (drop (call $output (i32.add (i32.const 4096) (local.get $i)) (i32.const 28)))))
        (drop (call $close (i32.wrap_i64 (local.get $n))))))
      (br_if $each (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 28))) (i32.const {len(places)}))))""",
                  f'(data (i32.const 4096) "{data}")').replace(
        "(module\n", f'(module\n  (import "{WASI}" "fd_close" (func $close (param i32) (result i32)))\n', 1)


@dataclasses.dataclass
class Attacker:
    name: str
    text: str
    what: str
    config: dict = dataclasses.field(default_factory=dict)
    web: bool = False  # called as a web handler


ATTACKERS = [
    Attacker("spin", '(module (func (export "spore_call") (loop $a (br $a))))', "computes for ever"),
    Attacker("calls", endless("(drop (call $yield))"), "asks the host for something for ever"),
    Attacker("random", endless("(drop (call $random (i32.const 65536) (i32.const 65536)))"),
             "has the host compute for ever"),
    Attacker("sleep", module("""
    (i32.store (i32.const 144) (i32.const 1)) (i64.store (i32.const 152) (i64.const -1))
    (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 24)))"""), "waits for ever"),
    Attacker("bomb", module("""
    (local.set $n (call $call (i32.const 48) (i32.const 4) (i32.const 0) (i32.const 0)))
    (drop (call $call (i32.const 48) (i32.const 4) (i32.const 0) (i32.const 0)))
    (drop (call $await (i32.wrap_i64 (local.get $n)) (i32.const -1)))
    (drop (call $await (i32.const 2) (i32.const -1)))"""), "calls itself twice, and waits for both"),
    Attacker("swarm", endless("""
    (if (i64.lt_s (call $call (i32.const 48) (i32.const 4) (i32.const 65536) (i32.const 1024)) (i64.const 0))
      (then (drop (call $await (i32.const 1) (i32.const 10)))))"""), "calls itself for ever, and waits for none"),
    Attacker("detached", endless(
        "(drop (call $detach (i32.const 48) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 128)))"),
             "makes durable calls of itself for ever"),
    Attacker("memory", module("""
    (loop $grow (if (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)) (then (br $grow))))
    (loop $for_ever
      (local.set $i (i32.const 65536))
      (loop $touch
        (i32.store (local.get $i) (i32.add (i32.load (local.get $i)) (i32.const 1)))
        (br_if $touch (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4096)))
                                (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4096)))))
      (br $for_ever))"""), "takes all memory that there is, and touches it for ever",
             {"memory_max_bytes": 128 << 20}),
    Attacker("disk", module(f"""
    {opens("(i32.const 64)", "(i32.const 8)")}
    (loop $for_ever (drop {WRITE}) (br $for_ever))"""), "writes to a file for ever"),
    Attacker("files", endless(f"(call $next) {opens(*COUNTED)}"),
             "makes files for ever, and leaves them open"),
    Attacker("directories", module("""
    (loop $fill (i32.store16 (i32.add (i32.const 65536) (local.get $i)) (i32.const 0x2f61))
      (br_if $fill (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 2))) (i32.const 65534))))
    (local.set $i (i32.const 1))
    (loop $deeper (drop (call $mkdir (i32.const 3) (i32.const 65536) (local.get $i)))
      (local.set $i (i32.rem_u (i32.add (local.get $i) (i32.const 2)) (i32.const 65534))) (br $deeper))"""),
             "makes directories in each other for ever"),
    Attacker("descriptors", endless(opens("(i32.const 48)", "(i32.const 4)")), "opens a file for ever"),
    Attacker("log", endless("(drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 24)))"),
             "writes to its log for ever"),
    Attacker("output", endless("(drop (call $output (i32.const 65536) (i32.const 65536)))"),
             "writes output for ever", {"output_max_bytes": 8 << 20}),
    Attacker("stream", module("""
    (memory.fill (i32.const 65536) (i32.const 97) (i32.const 65536))
    (i64.store (i32.const 65536) (i64.const 0x0a0a61203a61200a))
    (loop $for_ever (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 24))) (br $for_ever))"""),
             "answers a web request for ever", {"output_max_bytes": 4 << 20}, web=True),
    Attacker("header", module("""
    (memory.fill (i32.const 65536) (i32.const 97) (i32.const 65536))
    (loop $for_ever (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 24))) (br $for_ever))"""),
             "answers a web request with a header without end", {"output_max_bytes": 4 << 20}, web=True),
    Attacker("keys", endless("""(call $next)
      (local.set $n (call $map (i32.const 64) (i32.const 8) (i64.const 4096) (i32.const 0)))
      (if (i64.gt_s (local.get $n) (i64.const 0)) (then (i32.store (i32.wrap_i64 (local.get $n)) (i32.const 1))))
      (drop (call $push (i32.const 64) (i32.const 8) (i64.const 0) (i64.const 0)))"""), "makes state values for ever"),
    Attacker("big", module("""
    (local.set $n (call $map (i32.const 64) (i32.const 8) (i64.const 33554432) (i32.const 0)))
    (if (i64.gt_s (local.get $n) (i64.const 0)) (then
      (loop $for_ever
        (local.set $i (i32.const 0))
        (loop $touch
          (i32.store (i32.add (i32.wrap_i64 (local.get $n)) (local.get $i)) (i32.const 7))
          (br_if $touch (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4096))) (i32.const 33554432))))
        (drop (call $push (i32.const 64) (i32.const 8) (i64.const 0) (i64.const 0)))
        (br $for_ever))))"""), "pushes 32 MiB of state for ever"),
    Attacker("append", endless(
        "(drop (call $append (i32.const 64) (i32.const 8) (i32.const 65536) (i32.const 65536)))"),
             "appends to a state value for ever"),
    Attacker("merge", module("""
    (local.set $n (call $map (i32.const 64) (i32.const 8) (i64.const 65536) (i32.const 0)))
    (drop (call $merge (i32.const 64) (i32.const 8) (i32.const 1) (i32.const 0)))
    (loop $for_ever
      (if (i64.gt_s (local.get $n) (i64.const 0)) (then (i32.store (i32.wrap_i64 (local.get $n)) (i32.const 1))))
      (drop (call $push (i32.const 64) (i32.const 8) (i64.const 0) (i64.const 0)))
      (drop (call $pull (i32.const 64) (i32.const 8) (i64.const 0) (i64.const 0)))
      (br $for_ever))"""), "merges and pulls for ever"),
    Attacker("locks", endless("""(call $next)
      (drop (call $lock (i32.const 48) (i32.const 4) (i32.const 3) (i32.const -1)))
      (drop (call $lock (i32.const 64) (i32.const 8) (i32.const 3) (i32.const 100)))"""),
             "takes locks of all hosts for ever, and gives none back"),
    Attacker("sockets", endless("""
      (local.set $n (call $socket (i32.const 1) (i32.const 6)))
      (i64.store (i32.const 128) (i64.const 1))
      (drop (call $bind (i32.wrap_i64 (local.get $n)) (i32.const 128)))
      (drop (call $listen (i32.wrap_i64 (local.get $n)) (i32.const 1000)))"""),
             "opens sockets for ever", {"network": {"internet": True}}),
    Attacker("recursion", module("(call $deeper (i64.const 1))", """
    (func $deeper (param $n i64) (local $a i64) (local $b i64)
      (call $deeper (i64.add (local.get $n) (i64.const 1))) (i64.store (i32.const 8) (local.get $n)))"""),
             "calls a function of its own without end"),
    Attacker("unreachable", '(module (func (export "spore_call") unreachable))', "traps"),
    Attacker("division", '(module (func (export "spore_call") (drop (i32.div_s (i32.const 1) (i32.const 0)))))', "traps"),
    Attacker("outside", '(module (memory 1) (func (export "spore_call") (i32.store (i32.const -4) (i32.const 1))))',
             "writes outside its memory"),
    Attacker("indirect", '(module (table 1 funcref) (type $t (func)) (func (export "spore_call") '
             '(call_indirect (type $t) (i32.const 77))))', "calls what is no function"),
]

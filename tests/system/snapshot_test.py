"""Images that calls begin from: initialisers run once for all hosts, and what is wrong with an image or initialiser."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from host import DEADLINE_S, NOOP, SPORE, Host, SystemTest, says, wasm


def initialised(init, more="", call='(drop (call $write (i32.const 64) (i32.const 4)))'):
    """A module whose initialiser does `init`; a call's output is the four bytes at 64."""
    return f"""(module
      (import "spore" "output_write" (func $write (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "path_open" (func $path_open
        (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 2 8) (table $t 3 5 funcref) (global $g (mut i32) (i32.const 0))
      (data (i32.const 0) "\\10\\00\\00\\00\\0a\\00\\00\\00hello then\\n")
      {more}
      (func $say (i32.store (i32.const 0) (i32.const 8)) (i32.store (i32.const 4) (i32.const 11))
        (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 32))))
      (func $init (export "spore_init") {init})
      (func (export "spore_call") {call}))"""


# Says a line, and leaves "one!" behind; a second run in the same memory would leave something else.
ONCE = initialised("(call $say) (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 0x21656e6f)))")
LINE = "initialiser: hello then"


class LoggedHost(Host):
    """A host whose log can be read when it has ended."""

    log = ""

    def wait(self):
        self.log = self.process.communicate(timeout=DEADLINE_S)[1]
        return self.process.returncode

    def kill(self):
        self.process.kill()
        self.wait()


class Snapshots(SystemTest):
    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def logged_host(self, *flags, **options):
        host = LoggedHost(*flags, **options)
        self.addCleanup(host.close)
        return host

    def folder(self):
        folder = tempfile.mkdtemp(prefix="spore-system-test-")
        self.addCleanup(shutil.rmtree, folder, True)
        return os.path.join(folder, "data")

    def images(self, data):
        """The stored image files, by path below images/."""
        found = {}
        root = os.path.join(data, "store", "images")
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, root)] = file.read()
        return found

    def snapshot(self, host, path):
        answer = host.ask("GET", "/v1/snapshots/" + path)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    # ---- once ----

    def test_the_initialiser_runs_once_for_all_processes_on_a_folder(self):
        data = self.folder()
        first = self.logged_host(data=data)
        self.published("s/once", ONCE, first)
        self.assertEqual([first.call("s/once").body for _ in range(3)], [b"one!"] * 3)
        self.assertEqual(first.metric("spore_initialisers_total"), 1)
        self.assertEqual(first.terminate(), 0)
        second = self.logged_host(data=data)
        self.assertEqual([second.call("s/once").body for _ in range(3)], [b"one!"] * 3)
        self.assertEqual(second.metric("spore_initialisers_total"), 0)
        self.assertEqual(second.metric("spore_images_found_total"), 1)
        self.assertEqual(second.terminate(), 0)
        self.assertIn("s/once: " + LINE, first.log)
        self.assertEqual((first.log + second.log).count(LINE), 1)

    def test_a_killed_host_leaves_the_image_to_the_next(self):
        data = self.folder()
        first = self.logged_host(data=data)
        self.published("s/once", ONCE, first)
        first.kill()
        second = self.logged_host(data=data)
        self.assertEqual(second.call("s/once").body, b"one!")
        second.kill()
        self.assertEqual((first.log + second.log).count(LINE), 1)

    def test_a_rollback_finds_the_old_image(self):
        host = self.logged_host()
        self.published("s/back", ONCE, host)
        self.published("s/back", says("other"), host)
        self.assertEqual(host.ask("POST", "/v1/functions/s/back/rollback").status, 200)
        self.assertEqual(host.call("s/back").body, b"one!")
        host.configure("s/back", timeout_ms=1234)  # another configuration: another image
        self.assertEqual(host.call("s/back").body, b"one!")
        self.assertEqual(host.metric("spore_initialisers_total"), 2)
        self.assertEqual(len(self.images(host.data)), 3)
        self.assertEqual(host.ask("DELETE", "/v1/functions/s/back").status, 204)
        self.assertEqual(self.images(host.data), {})

    def test_an_initialiser_that_asks_for_randomness_runs_in_each_call(self):
        host = self.logged_host()
        self.published("s/random", initialised("(drop (call $random (i32.const 64) (i32.const 4)))"), host)
        outputs = {host.call("s/random").body for _ in range(8)}
        self.assertGreaterEqual(len(outputs), 7)
        image = self.snapshot(host, "s/random/1")
        self.assertEqual((image["initialisers"], image["because"]),
                         ("in each call", "the initialiser init calls random_get"))

    def test_randomness_in_the_image_is_reseeded_by_the_hook(self):
        host = self.logged_host()
        hook = '(func (export "spore_after_restore") (drop (call $random (i32.const 64) (i32.const 4))))'
        self.published("s/reseed", initialised("(drop (call $random (i32.const 64) (i32.const 4)))", hook), host)
        self.assertEqual(self.snapshot(host, "s/reseed/1")["initialisers"], "captured")
        outputs = {host.call("s/reseed").body for _ in range(8)}
        self.assertGreaterEqual(len(outputs), 7)

    # ---- the file ----

    def test_a_damaged_image_is_rebuilt_with_a_warning(self):
        data = self.folder()
        host = self.logged_host(data=data)
        self.published("s/once", ONCE, host)
        self.assertEqual(host.terminate(), 0)
        before = self.images(data)
        (name, content), = before.items()
        for damage in (content[:-1], content[:60] + bytes([content[60] ^ 1]) + content[61:], b""):
            with open(os.path.join(data, "store", "images", name), "wb") as file:
                file.write(damage)
            host = self.logged_host(data=data)
            self.assertEqual(host.call("s/once").body, b"one!")
            self.assertEqual(host.metric("spore_initialisers_total"), 1)
            self.assertEqual(host.terminate(), 0)
            self.assertRegex(host.log, r"warn.*images/" + re.escape(name) + ".* is not used, it will be made anew")
            self.assertEqual(host.log.count(LINE), 1)
            self.assertEqual(self.images(data), before)

    def test_another_tenants_image_is_not_taken(self):
        data = self.folder()
        host = self.logged_host(data=data)
        self.published("mallory/once", ONCE, host)
        self.published("s/once", ONCE, host)
        self.assertEqual(host.terminate(), 0)
        names = {name.split("/")[0]: name for name in self.images(data)}
        root = os.path.join(data, "store", "images")
        shutil.copyfile(os.path.join(root, names["mallory"]), os.path.join(root, names["s"]))
        host = self.logged_host(data=data)
        self.assertEqual(host.call("s/once").body, b"one!")
        self.assertEqual(host.call("mallory/once").body, b"one!")
        self.assertEqual(host.terminate(), 0)
        self.assertIn("images/" + names["s"] + " is not used", host.log)
        self.assertNotIn("images/" + names["mallory"] + " is not used", host.log)

    def test_two_processes_make_the_same_image_file(self):
        # Address layouts are drawn anew for each process, so nothing of them may be in it.
        first, second = self.folder(), self.folder()
        pointers = """(memory.grow (i32.const 2)) drop (i32.store (i32.const 200000) (i32.const 7))
            (table.set $t (i32.const 1) (ref.func $say)) (global.set $g (i32.const 5))
            (drop (table.grow $t (ref.func $init) (i32.const 1))) (i32.store (i32.const 64) (i32.const 0x21656e6f))"""
        module = initialised(pointers, "(elem declare func $say $init)")
        host = self.logged_host(data=first)
        self.published("s/same", module, host)
        os.makedirs(second, mode=0o700)
        shutil.copy(os.path.join(first, "key"), os.path.join(second, "key"))
        other = self.logged_host(data=second)
        self.published("s/same", module, other)
        self.assertEqual(other.call("s/same").body, b"one!")

        def mappings(running):
            with open(f"/proc/{running.process.pid}/maps") as file:
                return {line.split("-")[0] for line in file if "/spore" in line or "[stack]" in line}

        self.assertTrue(mappings(host).isdisjoint(mappings(other)))
        self.assertEqual(len(self.images(first)), 1)
        self.assertEqual(self.images(first), self.images(second))

    # ---- initialisers that cannot be ----

    def test_initialisers_that_cannot_be_are_named(self):
        host = self.logged_host("--init-timeout", "200")
        refused = {
            "trap": ("unreachable", 422, "module_rejected", r"initialiser init traps: .*\(in init\)"),
            "bounds": ("(i32.store (i32.const -8) (i32.const 1))", 422, "module_rejected", "initialiser init traps: "),
            "loop": ("(loop $again (br $again))", 504, "timeout", "initialiser init did not end within 200 ms"),
            "exit": ("(call $exit (i32.const 0))", 422, "module_rejected", "initialiser init exits with code 0"),
            "open": ("(drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)"
                     " (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)))", 422, "module_rejected",
                     "initialiser init calls path_open: an initialiser cannot use files"),
        }
        for name, (init, status, problem, detail) in refused.items():
            with self.subTest(name):
                answer = host.publish("s/" + name, initialised("(call $say)" + init))
                self.assertRegex(self.assertProblem(answer, status, problem)["detail"], detail)
                self.assertEqual(host.ask("GET", "/v1/functions/s/" + name).status, 404)
                self.assertEqual(self.images(host.data), {})
        # A new version that cannot be leaves the old one.
        self.published("s/kept", ONCE, host)
        self.assertProblem(host.publish("s/kept", initialised("unreachable")), 422, "module_rejected")
        self.assertEqual(host.call("s/kept").body, b"one!")
        self.assertEqual(host.ask("GET", "/v1/functions/s/kept").json()["version"], 1)
        self.assertEqual(host.terminate(), 0)
        self.assertIn("s/trap: " + LINE, host.log)

    # ---- looking at them ----

    # ---- want of room ----

    def test_a_full_disk_fails_the_publish_and_nothing_else(self):
        data = self.folder()
        os.makedirs(data)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", data]).returncode != 0:
            self.skipTest("a file system of its own takes root")
        self.addCleanup(subprocess.run, ["umount", data])
        host = self.logged_host(data=data)
        self.published("s/small", ONCE, host)
        # 8 MB that do not compress: random numbers (Marsaglia's xorshift).
        large = initialised("""(local $at i32) (local $x i32)
          (drop (memory.grow (i32.const 126))) (local.set $at (i32.const 128)) (local.set $x (i32.const 1))
          (loop $again
            (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
            (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
            (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
            (i32.store (local.get $at) (local.get $x))
            (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4))) (i32.const 8380000))))""")
        large = large.replace("(memory (export \"memory\") 2 8)", "(memory (export \"memory\") 2 200)")
        answer = host.publish("s/large", wasm(large))
        document = self.assertProblem(answer, 503, "unavailable")
        self.assertIn("its image cannot be stored", document["detail"])
        self.assertIn("No space left on device", document["detail"])
        self.assertEqual([name for name in self.images(data) if "large" in name], [])
        self.assertEqual(host.ask("GET", "/v1/functions/s/large").status, 404)
        self.assertEqual(host.call("s/small").body, b"one!")
        self.published("s/another", ONCE, host)
        self.assertEqual(host.terminate(), 0)

    def test_under_memory_pressure_calls_are_still_answered(self):
        # More than there is, but less than twice as much: idle Faaslets go, but calls begin.
        with open("/proc/meminfo") as file:
            left_kib = int(re.search(r"^MemAvailable: +(\d+)", file.read(), re.MULTILINE)[1])
        host = self.logged_host("--memory-left-mib", str(left_kib * 3 // 2 // 1024))
        self.published("s/once", ONCE, host)
        for _ in range(1_000_000):
            self.assertEqual(host.call("s/once").body, b"one!")
            if host.metric("spore_faaslets_evicted_total") > 1:
                break
        self.assertGreater(host.metric("spore_faaslets_evicted_total"), 1)
        self.assertGreater(host.metric("spore_faaslets_restored_total"), 1)

    def test_images_are_listed_page_by_page(self):
        host = self.logged_host()
        for name in ("a/one", "a/two", "b/one"):
            self.published(name, NOOP, host)
        self.published("a/one", says("x"), host)

        def listed(path):
            return [f"{image['tenant']}/{image['name']}@{image['version']}"
                    for image in self.snapshot(host, path)["snapshots"]]

        self.assertEqual(listed(""), ["a/one@1", "a/one@2", "a/two@1", "b/one@1"])
        self.assertEqual(listed("a"), ["a/one@1", "a/one@2", "a/two@1"])
        self.assertEqual(listed("a/one"), ["a/one@1", "a/one@2"])
        self.assertEqual(listed("nobody"), [])
        pages, cursor = [], ""
        while cursor is not None:
            page = self.snapshot(host, "?limit=3" + (f"&cursor={cursor}" if cursor else ""))
            pages.append(len(page["snapshots"]))
            cursor = page.get("cursor")
        self.assertEqual(pages, [3, 1])
        one = self.snapshot(host, "a/one")["snapshots"]
        self.assertEqual([image["current"] for image in one], [False, True])
        sizes = {os.path.dirname(name): len(content) for name, content in self.images(host.data).items()}
        self.assertEqual(self.snapshot(host, "b")["snapshots"][0]["stored_bytes"], sizes["b/one"])
        for path in ("a/none", "a/one/9", "a/one?version=9", "a/one@9", "a/.."):
            self.assertProblem(host.ask("GET", "/v1/snapshots/" + path), 404, "not_found")
        for path in ("a/one?version=x", "?version=1", "a/one/1?version=2", "?cursor=x"):
            self.assertProblem(host.ask("GET", "/v1/snapshots/" + path), 400, "bad_request")
        self.assertProblem(host.ask("GET", "/v1/snapshots/a/one/x"), 404, "not_found")
        self.assertProblem(host.ask("DELETE", "/v1/snapshots/a/one"), 405, "method_not_allowed")

    def test_an_image_is_described(self):
        host = self.logged_host()
        grows = initialised("(drop (memory.grow (i32.const 3))) (i32.store (i32.const 300000) (i32.const 7))")
        self.published("a/large", grows, host)
        host.configure("a/large", memory_max_bytes=7 * 65536)
        image = self.snapshot(host, "a/large?version=current")
        self.assertEqual((image["tenant"], image["name"], image["version"], image["current"]), ("a", "large", 2, True))
        self.assertEqual(image["module_digest"], host.ask("GET", "/v1/functions/a/large").json()["digest"])
        self.assertEqual(image["initialisers"], "captured")
        self.assertNotIn("because", image)
        self.assertEqual(image["memories"], [{"size_bytes": 5 * 65536, "size_max_bytes": 7 * 65536}])
        self.assertEqual(image["tables"], [{"element": "funcref", "size": 3, "size_max": 5}])
        self.assertEqual(image["globals"], 1)
        self.assertGreater(image["image_bytes"], 5 * 65536)
        self.assertLess(image["resident_bytes"], 2 * 65536)
        self.assertLess(image["stored_bytes"], 2000)
        self.assertGreaterEqual(image["format_version"], 1)
        self.assertGreaterEqual(image["layout_version"], 1)
        for path in ("a/large/2", "a/large@2", "a/large?version=2"):
            self.assertEqual(self.snapshot(host, path), image)
        self.assertEqual(self.snapshot(host, "a/large/1")["memories"][0]["size_max_bytes"], 8 * 65536)
        self.published("a/plain", NOOP, host)
        self.assertEqual(self.snapshot(host, "a/plain/1")["initialisers"], "none")

    def test_keys_see_their_own_tenants_images(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as keys:
            json.dump({"keys": [{"token": "r" * 16, "tenant": "red", "scopes": ["read", "publish"]},
                                {"token": "c" * 16, "tenant": "red", "scopes": ["call"]},
                                {"token": "b" * 16, "tenant": "blue", "scopes": ["admin"]}]}, keys)
            keys.flush()
            host = self.logged_host("--keys", keys.name)

        def ask(method, path, token, body=None):
            return host.ask(method, path, body, {"Authorization": "Bearer " + token * 16} if token else {})

        for tenant, token in (("red", "r"), ("blue", "b")):
            self.assertEqual(ask("PUT", f"/v1/functions/{tenant}/f", token, wasm(NOOP)).status, 201)
        for token, tenant in (("r", "red"), ("b", "blue")):
            images = ask("GET", "/v1/snapshots", token).json()["snapshots"]
            self.assertEqual([image["tenant"] for image in images], [tenant])
        for path in ("", "/red", "/red/f", "/red/f/1"):
            self.assertEqual(ask("GET", "/v1/snapshots" + path, "r").status, 200)
            self.assertProblem(ask("GET", "/v1/snapshots" + path, "c"), 403, "forbidden")
            self.assertProblem(ask("GET", "/v1/snapshots" + path, ""), 401, "unauthenticated")
            if path:
                self.assertProblem(ask("GET", "/v1/snapshots" + path, "b"), 404, "not_found")

    def test_the_command_line_shows_them(self):
        host = self.logged_host()
        self.published("a/once", ONCE, host)
        self.published("b/random", initialised("(drop (call $random (i32.const 64) (i32.const 4)))"), host)

        def spore(*arguments, code=0):
            done = subprocess.run([SPORE, "snapshot", *arguments, "--server", f"http://{host.name}:{host.port}"],
                                  capture_output=True, text=True, timeout=DEADLINE_S)
            self.assertEqual(done.returncode, code, done.stderr)
            return done.stdout if code == 0 else done.stderr

        table = spore("ls")
        self.assertRegex(table, r"^FUNCTION +VERSION +CURRENT +LOADED +STORED\n"
                                r"a/once +1 +\* +\* +[0-9.]+ KiB\nb/random +1 +\* +\* +[0-9.]+ KiB\n$")
        self.assertNotIn("b/random", spore("ls", "a"))
        self.assertEqual(spore("ls", "a/once").count("\n"), 2)
        self.assertEqual(len(json.loads(spore("ls", "--json"))), 2)
        shown = spore("inspect", "a/once")
        self.assertRegex(shown, r"function +a/once@1, current\n")
        self.assertRegex(shown, r"initialisers +have run\n")
        self.assertRegex(shown, r"memory 0 +128\.0 KiB of at most 512\.0 KiB\n")
        self.assertRegex(shown, r"table 0 +3 of at most 5, funcref\n")
        self.assertRegex(shown, r"globals +1\n")
        self.assertRegex(spore("inspect", "b/random@1"), "run in each call: the initialiser init calls random_get\n")
        self.assertEqual(json.loads(spore("inspect", "a/once@1", "--json"))["initialisers"], "captured")
        self.assertIn("spore snapshot inspect: ", spore("inspect", "a/none", code=1))
        self.assertIn("no version 7", spore("inspect", "a/once@7", code=1))


if __name__ == "__main__":
    unittest.main()

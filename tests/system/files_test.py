"""The files that a function sees: its own layer, /spore, the tenant's shared files, directories of the host."""

import json
import os
import subprocess
import tempfile
import unittest

from host import SANITIZED, SPORE, Background, Host, SystemTest

# Takes one command per line of its input: "cat PATH", "put PATH TEXT", "fill PATH MIB", "files PATH COUNT",
# "ls PATH", "size PATH", "append PATH TEXT", "hold PATH MS" (reads, sleeps, reads again), "leak PATH",
# "leak-some PATH COUNT". Says what came.
PROGRAM = r"""
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static char block[1 << 20];
static void fail(void) { printf("errno %d\n", errno); }
static unsigned sum_of(int fd, long* size) {
  unsigned sum = 0;
  ssize_t got;
  *size = 0;
  while ((got = read(fd, block, sizeof(block))) > 0) {
    *size += got;
    for (ssize_t i = 0; i < got; ++i) sum += (unsigned char)block[i];
  }
  return sum;
}
int main(void) {
  char line[1024];
  FILE* commands = getenv("COMMANDS") ? fopen(getenv("COMMANDS"), "r") : stdin;
  while (commands && fgets(line, sizeof(line), commands)) {
    line[strcspn(line, "\n")] = 0;
    char *command = strtok(line, " "), *path = strtok(0, " "), *rest = strtok(0, "");
    if (!command) continue;
    if (!strcmp(command, "cat")) {
      const int fd = open(path, O_RDONLY);
      if (fd < 0) { fail(); continue; }
      const ssize_t got = read(fd, block, 1000);
      if (got < 0) { fail(); } else { printf("%.*s\n", (int)got, block); }
      close(fd);
    } else if (!strcmp(command, "put") || !strcmp(command, "append")) {
      const int fd = open(path, O_WRONLY | O_CREAT | (command[0] == 'p' ? O_TRUNC : O_APPEND), 0666);
      if (fd < 0 || write(fd, rest, strlen(rest)) < 0) { fail(); continue; }
      close(fd);
      puts("ok");
    } else if (!strcmp(command, "fill")) {
      const int fd = open(path, O_WRONLY | O_CREAT, 0666);
      long done = 0;
      if (fd < 0) { fail(); continue; }
      for (int i = 0; i < atoi(rest); ++i) {
        const ssize_t put = write(fd, block, sizeof(block));
        if (put < 0) { fail(); break; }
        done += put;
      }
      printf("%ld bytes\n", done);
      close(fd);
    } else if (!strcmp(command, "files")) {
      int made = 0;
      for (; made < atoi(rest); ++made) {
        char name[256];
        snprintf(name, sizeof(name), "%s%d", path, made);
        const int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (fd < 0) { fail(); break; }
        close(fd);
      }
      printf("%d files\n", made);
    } else if (!strcmp(command, "ls")) {
      DIR* directory = opendir(path);
      if (!directory) { fail(); continue; }
      for (struct dirent* entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.') printf("%s ", entry->d_name);
      puts("");
      closedir(directory);
    } else if (!strcmp(command, "size")) {
      struct stat info;
      if (stat(path, &info)) { fail(); continue; }
      printf("%lld\n", (long long)info.st_size);
    } else if (!strcmp(command, "sum")) {
      const int fd = open(path, O_RDONLY);
      long size;
      if (fd < 0) { fail(); continue; }
      const unsigned sum = sum_of(fd, &size);
      printf("%ld %u\n", size, sum);
      close(fd);
    } else if (!strcmp(command, "hold")) {
      const int fd = open(path, O_RDONLY);
      if (fd < 0) { fail(); continue; }
      fputs("open ", stderr);
      usleep(atoi(rest) * 1000);
      const ssize_t got = read(fd, block, 1000);
      printf("%.*s\n", (int)got, block);
    } else if (!strcmp(command, "leak-some")) {
      int count = 0;
      while (count < atoi(rest) && open(path, O_RDONLY | O_CREAT, 0666) >= 0) ++count;
      printf("%d\n", count);
    } else if (!strcmp(command, "leak")) {
      int count = 0;
      while (open(path, O_RDONLY | O_CREAT, 0666) >= 0) ++count;
      printf("%d ", count);
      fail();
    }
  }
  fflush(stdout);
  return 0;
}
"""
ENOENT, EMFILE, ENOSPC, EPERM, EROFS = 44, 33, 51, 63, 69  # of WASI preview 1


class Files(SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(folder, "p.c"), os.path.join(folder, "p.wasm")
            with open(source, "w") as file:
                file.write(PROGRAM)
            subprocess.run(["clang-19", "--target=wasm32-wasi", "-O1", source, "-o", target], check=True)
            with open(target, "rb") as file:
                cls.program = file.read()

    def function(self, name="t/f", host=None, **config):
        answer = (host or self.host).ask("PUT", f"/v1/functions/{name}", self.program,
                                         {"Content-Type": "application/wasm", "Spore-Config": json.dumps(config)})
        self.assertIn(answer.status, (200, 201), answer.body)

    def lines(self, commands, name="t/f", host=None):
        answer = (host or self.host).call(name, commands.encode())
        self.assertEqual(answer.status, 200, answer.body)
        return answer.body.decode().splitlines()

    def put(self, path, data, expected=(200, 201)):
        answer = self.host.ask("PUT", f"/v1/files/{path}", data)
        self.assertIn(answer.status, expected, answer.body)
        return answer

    def test_a_call_writes_files_that_the_next_does_not_see(self):
        self.function()
        for _ in range(3):
            self.assertEqual(self.lines("cat /a\nput /a hello\ncat /a\nls /\n"),
                             [f"errno {ENOENT}", "ok", "hello", "a "])

    def test_bytes_and_files_of_a_call_are_bounded_and_nothing_stays_on_the_host(self):
        self.function(local_bytes_max=4 << 20, local_files_max=10)
        before = self.host.status("RssShmem")
        for _ in range(20):
            said = self.lines("fill /big 10\nfiles /x 20\n")
            self.assertIn(f"errno {ENOSPC}", said[0])
            self.assertLessEqual(int(said[1].split()[0]), 4 << 20)
            self.assertEqual(said[2:], [f"errno {ENOSPC}", "9 files"])
        self.assertLess(self.host.status("RssShmem") - before, 4 << 10)
        with open(f"/proc/{self.host.process.pid}/mounts") as mounts:
            self.assertNotIn("9 files", mounts.read())

    def test_a_function_without_a_layer_cannot_write(self):
        self.function(local_bytes_max=0)
        self.assertNotEqual(self.lines("put /a hello\n"), ["ok"])

    def test_input_and_output_are_files(self):
        self.function(env={"COMMANDS": "/spore/input"})
        commands = "size /spore/input\ncat /spore/input\nput /spore/input x\nls /spore\n"
        said = self.lines(commands)
        self.assertEqual(said[0], str(len(commands)))
        self.assertEqual(said[1:5], commands.splitlines())
        self.assertEqual(said[5:7], ["", f"errno {EROFS}"])
        self.assertEqual(sorted(said[7].split()), ["call", "input", "output", "state"])

    def test_output_written_as_a_file_is_the_output(self):
        self.function()
        answer = self.host.call("t/f", b"put /spore/output first-\nappend /spore/output second\n")
        self.assertEqual(answer.body, b"first-ok\nsecondok\n")
        self.assertEqual(self.lines("put /spore/else x\ncat /spore/output\ncat /spore/../etc/passwd\n")[0],
                         f"errno {EROFS}")

    def test_shared_files_are_read_only_and_the_tenants_own(self):
        self.put("t/models/one.txt", b"the first")
        self.put("other/models/two.txt", b"not yours")
        self.function(mounts={"/data": "files:", "/models": "files:models"})
        self.assertEqual(
            self.lines("cat /data/models/one.txt\ncat /models/one.txt\nls /models\nput /models/one.txt x\n"
                       "put /models/new x\ncat /models/../../other/models/two.txt\ncat /data/two.txt\n"),
            ["the first", "the first", "one.txt ", f"errno {EROFS}", f"errno {EROFS}", f"errno {EPERM}",
             f"errno {ENOENT}"])

    def test_a_file_that_is_removed_or_replaced_while_open_stays_what_it_was(self):
        self.put("t/held.txt", b"before")
        self.function("t/hold", mounts={"/data": "files:"})
        for change in (lambda: self.host.ask("DELETE", "/v1/files/t/held.txt"),
                       lambda: self.put("t/held.txt", b"after")):
            self.put("t/held.txt", b"before")
            call = Background(self.lines, "hold /data/held.txt 1000\n", "t/hold")
            self.wait_for(lambda: self.host.metric("spore_calls_parked") >= 1)
            change()
            self.assertEqual(call.result(), ["before"])

    def test_paths_and_requests_that_are_wrong(self):
        for path in ("t/../x", "t/a//b", "t/%2e%2e/x", "t/a/", "t/" + "x" * 256, "t/" + "a/" * 40 + "a", "t/a%00b"):
            answer = self.host.ask("PUT", f"/v1/files/{path}", b"x")
            self.assertIn(answer.status, (400, 404), (path, answer.body))
        self.put("t/dir/file", b"x")
        self.assertEqual(self.host.ask("PUT", "/v1/files/t/dir", b"x").status, 409)
        self.assertEqual(self.host.ask("PUT", "/v1/files/t/dir/file/below", b"x").status, 409)
        self.assertEqual(self.host.ask("GET", "/v1/files/t/none").status, 404)
        self.assertEqual(self.host.ask("DELETE", "/v1/files/t/none").status, 404)
        for mounts, word in (({"/a": "nothing"}, "files:"), ({"/spore/x": "files:"}, "reserved"),
                             ({"a": "files:"}, "absolute"), ({"/a": "host:nosuch"}, "nosuch"), ({"/a": "files:../x"}, "..")):
            answer = self.host.ask("PUT", "/v1/functions/t/wrong", self.program,
                                   {"Spore-Config": json.dumps({"mounts": mounts})})
            self.assertEqual(answer.status, 400, (mounts, answer.body))
            self.assertIn(word, json.loads(answer.body)["detail"])

    def test_files_over_the_command_line(self):
        url = f"http://{self.host.name}:{self.host.port}"

        def files(*arguments):
            done = subprocess.run([SPORE, "files", arguments[0], "--server", url, *arguments[1:]], capture_output=True,
                                  text=True, timeout=60)
            return done

        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(os.path.join(folder, "sub"))
            for name in ("a b.txt", "sub/c.txt"):
                with open(os.path.join(folder, name), "w") as file:
                    file.write(name)
            done = files("put", folder, "cli/tree")
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(files("get", "cli/tree/a b.txt").stdout, "a b.txt")
        listed = files("ls", "cli").stdout
        self.assertIn("cli/tree/sub/c.txt", listed)
        self.assertEqual(files("rm", "cli/tree/sub/c.txt").returncode, 0)
        self.assertNotIn("sub/c.txt", files("ls", "cli/tree").stdout)
        missing = files("get", "cli/none")
        self.assertEqual(missing.returncode, 1)
        self.assertIn("no such file", missing.stderr)

    def test_directories_of_the_host_by_name(self):
        with tempfile.TemporaryDirectory() as read, tempfile.TemporaryDirectory() as write:
            with open(os.path.join(read, "r.txt"), "w") as file:
                file.write("readable")
            os.symlink("/etc", os.path.join(read, "out"))
            host = Host("--mount", f"readable={read}", "--mount", f"writable={write}:rw")
            self.addCleanup(host.close)
            self.function(host=host, mounts={"/r": "host:readable", "/w": "host:writable"})
            self.assertEqual(self.lines("cat /r/r.txt\nput /r/r.txt x\nput /w/new text\ncat /r/out/passwd\n", host=host),
                             ["readable", f"errno {EROFS}", "ok", f"errno {EPERM}"])
            with open(os.path.join(write, "new")) as file:
                self.assertEqual(file.read(), "text")

    def test_a_large_file_is_read_by_eight_calls_at_once(self):
        data = os.urandom(1 << 20) * 200
        self.put("t/large", data)
        self.function("t/large", mounts={"/data": "files:"})
        before = self.host.status("VmRSS")
        expected = [f"{len(data)} {sum(data) & 0xFFFFFFFF}"]
        calls = [Background(self.lines, "sum /data/large\n", "t/large") for _ in range(8)]
        for call in calls:
            self.assertEqual(call.result(), expected)
        if not SANITIZED:  # no call has a copy
            self.assertLess(self.host.status("VmRSS") - before, 64 << 10)

    def test_flags_of_publish_set_mounts_and_limits(self):
        self.put("t/flags/name", b"from a mount")

        def publish(*flags):
            with tempfile.NamedTemporaryFile(suffix=".wasm") as module:
                module.write(self.program)
                module.flush()
                return subprocess.run([SPORE, "publish", module.name, "--name", "t/flags", "--server",
                                       f"http://{self.host.name}:{self.host.port}", *flags], capture_output=True, text=True)

        done = publish("--mount", "/data=files:flags", "--mount", "/all=files:", "--local-max", "1MB", "--local-files-max", "3")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.lines("cat /data/name\ncat /all/flags/name\nfill /x 2\n", "t/flags")[:2], ["from a mount"] * 2)
        config = self.host.ask("GET", "/v1/functions/t/flags/config").json()
        self.assertEqual((config["local_bytes_max"], config["local_files_max"]), (1 << 20, 3))
        self.assertIn("PATH=files:DIRECTORY", publish("--mount", "/data").stderr)
        self.assertIn("no directory", publish("--mount", "/data=host:none").stderr)

    def test_descriptors_that_a_call_leaks_are_closed(self):
        def open_now():
            return len(os.listdir(f"/proc/{self.host.process.pid}/fd"))

        self.function("t/leak")
        self.lines("leak /x\n", "t/leak")
        before = open_now()
        for _ in range(50):
            count, _, error = self.lines("leak /x\n", "t/leak")[0].partition(" ")
            self.assertGreater(int(count), 1000)
            self.assertEqual(error, f"errno {EMFILE}")
        self.assertLessEqual(open_now(), before + 4)


if __name__ == "__main__":
    unittest.main()

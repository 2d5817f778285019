# Runs inside CPython in a Faaslet: modules of its standard library that need no sockets, threads and processes, tested
# with the files of a call. unittest prints how many ran.
import csv
import decimal
import fractions
import hashlib
import io
import itertools
import json
import math
import os
import pickle
import random
import re
import sqlite3
import struct
import sys
import tempfile
import unicodedata
import unittest
import zlib


class Json(unittest.TestCase):
    def test_round_trips(self):
        for value in (None, True, -1, 2**80, 0.1, 1e300, "", "é\u2028\U0001f600\"\\\n", [], {}, [1, [2, {"a": [3]}]]):
            self.assertEqual(json.loads(json.dumps(value)), value)
            self.assertEqual(json.loads(json.dumps(value, ensure_ascii=False, indent=2)), value)

    def test_refuses_what_is_malformed(self):
        for text in ("", "{", "[1,]", "{'a': 1}", '"\\x"', "01", "tru", '{"a" 1}', "1 2"):
            with self.assertRaises(json.JSONDecodeError):
                json.loads(text)

    def test_special_numbers_keys_and_order(self):
        self.assertTrue(math.isnan(json.loads("NaN")))
        with self.assertRaises(ValueError):
            json.dumps(math.inf, allow_nan=False)
        self.assertEqual(json.dumps({"b": 1, "a": 2}, sort_keys=True), '{"a": 2, "b": 1}')
        self.assertEqual(json.dumps({1: 2, None: 3}), '{"1": 2, "null": 3}')

    def test_deep_nesting_is_an_error_and_no_crash(self):
        with self.assertRaises(RecursionError):
            json.loads("[" * 100_000)


class Re(unittest.TestCase):
    def test_groups_and_replacements(self):
        self.assertEqual(re.sub(r"(\w+) (\w+)", r"\2 \1", "hello world"), "world hello")
        found = re.fullmatch(r"(?P<year>\d{4})-(?P<month>\d\d)", "2024-05")
        self.assertEqual(found.groupdict(), {"year": "2024", "month": "05"})
        self.assertEqual(re.split(r"[,;]\s*", "a, b;c"), ["a", "b", "c"])
        self.assertEqual(re.findall(r"(?<=a)b|(?!a)c", "ab ac c"), ["b", "c", "c"])

    def test_unicode_flags_and_backtracking(self):
        self.assertTrue(re.match(r"straße", "STRASSE".lower().replace("ss", "ß"), re.I))
        self.assertEqual(re.findall(r"^\w+$", "ä\nb c\nd", re.M), ["ä", "d"])
        self.assertIsNone(re.fullmatch(r"(a|aa)+b", "a" * 22))
        self.assertEqual(len(re.findall(r"\b", "one two")), 4)

    def test_malformed_patterns(self):
        for pattern in ("(", "[", "*", "(?P<n>a)(?P<n>b)", "\\"):
            with self.assertRaises(re.error):
                re.compile(pattern)


class Math(unittest.TestCase):
    def test_values(self):
        self.assertEqual(math.factorial(30), 265252859812191058636308480000000)
        self.assertEqual(math.gcd(2**100, 6**50), 2**50)
        self.assertEqual(math.isqrt(10**40), 10**20)
        self.assertEqual(math.fsum([0.1] * 10), 1.0)
        self.assertEqual(math.ldexp(0.5, 11), 1024.0)
        self.assertAlmostEqual(math.gamma(0.5) ** 2, math.pi)
        self.assertEqual(math.nextafter(0.0, 1.0), 5e-324)

    def test_domains(self):
        for call in (lambda: math.sqrt(-1), lambda: math.log(0), lambda: math.acos(2)):
            self.assertRaises(ValueError, call)
        self.assertRaises(OverflowError, math.exp, 1000)

    def test_exact_numbers(self):
        self.assertEqual(decimal.Decimal("0.1") * 3, decimal.Decimal("0.3"))
        self.assertEqual(sum(fractions.Fraction(1, n) for n in range(1, 11)), fractions.Fraction(7381, 2520))
        self.assertEqual(3**1000 % 10**9, pow(3, 1000, 10**9))


class Os(unittest.TestCase):
    def setUp(self):
        self.folder = f"/work-{self.id()}"
        os.mkdir(self.folder)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def test_files(self):
        with open(self.path("a"), "wb") as file:
            file.write(bytes(range(256)) * 100)
        self.assertEqual(os.path.getsize(self.path("a")), 25600)
        with open(self.path("a"), "r+b") as file:
            file.seek(-6, io.SEEK_END)
            self.assertEqual(file.read(), bytes(range(250, 256)))
            file.truncate(10)
        self.assertEqual(os.stat(self.path("a")).st_size, 10)
        with open(self.path("a"), "ab") as file:
            file.write(b"more")
        os.rename(self.path("a"), self.path("b"))
        self.assertFalse(os.path.exists(self.path("a")))
        with self.assertRaises(FileNotFoundError):
            open(self.path("a"))
        with self.assertRaises(FileExistsError):
            open(self.path("b"), "x")

    def test_directories(self):
        os.makedirs(self.path("x", "y", "z"))
        for name in ("1", "2", "3"):
            open(self.path("x", "y", name), "w").close()
        self.assertEqual([(sorted(d), sorted(f)) for _, d, f in os.walk(self.folder)],
                         [(["x"], []), (["y"], []), (["z"], ["1", "2", "3"]), ([], [])])
        with os.scandir(self.path("x", "y")) as entries:
            self.assertEqual(sorted(e.name for e in entries if e.is_file()), ["1", "2", "3"])
        with self.assertRaises(OSError):
            os.rmdir(self.path("x"))
        with self.assertRaises(NotADirectoryError):
            os.listdir(self.path("x", "y", "1"))

    def test_links(self):
        with open(self.path("target"), "w") as file:
            file.write("text")
        os.symlink("target", self.path("link"))
        self.assertEqual(os.readlink(self.path("link")), "target")
        self.assertTrue(os.path.islink(self.path("link")))
        self.assertEqual(open(self.path("link")).read(), "text")
        os.link(self.path("target"), self.path("hard"))
        self.assertEqual(os.stat(self.path("hard")).st_nlink, 2)
        os.symlink("../../../../etc/passwd", self.path("out"))
        with self.assertRaises(PermissionError):
            open(self.path("out"))

    def test_times_descriptors_and_many_entries(self):
        open(self.path("t"), "w").close()
        os.utime(self.path("t"), ns=(1_000_000_001, 2_000_000_002))
        self.assertEqual(os.stat(self.path("t")).st_mtime_ns, 2_000_000_002)
        fd = os.open(self.path("t"), os.O_RDWR)
        self.assertEqual(os.write(fd, b"abc"), 3)
        self.assertEqual(os.pread(fd, 2, 1), b"bc")
        os.fsync(fd)
        os.close(fd)
        self.assertRaises(OSError, os.read, fd, 1)
        for i in range(2000):
            open(self.path(str(i)), "w").close()
        self.assertEqual(len(os.listdir(self.folder)), 2001)
        self.assertEqual(os.urandom(16) == os.urandom(16), False)


class Sqlite(unittest.TestCase):
    def test_creates_queries_and_opens_again(self):
        db = sqlite3.connect("/test.db")
        db.execute("create table t(id integer primary key, word text, n real)")
        with db:
            db.executemany("insert into t(word, n) values (?, ?)", ((f"w{i % 100}", i / 2) for i in range(10_000)))
        with self.assertRaises(sqlite3.IntegrityError), db:
            db.execute("insert into t(id) values (1)")
        db.execute("create index i on t(word)")
        db.close()
        db = sqlite3.connect("/test.db")
        self.assertEqual(db.execute("select count(*), sum(n) from t where word = 'w7'").fetchone(), (100, 247850.0))
        self.assertEqual(db.execute("pragma integrity_check").fetchone(), ("ok",))
        db.execute("delete from t")
        db.rollback()
        self.assertEqual(db.execute("select count(*) from t").fetchone(), (10_000,))


class Others(unittest.TestCase):
    def test_bytes(self):
        data = random.Random(1).randbytes(100_000)
        self.assertEqual(zlib.decompress(zlib.compress(data + bytes(100_000), 9)), data + bytes(100_000))
        self.assertEqual(hashlib.sha256(b"abc").hexdigest()[:16], "ba7816bf8f01cfea")
        self.assertEqual(struct.unpack("<iHd", struct.pack("<iHd", -5, 65535, 0.5)), (-5, 65535, 0.5))
        self.assertEqual(pickle.loads(pickle.dumps({"a": [1, (2, {3})]})), {"a": [1, (2, {3})]})

    def test_text(self):
        self.assertEqual(unicodedata.normalize("NFC", "e\u0301"), "é")
        self.assertEqual(list(csv.reader(io.StringIO('a,"b,c"\n"d""e",f\n'))), [["a", "b,c"], ['d"e', "f"]])
        self.assertEqual(len(list(itertools.permutations(range(6)))), 720)

    def test_temporary_files(self):
        os.makedirs("/tmp", exist_ok=True)
        with tempfile.NamedTemporaryFile("w+", dir="/tmp") as file:
            file.write("temporary")
            file.seek(0)
            self.assertEqual(file.read(), "temporary")


if __name__ == "__main__":
    result = unittest.main(argv=["cpython"], exit=False, verbosity=1).result
    print(f"{result.testsRun} ran, {len(result.failures) + len(result.errors)} failed")
    sys.exit(not result.wasSuccessful())

"""spore.py on a plain directory in place of /spore/state. What state is under it, tests/system/python_state_test.py
tests."""

import os
import tempfile
import unittest

import spore


class Objects(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = spore._DIRECTORY = folder.name

    def test_keys_are_file_names_and_back(self):
        for key in ("a", "a/b", "..", ".", "a b%41", "é\n", "{x}", "...", "x" * 50):
            spore.state.put(key, key)
            self.assertEqual(spore.state.get(key), key.encode())
            spore.state.delete(key)
            self.assertFalse(spore.state.exists(key))
            spore.state.put(key + "/1", b"")
        self.assertIn("..%2F1", os.listdir(self.folder))
        self.assertEqual(sorted(spore.state.keys("a")), ["a b%41/1", "a/1", "a/b/1"])
        self.assertRaises(ValueError, spore.state.put, "", b"")

    def test_bytes(self):
        self.assertIsNone(spore.state.get("k"))
        self.assertEqual(spore.state.get("k", b"none"), b"none")
        self.assertRaises(FileNotFoundError, spore.state.open, "k")
        spore.state.put("k", "longer at first")
        spore.state.put("k", memoryview(b"short"))
        spore.state.append("k", b"er")
        with spore.state.open("k") as value:
            self.assertEqual((value.read(), value.read(2, 3), value.read(100), value.size()), (b"shorter", b"ort", b"", 7))
            value.write(b"!", 9)
            self.assertEqual(value.read(), b"shorter\0\0!")
            value.resize(1)
            value.push()
        self.assertEqual(spore.state.get("k", pull=True), b"s")
        self.assertRaises(OSError, value.read)

    def test_counter(self):
        with spore.Counter("c") as counter:
            self.assertEqual(counter.add(), 1)
        self.assertEqual(spore.Counter("c").add(-3), -2)
        self.assertEqual(spore.Counter("c").value, 1)  # that one was not pushed
        self.assertEqual(spore.state.get("c"), (1).to_bytes(8, "little"))
        spore.state.put("c", b"four")
        self.assertRaises(ValueError, spore.Counter, "c")

    def test_array_writes_back_pages_that_changed(self):
        array = spore.Array("a", "d", 2000)
        array[3], array[1999] = 0.5, -1.5
        self.assertEqual((len(array), array[3], array.values.itemsize), (2000, 0.5, 8))
        other = spore.Array("a", "d", 2000)
        other[700] = 7  # of another page
        other.push()
        array.push()
        self.assertEqual([spore.Array("a", "d", 2000)[i] for i in (3, 700, 1999, 4)], [0.5, 7, -1.5, 0])
        self.assertEqual(array[700], 0)
        array.pull()
        self.assertEqual(array[700], 7)
        self.assertRaises(ValueError, spore.Array, "a", "f", 2000)

    def test_dict(self):
        with spore.Dict("d") as items:
            items.update({"b": [1], "é": {"x": None}})
        with self.assertRaises(ZeroDivisionError), spore.Dict("d") as items:
            items["lost"] = 1 / 0
        with spore.Dict("d") as items:
            items["b"].append(2)
            self.assertRaises(TypeError, items.__setitem__, 1, 2)
            del items["é"]
        self.assertEqual(dict(spore.Dict("d")), {"b": [1, 2]})
        self.assertEqual(spore.state.get("d"), b'{"b":[1,2]}')
        for text in (b"{", b"[1]"):
            spore.state.put("d", text)
            self.assertRaises(ValueError, spore.Dict, "d")

    def test_list_appends_behind_others(self):
        first, second = spore.List("l"), spore.List("l")
        first.append({"n": 1})
        second.append("two\n")
        first.append(None)
        first.push()
        self.assertEqual(list(first), [{"n": 1}, None])
        first.pull()
        self.assertEqual(list(first), [{"n": 1}, "two\n", None])
        second.clear()
        self.assertEqual(list(spore.List("l")), [])


if __name__ == "__main__":
    unittest.main()

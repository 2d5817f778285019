"""Input and output, calls of other functions, and state, for Spore functions written in Python.

    import spore

    with spore.Dict("seen") as seen:              # pulled here, pushed at the end
        name = spore.input().decode()
        seen[name] = seen.get(name, 0) + 1
    spore.output(f"{name}: {seen[name]}\\n")

    picture = spore.call("thumbnail", data).result()
    pages = spore.map("fetch", ["a.html", "b.html"])

A call of another function runs beside this one, and is cancelled where it has not ended when this one does; here it is
the file /spore/call/NAME (docs/chaining.md).

A value is bytes under a key, shared by the functions of a tenant; here it is the file /spore/state/KEY (docs/files.md).
All calls on one host see the same bytes at once. Other hosts see them after push(), and this host sees theirs after
pull(). Nothing is locked: where calls change one value at the same time, on one host the later write of a byte stays,
between hosts the later push of a page of 4 KiB.

Errors are OSError: FileNotFoundError where there is no value or no function, CallError where a call failed, errno
ENOSPC where the host has no room for a value, ESTALE where it was removed meanwhile, EHOSTUNREACH and ETIMEDOUT where
the store does not answer.
"""

import errno as _errno
import json as _json
import os as _os
import select as _select
import sys as _sys
from collections.abc import MutableMapping as _MutableMapping

__all__ = ["input", "output", "log", "call", "map", "await_any", "Call", "CallError", "state", "Counter", "Array",
           "Dict", "List"]

_CALLS = "/spore/call"
_DIRECTORY = "/spore/state"
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_~.")
_PAGE = 4096


def input():
    """The input of the call, as bytes."""
    with open("/spore/input", "rb") as file:
        return file.read()


def output(data):
    """Appends str (as UTF-8) or bytes to the output of the call."""
    _sys.stdout.flush()
    _sys.stdout.buffer.write(data.encode() if isinstance(data, str) else data)
    _sys.stdout.buffer.flush()


def log(text):
    """A line to the log of the call."""
    print(text, file=_sys.stderr, flush=True)


class CallError(OSError):
    """A call failed. `exit_code`: where it ended by itself; else None, and errno says how: ECHILD (it trapped),
    ETIMEDOUT, EOVERFLOW (its output is larger than it may be), ECANCELED, EBUSY (no room for it), EIO."""

    def __init__(self, number, message, function):
        super().__init__(number, message, function)
        self.exit_code = int(message[10:]) if number == _errno.EIO and message.startswith("exit code ") else None


class Call:
    """A call of another function of the same tenant, "name" or "name@version", which has begun. It is cancelled where
    it has not ended when this is closed, collected or left as a context."""

    _fd = -1

    def __init__(self, function, data=b""):
        self.function, self._output = function, None
        self._fd = _os.open(f"{_CALLS}/{function}", _os.O_RDWR)
        rest = memoryview(data.encode() if isinstance(data, str) else data).cast("B")
        try:
            while rest:
                rest = rest[_os.write(self._fd, rest):]
        except OSError as error:
            self.close()
            raise CallError(error.errno, "its input: " + error.strerror, function) from None
        try:
            _os.fsync(self._fd)  # begins it
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error):
        """The error with what the call has to say of it."""
        parts = []
        for told_again in (True, False):  # one that could not begin tells so once more
            try:
                while part := _os.read(self._fd, 1 << 16):
                    parts.append(part)
                break
            except OSError:
                if not told_again:
                    break
        self.close()
        text = b"".join(parts).decode(errors="replace") or error.strerror
        if error.errno == _errno.ENOENT:
            return FileNotFoundError(error.errno, text, self.function)
        return CallError(error.errno, text, self.function)

    def wait(self, timeout=None):
        """Waits for its end, at most so many seconds. Whether it has ended."""
        return await_any([self], timeout) is self

    def result(self):
        """Waits for its end: its output, as bytes. CallError where it failed."""
        if self._output is None:
            if self._fd < 0:
                raise ValueError("the call is closed")
            parts = []
            try:
                while part := _os.read(self._fd, 1 << 20):
                    parts.append(part)
            except OSError as error:
                raise self._failed(error) from None
            self._output = b"".join(parts)
            self.close()
        return self._output

    def close(self):
        if self._fd >= 0:
            _os.close(self._fd)
            self._fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    __del__ = close


def call(function, data=b""):
    """Begins a call of the function with that input, str (as UTF-8) or bytes. FileNotFoundError where there is none."""
    return Call(function, data)


def await_any(calls, timeout=None):
    """Waits until one of the calls has ended: the first that has; None where none has within so many seconds."""
    calls = list(calls)
    if not calls:
        raise ValueError("there are no calls to wait for")
    poll = _select.poll()
    for one in calls:
        if one._fd < 0:  # its result is here
            return one
        poll.register(one._fd, _select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(None if timeout is None else max(timeout, 0) * 1000)}
    return next((one for one in calls if one._fd in ready), None)


def map(function, items):
    """Calls the function once with each item, all at the same time: their outputs, in that order. Where a limit of the
    host is reached, waits for one that runs before it begins the next."""
    calls, waited = [], 0
    try:
        for item in items:
            while True:
                try:
                    calls.append(Call(function, item))
                    break
                except CallError as error:
                    if error.errno != _errno.EBUSY or waited == len(calls):
                        raise
                    calls[waited].result()
                    waited += 1
        return [one.result() for one in calls]
    finally:
        for one in calls:
            one.close()


def _path(key):
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in key.encode())
    if not name:
        raise ValueError("the key of a state value is empty")
    return f"{_DIRECTORY}/{name.replace('.', '%2E') if name in ('.', '..') else name}"


def _key(name):
    parts = name.encode().split(b"%")
    return b"".join([parts[0]] + [bytes([int(part[:2], 16)]) + part[2:] for part in parts[1:]]).decode()


class _File:
    """An open value: bytes at offsets."""

    def __init__(self, key, create=False, pull=False):
        flags = _os.O_RDWR | (_os.O_CREAT if create else 0) | (_os.O_RSYNC if pull else 0)
        self.key, self._fd = key, _os.open(_path(key), flags, 0o666)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Does not push."""
        if self._fd >= 0:
            _os.close(self._fd)
            self._fd = -1

    def size(self):
        return _os.fstat(self._fd).st_size

    def read(self, offset=0, size=None):
        """Bytes from the offset on, fewer at the end; without a size, all."""
        left = max(self.size() - offset, 0)
        left = left if size is None else min(size, left)
        parts = []
        while left > 0:
            part = _os.pread(self._fd, left, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, data, offset=0):
        """Makes the value longer where it has to be."""
        rest = memoryview(data).cast("B")
        while rest:
            wrote = _os.pwrite(self._fd, rest, offset)
            rest, offset = rest[wrote:], offset + wrote

    def resize(self, size):
        _os.ftruncate(self._fd, size)

    def push(self):
        _os.fsync(self._fd)


class _State:
    """spore.state: values as a whole, and by offset."""

    def get(self, key, default=None, pull=False):
        """The bytes of the value, or the default where there is none. pull: of the newest version."""
        try:
            with _File(key, pull=pull) as file:
                return file.read()
        except FileNotFoundError:
            return default

    def put(self, key, data, push=True):
        """Makes the value these bytes (str: as UTF-8)."""
        data = data.encode() if isinstance(data, str) else data
        with _File(key, create=True) as file:
            file.write(data)
            file.resize(memoryview(data).nbytes)
            if push:
                file.push()

    def append(self, key, data, push=True):
        """Behind the end of the value, whoever else appends on this host."""
        data = data.encode() if isinstance(data, str) else data
        fd = _os.open(_path(key), _os.O_WRONLY | _os.O_CREAT | _os.O_APPEND, 0o666)
        try:
            _os.write(fd, data)
            if push:
                _os.fsync(fd)
        finally:
            _os.close(fd)

    def open(self, key, create=False, pull=False):
        """An open value, with read(offset, size), write(data, offset), size(), resize(size), push() and close()."""
        return _File(key, create, pull)

    def push(self, key):
        with _File(key) as file:
            file.push()

    def pull(self, key):
        _File(key, pull=True).close()

    def delete(self, key):
        _os.unlink(_path(key))

    def keys(self, prefix=""):
        """The tenant's keys that begin with the prefix, sorted."""
        return [key for name in _os.listdir(_DIRECTORY) if (key := _key(name)).startswith(prefix)]

    def exists(self, key):
        try:
            _os.stat(_path(key))
        except FileNotFoundError:
            return False
        return True


state = _State()


class _Value:
    """What the objects below share. They hold a copy of the value, taken when they are made (pull=False: of what this
    host has, without asking for the newest version) and by pull(); push() writes it back. As a context they push at the
    end; where an exception leaves it, what was changed is dropped."""

    def __init__(self, key, pull=True):
        self.key = key
        self._file = _File(key, create=True, pull=pull)
        self._load()

    def pull(self):
        """Takes over the newest version. Changes of this object since push() are dropped."""
        self._file.close()
        self._file = _File(self.key, create=True, pull=True)
        self._load()

    def push(self):
        """Publishes it to other hosts."""
        self._store()
        self._file.push()

    def close(self):
        """Keeps it on this host, not pushed."""
        self._store()
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.push()
        self._file.close()


class Counter(_Value):
    """A whole number of 64 bits, kept as i64 little endian, as the C++ SDK keeps it."""

    def _load(self):
        data = self._file.read(0, 8)
        if len(data) not in (0, 8):
            raise ValueError(f"state {self.key!r} has {len(data)} bytes, and is no counter")
        self.value = int.from_bytes(data, "little", signed=True)

    def _store(self):
        self._file.write(self.value.to_bytes(8, "little", signed=True))

    def add(self, count=1):
        self.value += count
        return self.value


class Array(_Value):
    """Numbers of one type: a memoryview's format ("b", "i", "q", "f", "d"...) and how many. `values` is a memoryview of
    a copy; push() writes back the pages that changed, so that other hosts' pages stay.

        weights = spore.Array("weights", "d", 1000)
        weights[3] += 0.5
        weights.push()
    """

    def __init__(self, key, format, length, pull=True):
        self._format, self._length = format, length
        super().__init__(key, pull)

    def _load(self):
        item_size = memoryview(bytearray(8)).cast(self._format).itemsize
        size = item_size * self._length
        have = self._file.size()
        if have not in (0, size):
            raise ValueError(f"state {self.key!r} has {have} bytes, not {size}")
        if have == 0:
            self._file.resize(size)
        self._base = self._file.read(0, size)
        self._bytes = memoryview(bytearray(self._base))
        self.values = self._bytes.cast(self._format)

    def _store(self):
        base = memoryview(self._base)
        changed = [at for at in range(0, len(base), _PAGE) if self._bytes[at : at + _PAGE] != base[at : at + _PAGE]]
        for at in changed:
            self._file.write(self._bytes[at : at + _PAGE], at)
        if changed:
            self._base = bytes(self._bytes)

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        return self.values[index]

    def __setitem__(self, index, value):
        self.values[index] = value


class Dict(_Value, _MutableMapping):
    """A dictionary from str to what JSON can say, kept as JSON text. A list or dictionary inside it may be changed in
    place."""

    def _load(self):
        text = self._file.read()
        try:
            self._items = _json.loads(text) if text else {}
        except ValueError as error:
            raise ValueError(f"state {self.key!r} is not JSON: {error}") from None
        if not isinstance(self._items, dict):
            raise ValueError(f"state {self.key!r} is JSON, but no dictionary")
        self._stored = text

    def _store(self):
        text = _json.dumps(self._items, separators=(",", ":"), ensure_ascii=False).encode()
        if text == self._stored:
            return
        self._file.write(text)
        self._file.resize(len(text))
        self._stored = text

    def __getitem__(self, key):
        return self._items[key]

    def __setitem__(self, key, value):
        if not isinstance(key, str):
            raise TypeError(f"the keys of a Dict are str, not {type(key).__name__}")
        self._items[key] = value

    def __delitem__(self, key):
        del self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)

    def __repr__(self):
        return f"Dict({self.key!r}, {self._items!r})"


class List(_Value):
    """What JSON can say, item after item, a line each. append() writes the new item alone, behind what anybody on this
    host has appended."""

    def _load(self):
        lines = self._file.read().splitlines()
        try:
            self._items = [_json.loads(line) for line in lines]
        except ValueError as error:
            raise ValueError(f"state {self.key!r} is not a list of JSON lines: {error}") from None

    def _store(self):
        pass

    def append(self, item):
        line = _json.dumps(item, separators=(",", ":"), ensure_ascii=False) + "\n"
        state.append(self.key, line, push=False)
        self._items.append(item)

    def clear(self):
        self._file.resize(0)
        self._items = []

    def __getitem__(self, index):
        return self._items[index]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)

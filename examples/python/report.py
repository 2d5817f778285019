# The standard library at work: log lines on the input go into an SQLite database, and come out as a JSON report.
#
#   2026-11-02T10:00:01 GET /index.html 200 5120
import hashlib
import json
import re
import sqlite3
import sys

LINE = re.compile(r"(?P<time>\S+) (?P<method>[A-Z]+) (?P<path>\S+) (?P<status>\d{3}) (?P<bytes>\d+)")

text = sys.stdin.read()
requests = [match.groups() for match in map(LINE.fullmatch, text.splitlines()) if match]

database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE request (time TEXT, method TEXT, path TEXT, status INTEGER, bytes INTEGER)")
database.executemany("INSERT INTO request VALUES (?, ?, ?, ?, ?)", requests)
by_path = database.execute(
    "SELECT path, COUNT(*), SUM(bytes), SUM(status >= 400) FROM request GROUP BY path ORDER BY 2 DESC, 1"
)
json.dump(
    {
        "requests": len(requests),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "paths": [dict(zip(("path", "requests", "bytes", "errors"), row)) for row in by_path],
    },
    sys.stdout,
    indent=2,
)
print()

"""Many calls that open files and leave them open: the host's memory and descriptors stay where they were.

    files_soak.py [CALLS]      default 100,000; the last line has the figures
"""

import http.client
import os
import sys
import threading

from files_test import Files

CALLS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
LEAKED = 100
THREADS = 4


def main():
    Files.setUpClass()
    test = Files("test_descriptors_that_a_call_leaks_are_closed")
    try:
        test.function("t/soak")
        host = test.host
        body = b"leak-some /x 100\n"
        errors = []

        def calls(count):
            connection = http.client.HTTPConnection(host.name, host.port, timeout=60)
            for _ in range(count):
                connection.request("POST", "/v1/functions/t/soak/call", body)
                answer = connection.getresponse()
                got = answer.read()
                if answer.status != 200 or got != b"100\n":
                    errors.append((answer.status, got))
                    return

        def round_of(count):
            threads = [threading.Thread(target=calls, args=(count // THREADS,)) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        def now():
            fds = len(os.listdir(f"/proc/{host.process.pid}/fd"))
            return host.status("RssAnon"), host.status("RssShmem"), fds

        round_of(max(1000, CALLS // 20))
        before = now()
        round_of(CALLS)
        after = now()
        growth = [b - a for a, b in zip(before, after)]
        print(f"files soak: calls={CALLS} leaked_descriptors={CALLS * LEAKED} rss_anon_growth_kb={growth[0]} "
              f"rss_shmem_growth_kb={growth[1]} descriptors_growth={growth[2]} errors={len(errors)}")
        if errors or growth[0] > 4096 or growth[1] > 1024 or growth[2] > 8:
            sys.exit(f"failed: {errors[:1]}")
    finally:
        Files.doClassCleanups()
        Files.tearDownClass()


if __name__ == "__main__":
    main()

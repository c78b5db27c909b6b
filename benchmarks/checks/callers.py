"""Callers in a process of their own: `python -m benchmarks.checks.callers PORT PATH CLIENTS`.

In: JSON bodies on standard input, one a line. Out: exit code 0 when every answer was a good one.
"""

import http.client
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


def main(port: int, path: str, clients: int) -> int:
    """Send every line once; how many went wrong."""
    bodies = iter(sys.stdin.buffer.read().splitlines())
    with ThreadPoolExecutor(clients) as pool:
        found = pool.map(lambda _: _caller(port, path, bodies), range(clients))
        return sum(found)


def _caller(port: int, path: str, bodies: Iterator[bytes]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    wrong = 0
    for body in bodies:
        connection.request("POST", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        found = answer.read()
        if answer.status != 200 or b"problem" in found:
            print(found[:300], file=sys.stderr)
            wrong += 1
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))

"""One caller in a process of its own: `python -m benchmarks.checks.asking PORT REQUESTS`.

In: a port with a stored verdict and an empty route. Out: JSON, milliseconds of each route, which
take turns (ABBA), as fast as answers come over one connection each.
"""

import http.client
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson

from .. import stats
from ..errors import InvalidRunError

WARM_UP = 200
BODY = orjson.dumps({"query": "red shoes", "ads": [{"title": "shoes in red", "text": "on sale"}]})


def once(port: int) -> Any:
    """The answer to one check."""
    return _Caller(port, "POST", "/relevance", BODY).json()


def main(port: int, requests: int) -> dict[str, list[float]]:
    """Milliseconds of each route, `requests` of each or one more."""
    callers = {
        "cached": _Caller(port, "POST", "/relevance", BODY),
        "empty": _Caller(port, "POST", "/empty", BODY),
    }
    subjects: dict[str, Callable[[int], float]] = {n: c.timed for n, c in callers.items()}
    stats.abba(subjects, WARM_UP // 2)
    return {n: t.tolist() for n, t in stats.abba(subjects, -(-requests // 2)).items()}


class _Caller:
    """One connection that sends the same request again and again."""

    def __init__(self, port: int, method: str, path: str, body: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._request = (method, path, body, {"content-type": "application/json"})

    def timed(self, _: int) -> float:
        begun = time.perf_counter()
        self.json()
        return (time.perf_counter() - begun) * 1000

    def json(self) -> Any:
        self._connection.request(*self._request)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise InvalidRunError(f"{self._request[1]}: {answer.status} {body[:200]!r}")
        return orjson.loads(body)


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))

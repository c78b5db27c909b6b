"""Servers that follow scripts, byte by byte, and the lookup's exchange with them."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from feature_store import record
from feature_store.address import parse
from feature_store.decoding import Share, call_of, collect
from feature_store.keys import Keys
from feature_store.links import Links
from feature_store.ops import Exchange, Node, Op, Outcome
from feature_store.reading import Asked, blank

KEYS = Keys("ads")
IDS = np.arange(1, 101, dtype=np.int64)
CODES = np.random.default_rng(8).integers(0, 65535, (100, 6)).astype(np.uint16)
VALUES = [
    row.tobytes()
    for row in record.encode(IDS, CODES, np.zeros(100, np.uint16), 1, np.zeros(100, np.uint64))
]
Script = Callable[[socket.socket], None]


def reply(values: list[bytes | None]) -> bytes:
    parts = [b"$-1\r\n" if v is None else b"$%d\r\n%b\r\n" % (len(v), v) for v in values]
    return b"*%d\r\n%b" % (len(values), b"".join(parts))


REPLY = reply([*VALUES, None])


def heard(conn: socket.socket, size: int) -> None:
    """Read a whole request."""
    while size:
        got = len(conn.recv(min(size, 1 << 16)))
        if not got:
            raise ConnectionError
        size -= got


@contextmanager
def server(*scripts: Script) -> Iterator[Node]:
    """A server whose connections follow scripts, one after another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        ended = threading.Event()

        def serve() -> None:
            for script in scripts:
                while not ended.is_set():
                    try:
                        conn, _ = listener.accept()
                    except TimeoutError:
                        continue
                    with conn, suppress(OSError):
                        script(conn)
                    break

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Node("127.0.0.1", listener.getsockname()[1])
        finally:
            ended.set()
            thread.join(10)


def exchange(nodes: list[Node], links: Links, seconds: float = 10) -> list[tuple[Asked, Outcome]]:
    """Ask every node for all rows."""
    asked = [Asked(IDS, 1, None, blank(100)) for _ in nodes]
    shares = [Share(node) for node in nodes]
    calls = [call_of(KEYS, one, share) for one, share in zip(asked, shares, strict=True)]

    def op() -> Op[list[Outcome]]:
        return (yield Exchange(calls, time.monotonic() + seconds))

    outcomes = links.run(op())
    for one, share, call, outcome in zip(asked, shares, calls, outcomes, strict=True):
        collect(one, share, call, outcome)
    return list(zip(asked, outcomes, strict=True))


def links_to(node: Node) -> Links:
    return Links(parse(f"redis://{node}"))


REQUEST = len(call_of(KEYS, Asked(IDS, 1, None, blank(100)), Share(Node("n", 1))).payload)


def whole(asked: Asked, outcome: Outcome) -> None:
    assert outcome is None
    assert (asked.answer.status == record.Status.HIT).all()
    np.testing.assert_array_equal(asked.answer.codes, CODES)
    assert asked.pointer == b""

"""What a lookup costs that does not depend on the machine: round trips and bytes.

In: nothing. Out: per kind of lookup the round trips and bytes each way, as a relay between client
and server counts them. CI compares them with committed expectations, exactly.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey

from .errors import ExpectationError


@dataclass(slots=True)
class _Counts:
    """A round trip is a change of direction: the client speaks after the server has."""

    round_trips: int = 0
    sent: int = 0
    received: int = 0
    listening: bool = True


@contextmanager
def _relay(port: int) -> Iterator[tuple[int, _Counts]]:
    """A relay in front of a server; its port and what it counts."""
    counts = _Counts()
    listener = socket.create_server(("127.0.0.1", 0))
    sockets = [listener]
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, target: socket.socket, outward: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if outward:
                    counts.round_trips += counts.listening
                    counts.listening = False
                    counts.sent += len(data)
                else:
                    counts.listening = True
                    counts.received += len(data)
                target.sendall(data)
        except OSError:
            return
        finally:
            _hang_up(target)

    def accept() -> None:
        try:
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                sockets.extend((client, server))
                for pair in ((client, server, True), (server, client, False)):
                    threads.append(threading.Thread(target=pump, args=pair))
                    threads[-1].start()
        except OSError:
            return

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1], counts
    finally:
        for sock in sockets:
            _hang_up(sock)
        acceptor.join()
        for thread in threads:
            thread.join()
        for sock in sockets:
            sock.close()


def _hang_up(sock: socket.socket) -> None:
    """End whoever waits on a socket; one that has ended already is fine."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def measure() -> dict[str, dict[str, int]]:
    """Counters of every kind of lookup, by name."""
    ids = np.arange(1, 1001, dtype=np.int64)
    codes = np.arange(6000, dtype=np.uint16).reshape(1000, 6)
    found: dict[str, dict[str, int]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedValkey())
        port, counts = stack.enter_context(_relay(server.port))
        store = stack.enter_context(FeatureStore.connect(f"redis://127.0.0.1:{port}"))
        store.write(ids, codes)
        store.write(ids, codes, version="2")
        kinds: dict[str, Callable[[], object]] = {
            "100 ids, all hits": lambda: store.lookup(ids[:100], deadline=5),
            "500 ids, all hits": lambda: store.lookup(ids[:500], deadline=5),
            "1000 ids, all hits": lambda: store.lookup(ids, deadline=5),
            "500 ids, 5% misses": lambda: store.lookup(_missing(ids[:500]), deadline=5),
            "500 ids, pinned version": lambda: store.lookup(ids[:500], "2", deadline=5),
            "no ids": lambda: store.lookup([], deadline=5),
        }
        for name, call in kinds.items():
            call()
            counts.round_trips = counts.sent = counts.received = 0
            call()
            found[name] = {
                "round_trips": counts.round_trips,
                "bytes_sent": counts.sent,
                "bytes_received": counts.received,
            }
    return found


def _missing(ids: np.ndarray) -> np.ndarray:
    asked = ids.copy()
    asked[::20] += 1_000_000
    return asked


def check(found: dict[str, Any], expectations: Path) -> None:
    """Raises ExpectationError unless the counters are exactly as committed."""
    expected = json.loads(expectations.read_text())["lookup"]
    if found != expected:
        differing = sorted(
            name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
        )
        lines = [f"{n}: expected {expected.get(n)}, found {found.get(n)}" for n in differing]
        raise ExpectationError(
            f"the cost of a lookup is not what {expectations.name} says. {'; '.join(lines)}. If "
            f"the change is meant, write it down there and say why in the commit."
        )

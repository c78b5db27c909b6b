"""A relay in front of a server that can fall silent: it accepts bytes and delivers none.

In: a server's port. Out: a port of its own. Connections stay open, as behind a firewall that drops
packets, so neither side is told.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Pair:
    """A client's connection and its own to the server."""

    client: socket.socket
    server: socket.socket
    said: bytearray = field(default_factory=bytearray)  # by the client, of late
    silent: bool = False

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Both ends."""
        return self.client, self.server


class Relay:
    """Every connection through one port."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[_Pair] = []
        self._only: bytes | None = None
        self._quiet = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @classmethod
    @contextmanager
    def before(cls, target: int) -> Iterator["Relay"]:
        """A relay in front of a port of loopback."""
        relay = cls(target)
        try:
            yield relay
        finally:
            relay._close()

    def silence(self, only: bytes = b"") -> None:
        """Deliver nothing; `only` on connections whose client has said that word."""
        self._only, self._quiet = only, True
        for pair in self._pairs:
            pair.silent = only in pair.said

    def speak(self) -> None:
        """Deliver again; what was silent is closed, since bytes of it are lost."""
        self._quiet = False
        for pair in [pair for pair in self._pairs if pair.silent]:
            pair.silent = False
            _hang_up(pair.client)
            _hang_up(pair.server)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                pair = _Pair(client, server)
                pair.silent = self._quiet and self._only == b""
                self._pairs.append(pair)
                for outward in (True, False):
                    thread = threading.Thread(target=self._pump, args=(pair, outward), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, pair: _Pair, outward: bool) -> None:
        source, sink = (pair.client, pair.server) if outward else (pair.server, pair.client)
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if outward:
                    pair.said[:] = (pair.said + data)[-4096:]
                    if self._quiet and self._only and self._only in pair.said:
                        pair.silent = True
                if not pair.silent:
                    sink.sendall(data)
        _hang_up(sink)

    def _close(self) -> None:
        _hang_up(self._listener)
        for pair in self._pairs:
            _hang_up(pair.client)
            _hang_up(pair.server)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *(s for pair in self._pairs for s in pair.sockets)):
            sock.close()


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)

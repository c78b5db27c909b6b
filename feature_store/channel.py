"""One node's invalidation connection, and what its server has proven to tell.

In: a connection that speaks RESP3, commands. Out: pushes and answers, and the moment up to which
everything has been heard.
"""

import contextlib
import ssl
import time

from .link import Link
from .wire import Reply, command, parse


class Channel:
    """One node's invalidation connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.opened = time.monotonic()
        self.heard = 0.0  # when the last PING that was answered had been sent
        self._asked = self.opened  # when the last prefixes had been asked for
        self._pings: list[float] = []
        self._at = 0

    @property
    def proven(self) -> bool:
        """Whether the server tells of changes under all prefixes that it was asked for."""
        return self.heard > self._asked

    def send(self, payload: bytes) -> None:
        self.link.sock.settimeout(1.0)
        self.link.sock.sendall(payload)
        self.link.sock.settimeout(0)

    def watch(self, payload: bytes) -> None:
        """Ask for prefixes, and for proof that they are heeded."""
        self.send(payload)
        self._asked = time.monotonic()
        self.ping()

    def ping(self) -> None:
        self._pings.append(time.monotonic())
        self.send(command("PING"))

    def receive(self) -> list[Reply]:
        """Whatever has come: pushes and answers."""
        link = self.link
        with contextlib.suppress(BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            while True:
                link.receive()
        found: list[Reply] = []
        while (parsed := parse(link.buffer, self._at, link.end)) is not None:
            value, self._at = parsed
            if value in ("PONG", b"PONG") and self._pings:
                self.heard = self._pings.pop(0)
            else:
                found.append(value)
        rest = bytes(link.buffer[self._at : link.end])
        link.buffer[: len(rest)] = rest
        self._at, link.end = 0, len(rest)
        return found

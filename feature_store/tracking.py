"""Keeps the near cache true: the server tells which keys changed, or the cache is not believed.

In: a store's address and nodes. Out: a `NearCache`. A thread holds one RESP3 connection per node
with CLIENT TRACKING in broadcast mode over the record prefixes of the watched versions and over
the pointer. What was sent before an answered PING has arrived, so the cache is true as of the
moment that PING was sent; older than `STALE_S`, or after a lost connection, it is not used.
"""

import select
import ssl
import threading
import time
from collections.abc import Callable

import numpy as np

from .address import Address
from .buckets import hash_range, is_bucket
from .buckets import prefix as bucket_prefix
from .errors import FeatureStoreError
from .forks import generation
from .keys import Keys
from .link import Link, open_link
from .near import NearTable, Ranges
from .ops import Node, error_of
from .wire import Reply, ServerReplyError, command, parse

PING_S = 0.1
FRESH_S = 0.5  # an answer to PING is no older: rows are HIT
STALE_S = 0.9  # rows may still be served, as STALE, when the store does not answer
_RETRY_S = 0.1
_WATCHED = 4


class _Channel:
    """One node's invalidation connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.heard = 0.0  # when the last PING that was answered had been sent
        self._pings: list[float] = []
        self._at = 0

    def send(self, payload: bytes) -> None:
        self.link.sock.settimeout(1.0)
        self.link.sock.sendall(payload)
        self.link.sock.settimeout(0)

    def ping(self) -> None:
        self._pings.append(time.monotonic())
        self.send(command("PING"))

    def receive(self) -> list[Reply]:
        """Whatever has come: pushes and answers."""
        link = self.link
        try:
            while True:
                link.receive()
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            pass
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


class NearCache:
    """The table, and how far it may be believed."""

    def __init__(
        self, address: Address, keys: Keys, nodes: Callable[[], tuple[Node, ...]], size_bytes: int
    ) -> None:
        self.table = NearTable(size_bytes)
        self.generation = generation()
        self.pointer_changed = True
        self._address = address
        self._keys = keys
        self._nodes = nodes
        self._watched: tuple[int, ...] = ()
        self._live: tuple[int, ...] = ()  # what the servers have been asked to watch
        self._heard = 0.0
        self._up = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="near-cache", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self.generation == generation():
            self._thread.join(2)

    def fresh(self, number: int) -> bool:
        """Whether rows of a version may be served as HIT; asks for it to be watched if not."""
        if number not in self._live:
            if number and number not in self._watched:
                self._watched = (*self._watched, number)[-_WATCHED:]
            return False
        return self._up and time.monotonic() - self._heard < FRESH_S

    def stale(self) -> bool:
        """Whether rows may be served as STALE, where the store does not answer."""
        return time.monotonic() - self._heard < STALE_S

    def _loop(self) -> None:
        while not self._stop.is_set():
            channels: list[_Channel] = []
            try:
                self._serve(channels)
            except (OSError, FeatureStoreError):
                self._up = False
            finally:
                for channel in channels:
                    channel.link.close()
            self._live = ()
            self._stop.wait(_RETRY_S)

    def _serve(self, channels: list[_Channel]) -> None:
        """Hold the channels until one fails; returns when nodes or versions leave."""
        nodes = self._nodes()
        watched = self._watched
        for node in nodes:
            channel = _Channel(open_link(self._address, node, time.monotonic() + 1.0))
            channels.append(channel)
            channel.send(command("HELLO", 3) + self._tracking(watched, pointer=True))
            channel.ping()
        poll = select.poll()
        by_descriptor = {channel.link.sock.fileno(): channel for channel in channels}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        fresh_start = True
        pinged = time.monotonic()
        while not self._stop.is_set():
            for descriptor, _ in poll.poll(PING_S * 1000):
                channel = by_descriptor[descriptor]
                for reply in channel.receive():
                    self._heed(reply, channel.link.node)
            heard = min((channel.heard for channel in channels), default=0.0)
            if heard and fresh_start:
                self.table.clear()  # what changed while nobody listened is not known
                self.pointer_changed = True
                self._live = watched
                self._up = True
                fresh_start = False
            if heard:
                self._heard = heard
            if self._nodes() != nodes:
                self._up = False
                return
            if not fresh_start and self._watched != watched:
                if any(number not in self._watched for number in watched):
                    self._up = False
                    return
                added = tuple(number for number in self._watched if number not in watched)
                for channel in channels:
                    channel.send(self._tracking(added, pointer=False))
                watched = (*watched, *added)
                fresh_start = True  # nothing of the added versions is kept before PONG
                for channel in channels:
                    channel.heard = 0.0
                    channel.ping()
                self._up = False
            now = time.monotonic()
            if now - pinged >= PING_S:
                pinged = now
                for channel in channels:
                    channel.ping()

    def _tracking(self, numbers: tuple[int, ...], pointer: bool) -> bytes:
        prefixes = [self._keys.record_prefix(number) + b"{" for number in numbers]
        prefixes += [bucket_prefix(self._keys, number) for number in numbers]
        if pointer:
            prefixes.append(self._keys.pointer)
        pairs = [part for prefix in prefixes for part in (b"PREFIX", prefix)]
        return command("CLIENT", "TRACKING", "ON", "BCAST", *pairs)

    def _heed(self, reply: Reply, node: Node) -> None:
        if isinstance(reply, ServerReplyError):
            raise error_of(reply, node)
        if not isinstance(reply, list) or len(reply) != 2 or reply[0] != b"invalidate":
            return
        names = reply[1]
        if names is None:  # the whole database was emptied
            self.table.clear()
            self.pointer_changed = True
        elif isinstance(names, list):
            changed = [name for name in names if isinstance(name, bytes)]
            if self._keys.pointer in changed:
                self.pointer_changed = True
            buckets = [name for name in changed if is_bucket(name)]
            if buckets:
                self.table.drop_ranges(Ranges([hash_range(name) for name in buckets]))
            own = [name for name in changed if name != self._keys.pointer and not is_bucket(name)]
            blob = b"".join(name[-8:] for name in own)
            ids = np.frombuffer(blob[: len(blob) // 8 * 8], "<i8").astype(np.int64)
            if len(ids):
                self.table.drop(ids)

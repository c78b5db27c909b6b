"""Keeps the near cache true: the server tells which keys changed, or the cache is not believed.

In: a store's address, nodes and served versions. Out: a `NearCache`. A thread holds one RESP3
connection per node with CLIENT TRACKING in broadcast mode over the record prefixes of the watched
versions and over the pointer. What was sent before an answered PING has arrived, so the cache is
true as of the moment that PING was sent; older than `STALE_S`, or after a lost connection, it is
not used. A version counts as watched once a PING sent after the request to watch it was answered.
"""

import contextlib
import logging
import select
import threading
import time
from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from . import forks
from .address import Address
from .buckets import hash_range, is_bucket
from .buckets import prefix as bucket_prefix
from .channel import Channel
from .errors import FeatureStoreError
from .keys import Keys
from .link import open_link
from .near import NearTable, Ranges
from .ops import Node, error_of
from .wire import Reply, ServerReplyError, command

PING_S = 0.1
FRESH_S = 0.5  # an answer to PING is no older: rows are HIT
STALE_S = 0.9  # rows may still be served, as STALE, when the store does not answer
LOST_S = 1.0  # a channel that has not answered for so long is opened anew
_RETRY_S = 0.1
_BATCH = 4096  # ids: the table keeps what it was last told to drop
_WATCHED = 16  # versions; whichever comes later is read from the store
_WARN_S = 10.0  # between two warnings
_log = logging.getLogger("feature_store")


class NearCache:
    """The table, and how far it may be believed. A forked child begins with an empty one."""

    def __init__(
        self,
        address: Address,
        keys: Keys,
        size_bytes: int,
        nodes: Callable[[], tuple[Node, ...]],
        served: Callable[[], Collection[int]],
    ) -> None:
        self._address = address
        self._keys = keys
        self._size_bytes = size_bytes
        self._nodes = nodes
        self._served = served
        self._channels: list[Channel] = []
        self.after_fork()
        forks.tell(self)

    def after_fork(self) -> None:
        """Begin anew: a child has no thread, and must not hear what its parent is told."""
        self.table = NearTable(self._size_bytes)
        self.pointer_changed = True
        self._watched: tuple[int, ...] = ()
        self._live: tuple[int, ...] = ()  # what the servers are known to watch
        self._heard = 0.0
        self._warned = -_WARN_S
        self._up = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        inherited, self._channels = self._channels, []
        for channel in inherited:
            channel.link.close()

    def start(self) -> None:
        """Begin to listen, if nobody does in this process yet."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._loop, name="near-cache", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Tell the thread to end."""
        with self._lock:
            self._stop.set()
        self._up = False

    def threads(self) -> list[threading.Thread]:
        """It, unless it has ended."""
        thread = self._thread
        return [thread] if thread is not None and thread.is_alive() else []

    def fresh(self, number: int) -> bool:
        """Whether rows of a version may be served as HIT; asks for it to be watched if not."""
        if number not in self._live:
            if number and number not in self._watched and len(self._watched) < _WATCHED:
                with self._lock:
                    # Another thread may have asked meanwhile; servers refuse a prefix that comes
                    # twice, and the channel would fail over and over.
                    if number not in self._watched:
                        self._watched = (*self._watched, number)
            if self._thread is None:
                self.start()
            return False
        return self._up and time.monotonic() - self._heard < FRESH_S

    def stale(self) -> bool:
        """Whether rows may be served as STALE, where the store does not answer."""
        return time.monotonic() - self._heard < STALE_S

    def forget(self, ids: NDArray[np.int64]) -> None:
        """Drop ads (n,) in every watched version; what the servers tell of them comes later."""
        for number in {*self._live, *self._watched}:
            for start in range(0, len(ids), _BATCH):
                self.table.drop(ids[start : start + _BATCH], number)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self._serve()
            except (OSError, FeatureStoreError) as error:
                self._up = False
                self._warn(error)
            finally:
                self._live = ()
                self._drop_channels(self._channels)
            self._stop.wait(_RETRY_S)

    def _warn(self, error: Exception) -> None:
        now = time.monotonic()
        if now > self._warned + _WARN_S and not self._stop.is_set():
            self._warned = now
            _log.warning(
                "the near cache is not told of changes, so rows are read from the store: %s "
                "(said once in %d s)",
                error,
                _WARN_S,
            )

    def _serve(self) -> None:
        """Hold the channels until one fails; returns when nodes come or leave."""
        nodes = self._nodes()
        watched = self._wanted()
        current = self._open(nodes, watched)
        coming: list[Channel] = []  # they watch fewer versions, and take over when all is heard
        proven_at = 0.0  # when those were proven: what was told before is still to be read here
        pinged = time.monotonic()
        while not self._stop.is_set():
            self._listen()
            now = time.monotonic()
            if any(max(c.heard, c.opened) + LOST_S < now for c in self._channels):
                raise TimeoutError(f"a channel was silent for {LOST_S} s")
            if coming:
                if not proven_at and all(channel.proven for channel in coming):
                    proven_at = now
                if proven_at and all(channel.heard > proven_at for channel in current):
                    self._drop_channels(current)
                    current, coming, proven_at = coming, [], 0.0
            if not coming and all(channel.proven for channel in current):
                self._believe(watched)
            if self._up:
                self._heard = min(channel.heard for channel in current)
            if self._nodes() != nodes:
                self._up = False
                return
            wanted = self._wanted()
            if self._up and not coming and wanted != watched:
                if set(watched) - set(wanted):
                    self._live = tuple(number for number in watched if number in wanted)
                    for number in set(watched) - set(wanted):
                        self.table.forget(number)  # its changes will not be told any more
                    coming = self._open(nodes, wanted)
                else:
                    added = tuple(number for number in wanted if number not in watched)
                    for channel in current:
                        channel.watch(self._tracking(added, pointer=False))
                watched = wanted
            if now - pinged >= PING_S:
                pinged = now
                for channel in self._channels:
                    channel.ping()

    def _believe(self, watched: tuple[int, ...]) -> None:
        """All channels are proven."""
        if not self._up:
            self.table.clear()  # what changed while nobody listened is not known
            self.pointer_changed = True
            self._up = True
        self._live = watched

    def _wanted(self) -> tuple[int, ...]:
        """The versions that were asked for and are still being served."""
        served = self._served()
        with self._lock:
            self._watched = tuple(number for number in self._watched if number in served)
            return self._watched

    def _open(self, nodes: tuple[Node, ...], numbers: tuple[int, ...]) -> list[Channel]:
        opened = []
        for node in nodes:
            channel = Channel(open_link(self._address, node, time.monotonic() + LOST_S))
            self._channels.append(channel)
            opened.append(channel)
            channel.watch(command("HELLO", 3) + self._tracking(numbers, pointer=True))
        return opened

    def _drop_channels(self, channels: list[Channel]) -> None:
        for channel in list(channels):
            channel.link.close()
        self._channels = [channel for channel in self._channels if channel not in channels]

    def _listen(self) -> None:
        """Heed what the servers say, for as long as a PING's interval."""
        poll = select.poll()
        by_descriptor = {channel.link.sock.fileno(): channel for channel in self._channels}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(PING_S * 1000):
            channel = by_descriptor[descriptor]
            for reply in channel.receive():
                self._heed(reply, channel.link.node)

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
            ranges = [_range(name) for name in changed if is_bucket(name)]
            known = [found for found in ranges if found is not None]
            if known:
                self.table.drop_ranges(Ranges(known))
            self._forget([name for name in changed if not is_bucket(name)])

    def _forget(self, names: list[bytes]) -> None:
        """Drop rows whose keys have changed; those of other versions are as true as before."""
        tails: dict[bytes, list[bytes]] = {}
        for name in names:
            tails.setdefault(name[:-13], []).append(name[-8:])
        for number in {*self._live, *self._watched}:
            gone = tails.get(self._keys.record_prefix(number))
            if gone:
                self.table.drop(np.frombuffer(b"".join(gone), "<i8").astype(np.int64), number)


def _range(name: bytes) -> tuple[int, int] | None:
    """The hashes of a bucket; None for another program's key that looks like one."""
    with contextlib.suppress(ValueError):
        lowest, highest = hash_range(name)
        return (lowest, highest) if highest < 1 << 64 else None
    return None

"""Watches nodes that failed and finds who took their place, so that no lookup spends time on it.

In: nodes that did not answer a lookup, or word that slots have moved. Out: the store's map, and
its `reading`: the map without the nodes that are silent. A doubted node is sent a PING; if it does
not answer within `GRACE_S`, its rows are UNAVAILABLE at once until it does. Meanwhile a cluster is
asked for its slots, sentinels for their master. Threads run only while something is wrong.
"""

import threading
import time
from typing import TYPE_CHECKING, Protocol

from . import forks, topology
from .address import Address
from .background import Background
from .errors import FeatureStoreError
from .links import Links
from .ops import Node, ask
from .topology import Topology
from .wire import ServerReplyError, command

if TYPE_CHECKING:
    from collections import Counter

GRACE_S = 0.1  # a PING that is answered later finds its node left out of lookups
_PING_S = 0.25  # then each further PING may take this long
_STARVED_S = 0.02  # woken later than that, this process lacks time, and blames no server
_PAUSES_S = (0.02, 0.2)  # between two PINGs, at first and at most
_SEARCHES_S = (0.05, 0.25)  # between two searches for the owners of the slots, at least and at most
_CALM_S = 0.1  # a node that has just answered a PING is not doubted again
_UNWELL = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN")


class Mapped(Protocol):
    """What a store has of this room's concern."""

    address: Address
    map: Topology
    reading: Topology

    @property
    def counters(self) -> "Counter[str]": ...


class Health:
    """Which nodes are silent. One per store; all methods may be called from any thread."""

    def __init__(self, core: Mapped) -> None:
        self._core = core
        self.after_fork()
        forks.tell(self)

    def after_fork(self) -> None:
        """A child has none of its parent's threads: it doubts nobody."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = Background()
        self._doubted: set[Node] = set()
        self._silent: set[Node] = set()
        self._calm: dict[Node, float] = {}  # when a node last answered a PING
        self._moved = False  # whether slots are known to have moved
        self._searching = False
        self._wake = threading.Event()
        self._core.reading = self._core.map

    def close(self) -> None:
        """Tell what runs to end."""
        with self._lock:  # what begins meanwhile is told as well
            self._stop.set()
        self._wake.set()

    def threads(self) -> list[threading.Thread]:
        """Those that have not ended."""
        return self._threads.living()

    def adopt(self, found: Topology) -> None:
        """Take another map."""
        with self._lock:
            self._core.map = found
            self._publish()

    def doubt(self, node: Node) -> None:
        """A node did not answer a lookup."""
        if node in self._doubted or time.monotonic() < self._calm.get(node, 0.0) + _CALM_S:
            return
        with self._lock:
            if node in self._doubted or self._stop.is_set():
                return
            self._doubted.add(node)
            self._threads.begin(lambda: self._watch(node), f"watch-{node}")
            self._search()

    def moved(self) -> None:
        """A node said that slots lie elsewhere now."""
        if self._moved and self._searching:
            return
        with self._lock:
            self._moved = True
            self._search()
        self._wake.set()

    def _publish(self) -> None:
        self._core.reading = self._core.map.without(self._silent)

    def _watch(self, node: Node) -> None:
        """Ask a node until it answers or has left the map."""
        links = Links(self._core.address)
        patience, pause = GRACE_S, _PAUSES_S[0]
        while not self._stop.is_set() and node in self._core.map.nodes:
            deadline = time.monotonic() + patience
            if self._answers(links, node, deadline):
                self._calm[node] = time.monotonic()
                break
            late = time.monotonic() - deadline
            if late < 0:
                # Who refuses at once costs lookups nothing; only who is waited for in vain does.
                self._set_silent(node, False)
                self._stop.wait(pause)
                pause = min(2 * pause, _PAUSES_S[1])
            elif late < _STARVED_S:
                self._set_silent(node, True)
            patience = _PING_S
        links.close()
        self._set_silent(node, False)
        with self._lock:
            self._doubted.discard(node)

    def _answers(self, links: Links, node: Node, deadline: float) -> bool:
        try:
            (reply,) = links.run(ask(node, command("PING"), 1, deadline))
        except FeatureStoreError as error:
            self._core.counters[f"silent {type(error).__name__}"] += 1
            return False
        return not (isinstance(reply, ServerReplyError) and reply.startswith(_UNWELL))

    def _set_silent(self, node: Node, silent: bool) -> None:
        with self._lock:
            (self._silent.add if silent else self._silent.discard)(node)
            self._publish()

    def _search(self) -> None:
        """Find the owners of the slots, in a thread, if nobody does yet. Needs the lock."""
        if self._stop.is_set() or self._core.address.kind == "single":
            return
        if not self._searching:
            self._searching = True
            self._threads.begin(self._find, "find-slots")

    def _find(self) -> None:
        """Ask for the map until no node is doubted and no slot is known to have moved."""
        links = Links(self._core.address)
        pause = _SEARCHES_S[0]
        while True:
            with self._lock:
                if self._stop.is_set() or not (self._doubted or self._moved):
                    self._searching = False
                    break
                self._moved = False
            try:
                deadline = time.monotonic() + 4 * _PING_S
                found = links.run(
                    topology.discover(self._core.address, self._core.map, deadline, self._silent)
                )
            except FeatureStoreError as error:
                self._core.counters[f"remap {type(error).__name__}"] += 1
                self._moved = True
            else:
                self.adopt(found)
            self._stop.wait(_SEARCHES_S[0])
            self._wake.wait(pause)
            self._wake.clear()
            pause = min(1.3 * pause, _SEARCHES_S[1])
        links.close()

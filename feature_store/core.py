"""What sync and async stores share: their state, and how scripts reach the nodes of their tags.

In: an address and a namespace. Out: operations (see ops.py) that other rooms build upon. State is
replaced, never changed in place, so threads see the old or the new.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import background, catalog, topology
from .address import Address
from .catalog import View
from .errors import FeatureStoreError, ServerError, UnavailableError
from .health import Health
from .keys import Keys
from .layout import Wanted
from .lua import Script
from .ops import Call, Exchange, Node, Op, Pause, error_of
from .record import SYNDROMES
from .scripts import ALL
from .tally import LATENCY_BUCKETS, LOOKUPS, Tallies
from .topology import Topology
from .tracking import NearCache
from .wire import RepliesReader, Reply, ServerReplyError, command

TIMEOUT_S = 5.0  # for everything but lookups
WARN_S = 10.0  # between two warnings of a kind
JOIN_S = 2.0  # that closing a store waits for its threads
_RETRY_S = 0.02
_log = logging.getLogger("feature_store")
_PASSING = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "READONLY", "MASTERDOWN", "BUSY")


class Closing(Protocol):
    """Something that runs in the background."""

    def close(self) -> None:
        """Tell it to end."""

    def threads(self) -> list[threading.Thread]:
        """Its threads that have not ended."""


@dataclass(slots=True)
class Core:
    """State of one store."""

    address: Address
    keys: Keys
    map: Topology
    view: View = field(default_factory=View)
    tallies: Tallies = field(default_factory=Tallies)
    reading: Topology = field(init=False)  # the map without silent nodes: what lookups use
    health: Health = field(init=False)
    wanted: Wanted = field(default_factory=Wanted)  # layout of versions that this store begins
    fetched_ahead: int = 0  # keys whose memory a single server fetches before it needs it
    near_bytes: int = 0
    near: NearCache | None = field(init=False)
    removal: Closing | None = None  # of retired versions' records
    warned_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reading = self.map
        self.health = Health(self)
        self.near = None
        if self.near_bytes:
            self.near = NearCache(
                *(self.address, self.keys, self.near_bytes),
                nodes=lambda: self.map.nodes,
                served=lambda: self.view.all_served(),
            )

    def forget(self, ids: NDArray[np.int64]) -> None:
        """What this store has just changed it does not go on serving from its near cache."""
        if self.near is not None:
            self.near.forget(ids)

    def close(self) -> None:
        """Tell what runs in the background to end."""
        for each in self._parts():
            each.close()

    def join(self) -> None:
        """Wait until it has ended, `JOIN_S` at most: a server that hangs may hold it."""
        background.join(self.threads(), JOIN_S)

    def threads(self) -> list[threading.Thread]:
        """Those that have not ended."""
        return [thread for each in self._parts() for thread in each.threads()]

    def _parts(self) -> list[Closing]:
        return [each for each in (self.health, self.near, self.removal) if each is not None]

    @property
    def counters(self) -> Counter[str]:
        """This thread's events, to be counted on; `tallies` has the sums."""
        return self.tallies.mine().events

    def count_lookup(self, n: int, seconds: float) -> None:
        """Count a lookup of n ids; latency by powers of two of a microsecond."""
        microseconds = int(seconds * 1e6)
        tally = self.tallies.mine()
        events = tally.events
        for event, count in zip(LOOKUPS, (1, n, microseconds), strict=True):
            events[event] += count
        tally.latency_us[min(microseconds.bit_length(), LATENCY_BUCKETS - 1)] += 1

    def report_corrupt(self, count: int) -> None:
        """Count rows whose bytes are not what this store wrote, and say so now and then."""
        self.counters["corrupt"] += count
        self._warn(
            "corrupt",
            f"{count} rows under namespace {self.keys.namespace} are foreign or corrupt; they are "
            "answered as MISS. `python -m feature_store doctor` tells more.",
        )

    def report_failure(self, node: Node, reason: object) -> None:
        """Count a lookup that a node did not answer, have the node watched, and say so."""
        self.counters["unavailable"] += 1
        self.health.doubt(node)
        self._warn("unavailable", f"rows of {node} are UNAVAILABLE: {reason}")

    def _warn(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if now > self.warned_at.get(kind, -WARN_S) + WARN_S:
            self.warned_at[kind] = now
            _log.warning("%s (said once in %d s)", text, WARN_S)

    @property
    def first(self) -> Node:
        """The node of the pointer and the registry."""
        return self.map.node(0)


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a script over the keys of one tag."""

    tag: int
    payload: bytes
    replies: int = 1


def job(script: Script, tag: int, keys: list[bytes], *args: bytes | str | int) -> Job:
    """A job of few keys; bulk writes build theirs with arrays."""
    payload = command("EVALSHA", script.sha, len(keys), *keys, SYNDROMES, *args)
    return Job(tag, payload)


def remap(core: Core, deadline: float) -> Op[None]:
    """Find out anew which node owns what."""
    core.health.adopt((yield from topology.discover(core.address, core.map, deadline)))


def patiently(core: Core, attempt: "Callable[[], Op[object]]", deadline: float) -> Op[object]:
    """Run operations on the pointer's node until the deadline, through failovers."""
    while True:
        try:
            return (yield from attempt())
        except UnavailableError:
            if time.monotonic() + _RETRY_S > deadline:
                raise
        yield Pause(_RETRY_S)
        if core.address.kind != "single":
            try:
                yield from remap(core, deadline)
            except UnavailableError:
                continue


def refresh(core: Core, deadline: float) -> Op[View]:
    """Read the versions anew."""

    def attempt() -> Op[object]:
        core.view = yield from catalog.refresh(core.keys, core.first, deadline)
        return None

    yield from patiently(core, attempt, deadline)
    return core.view


def run_jobs(core: Core, jobs: list[Job], deadline: float) -> Op[list[Reply]]:
    """Run jobs on the owners of their tags; answers in the order of the jobs.

    Every job is repeated until it has answered: scripts are written to be safe to repeat.
    """
    answers: list[Reply] = [None] * len(jobs)
    left = list(range(len(jobs)))
    while left:
        failed: FeatureStoreError | None = None
        again: list[int] = []
        unscripted: set[Node] = set()
        try:
            batches: dict[Node, list[int]] = {}
            for i in left:
                batches.setdefault(core.map.node(jobs[i].tag), []).append(i)
        except UnavailableError as error:
            failed, again, batches = error, left, {}
        readers = [RepliesReader(sum(jobs[i].replies for i in batch)) for batch in batches.values()]
        calls = [
            Call(node, b"".join(jobs[i].payload for i in batch), reader)
            for (node, batch), reader in zip(batches.items(), readers, strict=True)
        ]
        outcomes = (yield Exchange(calls, deadline)) if calls else []
        for (node, batch), reader, outcome in zip(batches.items(), readers, outcomes, strict=True):
            if outcome is not None:
                if not isinstance(outcome, UnavailableError):
                    raise outcome
                failed = outcome
                again += batch
                continue
            replies = iter(reader.replies)
            for i in batch:
                own = [next(replies) for _ in range(jobs[i].replies)]
                reply = next((r for r in own if isinstance(r, ServerReplyError)), None)
                if reply is None:
                    answers[i] = own[0] if len(own) == 1 else own
                elif reply.startswith("NOSCRIPT"):
                    unscripted.add(node)
                    again.append(i)
                elif reply.startswith(_PASSING):
                    failed = error_of(reply, node)
                    again.append(i)
                else:
                    raise error_of(reply, node)
        for node in unscripted:
            yield from load_scripts(node, deadline)
        if failed is not None:
            if time.monotonic() + _RETRY_S > deadline:
                raise failed
            yield Pause(_RETRY_S)
            if core.address.kind != "single":
                try:
                    yield from remap(core, deadline)
                except UnavailableError as error:
                    failed = error
        left = again
    return answers


def load_scripts(node: Node, deadline: float) -> Op[None]:
    """Put all scripts into a node's cache."""
    payload = b"".join(command("SCRIPT", "LOAD", script.text) for script in ALL)
    reader = RepliesReader(len(ALL))
    (outcome,) = yield Exchange([Call(node, payload, reader)], deadline)
    if outcome is not None:
        raise outcome
    for script, reply in zip(ALL, reader.replies, strict=True):
        if isinstance(reply, ServerReplyError):
            raise error_of(reply, node)
        if reply != script.sha:
            raise ServerError(f"{node} names a script {reply!r}; expected {script.sha!r}")

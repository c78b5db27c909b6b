"""Counts what happens in a store, exactly, whichever threads it happens in.

In: events, counted by each thread in numbers of its own: no lock on a lookup's way, and no count
lost between two threads. Out: sums over all threads, those that have ended included.
"""

import threading
from array import array
from collections import Counter

from . import forks

LATENCY_BUCKETS = 24  # powers of two of a microsecond: up to 8 s
LOOKUPS = ("lookups", "ids", "lookup us")


class Tally:
    """One thread's counts."""

    __slots__ = ("events", "latency_us")

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.latency_us = [0] * LATENCY_BUCKETS

    def add(self, other: "Tally") -> None:
        """Add another thread's counts, which may go on meanwhile."""
        self.events.update(dict(other.events))  # dict() copies at one moment
        for i, count in enumerate(list(other.latency_us)):
            self.latency_us[i] += count


class Tallies:
    """All threads' counts of one store. A forked child begins at zero."""

    def __init__(self) -> None:
        # Plain lookups, which the compiled `ask` counts while nothing else runs: int64 as LOOKUPS,
        # then the latencies.
        self.shared = bytearray(8 * (len(LOOKUPS) + LATENCY_BUCKETS))
        self.after_fork()
        forks.tell(self)

    def after_fork(self) -> None:
        """Begin anew: the parent's threads, and perhaps a lock they hold, are not here."""
        self.shared[:] = bytes(len(self.shared))
        self._own = threading.local()
        self._lock = threading.Lock()
        self._past = Tally()
        self._threads: list[tuple[threading.Thread, Tally]] = []

    def mine(self) -> Tally:
        """The counts of the thread that asks."""
        try:
            tally: Tally = self._own.tally
        except AttributeError:
            tally = self._own.tally = self._begin()
        return tally

    def _begin(self) -> Tally:
        tally = Tally()
        with self._lock:
            living = []
            for thread, counts in self._threads:
                if thread.is_alive():
                    living.append((thread, counts))
                else:
                    self._past.add(counts)
            self._threads = [*living, (threading.current_thread(), tally)]
        return tally

    def sum(self) -> Tally:
        """All counts so far."""
        shared = array("q", bytes(self.shared)).tolist()
        total = Tally()
        total.events.update(dict(zip(LOOKUPS, shared, strict=False)))
        total.latency_us = shared[len(LOOKUPS) :]
        with self._lock:
            for counts in (self._past, *(counts for _, counts in self._threads)):
                total.add(counts)
        return total

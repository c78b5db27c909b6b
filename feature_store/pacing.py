"""Spreads a write evenly over time, so that readers of the same server feel little of it.

In: a rate, and how many rows have been written. Out: how many to write at once, and how long to
wait then. A server runs one script at a time: many short ones with gaps between them hold up a
lookup for less than one burst of the same rows.
"""

import time

from .grouping import CHUNK

_SCRIPT_S = 0.0003  # a script's share of the time: it writes what this much of it allows
_FEWEST = 32  # rows in a script: its own cost is that of some ten rows
_TOGETHER = (
    2  # scripts that a server gets at once from who is behind: it reads about so many anyway
)
_CAUGHT_UP_S = 0.005  # of what was missed at most: a stall is not followed by a burst


class Pace:
    """One write's. `rate` rows per second at most, 0 for no bound."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = time.monotonic()  # when the next rows are
        self.rows = CHUNK if not rate else min(max(int(rate * _SCRIPT_S), _FEWEST), CHUNK)

    def scripts(self, nodes: int) -> int:
        """How many scripts of `rows` rows to run now on so many nodes: those due, at least one."""
        behind = max(time.monotonic() - self._due, 0.0)
        return min(max(int(behind * self._rate / self.rows), 1), _TOGETHER * nodes)

    def after(self, rows: int) -> float:
        """Seconds to wait after rows that have just been written."""
        now = time.monotonic()
        self._due = max(self._due + rows / self._rate, now - _CAUGHT_UP_S)
        return max(self._due - now, 0.0)

"""Starts the processes that faults are measured with: watchers, a writer, a flipper.

In: a store's URL. Out: handles that end with their context. What they say on stderr is shown.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..workers import hear, module, say

MOST_LAG_MS = 20.0  # later than that, waits are about the machine's own queue for its cores


@dataclass(frozen=True, slots=True)
class Seen:
    """When each client saw each step: (clients, steps) seconds; the least share of rows that a near
    cache gave; how late clients woke, the latest p99."""

    at_s: NDArray[np.float64]
    near_share: float
    lag_ms: float

    def judged(self, found: dict[str, Any], enough: bool = True) -> dict[str, Any]:
        """A verdict that stands only if the clients themselves were on time, and `enough`."""
        if self.lag_ms > MOST_LAG_MS or not enough:
            found["verdict"] = "inconclusive"
        return found | {"clients_lag_p99_ms": self.lag_ms}


@dataclass(slots=True)
class Watchers:
    """Clients that wait for the same steps."""

    processes: list["subprocess.Popen[str]"]

    @classmethod
    @contextmanager
    def started(
        cls, url: str, near_bytes: Sequence[int], asked: dict[str, Any]
    ) -> Iterator["Watchers"]:
        """One client per entry of `near_bytes`, all warm and waiting."""
        with ExitStack() as stack:
            processes = [stack.enter_context(module("faults.watcher", url, n)) for n in near_bytes]
            for process in processes:
                say(process, json.dumps(asked))
            for process in processes:
                hear(process)
            yield cls(processes)

    def step(self) -> None:
        """Waits until every client has seen a version."""
        for process in self.processes:
            hear(process)

    def seen(self) -> Seen:
        """Waits for the last step of every client."""
        found = [json.loads(hear(process)) for process in self.processes]
        return Seen(
            np.array([one["seen"] for one in found]),
            min(one["near_share"] for one in found),
            max(one["lag_s"] for one in found) * 1000,
        )

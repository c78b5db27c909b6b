"""Starts the processes that faults are measured with: watchers, a writer, a flipper.

In: a store's URL. Out: handles that end with their context. What they say on stderr is shown.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRunError

MOST_LAG_MS = 20.0  # later than that, waits are about the machine's own queue for its cores


@contextmanager
def module(name: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A module of this package in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.faults.{name}", *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: "subprocess.Popen[str]", line: str) -> None:
    """A line to its stdin."""
    if process.stdin is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()


def hear(process: "subprocess.Popen[str]") -> str:
    """The next line of its stdout. Raises InvalidRunError when it has ended."""
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise InvalidRunError("a client process ended before its time; what it said is above")
    return line.strip()


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
            processes = [stack.enter_context(module("watcher", url, n)) for n in near_bytes]
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

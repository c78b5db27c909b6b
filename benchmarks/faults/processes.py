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

Process = "subprocess.Popen[str]"


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

    def seen(self) -> tuple[NDArray[np.float64], list[float]]:
        """When each client saw each step: (clients, steps) seconds; shares of near cache rows."""
        found = [json.loads(hear(process)) for process in self.processes]
        return np.array([one["seen"] for one in found]), [one["near_share"] for one in found]

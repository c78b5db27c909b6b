"""Processes that a benchmark starts and speaks with in lines.

In: a module of this package and its arguments. Out: a handle that ends with its context. What it
says on stderr is shown.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import InvalidRunError


@contextmanager
def module(name: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A module of this package (`faults.watcher`) in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
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

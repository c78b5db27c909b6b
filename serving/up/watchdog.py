"""Ends what `up` has started when `up` itself was killed and could not.

In: lines on stdin, `pid N` and `folder PATH`, then `done` or nothing. Out: if its stdin ends
without `done`, the named processes are gone, and all whose arguments or variables name the folder.
A process of its own that imports nothing of the package: it costs a few megabytes.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
END_S = 30.0
POLL_S = 0.05


def named(pids: set[int], folders: set[bytes]) -> Iterator[int]:
    """Live processes that are to end."""
    for process in PROC.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        said = _said(process)
        if said and (int(process.name) in pids or any(folder in said for folder in folders)):
            yield int(process.name)


def _said(process: Path) -> bytes:
    """What a process was started with; nothing once it has ended, or is somebody else's."""
    said = b""
    for name in ("cmdline", "environ"):
        with suppress(OSError):
            said += (process / name).read_bytes()
    return said


def end(pids: set[int], folders: set[bytes]) -> None:
    """Kill until nobody is left: what one process starts last is found in the next round."""
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        found = list(named(pids, folders))
        if not found:
            return
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def main() -> None:
    """Listen until the other end is closed."""
    pids: set[int] = set()
    folders: set[bytes] = set()
    for line in sys.stdin.buffer:
        kind, _, value = line.strip().partition(b" ")
        if kind == b"done":
            return
        if kind == b"pid":
            pids.add(int(value))
        elif kind == b"folder":
            folders.add(value)
    end(pids, folders)


if __name__ == "__main__":
    main()

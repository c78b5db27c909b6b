"""Ends what a process has started when that process was killed and could not.

In: lines on stdin, `pid N` and `folder PATH`, then `done` or nothing. Out: if its stdin ends
without `done`, the named processes are gone, and all whose arguments or variables name the folder.
A number that has become somebody else's is left alone, and so is who merely stands in the folder.
A process of its own that imports nothing of the package: it costs a few megabytes. `watching.py`
starts it.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
END_S = 30.0
POLL_S = 0.05
# Variables of a shell that say where somebody is, not what was started there.
PLACES = (b"PWD=", b"OLDPWD=")
STARTED = 19  # of the fields behind the command's name: field 22 of proc(5), in clock ticks


def started(pid: int) -> int | None:
    """When a process began, which tells it from a later one of its number; None: it has ended."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[STARTED])


def named(pids: Mapping[int, int | None], folders: set[bytes]) -> Iterator[int]:
    """Live processes that are to end. pids: with when each began."""
    for process in PROC.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        pid, said = int(process.name), _said(process)
        if said and (_is(pid, pids) or any(folder in said for folder in folders)):
            yield pid


def _is(pid: int, pids: Mapping[int, int | None]) -> bool:
    return pids.get(pid) is not None and pids[pid] == started(pid)


def _said(process: Path) -> bytes:
    """What a process was started with; nothing once it has ended, or is somebody else's."""
    parts: list[bytes] = []
    for name in ("cmdline", "environ"):
        with suppress(OSError):
            parts += (process / name).read_bytes().split(b"\0")
    return b"\0".join(part for part in parts if not part.startswith(PLACES))


def end(pids: Mapping[int, int | None], folders: set[bytes]) -> None:
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
    pids: dict[int, int | None] = {}
    folders: set[bytes] = set()
    for line in sys.stdin.buffer:
        kind, _, value = line.strip().partition(b" ")
        if kind == b"done":
            return
        if kind == b"pid":
            pids[int(value)] = started(int(value))
        elif kind == b"folder":
            folders.add(value)
    end(pids, folders)


if __name__ == "__main__":
    main()

"""A watchdog as its owner holds it: what was started does not outlive the one who started it.

In: process ids and folders. Out: if this process is killed, they end too (Linux; elsewhere nothing
happens). See `watchdog.py`.
"""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from . import watchdog


class Watch:
    """A running watchdog. keep: open files that it holds too, until all that it ends has ended."""

    def __init__(self, keep: Sequence[int] = ()) -> None:
        # A session of its own: Ctrl-C and a kill of the whole group are not for it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=tuple(keep),
            start_new_session=True,
        )

    def pid(self, pid: int) -> None:
        """End this process with its owner."""
        self._say(f"pid {pid}")

    def folder(self, folder: Path) -> None:
        """End all processes that were started with this folder in their arguments or variables."""
        self._say(f"folder {folder}")

    def close(self) -> None:
        """Everything has ended already: nothing is left to watch."""
        self._say("done")
        self._process.communicate()

    def _say(self, line: str) -> None:
        pipe = self._process.stdin
        if pipe is not None:
            with suppress(BrokenPipeError):  # somebody has killed the watchdog
                pipe.write(line.encode() + b"\n")
                pipe.flush()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

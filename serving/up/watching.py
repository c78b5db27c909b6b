"""The watchdog and the store's lock, as `up` holds them.

In: what was started. Out: nothing of it outlives `up`, even if it is killed; and no second `up`
keeps its data in the same folder. The watchdog holds the lock too, so that it is free only when
everything has ended.
"""

import fcntl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from serving.errors import ConfigurationError
from serving.up import watchdog

LOCK = "lock"


class Watch:
    """A running watchdog."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def pid(self, pid: int) -> None:
        """End this process with `up`."""
        self._say(f"pid {pid}")

    def folder(self, folder: Path) -> None:
        """End all processes that were started with this folder in their arguments or variables."""
        self._say(f"folder {folder}")

    def done(self) -> None:
        """Everything has ended already."""
        self._say("done")

    def _say(self, line: str) -> None:
        pipe = self._process.stdin
        if pipe is not None:
            with suppress(BrokenPipeError):  # somebody has killed the watchdog
                pipe.write(line.encode() + b"\n")
                pipe.flush()


@contextmanager
def watching(keep: Sequence[int] = ()) -> Iterator[Watch]:
    """Start a watchdog. keep: open files that it holds too."""
    # A session of its own: Ctrl-C and a kill of the whole group are not for it.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", watchdog.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=tuple(keep),
        start_new_session=True,
    )
    watch = Watch(process)
    try:
        yield watch
    finally:
        watch.done()
        process.communicate()


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder for this process; the lock's file descriptor.

    Raises ConfigurationError when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"--persist: another `up` keeps its store in {folder.absolute()}; end that one, or "
                "leave --persist out"
            ) from error
        yield file.fileno()

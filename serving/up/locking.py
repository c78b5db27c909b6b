"""The lock of the folder in which `up --persist` keeps its store.

In: the folder. Out: an open file that holds it; whoever inherits that holds the folder too.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.errors import ConfigurationError

LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder for this process; the lock's file descriptor.

    Raises ConfigurationError when another process holds it, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / LOCK).open("w")
    except OSError as error:
        raise ConfigurationError(
            f"--persist: {folder.absolute()} cannot be written to ({error.strerror}); make room "
            "or leave --persist out"
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"--persist: another `up` keeps its store in {folder.absolute()}; end that one, or "
                "leave --persist out"
            ) from error
        yield file.fileno()

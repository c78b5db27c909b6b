"""Locks and half-written folders: what makes publishing atomic on a local file system.

A staging folder is locked (flock) for as long as its writer lives; one that nobody holds was
left by a writer that died, and the next writer removes it.
"""

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PREFIX = ".staging-"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's writers' lock; the system lets go of it when the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A new folder inside `folder`, removed at the end unless it was renamed."""
    # Under the lock, so that no sweep sees a folder that is made and not held yet.
    with locked(folder):
        _sweep(folder)
        path = folder / f"{PREFIX}{uuid4().hex}"
        path.mkdir()
        descriptor = _hold(path, wait=True)
    try:
        yield path
    finally:
        if path.exists():
            shutil.rmtree(path)
        os.close(descriptor)


def abandoned(folder: Path, older_than_s: float) -> Iterator[tuple[Path, int, float]]:
    """Staging folders that nobody holds: path, bytes, and seconds since they last changed.

    Each is held while it is looked at, so that the caller may remove it before asking for the next.
    """
    for path in sorted(folder.glob(f"{PREFIX}*")):
        try:
            descriptor = _hold(path, wait=False)
        except (BlockingIOError, FileNotFoundError):
            continue
        try:
            status = [found.lstat() for found in (path, *path.rglob("*"))]
            age_s = time.time() - max(found.st_mtime for found in status)
            if age_s >= older_than_s:
                yield path, sum(s.st_size for s in status if stat.S_ISREG(s.st_mode)), age_s
        finally:
            os.close(descriptor)


def sync(path: Path) -> None:
    """Have a file's or a folder's content reach the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file, under the folder's lock: readers see the old bytes or the new ones."""
    # One name for all writers: what a dead one left is overwritten by the next.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def _hold(path: Path, *, wait: bool) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"{PREFIX}*"):
        try:
            descriptor = _hold(path, wait=False)
        except (BlockingIOError, FileNotFoundError):
            continue  # its writer lives, or is just done with it
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)

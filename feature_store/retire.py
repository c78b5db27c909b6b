"""Retires versions: nobody reads or writes them any more, and their records go bit by bit.

In: a version's name. Out: operations, and `Removal`, which goes on in the background. What is left
when a process ends stays "retiring" in the registry: whoever retires a version next goes on.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from . import catalog, forks
from .background import Background
from .catalog import RETIRING, View
from .core import TIMEOUT_S, Core, Job, run_jobs
from .errors import FeatureStoreError, VersionInUseError
from .keys import TAGS
from .links import Links
from .lookup import unknown
from .ops import Op, Pause
from .scan import RecordBatches
from .versions import Version, change, find
from .wire import command

Progress = Callable[[int, int], None]  # records removed, records in all

BUDGET_S = 0.2  # what a caller waits for; what is left goes on in the background
_REMOVE = 512  # keys that a server looks at, and at most removes, at a time
_SHARE = 0.2  # of a server's time, at most
_LEAST_PAUSE_S = 0.002
_RETRY_S = 1.0
_log = logging.getLogger("feature_store")


def retire(core: Core, name: str) -> Op[Version]:
    """Mark a version as retiring: from now on nobody reads it."""

    def decide(view: View) -> tuple[View, dict[str, str]] | None:
        if name not in view.numbers:
            raise unknown(core, name)
        number = view.numbers[name]
        if number == view.active:
            raise VersionInUseError(
                f"version {name!r} is being served; activate another one before retiring it"
            )
        if name in view.retiring:
            return None
        previous = 0 if view.previous == number else view.previous
        entry = catalog.entry(number, RETIRING, view.bits.get(number))
        return replace(view, previous=previous), {name: entry}

    yield from change(core, decide)
    return (yield from find(core, name))


def remove(
    core: Core, version: Version, stop: Callable[[], bool], progress: Progress | None = None
) -> Op[bool]:
    """Remove a retiring version's records, then its name; False if it was stopped before."""
    removed = found = 0
    while True:
        batches = RecordBatches(core, version.number, _REMOVE)
        while (batch := (yield from batches.next())) is not None:
            if stop():
                return False
            node, keys = batch
            began = time.monotonic()
            if keys:
                found += yield from batches.unlink(node, keys)
                if progress is not None:
                    progress(found, max(version.records, found))
            # Servers answer nobody else meanwhile: leave them most of their time.
            took = time.monotonic() - began
            yield Pause(max(took * (1 - _SHARE) / _SHARE, _LEAST_PAUSE_S))
        if found == removed:
            break
        removed = found  # a writer that had begun before may have left more
    yield from run_jobs(
        core,
        [Job(tag, command("HDEL", core.keys.counts(tag), version.number)) for tag in range(TAGS)],
        time.monotonic() + TIMEOUT_S,
    )
    yield from _forget_loads(core, version.name)

    def drop(view: View) -> tuple[View, dict[str, str]] | None:
        # Others may have been faster, and the name may have begun anew.
        same = view.numbers.get(version.name) == version.number and version.name in view.retiring
        return (view, {version.name: ""}) if same else None

    yield from change(core, drop)
    return True


def _forget_loads(core: Core, name: str) -> Op[None]:
    """A load into a version of that name begins anew: what it had written is gone."""
    deadline = time.monotonic() + TIMEOUT_S
    (found,) = yield from run_jobs(core, [Job(0, command("HKEYS", core.keys.loads))], deadline)
    fields = (
        [field for field in found if isinstance(field, bytes)] if isinstance(found, list) else []
    )
    stale = [field for field in fields if field.split(b" ")[1:2] == [name.encode()]]
    if stale:
        yield from run_jobs(core, [Job(0, command("HDEL", core.keys.loads, *stale))], deadline)


class Removal:
    """Removes retiring versions in a thread of its own, until none is left."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.after_fork()
        forks.tell(self)

    def after_fork(self) -> None:
        """The parent goes on with it."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = Background()
        self._wanted: list[Version] = []
        self._running = False

    def close(self) -> None:
        """Tell it to end; what is left stays retiring."""
        with self._lock:
            self._stop.set()

    def threads(self) -> list[threading.Thread]:
        """Those that have not ended."""
        return self._threads.living()

    def begin(self, version: Version) -> None:
        """Remove a version in the background."""
        with self._lock:
            if all(version.number != wanted.number for wanted in self._wanted):
                self._wanted.append(version)
            if not self._running and not self._stop.is_set():
                self._running = True
                self._threads.begin(self._run, "retire")

    def _run(self) -> None:
        links = Links(self._core.address)
        while True:
            with self._lock:
                if not self._wanted or self._stop.is_set():
                    self._running = False
                    break
                version = self._wanted[0]
            try:
                if links.run(remove(self._core, version, self._stop.is_set)):
                    self._wanted.remove(version)
            except FeatureStoreError as error:
                _log.warning("version %r is not removed yet, trying again: %s", version.name, error)
                self._stop.wait(_RETRY_S)
        links.close()


def go_on(core: Core, version: Version) -> None:
    """Remove a retiring version in the background of this process."""
    if not isinstance(core.removal, Removal):
        core.removal = Removal(core)
    core.removal.begin(version)

"""The lookup: ids in, codes, status and flags out, in one round trip.

In: ids (n,) int64, a version or None, a deadline. Out: `Found`. One MGET reads the records and
the version pointer at one moment; in a cluster one MGET per hash tag, side by side. Whatever
cannot be read in time is UNAVAILABLE, row by row; nothing but wrong arguments raises.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import catalog
from .catalog import FIRST
from .core import Core, refresh
from .errors import FeatureStoreError, UnknownVersionError
from .fetch import fetch
from .ops import Op
from .reading import Asked, blank, lose

DEADLINE_S, DEADLINE_ROW_S = 0.05, 2e-6  # of a lookup, where the caller names none: at least, a row
LONGEST_S = 3600.0  # what a socket can be told to wait
_TRIES = 4  # answers that a flip of versions may overtake before one is taken as it is


@dataclass(frozen=True, slots=True)
class Found:
    """An answer; row i is about the i-th id. All rows are of `version`."""

    codes: NDArray[np.uint16]  # (n, 6), 65535 where status is neither HIT nor STALE
    status: NDArray[np.uint8]  # (n,) record.Status
    flags: NDArray[np.uint16]  # (n,) record.Flag bits
    version: str


def default_deadline(n: int) -> float:
    """Seconds that a lookup of n ids may take when the caller names no deadline."""
    return max(DEADLINE_S, n * DEADLINE_ROW_S)


def lookup(core: Core, ids: NDArray[np.int64], version: str | None, deadline: float) -> Op[Found]:
    """Read the rows of ids (n,). `deadline` is in time.monotonic seconds."""
    if version is not None and not (yield from _known(core, version, deadline)):
        asked = Asked(ids, 0, None, blank(len(ids)))
        lose(asked, None)
        return _found(asked, version)
    for attempt in range(_TRIES):
        view = core.view
        number = view.active if version is None else view.served(version)
        read = yield from fetch(core, ids, number, deadline)
        if read.pointer is not None and read.pointer != view.raw:
            known = yield from _follow(core, deadline)
            now = core.view.active if version is None else core.view.served(version)
            if known and version is not None and not now:
                raise unknown(core, version)
            if now != number and attempt < _TRIES - 1:
                continue
        break
    return _found(read, view.name(number) if version is None else version)


def _found(asked: Asked, version: str) -> Found:
    answer = asked.answer
    return Found(answer.codes, answer.status, answer.flags, version)


def unknown(core: Core, version: str) -> UnknownVersionError:
    """The error for a version that is not kept."""
    kept = ", ".join(name for name in sorted(core.view.numbers) if core.view.served(name))
    return UnknownVersionError(
        f"no version {version!r} is kept in the store; kept: {kept or 'none'}. Name one that is; a "
        "write to a new name begins a version."
    )


def _known(core: Core, version: str, deadline: float) -> Op[bool]:
    """Whether a version can be read: one that is new here is asked for once. False: nobody told."""
    if core.view.served(version):
        return True
    try:
        yield from refresh(core, deadline)
    except FeatureStoreError as error:
        core.counters[f"refresh {type(error).__name__}"] += 1
        core.counters["unavailable"] += 1
        return False
    # In an empty store everything is MISS.
    if not core.view.served(version) and (version != FIRST or core.view.numbers):
        raise unknown(core, version)
    return True


def _follow(core: Core, deadline: float) -> Op[bool]:
    """Read the versions anew, in one try: a lookup does not wait; whether somebody answered."""
    known = False
    try:
        core.view = yield from catalog.refresh(core.keys, core.first, deadline)
        known = True
    except FeatureStoreError as error:
        core.counters[f"refresh {type(error).__name__}"] += 1
    finally:  # of a cancelled lookup too
        if core.near is not None and not known:
            core.near.pointer_changed = True
    return known

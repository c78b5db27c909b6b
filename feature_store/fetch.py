"""Rows of one version, from the near cache where it is true, else from the store.

In: ids (n,), a version number. Out: `Fetched`: decoded rows with their status, and the pointer as
the store has it now (None when it was not read).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import record, scatter, single
from .core import Core
from .near import Known
from .ops import Op
from .reading import Rows
from .record import NO_CODE, Decoded, Status


@dataclass(slots=True)
class Fetched:
    """Rows (n,) whose status may be UNAVAILABLE or STALE, and the version pointer."""

    rows: Decoded
    pointer: bytes | None


def fetch(core: Core, ids: NDArray[np.int64], number: int, deadline: float) -> Op[Fetched]:
    """Read rows of ids (n,)."""
    near = core.near_cache()
    if near is None:
        return (yield from _from_store(core, ids, number, deadline))
    moment = near.table.moment()
    watched = near.fresh(number)
    known = near.table.get(ids, number) if watched else None
    asked, left = ids, None
    if known is not None:
        core.counters["near hits"] += known.hits
        core.counters["near misses"] += len(ids) - known.hits
        if known.hits == len(ids) and not near.pointer_changed:
            return Fetched(Decoded(known.codes, known.flags, known.status, known.hit), None)
        left = np.flatnonzero(~known.hit)
        asked = ids[left]
    near.pointer_changed = False
    fetched = yield from _from_store(core, asked, number, deadline)
    if fetched.pointer is None:
        near.pointer_changed = True  # it may have; whoever reads it next will know
    lost = bool((fetched.rows.status == Status.UNAVAILABLE).any())
    if watched and not lost:
        near.table.put(asked, number, fetched.rows, moment)
    if known is not None and left is not None:
        fetched = Fetched(_merged(known, left, fetched.rows), fetched.pointer)
    if lost and near.stale():
        unavailable = fetched.rows.status == Status.UNAVAILABLE
        _fall_back(near.table.get(ids, number), fetched.rows, unavailable)
    return fetched


def _merged(known: Known, left: NDArray[np.intp], rows: Decoded) -> Decoded:
    known.codes[left] = rows.codes
    known.flags[left] = rows.flags
    known.status[left] = rows.status
    return Decoded(known.codes, known.flags, known.status, known.hit)


def _fall_back(known: Known, rows: Decoded, unavailable: NDArray[np.bool_]) -> None:
    """Serve what the cache has where the store is silent: HITs as STALE, takedowns as they are."""
    hits = unavailable & known.hit
    stale = hits & (known.status == Status.HIT)
    rows.codes[stale] = known.codes[stale]
    rows.flags[stale] = known.flags[stale]
    rows.status[stale] = Status.STALE
    rows.status[hits & (known.status == Status.BLOCKED)] = Status.BLOCKED


def _from_store(core: Core, ids: NDArray[np.int64], number: int, deadline: float) -> Op[Fetched]:
    read_rows = scatter.read if core.map.clustered else single.read
    read: Rows = yield from read_rows(core, ids, number, core.view.bits.get(number), deadline)
    rows = read.decoded or record.decode(record.hash_ids(ids), read.rows, read.present, number)
    if read.unavailable is None:
        corrupt = len(ids) - int(np.count_nonzero(rows.valid))
    else:
        corrupt = int(np.count_nonzero(~rows.valid & ~read.unavailable))
    if read.unavailable is not None and read.unavailable.any():
        rows.status[read.unavailable] = Status.UNAVAILABLE
        rows.codes[read.unavailable] = NO_CODE
        rows.flags[read.unavailable] = 0
    if corrupt:
        core.report_corrupt(corrupt)
    return Fetched(rows, read.pointer)

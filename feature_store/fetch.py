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
    if known is None:
        fetched = yield from _from_store(core, ids, number, deadline)
    else:
        hits = known.hits
        core.counters["near hits"] += hits
        core.counters["near misses"] += len(ids) - hits
        if hits == len(ids):
            return Fetched(Decoded(known.codes, known.flags, known.status, known.hit), None)
        left = np.flatnonzero(~known.hit)
        fetched = yield from _from_store(core, ids[left], number, deadline)
        fetched = Fetched(_merged(known, left, fetched.rows), fetched.pointer)
    unavailable = fetched.rows.status == Status.UNAVAILABLE
    if unavailable.any():
        if near.stale():
            _fall_back(near.table.get(ids, number), fetched.rows, unavailable)
    elif watched:
        keep = slice(None) if known is None else np.flatnonzero(~known.hit)
        near.table.put(ids[keep], number, _part(fetched.rows, keep), moment)
    return fetched


def _part(rows: Decoded, chosen: "slice | NDArray[np.intp]") -> Decoded:
    return Decoded(rows.codes[chosen], rows.flags[chosen], rows.status[chosen], rows.valid[chosen])


def _merged(known: Known, left: NDArray[np.intp], rows: Decoded) -> Decoded:
    known.codes[left] = rows.codes
    known.flags[left] = rows.flags
    known.status[left] = rows.status
    return Decoded(known.codes, known.flags, known.status, np.ones(len(known.hit), np.bool_))


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
    read: Rows = yield from read_rows(core, ids, number, deadline)
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

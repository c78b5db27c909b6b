"""Rows of one version, from the near cache where it is true, else from the store.

In: ids (n,), a version number. Out: what was asked, answered: rows with their status, and the
pointer as the store has it now (None when it was not read).
"""

import numpy as np
from numpy.typing import NDArray

from . import scatter, single
from .core import Core
from .near import Known
from .ops import Op
from .reading import Answer, Asked, blank
from .record import Status


def fetch(core: Core, ids: NDArray[np.int64], number: int, deadline: float) -> Op[Asked]:
    """Read rows of ids (n,)."""
    bits = core.view.bits.get(number)
    near = core.near
    if near is None:
        asked = Asked(ids, number, bits, blank(len(ids)))
        yield from _from_store(core, asked, deadline)
        return asked
    moment = near.table.moment()
    watched = near.fresh(number)
    if watched:
        known = near.table.get(ids, number)
        counters = core.counters
        counters["near hits"] += known.hits
        counters["near misses"] += len(known.left)
        asked = Asked(ids[known.left], number, bits, known.answer, known.left)
        if not len(known.left) and not near.pointer_changed:
            return asked
    else:
        asked = Asked(ids, number, bits, blank(len(ids)))
    near.pointer_changed = False
    try:
        yield from _from_store(core, asked, deadline)
    finally:  # of a cancelled lookup too
        if asked.pointer is None:
            near.pointer_changed = True  # it may have; whoever reads it next will know
    # What was lost at first may have been found elsewhere since.
    if not (asked.lost and (asked.answer.status == Status.UNAVAILABLE).any()):
        if watched:
            near.table.put(asked.ids, number, asked.answer, moment, asked.index)
    elif near.stale():
        _fall_back(near.table.get(ids, number), asked.answer)
    return asked


def _fall_back(known: Known, answer: Answer) -> None:
    """Serve what the cache has where the store is silent: HITs as STALE, takedowns as they are."""
    hits = known.hit & (answer.status == Status.UNAVAILABLE)
    stale = hits & (known.answer.status == Status.HIT)
    answer.codes[stale] = known.answer.codes[stale]
    answer.flags[stale] = known.answer.flags[stale]
    answer.status[stale] = Status.STALE
    answer.status[hits & (known.answer.status == Status.BLOCKED)] = Status.BLOCKED


def _from_store(core: Core, asked: Asked, deadline: float) -> Op[None]:
    read = scatter.read if core.map.clustered else single.read
    yield from read(core, asked, deadline)
    if asked.corrupt:
        core.report_corrupt(asked.corrupt)

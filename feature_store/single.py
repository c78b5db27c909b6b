"""Reads records from one server: one MGET for all ids and the version pointer.

In: ids (n,). Out: rows in their order. A single server executes it at one moment, so pointer and
records belong together.
"""

import time

import numpy as np
from numpy.typing import NDArray

from .core import Core, remap
from .errors import FeatureStoreError
from .keys import tag_of
from .ops import Call, Exchange, Op
from .reading import Rows
from .record import RECORD, U64
from .rows import RowsReader

REMAP_S = 0.1  # between two searches for a node's successor


def read(core: Core, ids: NDArray[np.int64], hashed: U64, number: int, deadline: float) -> Op[Rows]:
    """Read records (n,) and the pointer."""
    n = len(ids)
    elements = core.keys.elements(ids, tag_of(hashed), number)
    payload = b"*%d\r\n$4\r\nMGET\r\n%b%b" % (
        n + 2,
        elements.tobytes(),
        core.keys.pointer_element,
    )
    reader = RowsReader([n + 1])
    (outcome,) = yield Exchange([Call(core.map.nodes[0], payload, reader)], deadline)
    if outcome is not None or reader.errors:
        core.counters["unavailable"] += 1
        yield from _succeed(core, deadline)
        return Rows(np.zeros(n, RECORD), None, np.ones(n, np.bool_), None)
    present = reader.present
    pointer = b"" if present is not None and not present[-1] else reader.rows[-1].tobytes()
    return Rows(reader.rows[:-1], None if present is None else present[:-1], None, pointer)


def _succeed(core: Core, deadline: float) -> Op[None]:
    """Ask sentinels for a new master, now and then."""
    if core.address.kind == "single" or time.monotonic() < core.mapped_at + REMAP_S:
        return
    core.mapped_at = time.monotonic()
    try:
        yield from remap(core, max(deadline, time.monotonic() + 0.005))
    except FeatureStoreError as error:
        core.counters[f"remap {type(error).__name__}"] += 1

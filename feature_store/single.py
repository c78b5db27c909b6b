"""Reads records from one server: one MGET for all ids and the version pointer.

In: ids (n,). Out: rows in their order. A single server executes it at one moment, so pointer and
records belong together.
"""

import time

import numpy as np
from numpy.typing import NDArray

from . import compiled
from .compiled import INCOMPLETE, Fast
from .core import Core, remap
from .errors import FeatureStoreError
from .keys import Keys, tag_of
from .ops import Call, Exchange, Op
from .reading import Rows
from .record import CODES, RECORD, SIZE, Decoded, hash_ids
from .rows import RowsReader

REMAP_S = 0.1  # between two searches for a node's successor


class CompiledReader:
    """Decodes rows as they arrive; what is unusual goes to the numpy reader, which knows all."""

    def __init__(self, fast: Fast, ids: NDArray[np.int64], number: int) -> None:
        n = len(ids)
        self.decoded = Decoded(
            np.empty((n, CODES), np.uint16),
            np.empty(n, np.uint16),
            np.empty(n, np.uint8),
            np.empty(n, np.bool_),
        )
        self.pointer = b""
        self.careful: RowsReader | None = None
        self._rows = fast.rows
        self._ids = ids
        self._number = number

    def scan(self, buffer: bytearray, end: int) -> bool:
        if self.careful is None:
            rows = self.decoded
            at = self._rows(
                self._ids,
                buffer,
                rows.codes,
                rows.flags,
                rows.status,
                rows.valid,
                end,
                self._number,
            )
            if at >= 0:
                self.pointer = bytes(buffer[at : at + SIZE]) if at else b""
                return True
            if at == INCOMPLETE:
                return False
            self.careful = RowsReader([len(self._ids) + 1])
        return self.careful.scan(buffer, end)


def read(core: Core, ids: NDArray[np.int64], number: int, deadline: float) -> Op[Rows]:
    """Read records (n,) and the pointer."""
    fast = compiled.fast
    payload = request(core.keys, ids, number, fast)
    reader = RowsReader([len(ids) + 1]) if fast is None else CompiledReader(fast, ids, number)
    (outcome,) = yield Exchange([Call(core.map.nodes[0], payload, reader)], deadline)
    if isinstance(reader, CompiledReader):
        if outcome is None and reader.careful is None:
            return Rows(_NONE, None, None, reader.pointer, reader.decoded)
        reader = reader.careful or RowsReader([len(ids) + 1])
    if outcome is not None or reader.errors:
        core.counters["unavailable"] += 1
        yield from _succeed(core, deadline)
        return Rows(np.zeros(len(ids), RECORD), None, np.ones(len(ids), np.bool_), None)
    present = reader.present
    pointer = b"" if present is not None and not present[-1] else reader.rows[-1].tobytes()
    return Rows(reader.rows[:-1], None if present is None else present[:-1], None, pointer)


_NONE = np.empty(0, RECORD)


def request(keys: Keys, ids: NDArray[np.int64], number: int, fast: Fast | None) -> bytes:
    """The command that reads records (n,) and the pointer."""
    if fast is not None:
        return fast.mget(ids, keys.element_prefix(number), keys.tag_bytes, keys.pointer_element)
    elements = keys.elements(ids, tag_of(hash_ids(ids)), number)
    return b"*%d\r\n$4\r\nMGET\r\n%b%b" % (len(ids) + 2, elements.tobytes(), keys.pointer_element)


def _succeed(core: Core, deadline: float) -> Op[None]:
    """Ask sentinels for a new master, now and then."""
    if core.address.kind == "single" or time.monotonic() < core.mapped_at + REMAP_S:
        return
    core.mapped_at = time.monotonic()
    try:
        yield from remap(core, max(deadline, time.monotonic() + 0.005))
    except FeatureStoreError as error:
        core.counters[f"remap {type(error).__name__}"] += 1

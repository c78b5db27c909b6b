"""Reads records from one server: one MGET for all ids and the version pointer.

In: ids (n,). Out: rows in their order. A single server executes it at one moment, so pointer and
records belong together.
"""

import numpy as np
from numpy.typing import NDArray

from . import compiled
from .bucket_reading import Hgets
from .compiled import INCOMPLETE, Fast
from .core import Core
from .keys import Keys, tag_of
from .layout import Bits
from .ops import Call, Exchange, Op
from .reading import Rows
from .record import CODES, RECORD, SIZE, Decoded, hash_ids
from .rows import RowsReader


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


def read(core: Core, ids: NDArray[np.int64], number: int, bits: Bits, deadline: float) -> Op[Rows]:
    """Read records (n,) of a version and its layout, and the pointer."""
    if core.reading.partial:  # the server is silent just now
        core.counters["unavailable"] += 1
        return _unavailable(len(ids))
    node = core.reading.nodes[0]
    fast = compiled.fast if bits is None else None
    reader = RowsReader([len(ids) + 1]) if fast is None else CompiledReader(fast, ids, number)
    if bits is None:
        payload = request(core.keys, ids, number, fast)
    else:
        hgets = Hgets(core.keys, ids, number, bits)
        payload = hgets.payload([(slice(0, len(ids)), True)])
        reader = hgets.reader([len(ids) + 1])
    (outcome,) = yield Exchange([Call(node, payload, reader)], deadline)
    if isinstance(reader, CompiledReader):
        if outcome is None and reader.careful is None:
            return Rows(_NONE, None, None, reader.pointer, reader.decoded)
        reader = reader.careful or RowsReader([len(ids) + 1])
    if outcome is not None or reader.errors:
        core.report_failure(node, outcome or reader.errors[0])
        return _unavailable(len(ids))
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


def _unavailable(n: int) -> Rows:
    return Rows(np.zeros(n, RECORD), None, np.ones(n, np.bool_), None)

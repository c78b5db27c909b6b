"""Groups ids by hash tag, as scripts need them: one tag and few keys at a time.

In: ids. Out: orders, slices and key names.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from . import record
from .buckets import bucket
from .catalog import View
from .keys import Keys, tag_of

CHUNK = 256  # records per script: the server serves nobody else meanwhile


def by_tag(hashed: record.U64) -> tuple[NDArray[np.intp], NDArray[np.intp], list[slice]]:
    """Order rows by tag: (tags in that order, the order, slices of one tag and <= CHUNK rows)."""
    tag = tag_of(hashed)
    order = np.argsort(tag, kind="stable")
    tag = tag[order]
    edges = np.flatnonzero(np.diff(tag)) + 1
    bounds = [0, *edges.tolist(), len(tag)] if len(tag) else [0]
    pieces = [
        slice(at, min(at + CHUNK, stop))
        for start, stop in pairwise(bounds)
        for at in range(start, stop, CHUNK)
    ]
    return tag, order, pieces


def record_keys(keys: Keys, view: View, ids: NDArray[np.int64], numbers: list[int]) -> list[bytes]:
    """Where every id lies in every version, id by id: its record's key, or its bucket's."""
    layouts = [(number, view.bits.get(number)) for number in numbers]
    return [
        keys.record(ad_id, number) if bits is None else bucket(keys, ad_id, number, bits)
        for ad_id in ids.tolist()
        for number, bits in layouts
    ]

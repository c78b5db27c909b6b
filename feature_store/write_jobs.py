"""Turns rows to write into runs of scripts, built with arrays for thousands of rows at once.

In: sealed records of distinct ids, in the order of their hashes, so that those of a tag and of a
bucket stand together. Out: jobs of one tag and at most so many rows each, each made when its turn
comes: a load that is paced shares its core with readers, who wait for whoever computes at length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from . import buckets, write_scripts
from .core import Job
from .keys import Keys, tag_of
from .layout import Bits
from .record import SYNDROMES, U64
from .wire import command

# Of a slice of rows: how many keys they have, those keys as elements of a command, and what
# further arguments the script takes.
Named = Callable[[slice], tuple[int, bytes, list[bytes]]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to write."""

    ids: NDArray[np.int64]  # (n,)
    hashed: U64  # (n,), ascending
    sealed: np.ndarray  # record.RECORD (n,)
    sequenced: bool
    number: int  # of the version
    bits: Bits


def write_jobs(keys: Keys, batch: Batch, most: int) -> tuple[list[slice], Callable[[slice], Job]]:
    """The runs that write a batch: their rows, in the order of tags, `most` each at most, and what
    makes a job of them."""
    tag = tag_of(batch.hashed)
    bounds = [0, *(np.flatnonzero(np.diff(tag)) + 1).tolist(), len(tag)] if len(tag) else [0]
    pieces = [
        slice(at, min(at + most, stop))
        for start, stop in pairwise(bounds)
        for at in range(start, stop, most)
    ]
    if batch.bits is None:
        script, named = write_scripts.WRITE, _own_keys(keys, batch, tag)
    else:
        script, named = write_scripts.WRITE_BUCKETS, _bucket_keys(keys, batch, batch.bits, pieces)
    constant = _elements(SYNDROMES, batch.number)

    def made(piece: slice) -> Job:
        owner = int(tag[piece.start])
        count, elements, more = named(piece)
        heads = (keys.marks(owner), keys.counts(owner), keys.ended(owner))
        size = 3 + len(heads) + count + 2 + 3 + len(more)
        rows = _elements(
            batch.ids[piece].tobytes(), batch.sealed[piece].tobytes(), int(batch.sequenced), *more
        )
        head = _elements("EVALSHA", script.sha, count + len(heads), *heads)
        return Job(owner, b"".join((b"*%d\r\n" % size, head, elements, constant, rows)))

    return pieces, made


def _elements(*args: bytes | str | int) -> bytes:
    """A command's elements without the line that counts them."""
    return command(*args).split(b"\r\n", 1)[1]


def _own_keys(keys: Keys, batch: Batch, tag: NDArray[np.intp]) -> Named:
    elements = keys.elements(batch.ids, tag, batch.number)
    return lambda piece: (piece.stop - piece.start, elements[piece].tobytes(), [])


def _bucket_keys(keys: Keys, batch: Batch, bits: int, pieces: list[slice]) -> Named:
    bucket = batch.hashed >> np.uint64(58 - bits)
    begins = np.append(True, bucket[1:] != bucket[:-1])
    begins[[piece.start for piece in pieces]] = True
    starts = np.flatnonzero(begins)
    runs = np.diff(np.append(starts, len(bucket))).astype("<u2")
    head = buckets.element(keys, batch.number, bits, b"\0" * buckets.SUFFIX)
    elements = np.empty((len(starts), len(head)), np.uint8)
    elements[:] = np.frombuffer(head, np.uint8)
    buckets.fill_key(elements, len(head), batch.hashed[starts], bits)
    widths = buckets.widths(batch.ids)

    def named(piece: slice) -> tuple[int, bytes, list[bytes]]:
        first, stop = np.searchsorted(starts, (piece.start, piece.stop)).tolist()
        more = [runs[first:stop].tobytes(), widths[piece].tobytes()]
        return stop - first, elements[first:stop].tobytes(), more

    return named

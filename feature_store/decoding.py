"""One node's share of a lookup: its MGETs or HGETs, and the rows out of their replies.

In: what is asked, and which part of it a node owns. Out: a call, and later its rows in their
places. The compiled reader decodes as bytes arrive; what is unusual goes to the numpy reader,
which knows all, and which does it alone where nothing is compiled.
"""

import struct
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from . import compiled
from .bucket_reading import BucketRows
from .buckets import Commands, bucket, command_prefix, field
from .compiled import DONE, GOING, Fast
from .keys import Keys, tag_of
from .layout import Bits
from .ops import Call, Node, Outcome
from .reading import Asked, lose, place
from .record import hash_ids
from .rows import RowsReader
from .wire import SLACK, command

_STATE = struct.Struct("<10q24s")  # struct state in _fast.h
_GOT = struct.Struct("<3q24s")
_GOT_AT = _STATE.size - _GOT.size
_THERE = 1  # `pointed`: the pointer was read and there is one
_ROW = 31
_HEADER = 24


def blank_state() -> bytearray:
    """How far a reply has been decoded: not at all."""
    return bytearray(_STATE.size)


def outcome_of(state: bytearray) -> tuple[int, int, int]:
    """(result, bytes received, errno) after `talk` or `ask`."""
    result, end, *_, error, _, _ = _STATE.unpack(state)
    return result, end, error


def room(rows: int, groups: int) -> int:
    """Bytes that a usual reply has at most, and what readers want behind it."""
    return _ROW * (rows + 1) + _HEADER * groups + SLACK


@dataclass(slots=True)
class Share:
    """Rows that one node is asked for, in groups: one MGET each, or HGETs that go together."""

    node: Node
    order: NDArray[np.intp] | None = None  # (r,) positions in the ids; None: all
    groups: NDArray[np.int64] | None = None  # (g,) 2 x ids + pointer; None: all and the pointer


class CompiledReader:
    """Decodes rows straight into the answer."""

    __slots__ = ("_bits", "_lot", "_rows", "careful", "counts", "room", "state")

    def __init__(self, fast: Fast, asked: Asked, share: Share) -> None:
        answer = asked.answer
        self.state = blank_state()
        self._lot = (
            *(asked.ids, share.order, share.groups, asked.index),
            *(answer.codes, answer.flags, answer.status, self.state, asked.number),
            asked.bits is not None,
        )
        self._bits = asked.bits
        self._rows = fast.rows
        self.careful: RowsReader | None = None
        rows = len(asked.ids if share.order is None else share.order)
        groups = 1 if share.groups is None else len(share.groups)
        self.room = room(rows, groups)
        self.counts = share.groups

    def scan(self, buffer: bytearray, end: int) -> bool:
        if self.careful is None:
            result = self._rows(*self._lot, buffer, end)
            if result in (DONE, GOING):
                return result == DONE
            self.careful = numpy_reader(len(self._lot[0]), self.counts, self._bits)
        return self.careful.scan(buffer, end)

    def job(self, descriptor: int, payload: bytes, buffer: bytearray) -> tuple[object, ...]:
        """What `talk` needs for this reply."""
        return (descriptor, payload, buffer, *self._lot)

    def collect(self, asked: Asked) -> None:
        """Count what was decoded, and keep the pointer."""
        corrupt, _, pointed, pointer = _GOT.unpack_from(self.state, _GOT_AT)
        asked.corrupt += corrupt
        if pointed:
            asked.pointer = pointer if pointed == _THERE else b""


def call_of(keys: Keys, asked: Asked, share: Share) -> Call:
    """What to send to a share's node, and who reads the reply."""
    fast = compiled.fast
    if fast is None:
        reader = numpy_reader(len(asked.ids), share.groups, asked.bits)
        return Call(share.node, commands(keys, asked, share), reader)
    rows = (asked.ids, share.order, share.groups)
    if asked.bits is None:
        prefix = keys.element_prefix(asked.number)
        payload = fast.mget(*rows, prefix, keys.tag_bytes, keys.pointer_element)
    else:
        prefix = command_prefix(keys, asked.number, asked.bits)
        payload = fast.hgets(*rows, prefix, keys.tag_bytes, keys.pointer_command, asked.bits)
    return Call(share.node, payload, CompiledReader(fast, asked, share))


def one(keys: Keys, asked: Asked, ad_id: int) -> bytes:
    """The command for one ad alone."""
    if asked.bits is not None:
        return command("HGET", bucket(keys, ad_id, asked.number, asked.bits), field(ad_id))
    return command("GET", keys.record(ad_id, asked.number))


def _groups(asked: Asked, share: Share) -> NDArray[np.int64]:
    return np.array([2 * len(asked.ids) + 1]) if share.groups is None else share.groups


def commands(keys: Keys, asked: Asked, share: Share) -> bytes:
    """The share's commands, made with numpy."""
    ids = asked.ids if share.order is None else asked.ids[share.order]
    bits = asked.bits
    if bits is None:
        elements = keys.elements(ids, tag_of(hash_ids(ids)), asked.number)
    else:
        hgets = Commands(keys, ids, asked.number, bits)
    parts, at = [], 0
    for group in _groups(asked, share).tolist():
        count, pointed = divmod(group, 2)
        rows = slice(at, at + count)
        if bits is None:
            parts.append(b"*%d\r\n$4\r\nMGET\r\n" % (count + pointed + 1))
        parts.append(elements[rows].tobytes() if bits is None else hgets.payload(rows))
        if pointed:
            parts.append(keys.pointer_element if bits is None else keys.pointer_command)
        at += count
    return b"".join(parts)


def numpy_reader(n: int, groups: NDArray[np.int64] | None, bits: Bits) -> RowsReader:
    """The reader of a share's replies; n ids, if they are one group."""
    kind = RowsReader if bits is None else BucketRows
    if groups is None:
        return kind([n + 1])
    return kind((groups // 2 + groups % 2).tolist())


@dataclass(frozen=True, slots=True)
class Refused:
    """A group that a node did not read, and why."""

    node: Node
    rows: NDArray[np.intp]  # positions in the ids
    pointed: bool  # the pointer was asked for as well
    line: str


def collect(asked: Asked, share: Share, call: Call, outcome: Outcome) -> list[Refused]:
    """Put a share's rows in their places; what it was refused."""
    if outcome is not None:
        lose(asked, share.order)
        return []
    reader = call.reader
    if isinstance(reader, CompiledReader):
        if reader.careful is None:
            reader.collect(asked)
            return []
        reader = reader.careful
    return _settle(asked, share, cast(RowsReader, reader))


def _settle(asked: Asked, share: Share, reader: RowsReader) -> list[Refused]:
    if share.groups is None and not reader.errors:  # one group, and nothing to sort out
        rows, found = reader.rows, reader.present
        place(asked, None, rows[:-1], None if found is None else found[:-1])
        asked.pointer = rows[-1].tobytes() if found is None or found[-1] else b""
        return []
    groups = _groups(asked, share)
    counts, pointed = groups // 2, groups % 2
    order = np.arange(len(asked.ids)) if share.order is None else share.order
    ends = np.cumsum(counts + pointed)
    is_row = np.ones(len(reader.rows), np.bool_)
    is_row[ends[pointed > 0] - 1] = False
    part: NDArray[np.intp] | None = share.order
    if reader.errors:
        read = np.array([group not in reader.errors for group in range(len(groups))])
        part = order[np.repeat(read, counts)]
        is_row &= np.repeat(read, counts + pointed)
    present = reader.present
    place(asked, part, reader.rows[is_row], None if present is None else present[is_row])
    for group in np.flatnonzero(pointed).tolist():
        if group not in reader.errors:
            at = int(ends[group]) - 1
            there = present is None or bool(present[at])
            asked.pointer = reader.rows[at].tobytes() if there else b""
    stops = np.cumsum(counts)
    return [
        Refused(share.node, order[stops[at] - counts[at] : stops[at]], bool(pointed[at]), line)
        for at, line in reader.errors.items()
    ]

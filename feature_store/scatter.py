"""Reads records from a cluster: one MGET per hash tag, all nodes side by side.

In: ids (n,). Out: rows in their order. A node that fails makes its own rows unavailable and no
others; a slot that has moved, or is being moved, is read again from where it is now.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .bucket_reading import Hgets
from .core import Core
from .errors import FeatureStoreError
from .keys import TAGS, Keys, tag_of
from .layout import Bits
from .ops import Call, Exchange, Node, Op
from .reading import Rows
from .record import RECORD, SIZE, hash_ids
from .redirect import each, target
from .rows import RowsReader
from .topology import SLOTS
from .wire import ServerReplyError, command

_MOVING = ("MOVED", "ASK", "TRYAGAIN")


@dataclass(frozen=True, slots=True)
class _Refused:
    """Rows that a node did not read, and why; `first`: the pointer was asked for as well."""

    rows: NDArray[np.intp]
    first: bool
    node: Node
    line: str


class Asking(Protocol):
    """The commands that read records of ids in a version, in its layout."""

    def payload(self, parts: list[tuple[slice, bool]]) -> bytes:
        """Commands for some rows, tag by tag; True: the pointer is read along."""

    def reader(self, counts: list[int]) -> RowsReader:
        """Who reads the replies."""

    def one(self, ad_id: int) -> bytes:
        """The command for one ad alone."""


class Mgets:
    """The default layout: one MGET per tag."""

    def __init__(
        self, keys: Keys, ids: NDArray[np.int64], tag: NDArray[np.intp], number: int
    ) -> None:
        self._keys = keys
        self._number = number
        self._elements = keys.elements(ids, tag, number)

    def payload(self, parts: list[tuple[slice, bool]]) -> bytes:
        return b"".join(
            b"*%d\r\n$4\r\nMGET\r\n%b%b"
            % (
                part.stop - part.start + 1 + first,
                self._elements[part].tobytes(),
                self._keys.pointer_element if first else b"",
            )
            for part, first in parts
        )

    def reader(self, counts: list[int]) -> RowsReader:
        return RowsReader(counts)

    def one(self, ad_id: int) -> bytes:
        return command("GET", self._keys.record(ad_id, self._number))


def read(core: Core, ids: NDArray[np.int64], number: int, bits: Bits, deadline: float) -> Op[Rows]:
    """Read records (n,) of a version and its layout, and the pointer."""
    n = len(ids)
    where = core.reading
    tag = tag_of(hash_ids(ids))
    owner = where.owner[tag]
    order = np.argsort(owner * TAGS + tag, kind="stable")
    out = Rows(np.zeros(n, RECORD), np.zeros(n, np.bool_), owner < 0, None)
    core.counters["unavailable"] += where.partial
    nodes = _groups(where.owner, tag[order], owner[order])
    asking: Asking = (
        Mgets(core.keys, ids[order], tag[order], number)
        if bits is None
        else Hgets(core.keys, ids[order], number, bits)
    )
    readers = [
        asking.reader([part.stop - part.start + first for part, first in parts])
        for parts in nodes.values()
    ]
    calls = [
        Call(where.nodes[index], asking.payload(parts), reader)
        for (index, parts), reader in zip(nodes.items(), readers, strict=True)
    ]
    outcomes = (yield Exchange(calls, deadline)) if calls else []
    refused: list[_Refused] = []
    for (index, parts), reader, outcome in zip(nodes.items(), readers, outcomes, strict=True):
        node = where.nodes[index]
        if outcome is not None:
            core.report_failure(node, outcome)
            reader.errors = dict.fromkeys(range(len(parts)), "")
        refused += _collect(out, order, node, parts, reader)
    for one in refused:
        if out.unavailable is not None:
            out.unavailable[one.rows] = True
        if one.line.startswith("MOVED"):
            core.health.moved()
        elif one.line and not one.line.startswith(_MOVING):
            core.report_failure(one.node, one.line)
    moving = [one for one in refused if one.line.startswith(_MOVING)]
    if moving:
        yield from _follow(core, ids, asking, (moving, out), deadline)
    return out


def _groups(
    owners: SLOTS, tag: NDArray[np.intp], owner: NDArray[np.intp]
) -> dict[int, list[tuple[slice, bool]]]:
    """Node index -> its tags' slices of the sorted rows; True: the pointer is read along."""
    groups: dict[int, list[tuple[slice, bool]]] = {}
    edges = np.flatnonzero(np.diff(tag)) + 1
    bounds = [0, *edges.tolist(), len(tag)]
    with_pointer = False
    for start, stop in pairwise(bounds):
        if start == stop or owner[start] < 0:
            continue
        first = int(tag[start]) == 0
        with_pointer |= first
        groups.setdefault(int(owner[start]), []).append((slice(start, stop), first))
    if not with_pointer and owners[0] >= 0:
        groups.setdefault(int(owners[0]), []).append((slice(0, 0), True))
    return groups


def _collect(
    out: Rows,
    order: NDArray[np.intp],
    node: Node,
    parts: list[tuple[slice, bool]],
    reader: RowsReader,
) -> list[_Refused]:
    """Put a node's rows where they belong; what it refused."""
    refused = []
    at = 0
    for group, (part, first) in enumerate(parts):
        count = part.stop - part.start
        rows = order[part]
        line = reader.errors.get(group)
        if line is not None:
            refused.append(_Refused(rows, first, node, line))
        else:
            read = slice(at, at + count)
            out.rows[rows] = reader.rows[read]
            if out.present is not None:
                out.present[rows] = True if reader.present is None else reader.present[read]
            if first:
                there = reader.present is None or bool(reader.present[at + count])
                out.pointer = reader.rows[at + count].tobytes() if there else b""
        at += count + first
    return refused


def _follow(
    core: Core,
    ids: NDArray[np.int64],
    asking: Asking,
    refused: tuple[list[_Refused], Rows],
    deadline: float,
) -> Op[None]:
    """Read keys of moved or moving slots one by one, all side by side, where they are now."""
    moving, out = refused
    asked: list[tuple[Node, bytes]] = []
    places: list[int] = []  # the row that an answer is for; -1: the pointer
    for part in moving:
        there = target(part.line, part.node) if part.line.startswith("MOVED") else None
        node = part.node if there is None else there[0]
        for row in part.rows.tolist():
            asked.append((node, asking.one(int(ids[row]))))
            places.append(row)
        if part.first:
            asked.append((node, command("GET", core.keys.pointer)))
            places.append(-1)
    answers = yield from each(asked, deadline)
    for (node, _), row, answer in zip(asked, places, answers, strict=True):
        if isinstance(answer, FeatureStoreError):
            core.report_failure(node, answer)
        elif not isinstance(answer, ServerReplyError):
            value = answer if isinstance(answer, bytes) else None
            if row < 0:
                out.pointer = value or b""
            else:
                _place(out, row, value)


def _place(out: Rows, row: int, value: bytes | None) -> None:
    if out.unavailable is not None and out.present is not None:
        out.unavailable[row] = False
        out.present[row] = value is not None
        if value is not None and len(value) == SIZE:
            out.rows[row] = np.frombuffer(value, RECORD)[0]

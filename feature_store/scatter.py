"""Reads records from a cluster: one MGET per hash tag, all nodes side by side.

In: ids (n,). Out: rows in their order. A node that fails makes its own rows unavailable and no
others; a slot that has moved, or is being moved, is read again from where it is now.
"""

import time
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .core import Core
from .errors import FeatureStoreError
from .keys import TAGS, tag_of
from .ops import Call, Exchange, Node, Op
from .reading import Rows
from .record import RECORD, SIZE, hash_ids
from .rows import RowsReader
from .topology import slots_of
from .wire import RepliesReader, ServerReplyError, command

REMAP_S = 0.1  # between two looks at the slots while something is wrong
_ASKING = command("ASKING")


def read(core: Core, ids: NDArray[np.int64], number: int, deadline: float) -> Op[Rows]:
    """Read records (n,) and the pointer."""
    n = len(ids)
    tag = tag_of(hash_ids(ids))
    owner = core.map.owner[tag]
    order = np.argsort(owner * TAGS + tag, kind="stable")
    out = Rows(np.zeros(n, RECORD), np.zeros(n, np.bool_), owner < 0, None)
    nodes = _groups(core, tag[order], owner[order])
    elements = core.keys.elements(ids[order], tag[order], number)
    readers = [
        RowsReader([part.stop - part.start + first for part, first in parts])
        for parts in nodes.values()
    ]
    calls = [
        Call(core.map.nodes[index], _payload(core, elements, parts), reader)
        for (index, parts), reader in zip(nodes.items(), readers, strict=True)
    ]
    slots = _slots_call(core)
    outcomes = yield Exchange(calls + ([slots] if slots else []), deadline)
    if slots and outcomes[-1] is None:
        _adopt(core, slots)
    again: list[tuple[NDArray[np.intp], str]] = []
    for parts, reader, outcome in zip(nodes.values(), readers, outcomes, strict=False):
        if outcome is not None:
            core.counters["unavailable"] += 1
            core.suspect = True
            reader.errors = dict.fromkeys(range(len(parts)), "UNAVAILABLE")
        again += _collect(out, order, parts, reader)
    for rows, line in again:
        if line.startswith(("MOVED", "ASK", "TRYAGAIN")):
            core.suspect |= line.startswith("MOVED")
            yield from _follow(core, ids, number, (rows, line, out), deadline)
        else:
            core.suspect = True
            _lose(out, rows)
    return out


def _groups(
    core: Core, tag: NDArray[np.intp], owner: NDArray[np.intp]
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
    if not with_pointer and core.map.owner[0] >= 0:
        groups.setdefault(int(core.map.owner[0]), []).append((slice(0, 0), True))
    return groups


def _payload(core: Core, elements: np.ndarray, parts: list[tuple[slice, bool]]) -> bytes:
    return b"".join(
        b"*%d\r\n$4\r\nMGET\r\n%b%b"
        % (
            part.stop - part.start + 1 + first,
            elements[part].tobytes(),
            core.keys.pointer_element if first else b"",
        )
        for part, first in parts
    )


def _collect(
    out: Rows, order: NDArray[np.intp], parts: list[tuple[slice, bool]], reader: RowsReader
) -> list[tuple[NDArray[np.intp], str]]:
    """Put a node's rows where they belong; (rows, error line) of what it refused."""
    refused = []
    at = 0
    for group, (part, first) in enumerate(parts):
        count = part.stop - part.start
        rows = order[part]
        line = reader.errors.get(group)
        if line is not None:
            refused.append((rows, line))
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


def _lose(out: Rows, rows: NDArray[np.intp]) -> None:
    if out.unavailable is not None:
        out.unavailable[rows] = True


def _follow(
    core: Core,
    ids: NDArray[np.int64],
    number: int,
    refused: tuple[NDArray[np.intp], str, Rows],
    deadline: float,
) -> Op[None]:
    """Read a slot's keys one by one: from its new owner, or from both while it is moving."""
    rows, line, out = refused
    _lose(out, rows)
    if not len(rows):
        return
    keys = [core.keys.record(ad_id, number) for ad_id in ids[rows].tolist()]
    words = line.split(" ")
    tag = int(tag_of(hash_ids(ids[rows[:1]]))[0])
    node = _node(words[2], core.map.node(tag)) if words[0] == "MOVED" else core.map.node(tag)
    left = list(range(len(keys)))
    asking = False
    for _ in range(8):
        payload = b"".join((_ASKING if asking else b"") + command("GET", keys[i]) for i in left)
        reader = RepliesReader(len(left) * (1 + asking))
        (outcome,) = yield Exchange([Call(node, payload, reader)], deadline)
        if outcome is not None:
            return
        replies = reader.replies[1::2] if asking else reader.replies
        target: Node | None = None
        missing = []
        for i, reply in zip(left, replies, strict=True):
            if isinstance(reply, ServerReplyError):
                missing.append(i)
                parts = reply.split(" ")
                if parts[0] in ("ASK", "MOVED"):
                    target, asking = _node(parts[2], node), parts[0] == "ASK"
            else:
                _place(out, int(rows[i]), reply if isinstance(reply, bytes) else None)
        if target is None:
            return
        node, left = target, missing


def _place(out: Rows, row: int, value: bytes | None) -> None:
    if out.unavailable is not None and out.present is not None:
        out.unavailable[row] = False
        out.present[row] = value is not None
        if value is not None and len(value) == SIZE:
            out.rows[row] = np.frombuffer(value, RECORD)[0]


def _node(text: str, asked: Node) -> Node:
    host, _, port = text.rpartition(":")
    return Node(host or asked.host, int(port))


def _slots_call(core: Core) -> Call | None:
    """While something is wrong, ask one node after another for the slots, beside the reading."""
    now = time.monotonic()
    if not core.suspect or now < core.mapped_at + REMAP_S:
        return None
    core.mapped_at = now
    core.turn += 1
    node = core.map.nodes[core.turn % len(core.map.nodes)]
    return Call(node, command("CLUSTER", "SLOTS"), RepliesReader(1))


def _adopt(core: Core, call: Call) -> None:
    if isinstance(call.reader, RepliesReader):
        try:
            core.map = slots_of(call.reader.replies[0], call.node)
            core.suspect = False
        except FeatureStoreError as error:
            core.counters[f"remap {type(error).__name__}"] += 1

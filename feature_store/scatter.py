"""Reads records from a cluster: the commands of one hash tag together, all nodes side by side.

In: what is asked. Out: rows in their places. A node that fails makes its own rows unavailable and
no others; a slot that has moved, or is being moved, is read again from where it is now.
"""

import numpy as np
from numpy.typing import NDArray

from . import compiled
from .core import Core
from .decoding import Refused, Share, call_of, collect, one
from .errors import FeatureStoreError
from .keys import TAGS, tag_of
from .ops import Exchange, Node, Op
from .reading import Asked, lose, place
from .record import RECORD, SIZE, hash_ids
from .redirect import each, target
from .topology import Topology
from .wire import ServerReplyError, command

_MOVING = ("MOVED", "ASK", "TRYAGAIN")


def read(core: Core, asked: Asked, deadline: float) -> Op[None]:
    """Read records and the pointer."""
    where = core.reading  # others may replace it meanwhile
    core.counters["unavailable"] += where.partial
    shares, unowned = shares_of(where, asked.ids)
    if len(unowned):
        lose(asked, unowned)
    calls = [call_of(core.keys, asked, share) for share in shares]
    outcomes = (yield Exchange(calls, deadline)) if calls else []
    refused: list[Refused] = []
    for share, call, outcome in zip(shares, calls, outcomes, strict=True):
        if outcome is not None:
            core.report_failure(share.node, outcome)
        refused += collect(asked, share, call, outcome)
    for part in refused:
        lose(asked, part.rows)
        if part.line.startswith("MOVED"):
            core.health.moved()
        elif not part.line.startswith(_MOVING):
            core.report_failure(part.node, part.line)
    moving = [part for part in refused if part.line.startswith(_MOVING)]
    if moving:
        yield from _follow(core, asked, moving, deadline)


def shares_of(topology: Topology, ids: NDArray[np.int64]) -> tuple[list[Share], NDArray[np.intp]]:
    """Each node's share of ids (n,), and the positions (m,) of those that no node owns."""
    order, groups, spans = (_split_compiled if compiled.fast else _split)(topology, ids)
    shares = []
    row, group = spans[0]
    unowned = order[:row]
    for node, (stop, last) in zip(topology.nodes, spans[1:], strict=True):
        if last > group:
            shares.append(Share(node, order[row:stop], groups[group:last]))
        row, group = stop, last
    return shares, unowned


_Split = tuple[NDArray[np.intp], NDArray[np.int64], list[list[int]]]


def _split_compiled(topology: Topology, ids: NDArray[np.int64]) -> _Split:
    order = np.empty(len(ids), np.intp)
    groups = np.empty(TAGS + 1, np.int64)
    spans = np.empty((len(topology.nodes) + 1, 2), np.int64)
    if compiled.fast is not None:
        compiled.fast.split(ids, topology.owner, order, groups, spans)
    return order, groups, spans.tolist()


def _split(topology: Topology, ids: NDArray[np.int64]) -> _Split:
    """See `split` in _fast.c."""
    tag = tag_of(hash_ids(ids))
    rank = topology.owner * TAGS + np.arange(TAGS)
    order = np.argsort(rank[tag], kind="stable")
    counts = np.bincount(tag, minlength=TAGS)
    spans = [[int(counts[topology.owner < 0].sum()), 0]]
    groups: list[int] = []
    for node in range(len(topology.nodes)):
        tags = np.flatnonzero(topology.owner == node).tolist()
        groups += [2 * int(counts[tag]) + (tag == 0) for tag in tags if counts[tag] or tag == 0]
        spans.append([spans[-1][0] + int(counts[tags].sum()), len(groups)])
    return order, np.array(groups, np.int64), spans


def _follow(core: Core, asked: Asked, moving: list[Refused], deadline: float) -> Op[None]:
    """Read keys of moved or moving slots one by one, all side by side, where they are now."""
    commands: list[tuple[Node, bytes]] = []
    places: list[int] = []  # the row that an answer is for; -1: the pointer
    for part in moving:
        there = target(part.line, part.node) if part.line.startswith("MOVED") else None
        node = part.node if there is None else there[0]
        for row in part.rows.tolist():
            commands.append((node, one(core.keys, asked, int(asked.ids[row]))))
            places.append(row)
        if part.pointed:
            commands.append((node, command("GET", core.keys.pointer)))
            places.append(-1)
    answers = yield from each(commands, deadline)
    rows, values = [], []
    for (node, _), row, answer in zip(commands, places, answers, strict=True):
        if isinstance(answer, FeatureStoreError):
            core.report_failure(node, answer)
        elif not isinstance(answer, ServerReplyError):
            value = answer if isinstance(answer, bytes) else None
            if row < 0:
                asked.pointer = value or b""
            else:
                rows.append(row)
                values.append(value)
    if rows:
        present = np.array([value is not None for value in values])
        # Zeros are no record: a value of another size is a foreign one.
        whole = [value if value and len(value) == SIZE else bytes(SIZE) for value in values]
        place(asked, np.array(rows), np.frombuffer(b"".join(whole), RECORD), present)

"""Walks over all records of a version, node by node.

In: a version's number. Out: batches of keys, of records or of the compact layout's buckets, and
counts. SCAN gives keys in the order of the server's own hash, so the first million are a fair
sample of any catalogue.
"""

import re
import time
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from . import buckets
from .core import TIMEOUT_S, Core, Job, run_jobs
from .errors import ServerError
from .keys import tag_of, tags
from .ops import Node, Op, ask, checked
from .record import ABSENT, SIZE, hash_ids
from .wire import Reply, command

_COUNT = 1000  # keys the server looks at per SCAN
_SAMPLE = 1_000_000


class RecordBatches:
    """Keys of a version's records in batches; `next()` is an operation, None at the end."""

    def __init__(self, core: Core, number: int, count: int = _COUNT) -> None:
        self._core = core
        self.compact = number in core.view.bits
        name = core.keys.record_prefix(number)
        if self.compact:
            name = buckets.prefix(core.keys, number)
        escaped = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", name)
        self._pattern = escaped + (b"??{*" if self.compact else b"{*")
        self._count = count
        self._left: list[Node] = list(core.map.nodes)
        self._cursor = b"0"

    def next(self) -> Op[tuple[Node, list[bytes]] | None]:
        """(node, keys), perhaps none; None when all nodes have been walked over."""
        if not self._left:
            return None
        node = self._left[-1]
        payload = command("SCAN", self._cursor, "MATCH", self._pattern, "COUNT", self._count)
        deadline = time.monotonic() + TIMEOUT_S
        (reply,) = checked((yield from ask(node, payload, 1, deadline)), node)
        if not isinstance(reply, list) or not isinstance(reply[0], bytes):
            raise ServerError(f"{node} answered SCAN with {reply!r}")
        self._cursor = reply[0]
        if self._cursor == b"0":
            self._left.pop()
        found = reply[1] if isinstance(reply[1], list) else []
        return node, [key for key in found if isinstance(key, bytes)]

    def unlink(self, node: Node, keys: list[bytes]) -> Op[int]:
        """Remove keys in the background of the server; how many records there were."""
        groups = by_tag(keys, self.compact) if self._core.map.clustered else {b"": keys}
        lengths = [command("HLEN", key) for key in keys] if self.compact else []
        payload = b"".join(lengths + [command("UNLINK", *group) for group in groups.values()])
        deadline = time.monotonic() + TIMEOUT_S
        replies = yield from ask(node, payload, len(lengths) + len(groups), deadline)
        counts = checked(replies, node)[: len(lengths) or None]
        return sum(reply for reply in counts if isinstance(reply, int))


def by_tag(names: list[bytes], compact: bool) -> dict[bytes, list[bytes]]:
    """Keys of records, or of buckets, by their hash tags."""
    groups: dict[bytes, list[bytes]] = {}
    for key in names:
        groups.setdefault(key[-7:-4] if compact else key[-12:-9], []).append(key)
    return groups


def _has_codes(value: Reply) -> bool:
    """Whether a record is of an ad, not a block mark's stand-in for an unknown one."""
    return isinstance(value, bytes) and len(value) == SIZE and not value[16] & ABSENT


def count_held(core: Core, one: int, other: int) -> Op[tuple[int, int]]:
    """Of the ads that version `one` holds, how many `other` holds: (held, compared).

    All ids of a catalogue of up to a million, a sample of a million of a larger one.
    """
    batches = RecordBatches(core, one)
    held = seen = 0
    while seen < _SAMPLE:
        batch = yield from batches.next()
        if batch is None:
            break
        ids = yield from _with_codes(core, batch[1], batches.compact)
        seen += len(ids)
        held += yield from _held(core, ids, other)
    return held, seen


def _with_codes(core: Core, names: list[bytes], compact: bool) -> Op[NDArray[np.int64]]:
    """Ids of the ads that stand under these keys."""
    index = {tag.encode(): i for i, tag in enumerate(tags())}
    groups = by_tag(names, compact)
    jobs = [
        Job(index[tag], b"".join(command("HGETALL", key) for key in keys), len(keys))
        if compact
        else Job(index[tag], command("MGET", *keys))
        for tag, keys in groups.items()
    ]
    answers = yield from run_jobs(core, jobs, time.monotonic() + TIMEOUT_S)
    found: list[int] = []
    for keys, answer in zip(groups.values(), answers, strict=True):
        values = answer if isinstance(answer, list) else []
        if not compact:
            found += [
                int.from_bytes(key[-8:], "little")
                for key, value in zip(keys, values, strict=True)
                if _has_codes(value)
            ]
            continue
        for pairs in [values] if len(keys) == 1 else values:
            fields = pairs if isinstance(pairs, list) else []
            found += [
                buckets.id_of(name)
                for name, value in zip(fields[::2], fields[1::2], strict=True)
                if isinstance(name, bytes) and _has_codes(value)
            ]
    return np.array(found, np.int64)


def _held(core: Core, ids: NDArray[np.int64], number: int) -> Op[int]:
    """How many of these ads a version has codes for."""
    bits = core.view.bits.get(number)
    tag = tag_of(hash_ids(ids))
    order = np.argsort(tag, kind="stable")
    ids, tag = ids[order], tag[order]
    bounds = np.append(0, np.cumsum(np.bincount(tag))) if len(ids) else np.zeros(1, np.intp)
    jobs = []
    for owner, (start, stop) in enumerate(pairwise(bounds.tolist())):
        part, count = slice(start, stop), stop - start
        if count and bits is None:
            elements = core.keys.elements(ids[part], tag[part], number).tobytes()
            jobs.append(Job(owner, b"*%d\r\n$4\r\nMGET\r\n%b" % (count + 1, elements)))
        elif count and bits is not None:
            payload = buckets.Commands(core.keys, ids[part], number, bits).payload(slice(0, count))
            jobs.append(Job(owner, payload, count))
    held = 0
    for answer in (yield from run_jobs(core, jobs, time.monotonic() + TIMEOUT_S)):
        held += sum(
            _has_codes(value) for value in (answer if isinstance(answer, list) else [answer])
        )
    return held

"""Walks over all records of a version, node by node.

In: a version's number. Out: batches of record keys, and counts. SCAN gives keys in the order of
the server's own hash, so the first million are a fair sample of any catalogue.
"""

import re
import time

from .core import TIMEOUT_S, Core, Job, run_jobs
from .errors import ServerError
from .keys import tags
from .ops import Node, Op, ask, checked
from .record import ABSENT, RECORD
from .wire import Reply, command

_COUNT = 1000  # keys the server looks at per SCAN
_SAMPLE = 1_000_000


class RecordBatches:
    """Record keys of a version in batches; `next()` is an operation, None at the end."""

    def __init__(self, core: Core, number: int, count: int = _COUNT) -> None:
        self._core = core
        escaped = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", core.keys.record_prefix(number))
        self._pattern = escaped + b"{*"
        self._count = count
        self._left: list[Node] = list(core.map.nodes)
        self._cursor = b"0"

    def next(self) -> Op[tuple[Node, list[bytes]] | None]:
        """(node, record keys), perhaps none; None when all nodes have been walked over."""
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
        """Remove keys in the background of the server; how many there were."""
        by_tag: dict[bytes, list[bytes]] = {}
        for key in keys:
            by_tag.setdefault(_tag(key) if self._core.map.clustered else b"", []).append(key)
        payload = b"".join(command("UNLINK", *group) for group in by_tag.values())
        deadline = time.monotonic() + TIMEOUT_S
        replies = yield from ask(node, payload, len(by_tag), deadline)
        return sum(reply for reply in checked(replies, node) if isinstance(reply, int))


def _tag(key: bytes) -> bytes:
    return key[-12:-9]


def _has_codes(value: Reply) -> bool:
    """Whether a record is of an ad, not a block mark's stand-in for an unknown one."""
    return isinstance(value, bytes) and len(value) == RECORD.itemsize and not value[16] & ABSENT


def count_held(core: Core, one: int, other: int) -> Op[tuple[int, int]]:
    """Of the ads that version `one` holds, how many `other` holds: (held, compared).

    All ids of a catalogue of up to a million, a sample of a million of a larger one.
    """
    indexes = {tag.encode(): i for i, tag in enumerate(tags())}
    target = core.keys.record_prefix(other)
    size = len(target)
    batches = RecordBatches(core, one)
    held = seen = 0
    while seen < _SAMPLE:
        batch = yield from batches.next()
        if batch is None:
            break
        groups: dict[bytes, list[bytes]] = {}
        for key in batch[1]:
            groups.setdefault(_tag(key), []).append(key)
        jobs = [
            Job(indexes[tag], command("MGET", *keys, *(target + key[size:] for key in keys)))
            for tag, keys in groups.items()
        ]
        answers: list[Reply] = yield from run_jobs(core, jobs, time.monotonic() + TIMEOUT_S)
        for answer in answers:
            values = answer if isinstance(answer, list) else []
            half = len(values) // 2
            for own, there in zip(values[:half], values[half:], strict=True):
                if _has_codes(own):
                    seen += 1
                    held += _has_codes(there)
    return held, seen

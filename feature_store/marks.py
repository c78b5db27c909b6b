"""Takedown: block marks that hold across versions, writes and restarts of clients.

In: ids and who blocks. Out: operations. A mark is kept twice: in the record, where lookups see
it, and in the marks hash of its tag, where writes and new versions find it. A human's mark and a
verdict's are separate bits; an ad is BLOCKED while any is set.
"""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import record, scripts
from .begin import begin, tombstones
from .core import TIMEOUT_S, Core, Job, job, refresh, run_jobs
from .grouping import by_tag, record_keys
from .ops import Call, Exchange, Node, Op
from .record import MARK_HUMAN, MARK_VERDICT
from .wire import RepliesReader, command

Source = Literal["human", "verdict"]
BITS: dict[str, int] = {"human": MARK_HUMAN, "verdict": MARK_VERDICT}
_WAIT = command("WAIT", 1, 1000)  # one replica, at most a second


@dataclass(frozen=True, slots=True)
class BlockResult:
    """`replicated`: replicas, at the least over all nodes that wrote, which hold the change."""

    replicated: int


def mark(
    core: Core, ids: NDArray[np.int64], bits: int, clear: bool, reason: str
) -> Op[BlockResult]:
    """Set or clear a mark on ads in every version, and wait for a replica where there is one."""
    deadline = time.monotonic() + TIMEOUT_S
    if not clear:
        yield from begin(core, None, deadline)  # marks need a version to stand in
    tag, order, pieces = by_tag(record.hash_ids(ids))
    owners = sorted({core.map.node(int(t)) for t in tag.tolist()})
    replicas = yield from _replicas(owners, deadline)
    while True:
        view = yield from refresh(core, deadline)
        numbers = view.kept()
        jobs = []
        for piece in pieces:
            part = ids[order[piece]]
            owner = int(tag[piece.start])
            stones = np.empty((len(part), len(numbers)), record.RECORD)
            for column, number in enumerate(numbers):
                stones[:, column] = tombstones(part, number)
            keys = [core.keys.marks(owner), *record_keys(core.keys, view, part, numbers)]
            arguments = (len(numbers), part.tobytes(), stones.tobytes())
            on, off = (0, bits) if clear else (bits, 0)
            jobs.append(job(scripts.MARK, owner, keys, *arguments, on, off, reason))
        if any(replicas.values()):
            # One WAIT a node, behind its last job: it covers all that this connection wrote.
            last = {core.map.node(each.tag): i for i, each in enumerate(jobs)}
            for i in last.values():
                jobs[i] = Job(jobs[i].tag, jobs[i].payload + _WAIT, replies=2)
        answers = yield from run_jobs(core, jobs, deadline)
        acked = [answer[1] for answer in answers if isinstance(answer, list)]
        # A version that began meanwhile may have read the marks too early: mark it as well.
        if (yield from refresh(core, deadline)).kept() == numbers:
            replicated = min((count for count in acked if isinstance(count, int)), default=0)
            return BlockResult(replicated)


def _replicas(nodes: list[Node], deadline: float) -> Op[dict[Node, int]]:
    """Connected replicas of each node."""
    readers = [RepliesReader(1) for _ in nodes]
    payload = command("INFO", "replication")
    calls = [Call(node, payload, reader) for node, reader in zip(nodes, readers, strict=True)]
    outcomes = (yield Exchange(calls, deadline)) if calls else []
    found: dict[Node, int] = {}
    for node, reader, outcome in zip(nodes, readers, outcomes, strict=True):
        if outcome is None and isinstance(reader.replies[0], bytes):
            for line in reader.replies[0].split(b"\r\n"):
                if line.startswith(b"connected_slaves:"):
                    found[node] = int(line.partition(b":")[2])
    return found

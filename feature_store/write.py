"""Changes of records: write, update of flags, delete.

In: checked arrays. Out: operations. Rows are grouped by hash tag, and each group goes through a
script on its tag's node, so that sequences and block marks hold whatever else happens.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import record, scripts
from .begin import begin
from .core import TIMEOUT_S, Core, Job, job, refresh, run_jobs
from .grouping import by_tag, record_keys
from .ops import Op
from .record import SYNDROMES
from .wire import Reply, command

_SLICE = 16384  # records per exchange


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a write's rows."""

    version: str
    written: int
    ignored: int  # rows whose stored sequence is higher


@dataclass(frozen=True, slots=True)
class Rows:
    """Checked rows to write: ids (n,), codes (n, 6), flags (n,), sequence (n,) or None."""

    ids: NDArray[np.int64]
    codes: NDArray[np.uint16]
    flags: NDArray[np.uint16]
    sequence: NDArray[np.int64] | None

    def part(self, chosen: "slice | NDArray[np.intp]") -> "Rows":
        """Some of the rows."""
        sequence = None if self.sequence is None else self.sequence[chosen]
        return Rows(self.ids[chosen], self.codes[chosen], self.flags[chosen], sequence)


def write(core: Core, rows: Rows, version: str | None) -> Op[WriteResult]:
    """Store rows under a version (None: the active one)."""
    number = yield from begin(core, version, time.monotonic() + TIMEOUT_S)
    name = core.view.name(number)
    total = len(rows.ids)
    ignored = 0
    for start in range(0, total, _SLICE):
        part = _last_of_each(rows.part(slice(start, start + _SLICE)))
        jobs = _write_jobs(core, part, number)
        answers = yield from run_jobs(core, jobs, time.monotonic() + TIMEOUT_S)
        ignored += sum(_second(answer) for answer in answers)
    return WriteResult(name, total - ignored, ignored)


def _second(answer: Reply) -> int:
    return int(answer[1]) if isinstance(answer, list) and isinstance(answer[1], int) else 0


def _last_of_each(rows: Rows) -> Rows:
    """Of rows about the same id, keep the one that would win if they came one by one."""
    n = len(rows.ids)
    order = np.lexsort(
        (np.arange(n), rows.sequence if rows.sequence is not None else np.zeros(n), rows.ids)
    )
    ids = rows.ids[order]
    last = np.append(ids[1:] != ids[:-1], True) if n else np.empty(0, np.bool_)
    return rows if last.all() else rows.part(np.sort(order[last]))


def _write_jobs(core: Core, rows: Rows, number: int) -> list[Job]:
    tag, order, pieces = by_tag(record.hash_ids(rows.ids))
    rows = rows.part(order)
    n = len(rows.ids)
    sequenced = rows.sequence is not None
    control = record.sequence_bits(rows.sequence if rows.sequence is not None else 0, n)
    sealed = record.encode(rows.ids, rows.codes, rows.flags, number, control)
    elements = core.keys.elements(rows.ids, tag, number)
    tail = b"$1\r\n1\r\n" if sequenced else b"$1\r\n0\r\n"
    middle = b"$%d\r\n%b\r\n%b" % (len(SYNDROMES), SYNDROMES, command(number)[4:])
    jobs = []
    for piece in pieces:
        count = piece.stop - piece.start
        owner = int(tag[piece.start])
        head = command(
            "EVALSHA", scripts.WRITE.sha, count + 2, core.keys.marks(owner), core.keys.counts(owner)
        )
        payload = b"*%d\r\n%b%b%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (
            count + 10,
            head[4:],
            elements[piece].tobytes(),
            middle,
            8 * count,
            rows.ids[piece].tobytes(),
            record.SIZE * count,
            sealed[piece].tobytes(),
            tail,
        )
        jobs.append(Job(owner, payload))
    return jobs


def _everywhere(core: Core) -> Op[list[int]]:
    """Numbers of all kept versions, read now."""
    view = yield from refresh(core, time.monotonic() + TIMEOUT_S)
    return view.kept()


def delete(core: Core, ids: NDArray[np.int64]) -> Op[int]:
    """Remove ads from every version; how many there were. Human block marks stay."""
    numbers = yield from _everywhere(core)
    tag, order, pieces = by_tag(record.hash_ids(ids))
    jobs = [
        job(
            scripts.DELETE,
            int(tag[piece.start]),
            [
                core.keys.marks(int(tag[piece.start])),
                core.keys.counts(int(tag[piece.start])),
                *record_keys(core.keys, ids[order[piece]], numbers),
            ],
            len(numbers),
            ids[order[piece]].tobytes(),
            *numbers,
        )
        for piece in pieces
    ]
    answers = yield from run_jobs(core, jobs, time.monotonic() + TIMEOUT_S)
    return sum(answer for answer in answers if isinstance(answer, int))


def update_flags(core: Core, ids: NDArray[np.int64], set_bits: int, clear_bits: int) -> Op[int]:
    """Set and clear flag bits of ads in every version; how many records changed."""
    numbers = yield from _everywhere(core)
    if not numbers:
        return 0
    tag, order, pieces = by_tag(record.hash_ids(ids))
    jobs = [
        job(
            scripts.FLAGS,
            int(tag[piece.start]),
            record_keys(core.keys, ids[order[piece]], numbers),
            set_bits,
            clear_bits,
        )
        for piece in pieces
    ]
    answers = yield from run_jobs(core, jobs, time.monotonic() + TIMEOUT_S)
    return sum(answer for answer in answers if isinstance(answer, int))

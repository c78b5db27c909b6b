"""Changes of records: write, update of flags, delete.

In: checked arrays. Out: operations. Rows are grouped by hash tag, and each group goes through a
script on its tag's node, so that sequences and block marks hold whatever else happens.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from . import record, write_scripts
from .begin import begin
from .core import TIMEOUT_S, Core, Job, job, refresh, run_jobs
from .grouping import by_tag, record_keys
from .ops import Op, Pause
from .pacing import Pace
from .wire import Reply
from .write_jobs import Batch, write_jobs

_SLICE = 1 << 18  # records that are put in order at a time
_EXCHANGE = 64  # runs of scripts per exchange, of at most CHUNK records each
ENDED_S = 900  # how long a deleted ad's sequence is remembered


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


def write(core: Core, rows: Rows, version: str | None, rate: float = 0.0) -> Op[WriteResult]:
    """Store rows under a version (None: the active one), `rate` a second at most (0: no bound)."""
    pace = Pace(rate)
    view, number = yield from begin(core, version, time.monotonic() + TIMEOUT_S)
    name, bits = view.name(number), view.bits.get(number)
    core.wanted.check(name, bits)
    total = len(rows.ids)
    ignored = 0
    for start in range(0, total, _SLICE):
        part, hashed = _in_order(rows.part(slice(start, start + _SLICE)))
        sealed = _seal(part, number)
        batch = Batch(part.ids, hashed, sealed, part.sequence is not None, number, bits)
        pieces, made = write_jobs(core.keys, batch, pace.rows)
        rounds = -(-len(pieces) // _EXCHANGE)
        for i in range(rounds):
            # Every so-manieth, so that each exchange keeps all nodes of a cluster at work.
            jobs = map(made, pieces[i::rounds])
            if rate:
                ignored += yield from _paced(core, jobs, pace)
            else:
                ignored += (yield from _run(core, list(jobs)))[1]
    return WriteResult(name, total - ignored, ignored)


def _run(core: Core, jobs: list[Job]) -> Op[tuple[int, int]]:
    """Rows that scripts have written, and that they have ignored."""
    answers = yield from run_jobs(core, jobs, time.monotonic() + TIMEOUT_S)
    return _sum(answers, 0), _sum(answers, 1)


def _sum(answers: list[Reply], at: int) -> int:
    return sum(
        int(n) for each in answers if isinstance(each, list) and isinstance(n := each[at], int)
    )


def _paced(core: Core, jobs: Iterator[Job], pace: Pace) -> Op[int]:
    """Run jobs as they are due; the rows that were ignored."""
    ignored = 0
    while due := list(islice(jobs, pace.scripts(len(core.map.nodes)))):
        written, late = yield from _run(core, due)
        ignored += late
        wait = pace.after(written + late)
        if wait:
            yield Pause(wait)
    return ignored


def _in_order(rows: Rows) -> tuple[Rows, record.U64]:
    """The rows by hash, so that those of a tag and of a bucket stand together, and their hashes.

    Of rows about the same id the one is kept that would win if they came one by one.
    """
    hashed = record.hash_ids(rows.ids)
    order = np.argsort(hashed)
    ordered = hashed[order]
    if len(ordered) > 1 and bool((ordered[1:] == ordered[:-1]).any()):
        n = len(rows.ids)
        sequence = rows.sequence if rows.sequence is not None else np.zeros(n)
        order = np.lexsort((np.arange(n), sequence, hashed))
        ordered = hashed[order]
        last = np.append(ordered[1:] != ordered[:-1], True)
        order, ordered = order[last], ordered[last]
    return rows.part(order), ordered


def _seal(rows: Rows, number: int) -> np.ndarray:
    sequence = 0 if rows.sequence is None else rows.sequence
    control = record.sequence_bits(sequence, len(rows.ids))
    return record.encode(rows.ids, rows.codes, rows.flags, number, control)


def delete(core: Core, ids: NDArray[np.int64], sequence: int | None) -> Op[int]:
    """Remove ads from every version; how many there were. Human block marks stay."""
    view = yield from refresh(core, time.monotonic() + TIMEOUT_S)
    numbers = view.kept()
    tag, order, pieces = by_tag(record.hash_ids(ids))
    jobs = [
        job(
            write_scripts.DELETE,
            int(tag[piece.start]),
            [
                core.keys.marks(int(tag[piece.start])),
                core.keys.counts(int(tag[piece.start])),
                core.keys.ended(int(tag[piece.start])),
                *record_keys(core.keys, view, ids[order[piece]], numbers),
            ],
            len(numbers),
            ids[order[piece]].tobytes(),
            "" if sequence is None else sequence,
            ENDED_S,
            *numbers,
        )
        for piece in pieces
    ]
    answers = yield from run_jobs(core, jobs, time.monotonic() + TIMEOUT_S)
    return sum(answer for answer in answers if isinstance(answer, int))


def update_flags(core: Core, ids: NDArray[np.int64], set_bits: int, clear_bits: int) -> Op[int]:
    """Set and clear flag bits of ads in every version; how many records changed."""
    view = yield from refresh(core, time.monotonic() + TIMEOUT_S)
    numbers = view.kept()
    if not numbers:
        return 0
    tag, order, pieces = by_tag(record.hash_ids(ids))
    jobs = [
        job(
            write_scripts.FLAGS,
            int(tag[piece.start]),
            record_keys(core.keys, view, ids[order[piece]], numbers),
            len(numbers),
            ids[order[piece]].tobytes(),
            set_bits,
            clear_bits,
        )
        for piece in pieces
    ]
    answers = yield from run_jobs(core, jobs, time.monotonic() + TIMEOUT_S)
    return sum(answer for answer in answers if isinstance(answer, int))

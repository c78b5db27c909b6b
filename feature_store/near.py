"""The near cache's table: rows that this process has read, bounded in bytes.

In: ids (n,) with their hashes, and decoded rows. Out: rows that are known, by one gather over a
set-associative table of numpy arrays: no loop over ids, and any order of ids. Rows leave by
second chance. Misses are kept as well: a later write invalidates them like any other change.
"""

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import compiled
from .compiled import Fast
from .reading import Answer, blank
from .record import CODES, NO_CODE, U64, Decoded, hash_ids

WAYS = 8
SLOT_BYTES = 8 + 2 + 2 * CODES + 2 + 1 + 1
_LOG = 1024  # batches of invalidations that an insertion may have to heed


@dataclass(slots=True)
class Known:
    """What the table knows of n ids: rows are meaningful where `hit`."""

    answer: Answer
    left: NDArray[np.intp]  # (m,) positions of the ids that it does not know

    @property
    def hits(self) -> int:
        """How many rows are known."""
        return len(self.answer.status) - len(self.left)

    @property
    def hit(self) -> NDArray[np.bool_]:
        """(n,) whether a row is known."""
        mask = np.ones(len(self.answer.status), np.bool_)
        mask[self.left] = False
        return mask


class Ranges:
    """Ranges of hashes: the ids of the compact layout's buckets."""

    def __init__(self, pairs: list[tuple[int, int]]) -> None:
        """(lowest, highest) hash of each range, both included."""
        bounds = np.array(sorted(set(pairs)), np.uint64).reshape(-1, 2)
        self.lowest, self.highest = bounds[:, 0].copy(), bounds[:, 1].copy()
        self._reach = np.maximum.accumulate(self.highest)

    def hold(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether ids (n,) lie in one of them."""
        hashed = hash_ids(ids)
        at = np.searchsorted(self.lowest, hashed, side="right")
        return (at > 0) & (self._reach[at - 1] >= hashed)


class NearTable:
    """Rows by (id, version number). All methods may be called from any thread."""

    def __init__(self, size_bytes: int) -> None:
        self.sets = max(size_bytes // (SLOT_BYTES * WAYS), 1)
        shape = (self.sets, WAYS)
        self._ids = np.zeros(shape, np.int64)
        self._versions = np.zeros(shape, np.uint16)
        self._recent = np.zeros(shape, np.uint8)
        self._codes = np.full((self.sets * WAYS, CODES), NO_CODE, np.uint16)
        self._flags = np.zeros(self.sets * WAYS, np.uint16)
        self._status = np.zeros(self.sets * WAYS, np.uint8)
        self._lock = threading.Lock()
        self._moment = 0
        self._log: deque[tuple[int, NDArray[np.int64] | Ranges | None]] = deque(maxlen=_LOG)

    @property
    def bytes(self) -> int:
        """Memory of the table."""
        arrays = (self._ids, self._versions, self._recent, self._codes, self._flags, self._status)
        return sum(array.nbytes for array in arrays)

    def moment(self) -> int:
        """Now, as invalidations count it: take it before reading rows that are to be `put`."""
        return self._moment

    def _set_of(self, hashed: U64) -> NDArray[np.intp]:
        scaled = (hashed >> np.uint64(32)) * np.uint64(self.sets)
        return (scaled >> np.uint64(32)).astype(np.intp)

    def get(self, ids: NDArray[np.int64], number: int) -> Known:
        """Rows of ids (n,) in a version."""
        if compiled.fast is not None:
            return self._get_compiled(compiled.fast, ids, number)
        at = self._set_of(hash_ids(ids))
        with self._lock:
            same = self._ids[at] == ids[:, None]
            same &= self._versions[at] == number
            way = same.argmax(axis=1)
            slot = at * WAYS + way
            hit = same.ravel()[np.arange(len(ids)) * WAYS + way]
            self._recent.ravel()[slot[hit]] = 1
            answer = Answer(self._codes[slot], self._flags[slot], self._status[slot])
            return Known(answer, np.flatnonzero(~hit))

    def _get_compiled(self, fast: Fast, ids: NDArray[np.int64], number: int) -> Known:
        answer = blank(len(ids))
        left = np.empty(len(ids), np.intp)
        with self._lock:
            misses = fast.near(
                *(ids, self._ids, self._versions, self._codes, self._flags, self._status),
                *(self._recent, answer.codes, answer.flags, answer.status, left),
                *(self.sets, WAYS, number),
            )
        return Known(answer, left[:misses])

    def put(
        self,
        ids: NDArray[np.int64],
        number: int,
        rows: "Answer | Decoded",
        moment: int,
        index: NDArray[np.intp] | None = None,
    ) -> None:
        """Keep rows of ids (m,) that were read after `moment`, except those invalidated since.

        The row of ids[i] is rows[index[i]]; without an index it is rows[i].
        """
        with self._lock:
            if self._moment != moment:
                fresh = self._fresh(ids, moment)
                if fresh is None:
                    return
                index = np.flatnonzero(fresh) if index is None else index[fresh]
                ids = ids[fresh]
            if compiled.fast is not None:
                compiled.fast.keep(
                    *(ids, index, rows.codes, rows.flags, rows.status),
                    *(self._ids, self._versions, self._codes, self._flags, self._status),
                    *(self._recent, self.sets, WAYS, number),
                )
                return
            at = self._set_of(hash_ids(ids))
            there = self._ids[at]
            score = 1 + self._recent[at].astype(np.int16)
            score[there == 0] = 0
            score[(there == ids[:, None]) & (self._versions[at] == number)] = -1
            way = score.argmin(axis=1)
            crowded = at[score.min(axis=1) > 1]
            self._recent[crowded] = 0  # all were used of late: each has had its second chance
            slot = at * WAYS + way
            self._ids[at, way] = ids
            self._versions[at, way] = number
            self._recent[at, way] = 0
            row = slice(None) if index is None else index
            self._codes[slot] = rows.codes[row]
            self._flags[slot] = rows.flags[row]
            self._status[slot] = rows.status[row]

    def _fresh(self, ids: NDArray[np.int64], moment: int) -> NDArray[np.bool_] | None:
        """Rows (n,) bool that no invalidation since `moment` names; None: nobody can tell."""
        if self._moment - moment > len(self._log):
            return None
        gone = [named for when, named in self._log if when > moment]
        fresh = np.ones(len(ids), np.bool_)
        for named in gone:
            if named is None:
                return None
            fresh &= ~(named.hold(ids) if isinstance(named, Ranges) else np.isin(ids, named))
        return fresh

    def drop(self, ids: NDArray[np.int64], number: int) -> None:
        """Forget ids (n,) in a version."""
        at = self._set_of(hash_ids(ids))
        with self._lock:
            self._moment += 1
            self._log.append((self._moment, ids))
            same = self._ids[at] == ids[:, None]
            same &= self._versions[at] == number
            row, way = np.nonzero(same)
            self._ids[at[row], way] = 0

    def drop_ranges(self, ranges: "Ranges") -> None:
        """Forget ids whose hashes lie in some ranges, in every version.

        Sets follow one another as hashes do, so that a range's rows lie in few sets.
        """
        first, last = self._set_of(ranges.lowest), self._set_of(ranges.highest)
        counts = last - first + 1
        ends = np.cumsum(counts)
        sets = np.arange(ends[-1]) - np.repeat(ends - counts - first, counts)
        with self._lock:
            self._moment += 1
            self._log.append((self._moment, ranges))
            there = self._ids[sets]
            there[ranges.hold(there.ravel()).reshape(there.shape)] = 0
            self._ids[sets] = there

    def forget(self, number: int) -> None:
        """Forget a version."""
        with self._lock:
            self._moment += 1
            self._log.append((self._moment, None))
            self._ids[self._versions == number] = 0

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._moment += 1
            self._log.append((self._moment, None))
            self._ids[...] = 0
            self._recent[...] = 0

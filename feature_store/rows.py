"""Reads the records that MGETs answer with, all at once.

In: the bytes received so far. Out: one array of records. Values of fixed width make an answer
without misses one reshape; a miss is found by a search, and anything out of the ordinary (values
of a wrong size, above all) takes a careful path, element by element.
"""

import numpy as np
from numpy.typing import NDArray

from .errors import ProtocolError
from .record import RECORD, SIZE
from .wire import SLACK, read_integer, read_line

_HIT = b"$%d\r\n" % SIZE
_ROW = len(_HIT) + SIZE + 2
_MISS = b"$-1\r\n"
_ELEMENT = np.dtype(
    {
        "names": ["head", "head_end", "record", "tail"],
        "formats": ["<u4", "u1", RECORD, "<u2"],
        "offsets": [0, 4, 5, 29],
        "itemsize": _ROW,
    }
)
_HEAD = np.uint32(int.from_bytes(_HIT[:4], "little"))
_TAIL = np.uint16(int.from_bytes(b"\r\n", "little"))


class RowsReader:
    """Replies of MGETs over records, one per group of keys: `counts` keys each.

    After a complete scan: `rows` RECORD (n,), `present` bool (n,) or None when all are there, and
    `errors`, group -> error line; the rows of such a group are not present.
    """

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts
        self.rows: np.ndarray = np.empty(0, RECORD)
        self.present: NDArray[np.bool_] | None = None
        self.errors: dict[int, str] = {}
        self._group = 0
        self._at = 0  # where the group that is being read begins
        self._careful = False
        self._starts: list[NDArray[np.intp] | int] = []  # per group: one start, or all starts
        self._runs: list[tuple[int, int]] = []  # (start, count) of rows stepped over
        self._absent: list[tuple[int, NDArray[np.bool_]]] = []
        # In mid-group: where its rows begin, how far they were stepped over, misses, rows left.
        self._going: tuple[int, int, list[int], int] | None = None

    def scan(self, buffer: bytearray, end: int) -> bool:
        if not self._careful:
            # Steps of fixed width may go astray over values of other sizes: whatever they come
            # to, the rows that were stepped over must turn out to be framed as rows are.
            try:
                if self._step(buffer, end):
                    if self._gather(buffer, end):
                        return True
                elif self._framed(buffer, end):
                    return False
            except ProtocolError:
                self._careful = True
            self.__init__(self.counts)  # type: ignore[misc]
            self._careful = True
        return self._step(buffer, end) and self._gather(buffer, end)

    def _step(self, buffer: bytearray, end: int) -> bool:
        """Walk over the groups; whether all are complete."""
        self._runs = []
        while self._group < len(self.counts):
            count = self.counts[self._group]
            if self._going is not None:
                if not self._walk(buffer, 0, end, count):
                    return False
                continue
            head = self._head(buffer, end, count)
            if head is None:
                return False
            at, refused = head
            if refused:
                self._take(np.zeros(count, np.intp), np.zeros(count, np.bool_), at)
                continue
            walk = self._walk_carefully if self._careful else self._walk
            if not walk(buffer, at, end, count):
                return False
        if self._at != end:
            raise ProtocolError(f"{end - self._at} bytes follow the reply that was asked for")
        return True

    def _head(self, buffer: bytearray, end: int, count: int) -> tuple[int, bool] | None:
        """(where the group's rows begin, whether it was refused), None while that is unknown."""
        line = read_line(buffer, self._at, end)
        if line is None:
            return None
        text, at = line
        if text[:1] == b"-":
            self.errors[self._group] = text[1:].decode("utf-8", "replace")
            return at, True
        if text != b"*%d" % count:
            raise ProtocolError(f"expected an array of {count}, found {text[:40]!r}")
        return at, False

    def _element_error(self, text: bytes) -> bool:
        """What a row is that is an error line: False refuses its group, True: a foreign value."""
        raise ProtocolError(f"expected a string or nothing, found {text[:40]!r}")

    def _framed(self, buffer: bytearray, end: int) -> bool:
        """Whether all rows stepped over so far begin and end as rows do."""
        parts = [start + np.arange(count) * _ROW for start, count in self._runs]
        if not parts:
            return True
        elements = _elements(buffer, end, np.concatenate(parts))
        return bool(((elements["head"] == _HEAD) & (elements["tail"] == _TAIL)).all())

    def _take(
        self, starts: NDArray[np.intp] | int, present: NDArray[np.bool_] | None, at: int
    ) -> None:
        self._starts.append(starts)
        if present is not None:
            self._absent.append((self._group, present))
        self._group += 1
        self._at = at

    def _walk(self, buffer: bytearray, at: int, end: int, count: int) -> bool:
        """Step from miss to miss over runs of hits."""
        first, at, misses, left = self._going or (at, at, [], count)
        self._going = None
        while left:
            stop = min(end, at + left * _ROW)
            miss = buffer.find(_MISS, at, stop)
            while miss >= 0 and (miss - at) % _ROW:  # inside a record's own bytes
                miss = buffer.find(_MISS, miss + 1, stop)
            run = (stop - at if miss < 0 else miss - at) // _ROW
            if run:
                self._runs.append((at, run))
            at += run * _ROW
            left -= run
            if miss >= 0:
                misses.append(count - left)
                left -= 1
                at += len(_MISS)
            elif left:
                head = bytes(buffer[at : min(end, at + 5)])
                if _HIT.startswith(head) or _MISS.startswith(head):
                    self._going = first, at, misses, left
                    return False
                raise ProtocolError(f"no row begins with {head!r}")
        if misses:
            present = np.ones(count, np.bool_)
            present[misses] = False
            sizes = np.where(present, _ROW, len(_MISS))
            self._take(sizes.cumsum() - sizes + first, present, at)
        else:
            self._take(first, None, at)
        return True

    def _walk_carefully(self, buffer: bytearray, at: int, end: int, count: int) -> bool:
        """Element by element; values that are no 24-byte strings count as present, and zero."""
        starts = np.zeros(count, np.intp)
        present = np.zeros(count, np.bool_)
        for i in range(count):
            line = read_line(buffer, at, end)
            if line is None:
                return False
            text, body = line
            if text in (b"$-1", b"_"):
                at = body
                continue
            if text[:1] != b"$":
                present[i], starts[i], at = self._element_error(text), -1, body
                continue
            size = read_integer(text[1:])
            if size < 0 or end < body + size + 2:
                if size < 0:
                    raise ProtocolError(f"a string of {size} bytes")
                return False
            if buffer[body + size : body + size + 2] != b"\r\n":
                raise ProtocolError("a bulk string does not end where its length says")
            present[i] = True
            starts[i] = body - len(_HIT) if size == SIZE else -1
            at = body + size + 2
        self._take(starts, present, at)
        return True

    def _gather(self, buffer: bytearray, end: int) -> bool:
        """Copy the records out; False if a header or an end of a row is not what it must be."""
        if len(self.counts) == 1 and isinstance(self._starts[0], int):
            elements = np.frombuffer(buffer, _ELEMENT, self.counts[0], self._starts[0])
        else:
            parts = [
                part + np.arange(n) * _ROW if isinstance(part, int) else part
                for part, n in zip(self._starts, self.counts, strict=True)
            ]
            starts = np.concatenate(parts) if len(parts) != 1 else parts[0]
            elements = _elements(buffer, end, starts)
            if self._absent and len(self.counts) == 1:
                self.present = self._absent[0][1]
            elif self._absent:
                edges = np.cumsum([0, *self.counts])
                self.present = np.ones(int(edges[-1]), np.bool_)
                for group, present in self._absent:
                    self.present[edges[group] : edges[group + 1]] = present
            if self._careful:
                self.rows = elements["record"].copy()
                self.rows[starts == -1] = np.zeros((), RECORD)
                return True
        framed = (elements["head"] == _HEAD) & (elements["tail"] == _TAIL)
        if self.present is not None:
            framed |= ~self.present
        if np.count_nonzero(framed) < len(framed):
            return False
        self.rows = elements["record"].copy()
        return True


def _elements(buffer: bytearray, end: int, starts: NDArray[np.intp]) -> np.ndarray:
    """Rows that begin at `starts` (n,), as _ELEMENT (n,): one copy, whatever their alignment."""
    if len(buffer) < end + SLACK:
        raise ProtocolError("the receive buffer has no slack")
    bytewise = np.ndarray((end + SLACK - _ROW,), f"V{_ROW}", buffer, 0, (1,))
    return bytewise[starts].view(_ELEMENT)

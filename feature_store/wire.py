"""RESP, the protocol of Redis and Valkey, as far as the store speaks it.

In: commands, as arguments or as arrays of keys. Out: bytes to send, and readers that are given
all bytes received so far after each read and say when the reply is complete. A lookup's command
is one array and its reply becomes one array; anything out of the ordinary takes a careful path.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import ProtocolError
from .record import RECORD, SIZE

SLACK = 64  # bytes that a receive buffer must have beyond what was received
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


class ServerReplyError(str):
    """An error line of the server, as a value: the caller decides what it means."""

    __slots__ = ()


Reply = bytes | int | str | float | None | ServerReplyError | list["Reply"]


class Reader(Protocol):
    """Understands the reply of one pipeline."""

    def scan(self, buffer: bytearray, end: int) -> bool:
        """True once buffer[:end] holds the whole reply; raises ProtocolError on other bytes."""


def command(*args: bytes | str | int) -> bytes:
    """One command in RESP."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class RepliesReader:
    """Any `count` replies, RESP2 or RESP3, as Python values in `replies`."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.replies: list[Reply] = []
        self._at = 0

    def scan(self, buffer: bytearray, end: int) -> bool:
        while len(self.replies) < self.count:
            parsed = parse(buffer, self._at, end)
            if parsed is None:
                return False
            value, self._at = parsed
            self.replies.append(value)
        if self._at != end:
            raise ProtocolError(f"{end - self._at} bytes follow the reply that was asked for")
        return True


def _line(buffer: bytearray, at: int, end: int) -> tuple[bytes, int] | None:
    stop = buffer.find(b"\r\n", at, end)
    if stop < 0:
        if end - at > 1 << 16:
            raise ProtocolError("a line of more than 64 KiB is no RESP")
        return None
    return bytes(buffer[at:stop]), stop + 2


def _integer(text: bytes) -> int:
    digits = text[1:] if text[:1] in b"+-" else text
    if not digits.isdigit() or len(digits) > 19:
        raise ProtocolError(f"expected an integer, found {text[:40]!r}")
    return int(text)


def parse(buffer: bytearray, at: int, end: int, depth: int = 0) -> tuple[Reply, int] | None:
    """The reply that begins at `at` and where it stops, or None while it is incomplete."""
    line = _line(buffer, at, end)
    if line is None:
        return None
    text, at = line
    kind, rest = text[:1], text[1:]
    if kind == b"+":
        return rest.decode("utf-8", "replace"), at
    if kind == b"-":
        return ServerReplyError(rest.decode("utf-8", "replace")), at
    if kind in (b":", b"#", b"(", b",", b"_"):
        return _scalar(kind, rest), at
    if kind in (b"$", b"=", b"!"):
        return _bulk(kind, _integer(rest), buffer, at, end)
    if kind in (b"*", b">", b"~", b"%"):
        return _aggregate(_integer(rest) * (2 if kind == b"%" else 1), buffer, at, end, depth)
    raise ProtocolError(f"no RESP reply begins with {text[:40]!r}")


def _scalar(kind: bytes, rest: bytes) -> Reply:
    if kind == b"_":
        return None
    if kind == b"#":
        return int(rest == b"t")
    if kind == b",":
        try:
            return float(rest)
        except ValueError:
            raise ProtocolError(f"expected a number, found {rest[:40]!r}") from None
    return _integer(rest)


def _bulk(kind: bytes, size: int, buffer: bytearray, at: int, end: int) -> tuple[Reply, int] | None:
    if size < 0:
        return None, at
    stop = at + size
    if end < stop + 2:
        return None
    if buffer[stop : stop + 2] != b"\r\n":
        raise ProtocolError("a bulk string does not end where its length says")
    data = bytes(buffer[at:stop])
    value: Reply = ServerReplyError(data.decode("utf-8", "replace")) if kind == b"!" else data
    return value, stop + 2


def _aggregate(
    size: int, buffer: bytearray, at: int, end: int, depth: int
) -> tuple[Reply, int] | None:
    if size < 0:
        return None, at
    if depth > 16:
        raise ProtocolError("replies are nested more than 16 deep")
    items: list[Reply] = []
    for _ in range(size):
        parsed = parse(buffer, at, end, depth + 1)
        if parsed is None:
            return None
        item, at = parsed
        items.append(item)
    return items, at


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
        self._absent: list[tuple[int, NDArray[np.bool_]]] = []

    def scan(self, buffer: bytearray, end: int) -> bool:
        while self._group < len(self.counts):
            count = self.counts[self._group]
            line = _line(buffer, self._at, end)
            if line is None:
                return False
            text, at = line
            if text[:1] == b"-":
                self.errors[self._group] = text[1:].decode("utf-8", "replace")
                self._take(np.zeros(count, np.intp), np.zeros(count, np.bool_), at)
                continue
            if text != b"*%d" % count:
                raise ProtocolError(f"expected an array of {count}, found {text[:40]!r}")
            walk = self._walk_carefully if self._careful else self._walk
            if not walk(buffer, at, end, count):
                return False
        if self._at != end:
            raise ProtocolError(f"{end - self._at} bytes follow the reply that was asked for")
        if not self._gather(buffer, end):
            self.__init__(self.counts)  # type: ignore[misc]
            self._careful = True
            return self.scan(buffer, end)
        return True

    def _take(
        self, starts: NDArray[np.intp] | int, present: NDArray[np.bool_] | None, at: int
    ) -> None:
        self._starts.append(starts)
        if present is not None:
            self._absent.append((self._group, present))
        self._group += 1
        self._at = at

    def _walk(self, buffer: bytearray, at: int, end: int, count: int) -> bool:
        """Step from miss to miss over runs of hits; records of a wrong size switch to care."""
        first, misses, left = at, [], count
        while left:
            stop = min(end, at + left * _ROW)
            miss = buffer.find(_MISS, at, stop)
            while miss >= 0 and (miss - at) % _ROW:  # inside a record's own bytes
                miss = buffer.find(_MISS, miss + 1, stop)
            run = (stop - at if miss < 0 else miss - at) // _ROW
            at += run * _ROW
            left -= run
            if run and buffer[at - _ROW : at - _ROW + 5] != _HIT:
                return self._switch(buffer, end)
            if miss >= 0:
                misses.append(count - left)
                left -= 1
                at += len(_MISS)
            elif left:
                head = bytes(buffer[at : min(end, at + 5)])
                if _HIT.startswith(head) or _MISS.startswith(head):
                    return False
                return self._switch(buffer, end)
        if misses:
            present = np.ones(count, np.bool_)
            present[misses] = False
            sizes = np.where(present, _ROW, len(_MISS))
            self._take(np.cumsum(sizes) - sizes + first, present, at)
        else:
            self._take(first, None, at)
        return True

    def _switch(self, buffer: bytearray, end: int) -> bool:
        self._careful = True
        return self._walk_carefully(buffer, buffer.index(b"\r\n", self._at) + 2, end)

    def _walk_carefully(
        self, buffer: bytearray, at: int, end: int, count: int | None = None
    ) -> bool:
        """Element by element; values that are no 24-byte strings count as present, and zero."""
        count = self.counts[self._group] if count is None else count
        starts = np.zeros(count, np.intp)
        present = np.zeros(count, np.bool_)
        for i in range(count):
            line = _line(buffer, at, end)
            if line is None:
                return False
            text, body = line
            if text in (b"$-1", b"_"):
                at = body
                continue
            if text[:1] != b"$":
                raise ProtocolError(f"expected a string or nothing, found {text[:40]!r}")
            size = _integer(text[1:])
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
            if len(buffer) < end + SLACK:
                raise ProtocolError("the receive buffer has no slack")
            bytewise = np.ndarray((end + SLACK - _ROW,), f"V{_ROW}", buffer, 0, (1,))
            elements = bytewise[starts].view(_ELEMENT)
            if self._absent:
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
        if not framed.all():
            return False
        self.rows = elements["record"].copy()
        return True

"""RESP, the protocol of Redis and Valkey, as far as the store speaks it.

In: commands. Out: bytes to send, and readers that are given all bytes received so far after each
read and say when the reply is complete. Records have a reader of their own in rows.py.
"""

from typing import Protocol

from .errors import ProtocolError

SLACK = 64  # bytes that a receive buffer must have beyond what was received


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


def read_line(buffer: bytearray, at: int, end: int) -> tuple[bytes, int] | None:
    stop = buffer.find(b"\r\n", at, end)
    if stop < 0:
        if end - at > 1 << 16:
            raise ProtocolError("a line of more than 64 KiB is no RESP")
        return None
    return bytes(buffer[at:stop]), stop + 2


def read_integer(text: bytes) -> int:
    digits = text[1:] if text[:1] in b"+-" else text
    if not digits.isdigit() or len(digits) > 19:
        raise ProtocolError(f"expected an integer, found {text[:40]!r}")
    return int(text)


def parse(buffer: bytearray, at: int, end: int, depth: int = 0) -> tuple[Reply, int] | None:
    """The reply that begins at `at` and where it stops, or None while it is incomplete."""
    line = read_line(buffer, at, end)
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
        return _bulk(kind, read_integer(rest), buffer, at, end)
    if kind in (b"*", b">", b"~", b"%"):
        return _aggregate(read_integer(rest) * (2 if kind == b"%" else 1), buffer, at, end, depth)
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
    return read_integer(rest)


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

"""The RESP readers: any bytes, split anywhere, give the right rows or an error."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.errors import ProtocolError
from feature_store.rows import RowsReader
from feature_store.wire import SLACK, RepliesReader, ServerReplyError, command

records = st.one_of(
    st.binary(min_size=24, max_size=24),
    st.sampled_from(
        [b"\r\n$-1\r\n" * 3 + b"abc", b"$24\r\n" * 4 + b"1234", b"$-1\r\n" * 4 + b"1234"]
    ),
)
values = st.one_of(st.none(), records, st.binary(max_size=80))
plain = st.one_of(st.none(), records)
cuts_ = st.lists(st.integers(0, 4000), max_size=8)


def feed(reader: Any, data: bytes, cuts: list[int]) -> bool:
    """Give the reader data in pieces; whether it was complete at the end, and only there."""
    buffer = bytearray(len(data) + SLACK)
    at = 0
    for cut in [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]:
        buffer[at:cut] = data[at:cut]
        at = cut
        done = reader.scan(buffer, at)
        if at < len(data):
            assert not done
    return bool(done)


def array_of(items: list[bytes | None]) -> bytes:
    parts = [b"*%d\r\n" % len(items)]
    parts += [b"$-1\r\n" if i is None else b"$%d\r\n%b\r\n" % (len(i), i) for i in items]
    return b"".join(parts)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.one_of(plain, values), min_size=1, max_size=40), min_size=1, max_size=4),
    cuts_,
)
@example([[b"\r\n$-1\r\n" * 3 + b"abc", None, b"hello"]], [5, 9])
@example([[b"12345"]], [])
@example([[None, b"x" * 24, b""], [b"y" * 24]], [3])
def test_rows_are_read_wherever_the_bytes_are_split(
    groups: list[list[bytes | None]], cuts: list[int]
) -> None:
    reader = RowsReader([len(group) for group in groups])
    assert feed(reader, b"".join(array_of(group) for group in groups), cuts)
    flat = [item for group in groups for item in group]
    present = np.ones(len(flat), bool) if reader.present is None else reader.present
    assert present.tolist() == [item is not None for item in flat]
    for row, item in zip(reader.rows, flat, strict=True):
        if item is not None:
            assert row.tobytes() == (item if len(item) == 24 else bytes(24))


@settings(deadline=None)
@given(st.integers(1, 3), st.lists(plain, min_size=2, max_size=9), cuts_)
def test_an_error_in_place_of_a_group_is_kept_apart(
    at: int, items: list[bytes | None], cuts: list[int]
) -> None:
    parts = [array_of(items) for _ in range(4)]
    parts[at] = b"-MOVED 12 127.0.0.1:7000\r\n"
    reader = RowsReader([len(items)] * 4)
    assert feed(reader, b"".join(parts), cuts)
    assert reader.errors == {at: "MOVED 12 127.0.0.1:7000"}
    assert reader.present is not None
    n = len(items)
    assert not reader.present[at * n : (at + 1) * n].any()
    assert reader.present[:n].tolist() == [item is not None for item in items]


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), cuts_, st.integers(0, 5))
@example(b"*2\r\n$24\r\n", [], 2)
@example(b"*1\r\n$-9\r\n", [], 1)
@example(b"*1\r\n*1\r\n$-1\r\n", [], 1)
def test_arbitrary_bytes_neither_crash_nor_become_rows(
    data: bytes, cuts: list[int], count: int
) -> None:
    for reader in (RowsReader([count]), RepliesReader(max(count, 1))):
        buffer = bytearray(len(data) + SLACK)
        at = 0
        try:
            for cut in [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]:
                buffer[at:cut] = data[at:cut]
                at = cut
                if reader.scan(buffer, at):
                    break
        except ProtocolError:
            continue


@settings(max_examples=200, deadline=None)
@given(
    st.lists(plain, min_size=1, max_size=20),
    st.integers(0, 700),
    st.binary(min_size=1, max_size=6),
    cuts_,
)
def test_damaged_replies_never_make_a_wrong_count(
    items: list[bytes | None], where: int, damage: bytes, cuts: list[int]
) -> None:
    data = bytearray(array_of(items))
    where %= len(data)
    data[where : where + len(damage)] = damage
    reader = RowsReader([len(items)])
    try:
        if feed(reader, bytes(data), []):
            assert len(reader.rows) == len(items)
    except (ProtocolError, AssertionError):
        return


simple = st.recursive(
    st.one_of(
        st.none(),
        st.integers(-(2**63), 2**63 - 1),
        st.binary(max_size=30),
        st.text("abcXYZ 09", max_size=10),
    ),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


def wire(value: Any) -> bytes:
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, str):
        return b"+" + value.encode() + b"\r\n"
    return b"*%d\r\n" % len(value) + b"".join(wire(item) for item in value)


@settings(deadline=None)
@given(st.lists(simple, min_size=1, max_size=4), cuts_)
def test_plain_replies_come_back(replies: list[Any], cuts: list[int]) -> None:
    reader = RepliesReader(len(replies))
    assert feed(reader, b"".join(wire(reply) for reply in replies), cuts)
    assert reader.replies == replies


def test_resp3_types() -> None:
    data = b"%1\r\n+a\r\n,1.5\r\n~2\r\n#t\r\n_\r\n!5\r\nERR x\r\n=5\r\ntxt:y\r\n"
    data += b"(12\r\n>1\r\n$1\r\nz\r\n"
    reader = RepliesReader(6)
    assert feed(reader, data, [7])
    assert reader.replies == [["a", 1.5], [1, None], "ERR x", b"txt:y", 12, [b"z"]]
    assert isinstance(reader.replies[2], ServerReplyError)


def test_what_follows_a_reply_is_refused() -> None:
    with pytest.raises(ProtocolError):
        feed(RepliesReader(1), b":1\r\n:2\r\n", [])
    with pytest.raises(ProtocolError):
        feed(RowsReader([1]), b"*1\r\n$-1\r\n+x\r\n", [])


def test_a_command_is_an_array_of_strings() -> None:
    assert command("SET", b"k\x00", 7) == b"*3\r\n$3\r\nSET\r\n$2\r\nk\x00\r\n$1\r\n7\r\n"

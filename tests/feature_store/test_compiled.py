"""The compiled loops and their numpy twins give the same, byte for byte, on any input."""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store import compiled, record
from feature_store.errors import ProtocolError
from feature_store.keys import Keys
from feature_store.near import NearTable
from feature_store.rows import RowsReader
from feature_store.single import CompiledReader, request
from feature_store.wire import SLACK

if compiled.fast is None and not os.environ.get("CI"):
    pytest.skip("feature_store._fast is not built", allow_module_level=True)

FAST = compiled.fast
ids_ = st.lists(st.integers(1, 2**63 - 1), max_size=30)


@given(ids_, st.integers(0, 65535))
def test_commands_are_the_same(ids: list[int], number: int) -> None:
    assert FAST is not None
    keys = Keys("some.name")
    array = np.array(ids, np.int64)
    assert request(keys, array, number, FAST) == request(keys, array, number, None)


def sealed(ad_id: int, seed: int, version: int, bits: int) -> bytes:
    random = np.random.default_rng(seed)
    codes = random.integers(0, 65535, (1, 6)).astype(np.uint16)
    control = np.array([bits], np.uint64)
    flags = np.array([seed % 7], np.uint16)
    return record.encode(np.array([ad_id]), codes, flags, version, control).tobytes()


@st.composite
def replies(draw: st.DrawFn) -> tuple[list[int], bytes]:
    """Ids and a reply: records, misses, other versions, other ids, other sizes, damage."""
    ids = draw(ids_)
    parts = [b"*%d\r\n" % (len(ids) + 1)]
    for ad_id in [*ids, 0]:
        kind = draw(st.sampled_from(["hit"] * 6 + ["miss", "mark", "version", "id", "size"]))
        seed = draw(st.integers(0, 50))
        bits = 16 if kind == "mark" else draw(st.sampled_from([0, 0, 8, 32, 1 << 20]))
        owner = ad_id + 1 if kind == "id" else ad_id
        value = sealed(owner, seed, 2 if kind == "version" else 1, bits)
        if kind == "size":
            value = value[: draw(st.integers(0, 23))]
        parts.append(b"$-1\r\n" if kind == "miss" else b"$%d\r\n%b\r\n" % (len(value), value))
    data = bytearray(b"".join(parts))
    if draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(0, 255))
    return ids, bytes(data)


@settings(max_examples=400)
@given(replies(), st.lists(st.integers(0, 1000), max_size=4))
@example(([], b"*1\r\n$-1\r\n"), [])
def test_replies_decode_the_same(drawn: tuple[list[int], bytes], cuts: list[int]) -> None:
    assert FAST is not None
    ids, data = drawn
    array = np.array(ids, np.int64)
    outcomes = []
    for reader in (CompiledReader(FAST, array, 1), RowsReader([len(ids) + 1])):
        buffer = bytearray(len(data) + SLACK)
        at = 0
        done: object = False
        try:
            for cut in [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]:
                buffer[at:cut] = data[at:cut]
                at = cut
                done = reader.scan(buffer, at)
                if done:
                    break
        except ProtocolError as error:
            done = type(error)
        rows = reader.careful if isinstance(reader, CompiledReader) else reader
        if done is not True or (rows is not None and rows.errors):
            outcomes.append((done, None))
            continue
        if rows is None:
            assert isinstance(reader, CompiledReader)
            decoded, pointer = reader.decoded, reader.pointer
        else:
            present = rows.present
            there = None if present is None else present[:-1]
            hashed = record.hash_ids(array)
            decoded = record.decode(hashed, rows.rows[:-1], there, 1)
            gone = present is not None and not present[-1]
            pointer = b"" if gone else rows.rows[-1].tobytes()
        fields = (decoded.codes, decoded.flags, decoded.status, decoded.valid)
        outcomes.append((done, [field.tolist() for field in fields] + [pointer]))
    assert outcomes[0] == outcomes[1]


@given(ids_, st.lists(st.integers(0, 29), max_size=30), st.integers(1, 3))
def test_near_tables_answer_the_same(ids: list[int], asked: list[int], number: int) -> None:
    assert FAST is not None
    array = np.array(ids, np.int64)
    n = len(ids)
    table = NearTable(4096)
    random = np.random.default_rng(n)
    rows = record.Decoded(
        random.integers(0, 65535, (n, 6)).astype(np.uint16),
        np.arange(n, dtype=np.uint16),
        random.integers(0, 2, n).astype(np.uint8),
        np.ones(n, np.bool_),
    )
    keeping = random.integers(0, 2)  # whichever filled the table
    compiled.fast = FAST if keeping else None
    table.put(array, 2, rows, table.moment())
    chosen = array[[i for i in asked if i < n]]
    answers = []
    try:
        for fast in (FAST, None):
            compiled.fast = fast
            known = table.get(chosen, number)
            kept = known.hit
            rows_ = (known.codes[kept], known.flags[kept], known.status[kept])
            answers.append([kept.tolist(), known.hits, *[row.tolist() for row in rows_]])
    finally:
        compiled.fast = FAST
    assert answers[0] == answers[1]
    if number != 2:
        assert not any(answers[0][0])


def test_arrays_that_are_too_small_are_refused() -> None:
    assert FAST is not None
    ids = np.arange(1, 10)
    small = np.empty(2, np.uint8)
    with pytest.raises(ValueError, match="smaller"):
        FAST.rows(ids, bytearray(100), small, small, small, small, 10, 1)
    with pytest.raises(ValueError, match="smaller"):
        FAST.near(ids, *[small] * 10, 4, 8, 1)
    with pytest.raises(ValueError, match="smaller"):
        FAST.keep(ids, *[small] * 10, 4, 8, 1)
    with pytest.raises(ValueError, match="smaller"):
        FAST.mget(ids, b"x", b"short", b"")
    with pytest.raises(TypeError):
        FAST.rows(ids)

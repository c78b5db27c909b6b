"""The record's bytes: sealed, verified, and patched by a script without being opened."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store import Flag, Status, record

ids_ = st.integers(1, 2**63 - 1)
codes_ = st.lists(st.integers(0, 65534), min_size=6, max_size=6)


def sealed(
    ad_id: int, codes: list[int], flags: int = 0, version: int = 1, control: int = 0
) -> bytes:
    return record.encode(
        np.array([ad_id]),
        np.array([codes], np.uint16),
        np.array([flags], np.uint16),
        version,
        np.array([control], np.uint64),
    ).tobytes()


def opened(ad_id: int, raw: bytes, version: int = 1) -> record.Decoded:
    rows = np.frombuffer(raw, record.RECORD)
    return record.decode(record.hash_ids(np.array([ad_id])), rows, None, version)


@given(ids_, codes_, st.integers(0, 65535), st.integers(1, 65535), st.integers(0, 2**42 - 1))
def test_a_record_comes_back(
    ad_id: int, codes: list[int], flags: int, version: int, sequence: int
) -> None:
    raw = sealed(ad_id, codes, flags, version, sequence << 6)
    assert len(raw) == 24
    assert struct.unpack("<8H", raw[:16]) == (*codes, flags, version)
    (control,) = struct.unpack("<Q", raw[16:])
    assert control & 7 == record.FORMAT
    assert control >> 6 & 2**42 - 1 == sequence
    row = opened(ad_id, raw, version)
    assert row.valid.all()
    assert row.status[0] == Status.HIT
    assert row.codes[0].tolist() == codes
    assert row.flags[0] == flags


@given(ids_, codes_, st.sets(st.integers(0, 191), min_size=1, max_size=2))
def test_one_or_two_wrong_bits_are_always_seen(
    ad_id: int, codes: list[int], bits: set[int]
) -> None:
    raw = bytearray(sealed(ad_id, codes))
    for bit in bits:
        raw[bit // 8] ^= 1 << bit % 8
    row = opened(ad_id, bytes(raw))
    assert not row.valid.any()
    assert row.status[0] == Status.MISS
    assert (row.codes == record.NO_CODE).all()


def test_every_pair_of_bits_changes_the_checksum() -> None:
    syndromes = np.frombuffer(record.SYNDROMES, "<u2")
    assert len(set(syndromes.tolist())) == 176
    assert 0 not in syndromes
    # An error in a record's bit and one in its checksum must not make up for each other.
    assert not set(syndromes.tolist()) & {1 << bit for bit in range(16)}


@given(ids_, codes_, st.integers(0, 175))
def test_a_script_may_flip_bits_and_repair_the_checksum(
    ad_id: int, codes: list[int], bit: int
) -> None:
    raw = bytearray(sealed(ad_id, codes))
    raw[bit // 8] ^= 1 << bit % 8
    syndrome = record.SYNDROMES[2 * bit : 2 * bit + 2]
    raw[22] ^= syndrome[0]
    raw[23] ^= syndrome[1]
    words = struct.unpack("<3Q", raw)
    columns = [np.array([word], np.uint64) for word in words]
    assert record.checksum(record.hash_ids(np.array([ad_id])), *columns)[0] == words[2] >> 48


@given(st.binary(min_size=24, max_size=24), ids_)
def test_foreign_bytes_are_a_miss(raw: bytes, ad_id: int) -> None:
    row = opened(ad_id, raw)
    if not row.valid[0]:  # one in 2^35 is a record by chance
        assert row.status[0] == Status.MISS
        assert (row.codes == record.NO_CODE).all()


@pytest.mark.parametrize(
    ("control", "status"),
    [
        (0, Status.HIT),
        (record.ABSENT, Status.MISS),
        (record.MARK_HUMAN, Status.BLOCKED),
        (record.MARK_VERDICT | record.ABSENT, Status.BLOCKED),
    ],
)
def test_marks_decide_the_status(control: int, status: Status) -> None:
    row = opened(9, sealed(9, [1, 2, 3, 4, 5, 6], 7, control=control))
    assert row.status[0] == status
    assert (row.codes[0, 0] == 1) == (status == Status.HIT)
    assert row.flags[0] == (7 if status == Status.HIT else 0)


def test_a_record_of_another_id_or_version_is_refused() -> None:
    raw = sealed(9, [1, 2, 3, 4, 5, 6])
    assert not opened(10, raw).valid[0]
    assert not opened(9, raw, version=2).valid[0]


def test_the_flags_are_a_contract() -> None:
    assert [flag.value for flag in Flag] == [1 << bit for bit in range(14)]
    assert list(record.CATEGORIES) == [
        "exaggerated_claims",
        "gambling",
        "alcohol",
        "tobacco",
        "weapons",
        "financial_promises",
        "health_claims",
        "low_quality",
        "misleading_button",
        "clutter",
    ]

"""What every store promises, on every kind of server, sync and async."""

from typing import Any

import numpy as np
import pytest

from feature_store import Flag, Status
from feature_store.errors import CoverageError, InputError, UnknownVersionError, VersionInUseError


def some(n: int, seed: int = 0) -> tuple[Any, Any]:
    """Distinct ids (n,) over the whole range, codes (n, 6)."""
    random = np.random.default_rng(seed)
    ids = random.choice(2**40, n, replace=False).astype(np.int64) * 2**22 + 1
    return ids, random.integers(0, 65535, (n, 6)).astype(np.uint16)


def test_what_was_written_is_found_in_the_order_asked(store: Any) -> None:
    ids, codes = some(700)
    result = store.write(ids, codes, Flag.PENDING)
    assert (result.version, result.written, result.ignored) == ("1", 700, 0)
    asked = np.concatenate([ids[::-1], ids[:5], [1, 2**63 - 1]])
    found = store.lookup(asked)
    assert found.version == "1"
    assert found.codes.dtype == np.uint16
    assert found.status.dtype == np.uint8
    assert found.flags.dtype == np.uint16
    np.testing.assert_array_equal(found.codes[:-2], np.concatenate([codes[::-1], codes[:5]]))
    np.testing.assert_array_equal(found.status[:-2], Status.HIT)
    np.testing.assert_array_equal(found.flags[:-2], Flag.PENDING)
    np.testing.assert_array_equal(found.status[-2:], Status.MISS)
    np.testing.assert_array_equal(found.codes[-2:], 65535)


def test_an_empty_store_and_no_ids(store: Any) -> None:
    found = store.lookup([5, 6])
    assert found.status.tolist() == [Status.MISS, Status.MISS]
    assert found.version == "1"
    none = store.lookup([])
    assert none.codes.shape == (0, 6)
    assert store.write([], np.empty((0, 6), np.uint16)).written == 0


def test_an_empty_store_begins_with_its_first_version_when_it_is_named_too(store: Any) -> None:
    ids, codes = some(3)
    store.write(ids, codes, version="1")
    assert store.lookup(ids).status.tolist() == [Status.HIT] * 3
    store.write(ids, codes, version="2")
    assert store.lookup(ids).version == "1"


@pytest.mark.parametrize(
    "ids",
    [
        *(
            [0],
            [-1],
            [2**63],
            [1.5],
            ["1"],
            [True],
            [None],
            "12",
            b"12",
            bytearray(b"12"),
            7,
            [[1]],
        ),
        *([[1], [2, 3]], [1, np.True_], np.array([1.0]), np.array(["1"]), np.array([0, 1])),
        *(np.array([True]), np.array([], bool), np.array([], str), np.ones((2, 2), np.int64)),
        *(np.ones((0, 2), np.int64), np.array(1), np.ma.masked_array([1, 2], [True, False])),
    ],
    ids=repr,
)
def test_ids_that_are_none_are_refused(here: Any, ids: Any) -> None:
    for read in (here.lookup, here.delete):
        with pytest.raises(InputError, match="ad_ids must"):
            read(ids)


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, ">i8", object])
def test_ids_of_any_integers_are_taken(here: Any, dtype: Any) -> None:
    ids, codes = np.arange(1, 41).astype(dtype), some(20)[1]
    assert here.write(ids[::2], codes).written == 20
    for asked in (ids[::2], ids[::2].tolist(), np.ascontiguousarray(ids[::2])):
        np.testing.assert_array_equal(here.lookup(asked).codes, codes)


def test_other_wrong_arguments_are_refused(here: Any) -> None:
    codes = np.zeros((1, 6), np.uint16)
    for wrong in (codes[:, :5], codes.astype(float), codes.astype(int) + 65535):
        with pytest.raises(InputError):
            here.write([1], wrong)
    for ragged in ({"codes": [[1], [2, 3]]}, {"flags": [[1], []]}, {"sequence": [[1], []]}):
        with pytest.raises(InputError, match=f"{next(iter(ragged))} must be numbers"):
            here.write([1], **{"codes": codes, **ragged})
    with pytest.raises(InputError):
        here.write([1], codes, flags=1 << 16)
    with pytest.raises(InputError):
        here.write([1], codes, sequence=2**42)
    with pytest.raises(InputError):
        here.write([1], codes, version="a b")
    for rate in (-1, float("nan"), "fast", None):
        with pytest.raises(InputError, match="rate"):
            here.write([1], codes, rate=rate)
    assert here.write([1], codes, rate=np.float32(1e6)).written == 1
    with pytest.raises(InputError):
        here.lookup([1], deadline=0)
    with pytest.raises(InputError):
        here.block([1], "why", source="robot")
    for reason in (None, 5, "\ud800"):  # None would have lifted the mark
        with pytest.raises(InputError, match="reason"):
            here.block([1], reason)
    for share in ("x", None, float("nan"), -0.1, 99):
        with pytest.raises(InputError, match="min_coverage"):
            here.activate("2", min_coverage=share)
    assert len(here.lookup([1], deadline=np.float32(1)).status) == 1


def test_a_lower_sequence_is_ignored(store: Any) -> None:
    ids, codes = some(40)
    store.write(ids, codes, sequence=10)
    late = store.write(ids, codes[::-1], sequence=9)
    assert (late.written, late.ignored) == (0, 40)
    np.testing.assert_array_equal(store.lookup(ids).codes, codes)
    assert store.write(ids, codes[::-1]).written == 40  # without one: always, and 10 is kept
    np.testing.assert_array_equal(store.lookup(ids).codes, codes[::-1])
    assert store.write(ids, codes, sequence=9).ignored == 40
    assert store.write(ids, codes, sequence=10).written == 40
    per_row = np.where(np.arange(40) % 2, 11, 3)
    assert store.write(ids, codes[::-1], sequence=per_row).written == 20


def test_of_rows_about_one_id_the_last_or_highest_wins(store: Any) -> None:
    codes = np.arange(18, dtype=np.uint16).reshape(3, 6)
    store.write([7, 7, 7], codes)
    assert store.lookup([7]).codes[0].tolist() == codes[2].tolist()
    store.write([8, 8, 8], codes, sequence=[1, 5, 2])
    assert store.lookup([8]).codes[0].tolist() == codes[1].tolist()


def test_blocking_hides_codes_until_unblocked(store: Any) -> None:
    ids, codes = some(10)
    store.write(ids, codes, Flag.REVIEW)
    unknown = 99
    assert store.block([*ids[:3].tolist(), unknown], "complaint").replicated == 0
    found = store.lookup([*ids.tolist(), unknown])
    assert found.status.tolist() == [Status.BLOCKED] * 3 + [Status.HIT] * 7 + [Status.BLOCKED]
    assert (found.codes[:3] == 65535).all()
    assert found.flags.tolist() == [0] * 3 + [2] * 7 + [0]
    store.write([*ids[:3].tolist(), unknown], codes[:4], sequence=5)  # comes back: still blocked
    assert (store.lookup([*ids[:3].tolist(), unknown]).status == Status.BLOCKED).all()
    store.write(ids[:2], codes[:2], version="2")  # in a new version too
    assert (store.lookup([ids[0], unknown], version="2").status == Status.BLOCKED).all()
    store.unblock([*ids[:3].tolist(), unknown])
    found = store.lookup([*ids[:3].tolist(), unknown])
    assert (found.status == Status.HIT).all()
    np.testing.assert_array_equal(found.codes, codes[:4])
    assert store.lookup([ids[0], unknown], version="2").status.tolist() == [1, 0]


def test_marks_of_humans_and_verdicts_are_separate(store: Any) -> None:
    ids, codes = some(2)
    store.write(ids, codes)
    store.block(ids, "human says so")
    store.block(ids, "policy 3", source="verdict")
    store.unblock(ids[:1], source="verdict")
    store.unblock(ids[1:])
    assert (store.lookup(ids).status == Status.BLOCKED).all()
    store.unblock(ids[:1])
    store.unblock(ids[1:], source="verdict")
    assert (store.lookup(ids).status == Status.HIT).all()


def test_delete_keeps_a_humans_mark_and_drops_a_verdicts(store: Any) -> None:
    ids, codes = some(3)
    store.write(ids, codes)
    store.write(ids, codes, version="2")
    store.block(ids[:1], "human")
    store.block(ids[1:2], "verdict", source="verdict")
    assert store.delete([*ids.tolist(), 12345]) == 3
    for version in ("1", "2"):
        assert (store.lookup(ids, version=version).status == Status.MISS).all()
    store.write(ids, codes)
    assert store.lookup(ids).status.tolist() == [Status.BLOCKED, Status.HIT, Status.HIT]
    store.unblock(ids)
    assert (store.lookup(ids).status == Status.HIT).all()


def test_flags_change_in_every_version(store: Any) -> None:
    ids, codes = some(50)
    store.write(ids, codes, Flag.PENDING | Flag.CLUTTER)
    store.write(ids, codes, Flag.PENDING, version="2")
    assert store.update_flags(ids, Flag.REVIEW | Flag.GAMBLING, Flag.PENDING) == 100
    assert (store.lookup(ids).flags == Flag.REVIEW | Flag.GAMBLING | Flag.CLUTTER).all()
    assert (store.lookup(ids, version="2").flags == Flag.REVIEW | Flag.GAMBLING).all()
    np.testing.assert_array_equal(store.lookup(ids).codes, codes)


def test_versions_live_side_by_side(store: Any) -> None:
    ids, codes = some(100)
    store.write(ids, codes)
    store.write(ids[:90], codes[::-1][:90], version="e2-s1")
    assert [(v.name, v.state, v.records) for v in store.versions()] == [
        ("1", "active", 100),
        ("e2-s1", "kept", 90),
    ]
    with pytest.raises(CoverageError, match="90 of 100"):
        store.activate("e2-s1")
    assert store.activate("e2-s1", min_coverage=0.9).state == "active"
    found = store.lookup(ids)
    assert found.version == "e2-s1"
    assert found.status.tolist() == [1] * 90 + [0] * 10
    pinned = store.lookup(ids, version="1")
    assert pinned.version == "1"
    np.testing.assert_array_equal(pinned.codes, codes)
    with pytest.raises(VersionInUseError):
        store.retire("e2-s1")
    assert store.rollback().name == "1"
    np.testing.assert_array_equal(store.lookup(ids).codes, codes)
    assert store.retire("e2-s1", wait=True).records == 90
    with pytest.raises(UnknownVersionError):
        store.lookup(ids, version="e2-s1")
    with pytest.raises(UnknownVersionError):
        store.activate("never")
    with pytest.raises(UnknownVersionError):
        store.rollback()
    assert [v.name for v in store.versions()] == ["1"]


def test_a_name_that_comes_again_begins_empty(store: Any) -> None:
    ids, codes = some(5)
    store.write(ids, codes)
    store.write(ids, codes, version="2")
    store.retire("2", wait=True)
    store.write(ids[:1], codes[:1], version="2")
    assert store.lookup(ids, version="2").status.tolist() == [1, 0, 0, 0, 0]

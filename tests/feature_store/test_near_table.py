"""The near cache's table: bounded, keeps what is used, never what was invalidated meanwhile."""

import numpy as np

from feature_store.near import NearTable
from feature_store.record import Decoded


def rows(n: int, seed: int = 0) -> Decoded:
    codes = np.random.default_rng(seed).integers(0, 65535, (n, 6)).astype(np.uint16)
    ones = np.ones(n, np.uint8)
    return Decoded(codes, np.arange(n, dtype=np.uint16), ones, ones.astype(bool))


def test_the_table_is_bounded_and_keeps_what_is_used(loops: str) -> None:
    table = NearTable(64 << 10)
    assert table.bytes <= 64 << 10
    hot = np.arange(1, 301)
    table.put(hot, 1, rows(300), table.moment())
    for start in range(1000, 41000, 500):
        cold = np.arange(start, start + 500)
        assert table.get(hot, 1).hit.mean() > 0.9
        table.put(cold, 1, rows(500), table.moment())
    assert table.get(hot, 1).hit.mean() > 0.9
    assert not table.get(hot, 2).hit.any()


def test_rows_invalidated_while_they_were_read_are_not_kept(loops: str) -> None:
    table = NearTable(1 << 20)
    ids = np.arange(1, 101)
    moment = table.moment()
    table.drop(ids[:10], 1)
    table.put(ids, 1, rows(100), moment)
    assert table.get(ids, 1).hit.tolist() == [False] * 10 + [True] * 90
    moment = table.moment()
    table.clear()
    table.put(ids, 1, rows(100), moment)
    assert not table.get(ids, 1).hit.any()


def test_duplicates_and_no_ids(loops: str) -> None:
    table = NearTable(1 << 16)
    ids = np.array([5, 5, 5])
    table.put(ids, 1, rows(3), table.moment())
    known = table.get(ids, 1)
    assert known.hit.all()
    assert (known.answer.codes == known.answer.codes[0]).all()
    none = np.empty(0, np.int64)
    assert table.get(none, 1).hit.shape == (0,)

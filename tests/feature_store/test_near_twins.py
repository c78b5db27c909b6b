"""The near cache's table in C and its numpy twin keep and answer the same."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import compiled, record
from feature_store.near import NearTable

if compiled.fast is None and not os.environ.get("CI"):
    pytest.skip("feature_store._fast is not built", allow_module_level=True)

FAST = compiled.fast
ids_ = st.lists(st.integers(1, 2**63 - 1), max_size=30)


@settings(deadline=None)
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
            kept, answer = known.hit, known.answer
            rows_ = (answer.codes[kept], answer.flags[kept], answer.status[kept])
            answers.append([kept.tolist(), known.hits, *[row.tolist() for row in rows_]])
    finally:
        compiled.fast = FAST
    assert answers[0] == answers[1]
    if number != 2:
        assert not any(answers[0][0])


@settings(deadline=None)
@given(ids_, st.integers(0, 2**32))
def test_near_tables_take_rows_by_index(ids: list[int], seed: int) -> None:
    """What is read into rows of an answer is kept as if it had been read alone."""
    random = np.random.default_rng(seed)
    array = np.unique(np.array(ids, np.int64))
    n = len(array)
    rows = record.Decoded(
        random.integers(0, 65535, (2 * n, 6)).astype(np.uint16),
        random.integers(0, 9, 2 * n).astype(np.uint16),
        random.integers(0, 2, 2 * n).astype(np.uint8),
        np.ones(2 * n, np.bool_),
    )
    index = random.permutation(2 * n)[:n]
    for fast in (FAST, None):
        compiled.fast = fast
        try:
            table = NearTable(1 << 16)
            moment = table.moment()
            table.drop(array[:3], 2)
            table.put(array, 2, rows, moment, index)
            known = table.get(array, 2)
        finally:
            compiled.fast = FAST
        assert not known.hit[:3].any()
        hit = known.hit
        np.testing.assert_array_equal(known.answer.codes[hit], rows.codes[index][hit])
        np.testing.assert_array_equal(known.answer.flags[hit], rows.flags[index][hit])
        np.testing.assert_array_equal(known.answer.status[hit], rows.status[index][hit])
        if fast is not None and n < 8:  # numpy keeps one row of those that meet in a set at once
            assert hit[3:].all()

"""A server that answers anything, in any pieces: no crash, no hang, no row that was not written."""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest_proxy import Proxy
from conftest_tools import opened, until
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from feature_store import Status
from feature_store.embedded import EmbeddedValkey
from feature_store.health import Health

IDS = np.arange(1, 6)
CODES = np.arange(30, dtype=np.uint16).reshape(5, 6)

values = st.one_of(
    st.just(b"$-1\r\n"),
    st.binary(min_size=24, max_size=24).map(lambda raw: b"$24\r\n" + raw + b"\r\n"),
    st.binary(max_size=40).map(lambda raw: b"$%d\r\n%b\r\n" % (len(raw), raw)),
    st.sampled_from([b":1\r\n", b"-ERR x\r\n", b"*1\r\n", b"_\r\n", b"$99999999999\r\n"]),
)
shaped = st.tuples(st.integers(0, 8), st.lists(values, max_size=8)).map(
    lambda drawn: b"*%d\r\n" % drawn[0] + b"".join(drawn[1])
)
answers = st.one_of(st.binary(max_size=200), shaped)


@pytest.fixture
def between(
    valkey_server: EmbeddedValkey,
    valkey_url: str,
    loops: str,
    driver: str,
    layout: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Any, Proxy]]:
    # Or the server would be left out after the first answer that does not come.
    monkeypatch.setattr(Health, "doubt", lambda self, node: None)
    with (
        Proxy(valkey_server.port) as proxy,
        opened(driver, f"redis://127.0.0.1:{proxy.port}", **layout) as store,
    ):
        store.write(IDS, CODES)
        yield store, proxy


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers, st.lists(st.integers(0, 200), max_size=3), st.booleans())
@example(b"", [], True)
@example(b"*6\r\n" + b"$24\r\n" + b"\0" * 24, [7], True)
@example(b"*-1\r\n", [], False)
@example(b"*6\r\n" * 40, [3], False)
def test_any_answer_is_survived(
    between: tuple[Any, Proxy], data: bytes, cuts: list[int], short: bool
) -> None:
    store, proxy = between
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    proxy.short = short
    proxy.pieces = [data[a:b] for a, b in pairwise(edges)]
    try:
        began = time.monotonic()
        found = store.lookup(IDS, deadline=0.01)
        assert time.monotonic() - began < 30  # it ended, whatever came
        assert not np.isin(found.status, [Status.HIT, Status.STALE]).any()
        assert (found.codes == 65535).all()
    finally:
        proxy.pieces = None
    # What came too late or too much may cost further lookups their answers, but not for long.
    until(lambda: np.array_equal(store.lookup(IDS).codes, CODES))

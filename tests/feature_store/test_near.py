"""The near cache: true, bounded, and not believed once it has lost its channel."""

import os
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import redis
from conftest_tools import until

from feature_store import FeatureStore, Flag, Status
from feature_store.embedded import EmbeddedValkey
from feature_store.near import NearTable
from feature_store.record import Decoded

IDS = np.arange(1, 2001)
CODES = np.random.default_rng(3).integers(0, 65535, (2000, 6)).astype(np.uint16)


@pytest.fixture
def writer(valkey_url: str) -> Iterator[FeatureStore]:
    with FeatureStore.connect(valkey_url) as store:
        store.write(IDS, CODES, Flag.PENDING)
        yield store


@pytest.fixture
def near(writer: FeatureStore, valkey_url: str, loops: str) -> Iterator[FeatureStore]:
    with FeatureStore.connect(valkey_url, near_cache_bytes=1 << 20) as store:
        warm(store)
        yield store


def warm(store: FeatureStore) -> None:
    """Look up until the cache answers."""

    def hit() -> bool:
        before = store.counters.get("near hits", 0)
        store.lookup(IDS[:1000])
        return store.counters.get("near hits", 0) >= before + 1000

    until(hit)


def test_a_warm_cache_answers_without_the_server(near: FeatureStore, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        before = client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]
        found = near.lookup(IDS[:1000][::-1])
        after = client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]
    assert after == before
    np.testing.assert_array_equal(found.codes, CODES[:1000][::-1])
    assert (found.flags == Flag.PENDING).all()
    assert found.version == "1"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda store: store.block([7], "why"), Status.BLOCKED),
        (lambda store: store.delete([7]), Status.MISS),
        (lambda store: store.write([7], CODES[:1], Flag.REVIEW), Status.HIT),
    ],
)
def test_changes_reach_the_cache(
    near: FeatureStore,
    writer: FeatureStore,
    change: Callable[[FeatureStore], object],
    status: Status,
) -> None:
    before = near.lookup([7])
    change(writer)
    until(lambda: near.lookup([7]).flags[0] != before.flags[0])
    assert near.lookup([7]).status[0] == status


def test_a_miss_that_was_cached_is_written(near: FeatureStore, writer: FeatureStore) -> None:
    for _ in range(3):
        assert near.lookup([5000]).status[0] == Status.MISS
    writer.write([5000], CODES[:1])
    until(lambda: near.lookup([5000]).status[0] == Status.HIT)


def test_a_flip_reaches_the_cache(near: FeatureStore, writer: FeatureStore) -> None:
    writer.write(IDS, CODES[::-1], version="2")
    writer.activate("2")
    until(lambda: near.lookup(IDS[:1000]).version == "2")
    warm(near)
    np.testing.assert_array_equal(near.lookup(IDS).codes, CODES[::-1])
    np.testing.assert_array_equal(near.lookup(IDS, version="1").codes, CODES)
    writer.rollback()
    until(lambda: near.lookup(IDS[:1000]).version == "1")
    np.testing.assert_array_equal(near.lookup(IDS).codes, CODES)


def test_an_emptied_server_empties_the_cache(near: FeatureStore, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    until(lambda: (near.lookup(IDS[:10]).status == Status.MISS).all())


def test_a_lost_channel_ends_trust(
    near: FeatureStore, writer: FeatureStore, valkey_url: str
) -> None:
    """Killed and killed again, the channel costs the cache but never a stale row."""
    with redis.Redis.from_url(valkey_url) as client:
        for round_ in range(3):
            client.client_kill_filter(_type="normal", skipme=True)
            writer.write([9], CODES[round_ : round_ + 1], round_ + 4)
            until(lambda flags=round_ + 4: near.lookup([9]).flags[0] == flags)
            warm(near)


def test_a_server_that_hangs_gives_stale_rows_then_none() -> None:
    with (
        EmbeddedValkey() as server,
        FeatureStore.connect(server.url, near_cache_bytes=1 << 20) as store,
    ):
        store.write(IDS, CODES)
        warm(store)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            seen = []

            def gone() -> bool:
                found = store.lookup(IDS[:3], deadline=0.005)
                seen.append(int(found.status[0]))
                if found.status[0] == Status.STALE:
                    np.testing.assert_array_equal(found.codes, CODES[:3])
                return bool((found.status == Status.UNAVAILABLE).all())

            until(gone, 2.0)
            order = [Status.HIT, Status.STALE, Status.UNAVAILABLE]
            assert sorted(seen, key=order.index) == seen
            assert Status.STALE in seen
        finally:
            os.kill(server.pid, signal.SIGCONT)
        until(lambda: (store.lookup(IDS[:3]).status == Status.HIT).all())


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
    table.drop(ids[:10])
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

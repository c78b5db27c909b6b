"""The near cache: it answers alone, and every change reaches it, on every kind of server."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest_near import CODES, IDS, warm
from conftest_tools import Backend, until

from feature_store import FeatureStore, Flag, Status
from feature_store.errors import InputError, UnknownVersionError


def reads(backend: Backend) -> int:
    """MGETs that the servers have executed."""
    total = 0
    for client in backend.clients():
        with client:
            total += client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]
    return total


def test_a_warm_cache_answers_without_the_server(near: FeatureStore, any_backend: Backend) -> None:
    before = reads(any_backend)
    found = near.lookup(IDS[:1000][::-1])
    assert reads(any_backend) == before
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


def test_a_store_sees_its_own_changes_at_once(near: FeatureStore) -> None:
    """What the server tells of them comes later."""
    for turn in range(50):
        near.write([7], CODES[turn : turn + 1], turn)
        assert near.lookup([7]).flags[0] == turn
        near.block([7], "why")
        assert near.lookup([7]).status[0] == Status.BLOCKED
        near.unblock([7])
        near.update_flags([7], set_bits=1 << 15)
        assert near.lookup([7]).flags[0] == turn | 1 << 15
        near.delete([7])
        assert near.lookup([7]).status[0] == Status.MISS


def test_a_cache_that_does_not_fit_is_refused(valkey_url: str) -> None:
    with pytest.raises(InputError, match="near_cache_bytes"):
        FeatureStore.connect(valkey_url, near_cache_bytes=1 << 60)


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


def test_an_emptied_server_empties_the_cache(near: FeatureStore, any_backend: Backend) -> None:
    any_backend.flush()
    until(lambda: (near.lookup(IDS[:10]).status == Status.MISS).all())


def test_a_lost_channel_ends_trust(
    near: FeatureStore, writer: FeatureStore, any_backend: Backend
) -> None:
    """Killed and killed again, the channel costs the cache but never a stale row."""
    for round_ in range(3):
        for client in any_backend.clients():
            with client:
                client.client_kill_filter(_type="normal", skipme=True)
        writer.write([9], CODES[round_ : round_ + 1], round_ + 4)
        until(lambda flags=round_ + 4: near.lookup([9]).flags[0] == flags)
        warm(near)


def test_retiring_a_version_leaves_the_others_rows(
    near: FeatureStore, writer: FeatureStore, any_backend: Backend
) -> None:
    writer.write(IDS[:1000], CODES[:1000], version="2")
    until(lambda: near.lookup(IDS[:1000], version="2").version == "2")
    warm(near)
    writer.retire("2", wait=True)
    until(lambda: "2" not in [version.name for version in near.versions()])
    with pytest.raises(UnknownVersionError):
        near.lookup(IDS[:10], version="2")
    before = near.counters["near misses"]
    for _ in range(50):
        assert (near.lookup(IDS[:1000]).status == Status.HIT).all()
    assert near.counters["near misses"] == before
    writer.block([5], "still heard")
    until(lambda: near.lookup([5]).status[0] == Status.BLOCKED)

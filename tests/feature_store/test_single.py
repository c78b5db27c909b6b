"""What one server is asked: MGETs of as many keys as it fetches ahead, the pointer's key last."""

from typing import Any

import numpy as np
import pytest
import redis
from conftest_tools import Backend, opened

from feature_store import FeatureStore, Status
from feature_store.single import fetched_ahead, groups_of

IDS = np.arange(1, 101, dtype=np.int64)
CODES = np.arange(600, dtype=np.uint16).reshape(100, 6)


def test_servers_that_fetch_ahead_say_so_in_their_version() -> None:
    assert fetched_ahead(b"# Server\r\nredis_version:7.2.4\r\nvalkey_version:9.1.2\r\n") == 16
    assert fetched_ahead(b"valkey_version:10.0.0\r\n") == 16
    assert fetched_ahead(b"redis_version:7.2.4\r\nvalkey_version:8.1.3\r\n") == 0
    assert fetched_ahead(b"redis_version:9.0.0\r\n") == 0
    assert fetched_ahead(b"") == 0


def test_groups_hold_all_ids_and_the_pointer_once() -> None:
    assert groups_of(500, 0) is None
    assert groups_of(15, 16) is None
    for n in (16, 17, 31, 32, 500):
        groups = groups_of(n, 16)
        assert groups is not None
        assert int((groups // 2).sum()) == n
        assert (groups % 2).tolist() == [0] * (len(groups) - 1) + [1]
        assert int((groups // 2 + groups % 2).max()) <= 16


def calls(url: str) -> int:
    """MGETs that a server has run."""
    with redis.Redis.from_url(url) as client:
        return int(client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_any_number_of_ids_is_read_in_their_order(valkey_url: str, driver: str, loops: str) -> None:
    with opened(driver, valkey_url) as store:
        store.write(IDS, CODES)
        for n in (0, 1, 15, 16, 17, 32, 33, 100):
            asked = np.random.default_rng(n).permutation(IDS)[:n]
            asked[n // 2 : n // 2 + 2] += 1000
            before = calls(valkey_url)
            found = store.lookup(asked)
            assert calls(valkey_url) - before == (n // 16 + 1 if loops == "compiled" else 1)
            known = asked <= 100
            assert found.status.tolist() == np.where(known, Status.HIT, Status.MISS).tolist()
            np.testing.assert_array_equal(found.codes[known], CODES[asked[known] - 1])


def test_a_value_of_another_size_costs_its_own_row_only(valkey_url: str, loops: str) -> None:
    with FeatureStore.connect(valkey_url) as store, redis.Redis.from_url(valkey_url) as client:
        store.write(IDS, CODES)
        client.set(store.keys.record(40, 1), b"foreign")
        client.delete(store.keys.record(50, 1))
        client.rpush(store.keys.record(50, 1), b"a list")
        found = store.lookup(IDS)
        assert np.flatnonzero(found.status != Status.HIT).tolist() == [39, 49]
        assert store.counters["corrupt"] == 1


def test_another_version_is_followed_between_two_commands(valkey_url: str, loops: str) -> None:
    with FeatureStore.connect(valkey_url) as store, FeatureStore.connect(valkey_url) as other:
        store.write(IDS, CODES)
        other.write(IDS, CODES + 1, version="2")
        other.activate("2")
        found = store.lookup(IDS)  # its pointer, read last, is not the one that is known
        assert found.version == "2"
        np.testing.assert_array_equal(found.codes, CODES + 1)


def test_a_server_that_does_not_is_asked_once(any_backend: Backend, writer: Any) -> None:
    with FeatureStore.connect(any_backend.url) as store:
        valkey = any_backend.name == "valkey"
        assert store._core.fetched_ahead == (16 if valkey else 0)
        found = store.lookup(IDS)
        assert found.status.tolist() == writer.lookup(IDS).status.tolist()

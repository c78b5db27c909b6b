"""What one client does others follow: versions, takedown, retired loads, dead connections."""

import asyncio

import pytest
import redis

from feature_store import AsyncFeatureStore, FeatureStore, Status
from feature_store.errors import AddressError, CoverageError
from feature_store.load import LoadOptions, load
from feature_store.sources import checked

CODES = [[1, 2, 3, 4, 5, 6]]


def test_a_writer_follows_the_version_that_others_activate(valkey_url: str) -> None:
    with FeatureStore.connect(valkey_url) as writer, FeatureStore.connect(valkey_url) as other:
        writer.write([1], CODES)
        other.write([1], CODES, version="2")
        other.activate("2")
        assert writer.write([2], CODES).version == "2"
        assert other.lookup([2]).status.tolist() == [Status.HIT]


def test_blocked_unknown_ids_are_no_coverage(valkey_url: str) -> None:
    with FeatureStore.connect(valkey_url) as store:
        store.write([1, 2, 3], CODES * 3)
        store.block(range(1_000, 2_000), "never seen")
        store.write([4], CODES, version="2")
        with pytest.raises(CoverageError):
            store.activate("2")


def test_a_load_begins_anew_after_its_version_was_retired(valkey_url: str) -> None:
    rows = checked([1, 2], CODES * 2)
    with FeatureStore.connect(valkey_url) as store:
        store.write([9], CODES)
        store.write([1], CODES, version="2")
        store.admin("HSET", store.keys.loads, f"{'0' * 32} 2 None", 1)
        store.retire("2", wait=True)
        assert store.admin("HLEN", store.keys.loads) == 0
        assert load(store, rows, LoadOptions(version="2")).written == 2


def test_a_verdict_marks_only_ads_that_are_there(valkey_url: str) -> None:
    with FeatureStore.connect(valkey_url) as store:
        store.write([1], CODES)
        store.block([1], "by hand")
        store.delete([1])
        store.block([1, 2], "gambling", source="verdict")
        assert store.lookup([1, 2]).status.tolist() == [Status.MISS, Status.MISS]
        store.write([1, 2], CODES * 2)
        assert store.lookup([1, 2]).status.tolist() == [Status.BLOCKED, Status.HIT]


async def test_a_dead_idle_connection_is_opened_anew(valkey_url: str) -> None:
    async with AsyncFeatureStore.connect(valkey_url) as store:
        await store.write([1], CODES)
        assert (await store.lookup([1])).status.tolist() == [Status.HIT]
        with redis.Redis.from_url(valkey_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0)
        assert (await store.lookup([1])).status.tolist() == [Status.HIT]


@pytest.mark.parametrize(
    "url",
    [
        "redis://:se/cret@host",
        "redis://:12/secret@host",
        "unix://:secret@",
        "redis:/u:secret@host",
        "secret",
    ],
)
def test_an_error_shows_no_password(url: str) -> None:
    with pytest.raises(AddressError) as error:
        FeatureStore.connect(url)
    assert "se" + "cret" not in str(error.value)
    assert "'se" not in str(error.value)
    assert error.value.__cause__ is None

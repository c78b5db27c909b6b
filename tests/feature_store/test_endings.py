"""Lookups and stores that end early: nothing is forgotten, nothing stays open."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest
import redis
from conftest_proxy import Proxy
from conftest_tools import until

from feature_store import AsyncFeatureStore, FeatureStore, Status
from feature_store.embedded import EmbeddedValkey
from feature_store.errors import ServerError, UnknownVersionError

CODES = [[1, 2, 3, 4, 5, 6]]


def clients(url: str) -> int:
    """Open connections of a server, the asker's left out; it may see late that some have ended."""
    with redis.Redis.from_url(url) as client:
        return len(client.client_list()) - 1


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_cancelled_lookup_leaves_the_new_version_to_be_seen(
    valkey_server: EmbeddedValkey, valkey_url: str
) -> None:
    with FeatureStore.connect(valkey_url) as writer, Proxy(valkey_server.port) as proxy:
        writer.write([1], CODES)
        writer.write([1], CODES, version="2")
        url = f"redis://127.0.0.1:{proxy.port}"
        async with AsyncFeatureStore.connect(url, near_cache_bytes=1 << 20) as store:
            near = store._core.near
            assert near is not None

            async def warm() -> None:
                while store.counters.get("near hits", 0) < 5:
                    await store.lookup([1])
                    await asyncio.sleep(0.01)

            async with asyncio.timeout(60):
                await warm()
            writer.activate("2")
            await soon(lambda: near.pointer_changed)
            task = asyncio.create_task(store.lookup([1]))
            await asyncio.sleep(0)  # it has asked for the pointer
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await store.lookup([1])).version == "2"


def test_a_version_that_nobody_can_tell_of_is_unavailable(valkey_url: str) -> None:
    """MISS would say that the ad is not there."""
    with FeatureStore.connect(valkey_url) as writer, FeatureStore.connect(valkey_url) as reader:
        writer.write([1], CODES)
        writer.write([1], CODES, version="2")
        pointer = writer.admin("GET", writer.keys.pointer)
        assert isinstance(pointer, bytes)
        writer.admin("SET", writer.keys.pointer, b"damaged")
        found = reader.lookup([1, 2], version="2")
        assert found.status.tolist() == [Status.UNAVAILABLE] * 2
        assert (found.codes == 65535).all()
        assert found.version == "2"
        writer.admin("SET", writer.keys.pointer, pointer)
        assert reader.lookup([1], version="2").status.tolist() == [Status.HIT]
        with pytest.raises(UnknownVersionError):
            reader.lookup([1], version="3")


async def test_a_store_that_cannot_be_opened_leaves_nothing_open(valkey_url: str) -> None:
    with FeatureStore.connect(valkey_url) as writer:
        writer.admin("SET", writer.keys.pointer, b"damaged")
        before = clients(valkey_url)
        store = AsyncFeatureStore.connect(valkey_url)
        with pytest.raises(ServerError):
            await store
        await soon(lambda: clients(valkey_url) <= before)


@pytest.mark.parametrize("steps", range(1, 8))
async def test_a_connection_that_is_given_up_is_closed(valkey_url: str, steps: int) -> None:
    """Whichever step of its opening a caller is cancelled in."""

    async def connect(store: Awaitable[AsyncFeatureStore]) -> None:
        await store

    before = clients(valkey_url)
    store = AsyncFeatureStore.connect(f"{valkey_url}/1")
    task = asyncio.create_task(connect(store))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await soon(lambda: clients(valkey_url) <= before)


async def test_a_store_closed_in_mid_lookup_leaves_nothing_open(valkey_url: str) -> None:
    before = clients(valkey_url)
    store = await AsyncFeatureStore.connect(valkey_url)
    task = asyncio.create_task(store.lookup([1]))
    await asyncio.sleep(0)
    await store.close()
    await task
    await soon(lambda: clients(valkey_url) <= before)


def test_a_closed_store_keeps_no_connection(valkey_url: str) -> None:
    before = clients(valkey_url)
    store = FeatureStore.connect(valkey_url)
    store.close()
    store.lookup([1])
    until(lambda: clients(valkey_url) <= before)


def test_a_forked_child_has_no_connection_of_its_parents(valkey_url: str) -> None:
    """From its first moment: two threads of the child must not both find that out."""
    with FeatureStore.connect(valkey_url) as store:
        store.lookup([1])
        assert any(store._links._idle.values())
        child = os.fork()
        if child == 0:
            os._exit(1 if any(store._links._idle.values()) else 0)
        assert os.waitpid(child, 0)[1] == 0
        assert any(store._links._idle.values())

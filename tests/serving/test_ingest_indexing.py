"""The index path on a real store, with an encoder of known vectors in place of the models."""

import asyncio
import io
from collections.abc import AsyncIterator

import numpy as np
import pytest
import redis
from PIL import Image
from redis.asyncio import Redis, RedisCluster

from feature_store import AsyncFeatureStore, Flag, Status
from feature_store.embedded import EmbeddedValkey
from serving.errors import InvalidImageError, UnavailableError
from serving.image import ImagePool
from serving.ingest import writing
from serving.ingest.ads import Ad
from serving.ingest.indexing import CHUNK, Indexed, Indexer
from serving.ingest.opening import connect
from serving.ingest.writing import Writer
from tests.serving.ingest_support import VERSION, D, KnownEncoder, stores_of


@pytest.fixture
async def parts(valkey_url: str) -> AsyncIterator[tuple[Indexer, KnownEncoder, AsyncFeatureStore]]:
    encoder, images = KnownEncoder(), ImagePool(1)
    client = connect(valkey_url)
    async with AsyncFeatureStore.connect(valkey_url) as store:
        yield Indexer(encoder, Writer(stores_of(client, store)), images), encoder, store
    await client.aclose()
    images.close()


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (400, 300), "red").save(out, "PNG")
    return out.getvalue()


async def test_records_and_content_are_written_and_the_version_serves(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore], valkey_url: str
) -> None:
    indexer, encoder, store = parts
    ad = Ad(7, "abc", "", picture())
    result = await indexer.index_one(ad)
    assert result.answer() == {
        "ad_id": 7,
        "version": VERSION,
        "codes": [3, 4, 5, 6, 7, 8],
        "margin": [0.5] * 6,
        "flags": ["PENDING"],
        "risk": {"verdict": None, "categories": {}},
    }
    found = await store.lookup([7])
    assert (found.version, found.status[0], found.flags[0]) == (VERSION, Status.HIT, Flag.PENDING)
    with redis.Redis.from_url(valkey_url) as client:
        content = client.hgetall(store.keys.content(7, "c"))
        small = Image.open(io.BytesIO(client.get(store.keys.content(7, "t"))))
    assert content[b"title"] == b"abc"
    assert content[b"text"] == b""
    assert content[b"sha256"] == ad.content_hash()
    assert content[b"version"] == VERSION.encode()
    assert np.frombuffer(content[b"embedding"], "<f2").tolist() == np.eye(D)[3].tolist()
    assert content[b"codes"] == np.arange(3, 9, dtype="<u2").tobytes()
    assert small.size == (256, 192)
    assert encoder.pixels == [(16, 24, 3)]  # what waits for the models is small


async def test_a_bad_ad_spares_its_neighbours(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore],
) -> None:
    indexer, encoder, store = parts
    ads = [Ad(i, "x", "", b"no picture" if i == 3 else None) for i in range(1, CHUNK + 10)]
    results = await indexer.index(ads)
    assert isinstance(results[2], InvalidImageError)
    assert [type(r) for i, r in enumerate(results) if i != 2] == [Indexed] * (CHUNK + 8)
    assert encoder.chunks == [CHUNK - 1, 9]
    found = await store.lookup([ad.ad_id for ad in ads])
    assert found.status.tolist().count(Status.MISS) == 1


async def test_a_chunk_that_the_models_refuse_is_reported_and_the_rest_stored(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore],
) -> None:
    indexer, _, store = parts
    ads = [Ad(i, "down" if i == 1 else "x", "", None) for i in range(1, CHUNK + 2)]
    results = await indexer.index(ads)
    assert all(isinstance(result, UnavailableError) for result in results[:CHUNK])
    assert isinstance(results[CHUNK], Indexed)
    assert (await store.lookup([1, CHUNK + 1])).status.tolist() == [Status.MISS, Status.HIT]


async def test_an_ad_without_a_picture_loses_its_old_thumbnail(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore], valkey_url: str
) -> None:
    indexer, _, store = parts
    await indexer.index_one(Ad(1, "x", "", picture()))
    await indexer.index_one(Ad(1, "x", "", None))
    with redis.Redis.from_url(valkey_url) as client:
        assert client.get(store.keys.content(1, "t")) is None
        await indexer.writer.end(1)
        assert client.exists(store.keys.content(1, "c")) == 0
    assert (await store.lookup([1])).status.tolist() == [Status.MISS]


async def test_a_later_version_waits_to_be_activated(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore],
) -> None:
    indexer, encoder, store = parts
    await indexer.index_one(Ad(1, "x", "", None))
    encoder.version = "e2-s1"
    await indexer.index_one(Ad(1, "x", "", None))
    assert {v.name: v.state for v in await store.versions()} == {VERSION: "active", "e2-s1": "kept"}


async def test_a_block_that_comes_first_does_not_hide_what_is_ingested(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore],
) -> None:
    """It begins a version that no ad is ever written to."""
    indexer, _, store = parts
    await indexer.writer.block(9, "complaint")
    await indexer.index_one(Ad(7, "abc", "", None))
    found = await store.lookup([7, 9])
    assert found.version == VERSION
    assert found.status.tolist() == [Status.HIT, Status.BLOCKED]


async def test_a_store_that_restarts_without_its_data_is_written_and_served_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "BELIEVED_S", 0.0)
    with EmbeddedValkey() as server:
        images, client = ImagePool(1), connect(server.url)
        async with AsyncFeatureStore.connect(server.url) as store:
            indexer = Indexer(KnownEncoder(), Writer(stores_of(client, store)), images)
            for _ in range(2):
                await indexer.index_one(Ad(7, "abc", "", None))
                assert (await store.lookup([7])).status.tolist() == [Status.HIT]
                server.close()
                server.start()
        await client.aclose()
        images.close()


async def test_takedown_says_how_many_replicas_have_it(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore],
) -> None:
    indexer, _, store = parts
    await indexer.index_one(Ad(1, "x", "", None))
    assert await indexer.writer.block(1, "complaint") == 0
    assert (await store.lookup([1])).status.tolist() == [Status.BLOCKED]
    assert await indexer.writer.unblock(1) == 0
    assert (await store.lookup([1])).status.tolist() == [Status.HIT]
    await indexer.writer.ready()


async def test_content_clients_take_every_url_of_the_store() -> None:
    tls = connect("rediss://u:p@h:7/2")
    assert isinstance(tls, Redis)
    cluster = connect("redis+cluster://:secret@h1:7001,h2:7002")
    assert isinstance(cluster, RedisCluster)
    assert {n.port for n in cluster.nodes_manager.startup_nodes.values()} == {7001, 7002}
    assert cluster.connection_kwargs["password"] == "secret"
    sentinel = connect("redis+sentinel://:secret@h1:26379,h2:26380/mymaster/3")
    pool = sentinel.connection_pool
    assert pool.service_name == "mymaster"
    assert pool.connection_kwargs["db"] == 3
    assert pool.connection_kwargs["password"] == "secret"
    await asyncio.gather(tls.aclose(), cluster.aclose(), sentinel.aclose())


async def flags_of(store: AsyncFeatureStore, ad_id: int) -> Flag:
    found = await store.lookup([ad_id])
    assert found.status.tolist() == [Status.HIT]
    return Flag(int(found.flags[0]))


async def test_flags_stay_with_the_content_that_they_were_given_for(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore],
) -> None:
    indexer, _, store = parts
    said = Flag.REVIEW | Flag.GAMBLING
    await indexer.index_one(Ad(1, "x", "", None))
    await store.update_flags([1], int(said), int(Flag.PENDING))
    again = await indexer.index_one(Ad(1, "x", "", None))
    assert again.flags == await flags_of(store, 1) == said
    other = await indexer.index_one(Ad(1, "other", "", None))
    assert other.flags == await flags_of(store, 1) == Flag.PENDING


async def test_what_a_human_said_stays_whatever_is_sent(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore],
) -> None:
    indexer, encoder, store = parts
    said = Flag.HUMAN | Flag.ALCOHOL
    await indexer.index_one(Ad(1, "x", "", None))
    await store.update_flags([1], int(said), int(Flag.PENDING))
    await indexer.index_one(Ad(1, "other", "", None))
    assert await flags_of(store, 1) == said
    encoder.version = "e2-s1"  # and in a version that begins
    assert (await indexer.index_one(Ad(1, "third", "", None))).flags == said
    found = await store.lookup([1], version="e2-s1")
    assert found.flags.tolist() == [said]


async def test_an_ad_blocked_by_a_verdict_stays_so_and_waits_for_the_next(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore],
) -> None:
    indexer, _, store = parts
    await indexer.index_one(Ad(1, "x", "", None))
    await store.block([1], "gambling", source="verdict")
    assert (await indexer.index_one(Ad(1, "x", "", None))).flags == Flag.PENDING
    assert (await store.lookup([1])).status.tolist() == [Status.BLOCKED]
    await store.unblock([1], source="verdict")
    assert await flags_of(store, 1) == Flag.PENDING

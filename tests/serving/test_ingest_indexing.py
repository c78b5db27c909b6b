"""The index path on a real store, with an encoder of known vectors in place of the models."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
import redis
from PIL import Image
from redis.asyncio import Redis, RedisCluster

from feature_store import AsyncFeatureStore, Flag, Status
from serving.checks.owed import Owed
from serving.encode.pipeline import Encoded
from serving.errors import InvalidImageError, UnavailableError
from serving.image import DecodedImage, ImagePool
from serving.ingest.ads import Ad
from serving.ingest.content import ContentStore
from serving.ingest.indexing import CHUNK, Indexed, Indexer
from serving.ingest.opening import connect

VERSION = "e1-s1"
D = 8


class KnownEncoder:
    """Vectors and codes by how many letters the text has."""

    def __init__(self) -> None:
        self.version = VERSION
        self.chunks: list[int] = []

    async def encode(
        self, images: Sequence[DecodedImage | None], texts: Sequence[str | None], /
    ) -> Encoded:
        self.chunks.append(len(texts))
        if any(text == "down" for text in texts):
            raise UnavailableError("the model is away")
        size = np.array([[len(text or "")] for text in texts])
        vectors = np.eye(D, dtype=np.float32)[size[:, 0] % D]
        codes = (size + np.arange(6)).astype(np.uint16)
        return Encoded(vectors, codes, np.full((len(texts), 6), 0.5, np.float32), self.version)


@pytest.fixture
async def parts(valkey_url: str) -> AsyncIterator[tuple[Indexer, KnownEncoder, AsyncFeatureStore]]:
    encoder, images = KnownEncoder(), ImagePool(1)
    client = connect(valkey_url)
    async with AsyncFeatureStore.connect(valkey_url) as store:
        contents, owed = ContentStore(client, store.keys), Owed(client, store.keys)
        yield Indexer(encoder, store, contents, images, owed), encoder, store
    await client.aclose()
    images.close()


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (400, 300), "red").save(out, "PNG")
    return out.getvalue()


async def test_records_and_content_are_written_and_the_version_serves(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore], valkey_url: str
) -> None:
    indexer, _, store = parts
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
    assert small.size == (256, 192)


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
        await indexer.delete(1)
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


async def test_takedown_says_how_many_replicas_have_it(
    parts: tuple[Indexer, KnownEncoder, AsyncFeatureStore],
) -> None:
    indexer, _, store = parts
    await indexer.index_one(Ad(1, "x", "", None))
    assert await indexer.block(1, "complaint") == 0
    assert (await store.lookup([1])).status.tolist() == [Status.BLOCKED]
    assert await indexer.unblock(1) == 0
    assert (await store.lookup([1])).status.tolist() == [Status.HIT]
    await indexer.ready()


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

"""The index path on a real store, with an encoder of known vectors in place of the models."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
import redis
from PIL import Image
from redis.asyncio import Redis, RedisCluster

from feature_store import AsyncFeatureStore, Flag, Status
from feature_store.record import SEQUENCE_MAX
from serving.checks.owed import Owed
from serving.encode.pipeline import Encoded
from serving.errors import InvalidImageError, UnavailableError
from serving.image import DecodedImage, ImagePool, Target
from serving.ingest.ads import Ad
from serving.ingest.content import ContentStore
from serving.ingest.indexing import CHUNK, Indexed, Indexer
from serving.ingest.opening import connect
from serving.ingest.writing import Stores, Writer

VERSION = "e1-s1"
D = 8
OPEN = asyncio.Event()
OPEN.set()


class KnownEncoder:
    """Vectors and codes by how many letters the text has."""

    def __init__(self) -> None:
        self.version = VERSION
        self.chunks: list[int] = []
        self.pixels: list[tuple[int, ...]] = []
        self.gates: dict[str | None, asyncio.Event] = {}  # texts that wait

    async def target(self) -> Target:
        return Target(16, 24)

    async def encode(
        self, images: Sequence[DecodedImage | None], texts: Sequence[str | None], /
    ) -> Encoded:
        self.chunks.append(len(texts))
        self.pixels += [image.pixels.shape for image in images if image is not None]
        await self.gates.get(texts[0], OPEN).wait()
        if any(text == "down" for text in texts):
            raise UnavailableError("the model is away")
        size = np.array([[len(text or "")] for text in texts])
        vectors = np.eye(D, dtype=np.float32)[size[:, 0] % D]
        codes = (size + np.arange(6)).astype(np.uint16)
        return Encoded(vectors, codes, np.full((len(texts), 6), 0.5, np.float32), self.version)


def stores_of(client: Any, store: AsyncFeatureStore) -> Stores:
    return Stores(store, ContentStore(client, store.keys), Owed(client, store.keys))


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


@pytest.fixture
async def replicas(valkey_url: str) -> AsyncIterator[list[tuple[Indexer, KnownEncoder]]]:
    """Two replicas of ingest over one store."""
    images, made, clients = ImagePool(1), [], []
    async with (
        AsyncFeatureStore.connect(valkey_url) as one,
        AsyncFeatureStore.connect(valkey_url) as two,
    ):
        for store in (one, two):
            clients.append(connect(valkey_url))
            encoder = KnownEncoder()
            writer = Writer(stores_of(clients[-1], store))
            made.append((Indexer(encoder, writer, images), encoder))
        yield made
    for client in clients:
        await client.aclose()
    images.close()


async def agrees(indexer: Indexer, ad_id: int) -> str | None:
    """The title that content and record agree on; None when both say that the ad has ended."""
    writer = indexer.writer
    (state,) = await writer._contents.states([ad_id])
    found = await writer._records.lookup([ad_id])
    if not state.live:
        assert found.status.tolist() == [Status.MISS]
        return None
    assert found.codes[0].tolist() == state.codes.tolist()
    content = await writer._contents._client.hget(writer._records.keys.content(ad_id), "title")
    assert len(content) == found.codes[0][0]
    title: str = content.decode()
    return title


async def begun(encoder: KnownEncoder, text: str, call: Any) -> "asyncio.Task[Any]":
    """A call that has come as far as the models and is held there."""
    encoder.gates[text] = asyncio.Event()
    chunks = len(encoder.chunks)
    task = asyncio.create_task(call)
    async with asyncio.timeout(10):
        while len(encoder.chunks) == chunks:
            await asyncio.sleep(0.001)
    return task


async def test_of_two_puts_the_later_wins_at_whichever_replica_it_ends_first(
    replicas: list[tuple[Indexer, KnownEncoder]],
) -> None:
    (one, slow), (two, _) = replicas
    earlier = await begun(slow, "early", one.index_one(Ad(1, "early", "", None)))
    await two.index_one(Ad(1, "later", "", None))
    slow.gates["early"].set()
    assert (await earlier).codes[0] == len("early")  # it was stored, and is no longer
    assert await agrees(two, 1) == "later"


async def test_a_put_that_was_begun_before_the_end_does_not_undo_it(
    replicas: list[tuple[Indexer, KnownEncoder]],
) -> None:
    (one, slow), (two, _) = replicas
    await two.index_one(Ad(1, "first", "", None))
    earlier = await begun(slow, "early", one.index_one(Ad(1, "early", "", None)))
    await two.writer.end(1)
    slow.gates["early"].set()
    await earlier
    assert await agrees(two, 1) is None
    await one.index_one(Ad(1, "anew", "", None))  # it may come back
    assert await agrees(two, 1) == "anew"


@pytest.mark.parametrize("seed", range(6))
async def test_record_and_content_agree_after_any_traffic(
    replicas: list[tuple[Indexer, KnownEncoder]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    (one, _), (two, _) = replicas
    await one.index_one(Ad(9, "begin", "", None))

    async def change(indexer: Indexer, number: int) -> None:
        for _ in range(6):
            ad_id = int(rng.integers(1, 4))
            if rng.random() < 0.4:
                await indexer.writer.end(ad_id)
            else:
                await indexer.index_one(Ad(ad_id, "x" * (number + 1), "", None))

    await asyncio.gather(*(change(replicas[n % 2][0], n) for n in range(8)))
    for ad_id in (1, 2, 3):
        await agrees(two, ad_id)


async def test_sequences_only_grow_and_survive_a_clock_that_is_behind(
    replicas: list[tuple[Indexer, KnownEncoder]],
) -> None:
    contents = replicas[0][0].writer._contents
    first = await contents.sequences([1] * 50)
    assert first == sorted(set(first))
    ahead = first[-1] + 1_000_000  # as if another node's clock had been minutes ahead
    await contents._client.set(contents._last(1), ahead)
    assert await contents.sequences([1]) == [ahead + 1]
    assert ahead < SEQUENCE_MAX

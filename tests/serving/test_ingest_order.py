"""Changes of one ad at two replicas at a time: the last one wins, in content and record alike."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from feature_store import AsyncFeatureStore, Status
from feature_store.record import SEQUENCE_MAX
from serving.image import ImagePool
from serving.ingest.ads import Ad
from serving.ingest.content import Content
from serving.ingest.indexing import Indexed, Indexer
from serving.ingest.opening import connect
from serving.ingest.writing import Writer
from tests.feature_store.conftest_tools import cluster
from tests.serving.ingest_support import KnownEncoder, stores_of

Replica = tuple[Indexer, KnownEncoder]


@asynccontextmanager
async def two_replicas(url: str) -> AsyncIterator[list[Replica]]:
    """Two replicas of ingest over one store."""
    images, made, clients = ImagePool(1), [], []
    async with AsyncFeatureStore.connect(url) as one, AsyncFeatureStore.connect(url) as two:
        for store in (one, two):
            clients.append(connect(url))
            encoder = KnownEncoder()
            writer = Writer(stores_of(clients[-1], store))
            made.append((Indexer(encoder, writer, images), encoder))
        yield made
    for client in clients:
        await client.aclose()
    images.close()


@pytest.fixture
async def replicas(valkey_url: str) -> AsyncIterator[list[Replica]]:
    async with two_replicas(valkey_url) as made:
        yield made


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
    replicas: list[Replica],
) -> None:
    (one, slow), (two, _) = replicas
    earlier = await begun(slow, "early", one.index_one(Ad(1, "early", "", None)))
    await two.index_one(Ad(1, "later", "", None))
    slow.gates["early"].set()
    assert (await earlier).codes[0] == len("early")  # it was stored, and is no longer
    assert await agrees(two, 1) == "later"


async def test_a_put_that_was_begun_before_the_end_does_not_undo_it(
    replicas: list[Replica],
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


async def traffic(replicas: list[Replica], seed: int) -> None:
    """Puts and ends of three ads at both replicas; afterwards content and record agree."""
    rng = np.random.default_rng(seed)
    await replicas[0][0].index_one(Ad(9, "begin", "", None))

    async def change(indexer: Indexer, number: int) -> None:
        for _ in range(6):
            ad_id = int(rng.integers(1, 4))
            if rng.random() < 0.4:
                await indexer.writer.end(ad_id)
            else:
                await indexer.index_one(Ad(ad_id, "x" * (number + 1), "", None))

    await asyncio.gather(*(change(replicas[n % 2][0], n) for n in range(8)))
    for ad_id in (1, 2, 3):
        await agrees(replicas[1][0], ad_id)


@pytest.mark.parametrize("seed", range(6))
async def test_record_and_content_agree_after_any_traffic(
    replicas: list[Replica], seed: int
) -> None:
    await traffic(replicas, seed)


async def test_record_and_content_agree_in_a_cluster() -> None:
    with cluster(masters=2) as nodes:
        hosts = ",".join(f"127.0.0.1:{port}" for port, _ in nodes)
        async with two_replicas(f"redis+cluster://{hosts}") as replicas:
            await traffic(replicas, 0)
            indexer = replicas[0][0]
            found = await indexer.index([Ad(i, f"ad {i}", "", None) for i in range(100, 200)])
            assert {type(one) for one in found} == {Indexed}
            assert await agrees(indexer, 150) == "ad 150"


async def test_sequences_only_grow_and_survive_a_clock_that_is_behind(
    replicas: list[Replica],
) -> None:
    contents = replicas[0][0].writer._contents
    first = await contents.sequences([1] * 50)
    assert first == sorted(set(first))
    ahead = first[-1] + 1_000_000  # as if another node's clock had been minutes ahead
    await contents._client.set(contents._last(1), ahead)
    assert await contents.sequences([1]) == [ahead + 1]
    assert ahead < SEQUENCE_MAX


async def test_a_record_of_another_version_does_not_stand_in_for_the_one_that_was_undone(
    replicas: list[Replica],
) -> None:
    """A PUT to the version before, overtaken by an end and by a PUT to the next version."""
    writer = replicas[0][0].writer
    records, codes = writer._records, np.full((1, 6), 3, np.uint16)
    await records.write([1], codes, [1], version="e1-s1", sequence=[5])
    await records.activate("e1-s1")
    later = Content(Ad(1, "later", "", None), np.zeros(4, np.float32), codes[0], "e2-s1", None, 7)
    assert await writer._contents.write([later]) == [True]
    await writer._agree([1], [5])
    found = await records.lookup([1], version="e2-s1")
    assert found.status.tolist() == [Status.HIT]
    assert found.codes.tolist() == codes.tolist()

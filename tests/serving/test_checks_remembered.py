"""What a replica remembers of verdicts and of people's words: used only while it is known true."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from feature_store.address import parse
from serving.checks.hearing import FRESH_S, Hearing
from serving.checks.remembered import Remembered
from serving.checks.verdicts import Relevance, VerdictStore
from serving.ingest.opening import connect
from tests.serving.checks_support import Parts, open_parts, until

AD = {"title": "shoes in red"}
SAID = Relevance(0.9, "yes", 1.0)


class Told:
    """Says what a test says."""

    def __init__(self) -> None:
        self.fresh = True
        self.changed: Callable[[Collection[bytes] | None], None] = print

    def tell(self, changed: Callable[[Collection[bytes] | None], None]) -> None:
        self.changed = changed


@asynccontextmanager
async def heard(hearing: Hearing) -> AsyncIterator[None]:
    task = asyncio.create_task(hearing.run())
    await until(lambda: hearing.fresh)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def hearing_parts(models: Path) -> AsyncIterator[Parts]:
    """A replica as it is served: it hears what changes."""
    async with open_parts(models) as parts:
        assert parts.bench.hearing is not None
        async with heard(parts.bench.hearing):
            yield parts


@pytest.fixture
def replica(checks_models: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TESSERA_REDIS_URL", valkey_url)
    monkeypatch.setenv("TESSERA_MODELS", str(checks_models))
    return checks_models


def read(memory: Remembered, **found: object) -> None:
    memory.end(memory.begin(), [(name.encode(), value) for name, value in found.items()])


def test_what_was_read_is_known_until_it_changes() -> None:
    told = Told()
    memory = Remembered(told)
    read(memory, a=1, b=None)
    assert memory.get([b"a", b"b"]) == [1, None]
    assert memory.get([b"a", b"c"]) is None
    told.changed([b"b"])
    assert (memory.get([b"a"]), memory.get([b"b"])) == ([1], None)
    told.changed(None)
    assert memory.get([b"a"]) is None


def test_what_is_not_known_to_be_true_is_neither_used_nor_kept() -> None:
    told = Told()
    memory = Remembered(told)
    read(memory, a=1)
    told.fresh = False
    assert memory.get([b"a"]) is None
    read(memory, b=2)
    told.fresh = True
    assert (memory.get([b"a"]), memory.get([b"b"])) == ([1], None)


@pytest.mark.parametrize("names", [[b"a"], None])
def test_what_changes_while_it_is_read_is_not_kept(names: list[bytes] | None) -> None:
    told = Told()
    memory = Remembered(told)
    reading = memory.begin()
    told.changed(names)
    memory.end(reading, [(b"a", 1), (b"b", 2)])
    assert memory.get([b"a"]) is None
    assert memory.get([b"b"]) == ([2] if names else None)


def test_it_is_bounded_and_the_oldest_use_goes_first() -> None:
    memory = Remembered(Told(), most=2)
    read(memory, a=1, b=2)
    assert memory.get([b"a"]) == [1]
    read(memory, c=3)
    assert len(memory) == 2
    assert (memory.get([b"a", b"c"]), memory.get([b"b"])) == ([1, 3], None)


async def test_a_verdict_that_is_not_there_is_looked_for_again(valkey_url: str) -> None:
    client = connect(valkey_url)
    store = VerdictStore(client, Relevance, Remembered(Told()))
    assert await store.get([b"j"], [[b"person"]]) == [None]
    await store.put(b"j", SAID)
    assert await store.get([b"j"], [[b"person"]]) == [SAID]
    await client.delete(b"j")  # which nobody tells
    assert await store.get([b"j"], [[b"person"]]) == [SAID]
    assert await store.get([b"j"], [[b"person"]], remembered=False) == [None]
    await client.aclose()


async def test_a_server_tells_what_changes_and_silence_is_noticed(valkey_url: str) -> None:
    client, told = connect(valkey_url), list[Any]()
    hearing = Hearing(parse(valkey_url), [b"ads:j:", b"ads:o{"])
    hearing.tell(told.append)
    async with heard(hearing):
        await client.set("ads:j:1", 1)
        await client.set("ads:other", 1)
        await client.set("ads:o{1}", 1)
        await until(lambda: {b"ads:o{1}"} in told)
        assert told == [{b"ads:j:1"}, {b"ads:o{1}"}]
        await client.flushall()
        await until(lambda: told[-1] is None)
        await client.client_pause(1_500, all=True)  # the server hangs
        await until(lambda: not hearing.fresh)
        await until(lambda: hearing.fresh)
        told.clear()
        await client.client_kill_filter(skipme=True)
        await until(lambda: told == [None] and hearing.fresh)  # whatever was missed is forgotten
    assert not hearing.fresh
    await client.aclose()


async def test_a_check_that_is_asked_again_reads_nothing(replica: Path, valkey_url: str) -> None:
    client = connect(valkey_url)

    async def reads() -> int:
        stats: dict[str, Any] = await client.info("commandstats")
        return int(stats.get("cmdstat_get", {}).get("calls", 0))

    async with hearing_parts(replica) as parts:

        async def asked() -> tuple[str, int]:
            before = await reads()
            (said,) = await parts.results("relevance", query="red shoes", ads=[AD])
            return said["source"], await reads() - before

        assert await asked() == ("llm", 2)
        async with asyncio.timeout(30):
            while await asked() != ("cache", 0):  # as soon as its own writing has been told of
                await asyncio.sleep(0.01)
        await client.flushall()
        async with asyncio.timeout(30):
            while (await asked())[0] != "llm":
                await asyncio.sleep(0.01)
    await client.aclose()


async def test_a_persons_word_holds_in_every_replica_when_it_was_answered(replica: Path) -> None:
    async with hearing_parts(replica) as one, hearing_parts(replica) as other:
        await one.put(1, "shoes in red")

        async def asked() -> tuple[str, str]:
            (said,) = await one.results("relevance", query="red shoes", ads=[AD])
            (risk,) = await one.results("risk", ads=[AD])
            return said["source"], risk["source"]

        for _ in range(2):
            async with asyncio.timeout(30):
                while await asked() != ("cache", "cache"):  # and `one` remembers it
                    await asyncio.sleep(0.01)
            for body in ({"query": "red shoes", "relevant": False}, {"verdict": "review"}):
                began = time.monotonic()
                answer = await other.http.put("/overrides/1", json=body)
                assert answer.status_code == 200, answer.text
                assert time.monotonic() - began > FRESH_S  # nobody goes on with what he had read
            assert await asked() == ("human", "human")
            for query in ("?query=red shoes", ""):
                assert (await other.http.delete(f"/overrides/1{query}")).status_code == 200
            assert await asked() == ("cache", "cache")

"""A judge without Ray or a model: real prompts, store and HTTP, and an engine that knows words."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.random_llm import TINY, make_words
from export import Repository
from export.bundle import Bundle
from export.manifest import Manifest, Source
from export.prompts import Renderer
from feature_store import Flag
from serving.checks import opening
from serving.checks.app import create
from serving.checks.flights import Reader
from serving.checks.opening import Bench
from serving.checks.policy import Policy
from serving.errors import ServingError, UnavailableError
from serving.ingest.ads import Ad
from serving.ingest.content import Content, ContentStore
from serving.ingest.opening import connect
from serving.llm.asks import Ask, Read, Shape, check
from serving.llm.deployment import LlmOptions, shape_of
from serving.replica import Replica

SURE = -0.001  # nat
HALVES = np.ones(4, np.float32) / 2


def words_bundle(folder: Path) -> Bundle:
    """A bundle of kind `llm` that judges words alone; its weights are left out."""
    folder.mkdir()
    vocabulary = make_words(folder, soft_tokens=0)
    renderer = Renderer(folder / "tokenizer.json", Policy.of(_draft(folder, {})).checks)
    ids = {"yes": renderer.single("yes")[0], "no": renderer.single("no")[0]}
    sizes = {"context": TINY.context, "hidden": TINY.hidden, "vocabulary": vocabulary}
    return _draft(folder, {"label_ids": ids, "soft_tokens": 0, "block_size": 32, **sizes})


def _draft(folder: Path, metadata: dict[str, Any]) -> Bundle:
    source = Source("test", "sha256:00")
    return Bundle.draft(folder, Manifest("checks", "llm", "fp32", {}, source, metadata=metadata))


class Pieces:
    """What a handle gives for a streamed call."""

    def __init__(self, pieces: AsyncGenerator[tuple[int, ...]]) -> None:
        self._pieces = pieces
        self.cancelled = False

    def __anext__(self) -> Any:
        return anext(self._pieces)

    def cancel(self) -> None:
        self.cancelled = True


class _Method:
    def __init__(self, function: Any) -> None:
        self.remote = function


@dataclass
class KnownEngine:
    """Says yes to prompts whose words hold `yes_to`; looks like the handle of a deployment.

    Attributes:
        asked: every ask that it saw.
        away: what calls raise while it is set.
        gate: reads wait for it.
        mass: probability of both labels together.
        streams: every streamed call that it saw.
    """

    renderer: Renderer
    shape: Shape
    yes_to: str = "casino"
    asked: list[Ask] = field(default_factory=list)
    calls: int = 0
    away: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    mass: float = 1.0
    streams: list[Pieces] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()
        self.read = _Method(self._read)
        self.generate = _Method(self._generate)
        self.describe = _Method(self._describe)
        self.stream = _Method(self._stream)

    async def _read(self, asks: Sequence[Ask], labels: tuple[int, ...]) -> list[Any]:
        self.calls += 1
        self.asked += asks
        await self.gate.wait()
        if self.away is not None:
            raise self.away
        return [self._one(ask) for ask in asks]

    def _one(self, ask: Ask) -> Read | ServingError:
        check(ask, self.shape, 1)
        import math

        yes = self.yes_to in self.renderer.decode(list(ask.ids))
        high = math.log(self.mass * 0.99)
        low = math.log(self.mass * 0.01)
        return Read((high, low) if yes else (low, high), 0)

    async def _generate(self, ask: Ask, max_tokens: int) -> tuple[int, ...]:
        if self.away is not None:
            raise self.away
        return ask.ids[:max_tokens]

    def options(self, *, stream: bool) -> "KnownEngine":
        assert stream
        return self

    def _stream(self, ask: Ask, max_tokens: int) -> Pieces:
        async def one_by_one() -> AsyncGenerator[tuple[int, ...]]:
            for token in ask.ids[:max_tokens]:
                await self.gate.wait()
                if self.away is not None:
                    raise self.away
                yield (token,)

        self.streams.append(Pieces(one_by_one()))
        return self.streams[-1]

    async def _describe(self) -> dict[str, Any]:
        if self.away is not None:
            raise UnavailableError(str(self.away))
        return {"pid": 1, "model": "known", "in_flight": 0}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


@dataclass
class Parts:
    """What a test works with."""

    bench: Bench
    engine: KnownEngine
    http: httpx.AsyncClient
    contents: ContentStore

    async def put(
        self,
        ad_id: int,
        title: str,
        text: str = "",
        picture: bytes | None = None,
        vector: NDArray[np.float32] = HALVES,
    ) -> None:
        """As ingest does: content, owed, record."""
        codes = np.arange(6, dtype=np.uint16)
        (sequence,) = await self.contents.sequences([ad_id])
        ad = Ad(ad_id, title, text, picture)
        await self.contents.write([Content(ad, vector, codes, "e1-s1", picture, sequence)])
        await self.bench.owed.add([ad_id])
        await self.bench.store.write([ad_id], codes[None], [Flag.PENDING], version="e1-s1")

    @property
    def readers(self) -> list[Reader]:
        return list(self.bench.judge._makes._readers.values())

    async def post(self, route: str, **body: Any) -> httpx.Response:
        return await self.http.post(f"/{route}", json=body)

    async def results(self, route: str, **body: Any) -> list[dict[str, Any]]:
        answer = await self.post(route, **body)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["results"]
        return found


def words_repository(folder: Path) -> Path:
    """A repository whose only bundle judges words alone."""
    Repository(folder / "models").publish(words_bundle(folder / "draft"))
    return folder / "models"


@asynccontextmanager
async def open_parts(models: Path, encoder: Any = None) -> AsyncIterator[Parts]:
    """A judge that answers over HTTP; the environment names its store and `models`."""
    replica = Replica.local("checks", "/v1/checks")
    bundle = Repository(models).open("checks")
    renderer = Renderer(bundle.file("tokenizer.json"), Policy.of(bundle).checks)
    engine = KnownEngine(renderer, shape_of(bundle))
    bench = await opening.open_bench(replica, LlmOptions(), engine, encoder)
    with pytest.raises(Exception, match="starting"):
        bench.engine.check()
    await until(lambda: bench.engine._away is None)
    client = connect(replica.settings.redis_url)
    transport = httpx.ASGITransport(create(replica, bench))
    async with httpx.AsyncClient(transport=transport, base_url="http://checks") as http:
        yield Parts(bench, engine, http, ContentStore(client, bench.store.keys))
    await client.aclose()
    await bench.close()

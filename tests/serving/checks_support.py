"""A judge without Ray or a model: real prompts, store and HTTP, and an engine that knows words."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.random_llm import TINY, make_words
from export.bundle import Bundle
from export.manifest import Manifest, Source
from export.prompts import Renderer
from serving.checks.policy import Policy
from serving.errors import ServingError, UnavailableError
from serving.llm.asks import Ask, Read, Shape, check

SURE = -0.001  # nat


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
    """

    renderer: Renderer
    shape: Shape
    yes_to: str = "casino"
    asked: list[Ask] = field(default_factory=list)
    calls: int = 0
    away: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    mass: float = 1.0

    def __post_init__(self) -> None:
        self.gate.set()
        self.read = _Method(self._read)
        self.generate = _Method(self._generate)
        self.describe = _Method(self._describe)

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

    async def _describe(self) -> dict[str, Any]:
        if self.away is not None:
            raise UnavailableError(str(self.away))
        return {"pid": 1, "model": "known", "in_flight": 0}

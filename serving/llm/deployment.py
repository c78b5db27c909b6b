"""Ray Serve's side of the engine: one deployment, `llm`, reached by handle and never over HTTP.

In: an `AppArgs` dictionary whose `options` are `LlmOptions`. Out: reads and texts. The constructor
answers label reads of every kind before the replica is ready, so no caller waits for a first one.
"""

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from ray import serve

from export import Bundle, Repository
from export.checks import CHECKS_FILE, parse
from export.errors import ExportError
from export.prompts import Renderer, Words
from serving import bundles
from serving.config import AppArgs
from serving.errors import ConfigurationError, ServingError
from serving.llm.asks import Ask, Read, Shape
from serving.llm.engine import Engine, Limits
from serving.llm.vllm_engine import VllmEngine
from serving.replica import Replica
from serving.sizes import LlmValues

KIND = "llm"
WARM_READS = 3


class LlmOptions(BaseModel):
    """`options` of the application. bundle: name and version in the repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str = "checks"
    version: str = "latest"
    llm: LlmValues = LlmValues()


def open_bundle(repository: Repository, options: LlmOptions) -> Bundle:
    """The verified bundle. Raises ConfigurationError when it is missing, damaged or no LLM."""
    try:
        bundle = repository.open(options.bundle, options.version)
    except ExportError as error:
        raise ConfigurationError(f"the language model cannot be opened: {error}") from error
    if bundle.manifest.kind != KIND:
        raise ConfigurationError(
            f"bundle {options.bundle!r} is of kind {bundle.manifest.kind!r}, expected {KIND!r}: "
            "make one with `python -m export vllm`"
        )
    return bundle


def shape_of(bundle: Bundle) -> Shape:
    """What the bundle's model takes, from its manifest."""
    metadata: Any = bundle.manifest.metadata
    names = ("context", "hidden", "vocabulary", "block_size")
    return Shape(*(int(metadata[name]) for name in names))


def open_engine(bundle: Bundle, values: LlmValues, *, in_ray: bool = False) -> VllmEngine:
    """vLLM over a bundle's folder; blocks for seconds. in_ray: its metrics are to be Ray's."""
    return VllmEngine(bundle.directory, shape_of(bundle), values, in_ray)


async def warm(engine: Engine, bundle: Bundle) -> None:
    """Run every kind of ask, short and long, and each of the model's own prompts, so that what they
    begin with is in the prefix cache. Raises ServingError when one fails.
    """
    shape = await engine.start()
    metadata: Any = bundle.manifest.metadata
    labels = tuple(metadata["label_ids"].values())
    soft = np.zeros((max(1, int(metadata["soft_tokens"])), shape.hidden), np.float32)
    for _ in range(WARM_READS):
        for length in (len(soft), shape.context - 1):
            ids = (labels[0],) * length
            for found in await engine.read([Ask(ids), Ask(ids, soft, 0)], labels):
                if isinstance(found, ServingError):
                    raise found
    await engine.generate(Ask((labels[0],) * len(soft), soft, 0), max_tokens=2)
    checks = parse(bundle.file(CHECKS_FILE).read_bytes())
    renderer = Renderer(bundle.file("tokenizer.json"), checks)
    prompts = (checks.prompts.relevance, *checks.prompts.risk.values())
    for found in await engine.read([Ask(renderer.render(p, Words()).ids) for p in prompts], labels):
        if isinstance(found, ServingError):
            raise found


@serve.deployment(name="llm")
class LlmDeployment:
    """One engine."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc] # Serve awaits it
        parsed = AppArgs.model_validate(args)
        options = LlmOptions.model_validate(parsed.options)
        os.nice(options.llm.nice)  # before its threads are made: they inherit it
        self._replica = Replica.open(parsed)
        self._bundle = open_bundle(bundles.repository(self._replica.settings), options)
        limits = Limits(options.llm.waiting, options.llm.waiting_tokens)
        self._engine = Engine(lambda: open_engine(self._bundle, options.llm, in_ray=True), limits)
        await self._engine.start()
        await warm(self._engine, self._bundle)
        metrics = self._replica.metrics
        self._reads = metrics.counter("tessera_llm_reads", "label reads answered", ("outcome",))
        self._cached = metrics.counter("tessera_llm_cached_tokens", "prompt tokens not computed")
        self._tokens = metrics.counter("tessera_llm_prompt_tokens", "prompt tokens asked")

    async def read(self, asks: Sequence[Ask], labels: tuple[int, ...]) -> list[Read | ServingError]:
        """See `Engine.read`."""
        found = await self._engine.read(asks, labels)
        failed = sum(isinstance(one, ServingError) for one in found)
        cached = sum(one.cached_tokens for one in found if isinstance(one, Read))
        self._tokens.inc(sum(len(ask.ids) for ask in asks))
        # Ray's counters refuse to grow by nothing.
        for outcome, count in (("read", len(found) - failed), ("failed", failed)):
            if count:
                self._reads.inc(count, tags={"outcome": outcome})
        if cached:
            self._cached.inc(cached)
        return found

    async def generate(self, ask: Ask, max_tokens: int) -> tuple[int, ...]:
        """See `Engine.generate`."""
        return await self._engine.generate(ask, max_tokens)

    async def stream(self, ask: Ask, max_tokens: int) -> AsyncGenerator[tuple[int, ...]]:
        """See `Engine.stream`."""
        async with aclosing(self._engine.stream(ask, max_tokens)) as pieces:
            async for piece in pieces:
                yield piece

    async def describe(self) -> dict[str, Any]:
        """Process id, bundle, and what is in the engine: for operators and drills."""
        manifest = self._bundle.manifest
        return {
            "pid": os.getpid(),
            "model": f"{manifest.name}@{manifest.version}",
            "in_flight": self._engine.in_flight,
            "uncached_tokens": self._engine.uncached_tokens,
        }

    def check_health(self) -> None:
        """Raises UnavailableError when the engine has died: Serve replaces the replica."""
        self._engine.health()

"""An engine in this process and the parts of checks above it, without Ray.

In: a bundle. Out: a `Desk`: vLLM itself, the bridge to it and a judge over a Valkey of its own.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from export import Bundle, Repository
from export.prompts import Renderer
from feature_store.embedded import EmbeddedValkey
from serving.checks.flights import Reader
from serving.checks.judge import Judge
from serving.checks.policy import Policy, label_ids
from serving.checks.subjects import Subject
from serving.checks.understander import LATER, SOON, Eyes, Understander
from serving.checks.verdicts import Scope, Stores
from serving.config import CHECKS, apply_environment, topology
from serving.errors import ServingError
from serving.ingest.opening import connect
from serving.llm.asks import Ask, Read
from serving.llm.engine import Engine, Limits
from serving.llm.vllm_engine import Job, VllmEngine
from serving.sizes import LlmValues

from .. import random_llm
from ..errors import InvalidRunError


@dataclass(frozen=True, slots=True)
class Desk:
    """One engine and the ways to it."""

    runner: asyncio.Runner
    raw: VllmEngine
    bridge: Engine
    judge: Judge
    model: Callable[[Policy], Understander]
    policy: Policy
    renderer: Renderer
    labels: tuple[int, int]
    valkey: psutil.Process
    url: str

    def reads(self, asks: Sequence[Ask]) -> list[Read]:
        """All reads, in order. Raises InvalidRunError."""
        found = self.runner.run(self.bridge.read(asks, self.labels))
        for one in found:
            if isinstance(one, ServingError):
                raise InvalidRunError(f"the engine failed: {one}")
        return [one for one in found if isinstance(one, Read)]


class Near:
    """An `Engine` where the judge expects a handle."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self) -> None:
        self._engine.health()

    async def read(
        self, asks: Sequence[Ask], labels: tuple[int, ...], timeout_s: float
    ) -> list[Read | ServingError]:
        del timeout_s
        return await self._engine.read(asks, labels)


class Blind:
    """No pictures: soft tokens have a figure of their own."""

    async def soft(self, subject: Subject) -> None:
        del subject


def values() -> LlmValues:
    """The engine's sizes of the profile for one machine; its variables are set, before vLLM's
    import."""
    app = next(a for a in topology("development", checks=True).applications if a.name == CHECKS)
    apply_environment(app.deployments["llm"].environment)
    return LlmValues.model_validate(app.options["llm"])


@contextmanager
def opened(bundle: Bundle, sizes: LlmValues, eyes: Eyes | None = None) -> Iterator[Desk]:
    """A desk over a bundle of kind `llm`; `values` comes first. eyes: None: it has none."""
    import uvloop  # as in a replica

    from serving.llm.deployment import open_engine

    loops = uvloop.new_event_loop
    with EmbeddedValkey() as valkey, asyncio.Runner(loop_factory=loops) as runner:
        raw = open_engine(bundle, sizes)
        policy, labels = Policy.of(bundle), label_ids(bundle)
        renderer = Renderer(bundle.file("tokenizer.json"), policy.checks)
        bridge = runner.run(_bridge(raw, sizes))
        near: Any = Near(bridge)
        looks: Any = eyes or Blind()
        readers = {priority: Reader(near, labels, 60.0) for priority in (SOON, LATER)}

        def model(policy: Policy) -> Understander:
            return Understander(policy, renderer, looks, readers, near)

        scope = Scope("bench", policy.version, bundle.bundle_hash[:12])
        client = connect(valkey.url)
        judge = Judge(policy, model(policy), lambda: scope, Stores.of(client))
        process = psutil.Process(valkey.pid)
        try:
            yield Desk(
                runner, raw, bridge, judge, model, policy, renderer, labels, process, valkey.url
            )
        finally:
            runner.run(bridge.close())
            runner.run(client.aclose())


def random_bundle(folder: Path, size: random_llm.Size, seed: int, *, sees: bool = True) -> Bundle:
    """A bundle of a model that knows nothing: for cost alone. sees: it takes soft tokens."""
    from export.pipeline import publish
    from export.sources.llm import read_llm

    soft_tokens = random_llm.SOFT_TOKENS if sees else 0
    source = read_llm(random_llm.make(folder / "model", size, seed, soft_tokens))
    return publish(source, Repository(folder / "models"), CHECKS, lambda _: None)


def reference_bundle(folder: Path) -> Bundle:
    """The reference model: for what its answers are worth."""
    import export.reference
    from export.pipeline import publish
    from export.sources.llm import read_llm

    weights = Path(export.reference.__file__).parent / "weights" / "checks"
    return publish(read_llm(weights), Repository(folder / "models"), CHECKS, lambda _: None)


def stepped(raw: VllmEngine, jobs: Sequence[Job], clients: int) -> None:
    """vLLM stepped by hand, `clients` jobs in it at a time."""
    waiting = iter(jobs)
    inside = finished = 0
    while finished < len(jobs):
        while inside < clients and (job := next(waiting, None)) is not None:
            raw.add(job)
            inside += 1
        done = len(raw.step())
        inside, finished = inside - done, finished + done


async def together(one: Callable[[Any], Any], cases: Sequence[Any], clients: int) -> None:
    """Every case once, `clients` at a time."""
    queue = iter(cases)

    async def client() -> None:
        for case in queue:
            await one(case)

    await asyncio.gather(*(client() for _ in range(clients)))


async def _bridge(raw: VllmEngine, sizes: LlmValues) -> Engine:
    engine = Engine(lambda: raw, Limits(sizes.waiting, sizes.waiting_tokens))
    await engine.start()
    return engine

"""What the service costs above the raw engine: `python -m benchmarks checks`.

In: a randomly initialised Qwen3 that is made for the run (its answers mean nothing, its cost
does). Out: requests per CPU-second of three subjects that take turns (ABBA) over one engine in this
process: `engine`, vLLM stepped by hand with prompts laid out beforehand; `bridge`, the same asks
through the asyncio bridge; `judge`, all that a check does below HTTP: layout, single flight,
verdicts in Valkey. CPU is that of this process and of Valkey. Every ad is new, so that no verdict
is ever found stored.
"""

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from export import Bundle, Repository
from export.prompts import Renderer, Words
from feature_store.embedded import EmbeddedValkey
from serving.checks.flights import Reader
from serving.checks.judge import Judge
from serving.checks.policy import Policy, label_ids
from serving.checks.subjects import Subject
from serving.checks.understander import LATER, SOON, Understander
from serving.checks.verdicts import Scope
from serving.config import CHECKS, apply_environment, topology
from serving.deadline import Deadline
from serving.errors import ServingError
from serving.ingest.opening import connect
from serving.llm.asks import Ask, Read
from serving.llm.engine import Engine, Limits
from serving.llm.vllm_engine import Job, VllmEngine
from serving.sizes import LlmValues

from . import random_llm, report, stats
from .errors import InvalidRunError

CLIENTS = 64
REQUESTS = 192  # a block
ROUNDS = 5
BAR = 0.90  # of the raw engine's requests per CPU-second
WORDS = ("red blue green dress shoes shirt hat bag mug lamp sale new free now for all " * 3).split()


@dataclass(frozen=True, slots=True)
class Bench:
    """One engine and three ways to it; blocks of `requests` with CLIENTS at once."""

    runner: asyncio.Runner
    raw: VllmEngine
    bridge: Engine
    judge: Judge
    layout: Callable[[int], Ask]
    labels: tuple[int, int]
    requests: int
    valkey: psutil.Process

    def measure(
        self, block: Callable[[Sequence[Any]], None], prepare: Callable[[int], Any]
    ) -> Callable[[int], float]:
        """CPU seconds a request of one block; every block has ads of its own."""
        numbers = itertools.count(1)

        def run(_: int) -> float:
            first = next(numbers) * 1_000_003 * self.requests
            cases = [prepare(ad) for ad in range(first, first + self.requests)]
            before = self._cpu_s()
            block(cases)
            return (self._cpu_s() - before) / self.requests

        return run

    def engine_block(self, asks: Sequence[Ask]) -> None:
        """vLLM stepped by hand."""
        waiting = enumerate(asks)
        inside = finished = 0
        while finished < len(asks):
            for number, ask in itertools.islice(waiting, CLIENTS - inside):
                self.raw.add(Job(f"raw-{number}", ask, self.labels))
                inside += 1
            done = len(self.raw.step())
            inside, finished = inside - done, finished + done

    def bridge_block(self, asks: Sequence[Ask]) -> None:
        """The same asks through the bridge."""

        async def one(ask: Ask) -> None:
            found = (await self.bridge.read([ask], self.labels))[0]
            if isinstance(found, ServingError):
                raise InvalidRunError(f"the bridge failed: {found}")

        self.runner.run(_clients(one, asks))

    def judge_block(self, subjects: Sequence[Subject]) -> None:
        """The checks themselves."""

        async def one(subject: Subject) -> None:
            found = (await self.judge.relevance("red shoes", [subject], Deadline.after(60)))[0]
            if isinstance(found, ServingError) or found.source != "llm":
                raise InvalidRunError(f"the judge failed: {found}")

        self.runner.run(_clients(one, subjects))

    def _cpu_s(self) -> float:
        times = self.valkey.cpu_times()
        return time.process_time() + times.user + times.system


async def _clients(one: Callable[[Any], Any], cases: Sequence[Any]) -> None:
    queue = iter(cases)

    async def client() -> None:
        for case in queue:
            await one(case)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


def _subject(ad: int) -> Subject:
    return Subject(ad.to_bytes(32, "little"), *_words(ad))


def _words(ad: int) -> tuple[str, str]:
    """Title and text of an ad: about 40 tokens of content, different for every ad."""
    drawn = np.random.default_rng(ad).choice(WORDS, 16)
    return f"{ad} {' '.join(drawn[:4])}", " ".join(drawn[4:])


class _Near:
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


class _Blind:
    """No pictures: soft tokens have a figure of their own."""

    async def soft(self, subject: Subject) -> None:
        del subject


def run(size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure. Raises InvalidRunError when a subject does not answer."""
    requests = max(CLIENTS, round(REQUESTS * scale))
    with _opened(size, requests, seed) as bench:
        subjects = {
            "engine": bench.measure(bench.engine_block, bench.layout),
            "bridge": bench.measure(bench.bridge_block, bench.layout),
            "judge": bench.measure(bench.judge_block, _subject),
        }
        for subject in subjects.values():  # warm: kernels, connections, the policy's prefix
            subject(0)
        before = bench.raw.counters()
        taken = stats.abba(subjects, max(2, round(ROUNDS * scale)))
        after = bench.raw.counters()
    result: dict[str, Any] = {"requests_a_block": requests, "clients": CLIENTS, "subjects": {}}
    rows = []
    for name, values in taken.items():
        share = stats.ratio(taken["engine"], values)
        rate = float(1 / np.median(values))
        found = {"per_cpu_s": round(rate, 2), "of_engine": round(share.value, 4)}
        result["subjects"][name] = found | {
            "low": round(share.low, 4),
            "high": round(share.high, 4),
        }
        rows.append({"subject": name, **result["subjects"][name]})
    grown = {name: after[name] - before[name] for name in after}
    queries = grown["vllm:prefix_cache_queries"]
    result["prefix_cache_hits"] = round(grown["vllm:prefix_cache_hits"] / max(queries, 1), 4)
    result["bar"] = {"judge_of_engine": BAR, "met": result["subjects"]["judge"]["low"] >= BAR}
    report.table("Checks: requests per CPU-second, and share of the raw engine's", rows)
    print(f"prefix cache: {result['prefix_cache_hits']:.1%} of prompt tokens", file=sys.stderr)
    return result


@contextmanager
def _opened(size: random_llm.Size, requests: int, seed: int) -> Iterator[Bench]:
    app = next(a for a in topology("development", checks=True).applications if a.name == CHECKS)
    apply_environment(app.deployments["llm"].environment)  # before vLLM is imported
    values = LlmValues.model_validate(app.options["llm"])
    with (
        EmbeddedValkey() as valkey,
        tempfile.TemporaryDirectory() as scratch,
        asyncio.Runner() as runner,
    ):
        bundle = _bundle(Path(scratch), size, seed)
        from serving.llm.deployment import open_engine

        raw = open_engine(bundle, values)
        policy, labels = Policy.of(bundle), label_ids(bundle)
        renderer = Renderer(bundle.file("tokenizer.json"), policy.checks)
        bridge = runner.run(_bridge(raw, values))
        near: Any = _Near(bridge)
        blind: Any = _Blind()
        readers = {priority: Reader(near, labels, 60.0) for priority in (SOON, LATER)}
        understander = Understander(policy, renderer, blind, readers, near)
        scope = Scope("bench", policy.version, bundle.bundle_hash[:12])
        client = connect(valkey.url)
        judge = Judge(policy, understander, lambda: scope, client)

        def layout(ad: int) -> Ask:
            title, text = _words(ad)
            words = Words(title, text, "red shoes")
            return Ask(renderer.render(policy.checks.prompts.relevance, words).ids)

        process = psutil.Process(valkey.pid)
        try:
            yield Bench(runner, raw, bridge, judge, layout, labels, requests, process)
        finally:
            runner.run(bridge.close())
            runner.run(client.aclose())


async def _bridge(raw: VllmEngine, values: LlmValues) -> Engine:
    engine = Engine(lambda: raw, Limits(values.waiting, values.waiting_tokens))
    await engine.start()
    return engine


def _bundle(scratch: Path, size: random_llm.Size, seed: int) -> Bundle:
    from export.pipeline import publish
    from export.sources.llm import read_llm

    source = read_llm(random_llm.make(scratch / "model", size, seed))
    return publish(source, Repository(scratch / "models"), CHECKS, lambda _: None)

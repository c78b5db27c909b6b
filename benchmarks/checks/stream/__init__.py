"""Streams of checks with near copies, cold: how many reach the model, and what that costs.

STREAMS streams of CHECKS checks on risk, drawn by Zipf's law over creatives in clusters of near
copies (crops, recolourings, reworded titles), go through the judge that serves: stored verdicts (a
Valkey), near copies, router, model. Its HTTP and Ray are left out: they cost time and decide
nothing. The policy is the shipped one with a router taught by the model's verdicts on other ads.
Beside it the model reads every creative once: recall, precision and disagreement are against that.
At last a sentence of risk is appended to ads whose clean verdict is known. Reference models,
generated ads, held out.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feature_store.keys import Keys
from serving.checks.cascade import Before, Cascade
from serving.checks.duplicates import Creatives
from serving.checks.judge import Judge
from serving.checks.overrides import Overrides
from serving.checks.policy import Policy
from serving.checks.verdicts import Risk, Scope, Stores
from serving.ingest.opening import connect

from ... import random_llm, report
from ..near_models import NAMESPACE, NearModels, open_near
from ..opened import Desk, opened, values
from .creatives import Made, clusters, singles, smuggled
from .figures import figures
from .learned import taught
from .passing import Passed, Placed, read_all, through
from .reading import Reading, apart

CHECKS, CREATIVES, CLUSTERS, ZIPF = 100_000, 10_000, 1_500, 1.1
STREAMS, TAUGHT, EVIL = 3, 16_000, 500
APART = 64  # ads that the engine is asked about too
HELD_OUT, OTHERS = 7_000_000, 6_000_000  # seeds; those of training and calibration are far below


@dataclass(slots=True)
class Passing:
    """What became of one stream; creatives by number."""

    made: dict[int, Made]
    full: dict[int, Risk]
    passed: Passed
    let: list[tuple[Risk, Risk]]  # of appended sentences: the model's verdict, the cascade's


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure; always the reference models."""
    del folder, size
    sizes = values()
    near = open_near()
    with opened(near.bundle, sizes, near.eyes) as desk:
        return desk.runner.run(_measure(desk, near, scale, seed))


async def _measure(desk: Desk, near: NearModels, scale: float, seed: int) -> dict[str, Any]:
    reading = Reading(near, desk.policy)
    count = max(64, round(TAUGHT * scale))
    others = [one.subject for one in singles(count, OTHERS + seed)]
    read = await reading.read(others, f"taught-{seed}")
    engine = await read_all(desk.model(desk.policy), others[:APART])
    gap = apart(read.risks[: len(engine)], engine)
    _, revision = await near.space.ad(others[0])
    file = taught(desk.policy, others, read, revision)
    policy = Policy.of(near.bundle, file)
    streams = []
    for number in range(STREAMS):
        stream = _Stream(near, policy, reading, (scale, seed + number))
        streams.append(await stream.passing(desk))
    found = figures(policy, [(one.made, one.full, one.passed) for one in streams], seed)
    found["apart_from_engine"] = gap
    let = [pair for one in streams for pair in one.let]
    caught = [(full, got) for full, got in let if full.verdict != "allow"]
    missed = Counter(got.by for _, got in caught if got.verdict == "allow")
    found["smuggled"] = {
        "caught_by_model": len(caught),
        "let_through": missed.total(),
        "by": dict(missed),
    }
    report.say(f"smuggled sentences: {found['smuggled']}; read beside the engine: {gap}")
    return found


class _Stream:
    """One cold stream. plan: scale and seed."""

    def __init__(
        self, near: NearModels, policy: Policy, reading: Reading, plan: tuple[float, int]
    ) -> None:
        self._near = near
        self._policy = policy
        self._reading = reading
        self._scale, self._seed = plan
        self._space = Placed(near.space)

    async def passing(self, desk: Desk) -> Passing:
        """Check them all."""
        scale, seed = self._scale, self._seed
        count, several = max(40, round(CREATIVES * scale)), max(8, round(CLUSTERS * scale))
        order = _order(count, max(200, round(CHECKS * scale)), seed)
        asked = set(order.tolist())
        drawn = clusters(count, several, HELD_OUT + seed)
        made = {number: one for number, one in enumerate(drawn) if number in asked}
        subjects = {number: one.subject for number, one in made.items()}
        read = await self._reading.read(list(subjects.values()), f"stream-{seed}")
        self._space.keep(subjects.values(), read.vectors)
        client = connect(desk.url)
        try:
            judge = self._judge(desk, client)
            passed = await through(judge, subjects, order)
            clean = [n for n, one in passed.verdicts.items() if one.verdict == "allow"]
            evil = [smuggled(made[n], seed).subject for n in clean[: max(20, round(EVIL * scale))]]
            said = await self._reading.read(evil, f"smuggled-{seed}")
            let = await through(judge, dict(enumerate(evil)), np.arange(len(evil)))
        finally:
            await client.aclose()
        pairs = [(risk, let.verdicts[n]) for n, risk in enumerate(said.risks)]
        return Passing(made, dict(zip(made, read.risks, strict=True)), passed, pairs)

    def _judge(self, desk: Desk, client: Any) -> Judge:
        """As `serving.checks.opening` puts it together."""
        name = f"{NAMESPACE}{self._seed}"  # nothing of another stream is stored here
        scope = Scope(name, self._policy.version, self._near.bundle.bundle_hash[:12])
        overrides = Overrides(client, Keys(name))
        stores = Stores.of(client)
        space: Any = self._space
        before = Before(space, Creatives(), overrides, stores.relevance, stores.risk)
        cascade = Cascade(desk.model(self._policy), self._policy, before, lambda: scope)
        return Judge(self._policy, cascade, lambda: scope, stores, overrides.names)


def _order(creatives: int, checks: int, seed: int) -> np.ndarray:
    """Which creative each check is of: (checks,)."""
    draw = np.random.default_rng((seed, 5))
    share = np.arange(1, creatives + 1) ** -ZIPF
    ranks = draw.choice(creatives, checks, p=share / share.sum())
    return draw.permutation(creatives)[ranks]

"""A stream of checks with near copies, cold: how many reach the model, and what that costs.

CHECKS checks on risk, drawn by Zipf's law over creatives in clusters of near copies (crops,
recolourings, reworded titles), go through the judge that serves: stored verdicts (a Valkey), near
copies, router, model. Its HTTP and Ray are left out: they cost time and decide nothing. The policy
is the shipped one with a router taught by the model's verdicts on other ads. Beside it the model
reads every creative once: recall, precision and disagreement are against that. At last a sentence
of risk is appended to ads whose clean verdict is known. Reference models, generated ads, held out.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from feature_store.keys import Keys
from serving.checks.cascade import Before, Cascade
from serving.checks.duplicates import Creatives
from serving.checks.judge import Judge
from serving.checks.overrides import Overrides
from serving.checks.policy import Policy
from serving.checks.subjects import Subject
from serving.checks.vectors import Vector
from serving.checks.verdicts import Scope, Stores
from serving.ingest.opening import connect

from ... import random_llm, report
from ..near_models import NAMESPACE, NearModels, open_near
from ..opened import Desk, opened, together, values
from .creatives import Made, clusters, singles, smuggled
from .figures import figures
from .learned import taught
from .passing import CLIENTS, read_all, through

CHECKS, CREATIVES, CLUSTERS, ZIPF = 100_000, 10_000, 1_500, 1.1
TAUGHT, SMUGGLED = 16_000, 500
HELD_OUT, OTHERS = 7_000_000, 6_000_000  # seeds; those of training and calibration are far below


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure; always the reference models."""
    del folder, size
    sizes = values()
    near = open_near()
    several = max(8, round(CLUSTERS * scale))
    made = list(clusters(max(40, round(CREATIVES * scale)), several, HELD_OUT + seed))
    others = list(singles(max(64, round(TAUGHT * scale)), OTHERS + seed))
    with opened(near.bundle, sizes, near.eyes) as desk:
        return desk.runner.run(_measure(desk, near, made, others, (scale, seed)))


async def _measure(
    desk: Desk, near: NearModels, made: list[Made], others: list[Made], plan: tuple[float, int]
) -> dict[str, Any]:
    scale, seed = plan
    model = desk.model(desk.policy)
    known = [one.subject for one in others]
    vectors, revision = await _vectors(near, known)
    read = await read_all(model, known, "read to teach")
    file = taught(desk.policy, known, vectors, read, revision)
    policy = Policy.of(near.bundle, file)
    full = await read_all(model, [one.subject for one in made], "read by the model")
    client = connect(desk.url)
    try:
        judge = _judge(desk, near, policy, client)
        order = _order(len(made), max(200, round(CHECKS * scale)), seed)
        passed = await through(judge, [one.subject for one in made], order)
        clean = [n for n in passed.verdicts if passed.verdicts[n].verdict == "allow"]
        evil = [smuggled(made[n], seed) for n in clean[: max(20, round(SMUGGLED * scale))]]
        read = await read_all(model, [one.subject for one in evil], "smuggled, by the model")
        let = await through(judge, [one.subject for one in evil], np.arange(len(evil)))
    finally:
        await client.aclose()
    found = figures(policy, made, full, passed, seed)
    caught = [n for n, risk in enumerate(read) if risk.verdict != "allow"]
    missed = [n for n in caught if let.verdicts[n].verdict == "allow"]
    by = Counter(let.verdicts[n].by for n in missed)
    found["smuggled"] = {"caught_by_model": len(caught), "let_through": len(missed), "by": by}
    report.say(f"smuggled sentences: {found['smuggled']}")
    return found


async def _vectors(near: NearModels, subjects: list[Subject]) -> tuple[list[Vector], str]:
    found: dict[int, tuple[Vector, str]] = {}

    async def one(number: int) -> None:
        found[number] = await near.space.ad(subjects[number])

    await together(one, range(len(subjects)), CLIENTS)
    return [found[number][0] for number in range(len(subjects))], found[0][1]


def _judge(desk: Desk, near: NearModels, policy: Policy, client: Any) -> Judge:
    """As `serving.checks.opening` puts it together."""
    scope = Scope(NAMESPACE, policy.version, near.bundle.bundle_hash[:12])
    overrides = Overrides(client, Keys(NAMESPACE))
    stores = Stores.of(client)
    before = Before(near.space, Creatives(), overrides, stores.relevance, stores.risk)
    cascade = Cascade(desk.model(policy), policy, before, lambda: scope)
    return Judge(policy, cascade, lambda: scope, stores, overrides.names)


def _order(creatives: int, checks: int, seed: int) -> np.ndarray:
    """Which creative each check is of: (checks,)."""
    draw = np.random.default_rng((seed, 5))
    share = np.arange(1, creatives + 1) ** -ZIPF
    ranks = draw.choice(creatives, checks, p=share / share.sum())
    return draw.permutation(creatives)[ranks]

"""What the service costs above the raw engine, in requests per CPU-second.

Three subjects take turns (ABBA) over one engine in this process: `engine`, vLLM stepped by hand
with prompts laid out beforehand; `bridge`, the same asks through the asyncio bridge; `judge`, all
that a check does below HTTP: layout, single flight, verdicts in Valkey. CPU is that of this
process and of Valkey. Every ad is new, so no verdict is ever found stored. Beside it: the share of
policy tokens from the prefix cache, and the first check after warming up against later ones.
"""

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.prompts import Words
from serving.checks.subjects import Subject
from serving.deadline import Deadline
from serving.errors import ServingError
from serving.llm.asks import Ask
from serving.llm.deployment import warm
from serving.llm.vllm_engine import Job

from .. import random_llm, report, stats
from ..errors import InvalidRunError
from .opened import Desk, opened, random_bundle, stepped, together, values

CLIENTS = 64
REQUESTS = 192  # a block
ROUNDS = 5
BAR = 0.90  # of the raw engine's requests per CPU-second
POLICY_BAR, FIRST_BAR = 0.97, 1.5
ONE_BY_ONE = 40  # checks that follow the first
WORDS = ("red blue green dress shoes shirt hat bag mug lamp sale new free now for all " * 3).split()


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure. Raises InvalidRunError when a subject does not answer."""
    requests = max(CLIENTS, round(REQUESTS * scale))
    sizes = values()
    bundle = random_bundle(folder, size, seed)
    with opened(bundle, sizes) as desk:
        desk.runner.run(warm(desk.bridge, bundle))
        first = _first(desk)
        subjects = {
            "engine": _measured(desk, requests, _engine_block, layout),
            "bridge": _measured(desk, requests, _bridge_block, layout),
            "judge": _measured(desk, requests, _judge_block, lambda _, ad: _subject(ad)),
        }
        for subject in subjects.values():  # warm: kernels, connections, the policy's prefix
            subject(0)
        taken = stats.abba(subjects, max(2, round(ROUNDS * scale)))
        policy = _policy_share(desk)
    result: dict[str, Any] = {"requests_a_block": requests, "clients": CLIENTS, "subjects": {}}
    rows = []
    for name, seconds in taken.items():
        share = stats.ratio(taken["engine"], seconds)
        found = {"per_cpu_s": round(float(1 / np.median(seconds)), 2)}
        result["subjects"][name] = found | {
            "of_engine": round(share.value, 4),
            "low": round(share.low, 4),
            "high": round(share.high, 4),
        }
        rows.append({"subject": name, **result["subjects"][name]})
    report.table("Checks: requests per CPU-second, and share of the raw engine's", rows)
    judge = stats.ratio(taken["engine"], taken["judge"])
    result["judge_of_engine"] = judge.judged(BAR, least=True)
    result["policy_tokens_cached"] = {"value": policy, "bar": POLICY_BAR}
    result["first_of_steady"] = {"value": first, "bar": FIRST_BAR}
    print(f"policy tokens from the cache: {policy:.1%}; first: {first:.2f}", file=sys.stderr)
    return result


def _measured(
    desk: Desk,
    requests: int,
    block: Callable[[Desk, Sequence[Any]], None],
    prepare: Callable[[Desk, int], Any],
) -> Callable[[int], float]:
    """CPU seconds a request of one block; every block has ads of its own."""
    numbers = itertools.count(1)

    def cpu_s() -> float:
        times = desk.valkey.cpu_times()
        return time.process_time() + times.user + times.system

    def taken(_: int) -> float:
        first = next(numbers) * 1_000_003 * requests
        cases = [prepare(desk, ad) for ad in range(first, first + requests)]
        before = cpu_s()
        block(desk, cases)
        return (cpu_s() - before) / requests

    return taken


def _engine_block(desk: Desk, asks: Sequence[Ask]) -> None:
    jobs = [Job(f"raw-{number}", ask, desk.labels) for number, ask in enumerate(asks)]
    stepped(desk.raw, jobs, CLIENTS)


def _bridge_block(desk: Desk, asks: Sequence[Ask]) -> None:
    async def one(ask: Ask) -> None:
        found = (await desk.bridge.read([ask], desk.labels))[0]
        if isinstance(found, ServingError):
            raise InvalidRunError(f"the bridge failed: {found}")

    desk.runner.run(together(one, asks, CLIENTS))


def _judge_block(desk: Desk, subjects: Sequence[Subject]) -> None:
    async def one(subject: Subject) -> None:
        found = (await desk.judge.relevance("red shoes", [subject], Deadline.after(60)))[0]
        if isinstance(found, ServingError) or found.source != "llm":
            raise InvalidRunError(f"the judge failed: {found}")

    desk.runner.run(together(one, subjects, CLIENTS))


def _first(desk: Desk) -> float:
    """Wall time of the first check after warming up, over the median of those that follow."""
    taken = []
    for ad in range(ONE_BY_ONE + 1):
        before = time.perf_counter()
        _judge_block(desk, [_subject(10**12 + ad)])
        taken.append(time.perf_counter() - before)
    return round(taken[0] / float(np.median(taken[1:])), 3)


def _policy_share(desk: Desk) -> float:
    """Share of the policy's tokens (its prefix, filled to whole blocks) that were not computed."""
    policy = len(desk.renderer.prefix(desk.policy.checks.prompts.relevance))
    found = desk.reads([layout(desk, 10**13 + ad) for ad in range(CLIENTS)])
    return round(sum(min(one.cached_tokens, policy) for one in found) / (policy * len(found)), 4)


def layout(desk: Desk, ad: int) -> Ask:
    """The prompt of an ad's relevance."""
    asked = Words(*words(ad), "red shoes")
    return Ask(desk.renderer.render(desk.policy.checks.prompts.relevance, asked).ids)


def _subject(ad: int) -> Subject:
    return Subject(ad.to_bytes(32, "little"), *words(ad))


def words(ad: int) -> tuple[str, str]:
    """Title and text of an ad: about 40 tokens of content, different for every ad."""
    drawn = np.random.default_rng(ad).choice(WORDS, 16)
    return f"{ad} {' '.join(drawn[:4])}", " ".join(drawn[4:])

"""Checks a sample of what was ingested, over HTTP, against the labels that the catalogue knows.

In: creatives and their ids. Out: the stages `relevance` and `risk`, and lines that say how right
the judge was. Every query is asked of its own ad and of one of another class.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serving.config import CHECKS
from serving.errors import MainJobError
from serving.up.cluster import failure
from serving.up.creatives import Creative
from serving.up.progress import step
from serving.up.stages import CheckStage, Stage
from serving.up.traffic import FrontDoor

SAMPLE = 64  # ads
ADS_A_REQUEST = 4
CONCURRENCY = 4
START_S = 300.0
DEADLINE_MS = 60_000
PREFIX = "/v1/checks"


@dataclass(frozen=True, slots=True)
class Checked:
    """The stages, and what to print beside them."""

    stages: dict[str, Stage]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request and how many of its answers agree with what is known: (right, known)."""

    route: str
    body: dict[str, Any]
    agree: Callable[[Sequence[dict[str, Any]]], tuple[int, int]]


async def check(door: FrontDoor, creatives: Sequence[Creative], stored: Sequence[int]) -> Checked:
    """Check a sample; MainJobError when the engine does not start or does not answer."""
    with step("waiting for the language model"):
        await _wait(door)
    there = set(stored)
    sample = _spread([creative for creative in creatives if creative.ad_id in there])
    relevance = await _run(door, "relevance", _relevance(sample))
    risk = await _run(door, "risk", _risk(sample))
    stages = {"relevance": relevance, "risk": risk}
    return Checked(dict(stages), tuple(_line(name, stage) for name, stage in stages.items()))


async def _wait(door: FrontDoor) -> None:
    deadline = time.monotonic() + START_S
    while (said := await door.readyz(PREFIX)) is not None:
        if (reason := await asyncio.to_thread(failure, CHECKS)) is not None:
            raise MainJobError(f"application {CHECKS}: {reason} (--no-llm starts without it)")
        if time.monotonic() > deadline:
            raise MainJobError(f"{PREFIX}/readyz: not ready after {START_S:.0f} s: {said}")
        await asyncio.sleep(0.2)


def _spread(creatives: Sequence[Creative]) -> list[Creative]:
    """At most SAMPLE creatives, evenly over the catalogue."""
    step_by = max(1, len(creatives) // SAMPLE)
    return list(creatives[::step_by][:SAMPLE])


def _relevance(sample: Sequence[Creative]) -> list[_Asked]:
    """Each ad's own query, asked of it and of the next ad of another class."""
    asked = []
    for place, creative in enumerate(sample):
        if creative.query is None:
            continue
        others = (*sample[place:], *sample[:place])
        other = next((c for c in others if c.query not in (None, creative.query)), None)
        ids = [creative.ad_id] + ([other.ad_id] if other else [])

        def agree(results: Sequence[dict[str, Any]]) -> tuple[int, int]:
            scores = [result.get("score") for result in results]
            right = [s is not None and (s >= 0.5) == (row == 0) for row, s in enumerate(scores)]
            return sum(right), len(right)

        asked.append(_Asked("relevance", {"query": creative.query, "ad_ids": ids}, agree))
    return asked


def _risk(sample: Sequence[Creative]) -> list[_Asked]:
    asked = []
    for start in range(0, len(sample), ADS_A_REQUEST):
        part = sample[start : start + ADS_A_REQUEST]

        def agree(
            results: Sequence[dict[str, Any]], part: Sequence[Creative] = part
        ) -> tuple[int, int]:
            right = known = 0
            for creative, result in zip(part, results, strict=True):
                labels = creative.labels or {}
                for name, probability in result.get("categories", {}).items():
                    if name in labels:
                        known += 1
                        right += (probability >= 0.5) == bool(labels[name])
            return right, known

        asked.append(_Asked("risk", {"ad_ids": [c.ad_id for c in part]}, agree))
    return asked


async def _run(door: FrontDoor, name: str, asked: Sequence[_Asked]) -> CheckStage:
    latencies: list[float] = []
    sources: list[str] = []
    right = known = 0
    queue = iter(asked)
    started = time.monotonic()
    with step(f"checking {name}", len(asked)) as advance:

        async def work() -> None:
            nonlocal right, known
            for one in queue:
                begun = time.perf_counter()
                results = await _ask(door, one)
                latencies.append(time.perf_counter() - begun)
                sources.extend(result.get("source", "none") for result in results)
                found = one.agree(results)
                right, known = right + found[0], known + found[1]
                advance(1)

        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    seconds = time.monotonic() - started
    stage = Stage.of(len(sources), seconds, latencies)
    return CheckStage(
        stage.count,
        stage.seconds,
        stage.p50_ms,
        stage.p99_ms,
        accuracy=round(right / known, 4) if known else None,
        per_second=round(len(sources) / seconds, 2) if seconds else 0.0,
        cached=round(sources.count("cache") / len(sources), 4) if sources else 0.0,
    )


async def _ask(door: FrontDoor, one: _Asked) -> list[dict[str, Any]]:
    answer = await door.post(f"{PREFIX}/{one.route}", one.body | {"deadline_ms": DEADLINE_MS})
    found: dict[str, Any] = answer.json()
    if answer.status_code != 200:
        raise MainJobError(f"{PREFIX}/{one.route} answered {answer.status_code}: {found}")
    problems = [r["problem"]["detail"] for r in found["results"] if "problem" in r]
    if problems:
        raise MainJobError(f"{PREFIX}/{one.route}: {len(problems)} ads unjudged: {problems[0]}")
    results: list[dict[str, Any]] = found["results"]
    return results


def _line(name: str, stage: CheckStage) -> str:
    said = "no known labels" if stage.accuracy is None else f"accuracy {stage.accuracy:.1%}"
    return (
        f"{name}: {said} on {stage.count} ads, {stage.per_second:.1f}/s, "
        f"{stage.cached:.0%} from the cache"
    )

"""The whole system under load, beside what it is made of: `python -m benchmarks serve`.

In: a Tessera that runs, or one that is started as a process of its own; this process is only the
generator. Out: per stage the latency from the intended send time (open loop, one rate for all
contenders), and Tessera's ratio to each peer with a 99% interval. Contenders take turns (ABBA
blocks), Tessera twice as a control. A stage is not valid whose control is uneven, in which the
generator lagged, or in which anything but "ok" was answered.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import load, report, routes, stats
from .errors import InvalidRunError
from .serve_stages import CONTROL, Contender, Stage, Stages
from .serve_system import NotServingError, System, started

ADS = 100_000
ROUNDS = 8  # of ABBA: 16 blocks a contender
BLOCK_S = 0.5
FEWEST = 20  # requests a block, however slow
UTILISATION = 0.3  # of the slowest contender's back-to-back rate
HIGHEST_RATE = 200.0
WARM_UP = 30
MOST_LAG_US = 10_000  # p99: later than that, the figures are about the generator


@dataclass(frozen=True, slots=True)
class Target:
    """A Tessera that runs already, or (`url` None) none: then one is started on `models`.

    ads: ids 1..ads are looked up and must all be HIT. redis: its store, for the peer beside it.
    """

    url: str | None = None
    grpc: str = "127.0.0.1:9000"
    ads: int = 300
    redis: str | None = None
    models: Path = Path("var/models")
    key_file: Path | None = None


def run(target: Target, scale: float, seed: int) -> dict[str, Any]:
    """Measure every stage. Raises InvalidRunError when a contender does not answer as it should."""
    results: dict[str, Any] = {"scale": scale, "stages": {}}
    with _system(target, scale, seed) as system, asyncio.Runner() as runner:
        blocks = 2 * _rounds(scale)
        calls = 2 * (WARM_UP + blocks * max(FEWEST, math.ceil(HIGHEST_RATE * BLOCK_S)))
        stages = runner.run(Stages(system, seed, calls).open())
        try:
            for stage in stages.all():
                results["stages"][stage.name] = _measure(runner, stage, scale, seed)
            results["routes"] = routes.measure(runner, stages, scale)
        finally:
            runner.run(stages.close())
    results["valid"] = all(stage["valid"] for stage in results["stages"].values())
    _show(results)
    return results


def routes_only(target: Target, scale: float, seed: int) -> dict[str, Any]:
    """Lookups beside empty routes, alone."""
    with _system(target, scale, seed) as system, asyncio.Runner() as runner:
        stages = runner.run(Stages(system, seed, 0, models=False).open())
        try:
            return {"scale": scale, "routes": routes.measure(runner, stages, scale)}
        finally:
            runner.run(stages.close())


def _rounds(scale: float) -> int:
    return max(round(ROUNDS * scale), 2)


def _system(target: Target, scale: float, seed: int) -> AbstractContextManager[System]:
    if target.url is None:
        return started(target.models, max(int(ADS * scale), 2000), seed)
    ids = np.arange(1, target.ads + 1, dtype=np.int64)
    models = target.models if target.models.is_dir() else None
    try:
        key = target.key_file.read_text("utf-8").strip() if target.key_file else None
    except OSError as error:
        raise NotServingError(f"key file: {error}") from error
    return nullcontext(System(target.url, target.grpc, ids, target.redis, models, key))


def _measure(runner: asyncio.Runner, stage: Stage, scale: float, seed: int) -> dict[str, Any]:
    """One stage: ABBA blocks of every contender at one rate."""
    rate = min(UTILISATION / runner.run(_warm(stage)), HIGHEST_RATE)
    seconds = max(BLOCK_S, FEWEST / rate) * min(1.0, max(scale, 0.25))
    totals = {c.name: load.LoadResult(rate, 0, 0.0) for c in stage.contenders}

    def block(contender: Contender, round_: int) -> float:
        # The lag is judged on all blocks together: one block is too few requests for its p99.
        sent = load.open_loop(contender.call, rate, seconds, seed + round_, most_lag_ms=math.inf)
        return _add(totals[contender.name], runner.run(sent))

    subjects: dict[str, Callable[[int], float]] = {
        contender.name: partial(block, contender) for contender in stage.contenders
    }
    taken = stats.abba(subjects, _rounds(scale))
    own, *others = (contender.name for contender in stage.contenders)
    ratios = {name: stats.ratio(taken[own], taken[name]) for name in others}
    good = all(
        set(total.outcomes) == {"ok"} and total.lag_us.get_value_at_percentile(99) <= MOST_LAG_US
        for total in totals.values()
    )
    return {
        "rate": rate,
        "contenders": {name: total.summary() for name, total in totals.items()},
        "ratios": {
            name: {"value": r.value, "low": r.low, "high": r.high} for name, r in ratios.items()
        },
        "valid": good and stats.control_holds(ratios[CONTROL]),
    }


def _add(total: load.LoadResult, block: load.LoadResult) -> float:
    """Put a block into its contender's total; the block's median in ms."""
    total.latency_us.add(block.latency_us)
    total.lag_us.add(block.lag_us)
    total.outcomes += block.outcomes
    total.sent += block.sent
    total.seconds += block.seconds
    return block.percentile_ms(50)


async def _warm(stage: Stage) -> float:
    """Make every contender answer rightly; seconds of one back-to-back request to the slowest."""
    slowest = 0.0
    for contender in stage.contenders:
        taken = []
        for number in range(WARM_UP):
            begun = time.perf_counter()
            try:
                outcome = await contender.call(number)
            except OSError as error:
                outcome = f"cannot be reached ({error})"
            taken.append(time.perf_counter() - begun)
            if outcome != "ok":
                raise InvalidRunError(f"{stage.name}, {contender.name}: {outcome}")
        slowest = max(slowest, float(np.median(taken)))
    return slowest


def _show(results: dict[str, Any]) -> None:
    rows = []
    for name, stage in results["stages"].items():
        for contender, found in stage["contenders"].items():
            ratio = stage["ratios"].get(contender)
            rows.append(
                {
                    "stage": name,
                    "contender": contender,
                    "rate/s": stage["rate"],
                    "n": found["sent"],
                    "p50 ms": found["p50_ms"],
                    "p90 ms": found["p90_ms"],
                    "p99 ms": found.get("p99_ms", "n<20000"),
                    "tessera / it": _interval(ratio) if ratio else "",
                    "lag p99 ms": found["generator_lag_p99_ms"],
                    "valid": stage["valid"],
                }
            )
    report.table("open loop, latency from the intended send time; ratios of p50", rows)


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"

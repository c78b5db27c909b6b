"""Arrivals at random: beside an ideal queue at 80% of saturation, and refused at 300%.

In: a client, a bundle. Out: the p99 of Poisson arrivals over that of an
ideal pull-based batch queue, simulated with the same arrivals from service times that were measured
in this process; and under three times what the model can do, what share of its peak is answered in
time, how fast the rest hears no, and what was computed for nobody.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import Repository
from serving.session import open_session

from .. import report, stats
from .arrivals import SEED, Arrivals, arrive
from .client import Client, feed, graph_of
from .saturation import served

BATCHES = (1, 2, 4, 8, 16, 32)
SECONDS, PEAK_S, ROUNDS = 14.0, 6.0, 3  # of each run of arrivals, and at saturation; in turns
CALLERS = 48  # at saturation, as `saturation` has it
UTILISATION = 0.8
IDEAL_BAR = 1.3
OVERLOAD = 3.0
TIMEOUT_S = 1.0
GOODPUT_BAR = 0.9
SHED_BAR_MS = 10.0
MOST_LATE_S = 0.05
MOST_SPREAD = 1.5  # of the bare session's runs of one size, longest over shortest
REFUSED = ("RESOURCE_EXHAUSTED",)


@dataclass(frozen=True, slots=True)
class _Round:
    """peak: requests a second at saturation. ideal: seconds (n,) of the queue beside `calm`."""

    peak: float
    spread: float
    calm: Arrivals
    ideal: NDArray[np.float64]
    storm: Arrivals
    computed: int


def run(
    runner: asyncio.Runner, client: Client, repository: Repository, model: str, scale: float
) -> dict[str, Any]:
    """Both, on one model of one row a request; peak, too much and random arrivals take turns."""
    rounds = [
        _round(runner, client, repository, model, scale, seed)
        for seed in range(SEED, SEED + max(round(ROUNDS * scale), 2))
    ]
    found = {"poisson": _calm(rounds), "overload": _storm(rounds)}
    for row, runs in zip(
        found.values(), ([r.calm for r in rounds], [r.storm for r in rounds]), strict=True
    ):
        row["generator_late_s"] = max(r.late_s for r in runs)
        row["generator_late_p99_s"] = max(r.late_p99_s for r in runs)
        spread = max(r.spread for r in rounds)
        if row["generator_late_p99_s"] > MOST_LATE_S or spread > MOST_SPREAD:
            for value in row.values():  # it is about the machine
                if isinstance(value, dict) and "verdict" in value:
                    value["verdict"] = "inconclusive"
    _show(found)
    return found


def _round(
    runner: asyncio.Runner,
    client: Client,
    repository: Repository,
    model: str,
    scale: float,
    seed: int,
) -> _Round:
    seconds, block_s = max(SECONDS * scale, 2.0), max(PEAK_S * scale, 1.0)
    call = client.infer(model, 1)
    hasty = client.infer(model, 1, TIMEOUT_S)
    service, spread = service_times(repository, model)
    peaks = [runner.run(served(call, CALLERS, block_s))]
    before = runner.run(client.computed_rows(model))
    storm = runner.run(arrive(hasty, OVERLOAD * peaks[0], seconds, seed))
    computed = runner.run(client.computed_rows(model)) - before
    peaks.append(runner.run(served(call, CALLERS, block_s)))
    peak = float(np.mean(peaks))
    calm = runner.run(arrive(call, UTILISATION * peak, seconds, seed))
    return _Round(peak, spread, calm, ideal_queue(calm.planned, service), storm, computed)


def _calm(rounds: Sequence[_Round]) -> dict[str, Any]:
    taken = np.concatenate([r.calm.latency_s for r in rounds])
    ideal = np.concatenate([r.ideal for r in rounds])
    ratio = stats.ratio(taken, ideal, 0.99)
    return {
        "rate": [UTILISATION * r.peak for r in rounds],
        "n": len(ideal),
        "p50_ms": float(np.median(taken) * 1000),
        "p99_ms": float(np.quantile(taken, 0.99) * 1000),
        "ideal_p99_ms": float(np.quantile(ideal, 0.99) * 1000),
        "p99_over_ideal": ratio.judged(IDEAL_BAR),
        "outcomes": _counts([r.calm for r in rounds]),
        "service_spread": max(r.spread for r in rounds),
    }


def _storm(rounds: Sequence[_Round]) -> dict[str, Any]:
    """Goodput is of the rounds' own peaks, measured right before and right after."""
    storms = [r.storm for r in rounds]
    shed = np.concatenate([s.latency_s[np.isin(s.outcomes, REFUSED)] for s in storms]) * 1000
    good = [storm.good() for storm in storms]
    possible = sum(r.peak * r.storm.seconds for r in rounds)
    return {
        "rate": [OVERLOAD * r.peak for r in rounds],
        "outcomes": _counts(storms),
        "goodput_of_peak": _at_least(sum(good) / possible, GOODPUT_BAR),
        "goodput_by_round": [
            n / r.storm.seconds / r.peak for n, r in zip(good, rounds, strict=True)
        ],
        "shed_p99_ms": stats.quantile(shed, 0.99).judged(SHED_BAR_MS) if len(shed) else None,
        "computed_for_nobody": sum(r.computed for r in rounds) - sum(good),
    }


def _counts(runs: Sequence[Arrivals]) -> dict[str, int]:
    return dict(sum((Counter(run.counts()) for run in runs), Counter()))


def _at_least(value: float, least: float) -> dict[str, Any]:
    return {"value": value, "bar": least, "verdict": "met" if value >= least else "not met"}


def ideal_queue(planned: NDArray[np.float64], service_s: dict[int, float]) -> NDArray[np.float64]:
    """Seconds (n,) that arrivals at `planned` (n,) would take if nothing but the model took time.

    One server that, whenever it is free, takes all that waits, up to the largest batch.
    """
    sizes = sorted(service_s)
    known = [service_s[size] for size in sizes]
    done = np.empty(len(planned))
    free, at = 0.0, 0
    while at < len(planned):
        begin = max(free, planned[at])
        last = min(int(np.searchsorted(planned, begin, "right")), at + sizes[-1])
        free = begin + float(np.interp(last - at, sizes, known))
        done[at:last] = free
        at = last
    return done - planned


def service_times(repository: Repository, model: str) -> tuple[dict[int, float], float]:
    """Seconds of one run of the bare session, by its rows; and how far runs of one size differ."""
    name, graph = graph_of(repository, model)
    session = open_session(repository.open(model), name)
    random = np.random.default_rng(2)
    feeds = {rows: feed(graph, rows, random) for rows in BATCHES}
    taken: dict[int, list[float]] = {rows: [] for rows in BATCHES}
    for _ in range(6):
        for rows, tensors in feeds.items():
            begun = time.perf_counter()
            session.run(tensors)
            taken[rows].append(time.perf_counter() - begun)
    spread = float(np.median([max(values[1:]) / min(values[1:]) for values in taken.values()]))
    return {rows: float(np.median(values[1:])) for rows, values in taken.items()}, spread


def _show(found: dict[str, Any]) -> None:
    calm, storm = found["poisson"], found["overload"]
    rows = [
        {"promise": "p99 over the ideal queue's, 80% load", **calm["p99_over_ideal"]},
        {"promise": "goodput of peak, 300% load", **storm["goodput_of_peak"]},
    ]
    if storm["shed_p99_ms"]:
        rows.append({"promise": "refusals, p99 ms", **storm["shed_p99_ms"]})
    keep = ("promise", "value", "bar", "verdict")
    report.table("random arrivals", [{k: row[k] for k in keep} for row in rows])
    report.say(f"at 300%: {storm['outcomes']}, computed for nobody {storm['computed_for_nobody']}")

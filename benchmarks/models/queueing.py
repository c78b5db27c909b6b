"""Arrivals at random: beside an ideal queue at 80% of saturation, and refused at 300%.

In: a client, a bundle, the rate at saturation. Out: the p99 of Poisson arrivals over that of an
ideal pull-based batch queue, simulated with the same arrivals from service times that were measured
in this process; and under three times what the model can do, what share of its peak is answered in
time, how fast the rest hears no, and what was computed for nobody.
"""

import asyncio
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import Repository
from serving.session import open_session

from .. import report, stats
from .arrivals import arrive
from .client import Client, feed, graph_of

BATCHES = (1, 2, 4, 8, 16, 32)
SECONDS = 40.0
UTILISATION = 0.8
IDEAL_BAR = 1.3
OVERLOAD = 3.0
TIMEOUT_S = 1.0
GOODPUT_BAR = 0.9
SHED_BAR_MS = 10.0
MOST_LATE_S = 0.05
MOST_SPREAD = 1.5  # of the bare session's runs of one size, longest over shortest
REFUSED = ("RESOURCE_EXHAUSTED",)


def run(
    runner: asyncio.Runner,
    client: Client,
    repository: Repository,
    model: str,
    peak: float,
    scale: float,
) -> dict[str, Any]:
    """Both, on one model of one row a request. peak: requests a second at saturation."""
    seconds = max(SECONDS * scale, 2.0)
    service, spread = service_times(repository, model)
    calm = runner.run(arrive(client.infer(model, 1), UTILISATION * peak, seconds))
    ideal = ideal_queue(calm.planned, service)
    ratio = stats.ratio(calm.latency_s, ideal, 0.99)
    before = runner.run(client.computed_rows(model))
    storm = runner.run(arrive(client.infer(model, 1, TIMEOUT_S), OVERLOAD * peak, seconds))
    computed = runner.run(client.computed_rows(model)) - before
    shed = storm.latency_s[np.isin(storm.outcomes, REFUSED)] * 1000
    good = int((storm.outcomes == "ok").sum())
    goodput = good / storm.seconds / peak
    found: dict[str, dict[str, Any]] = {
        "poisson": {
            "rate": UTILISATION * peak,
            "n": len(ideal),
            "p50_ms": float(np.median(calm.latency_s) * 1000),
            "p99_ms": float(np.quantile(calm.latency_s, 0.99) * 1000),
            "ideal_p99_ms": float(np.quantile(ideal, 0.99) * 1000),
            "p99_over_ideal": ratio.judged(IDEAL_BAR),
            "outcomes": calm.counts(),
            "service_spread": spread,
        },
        "overload": {
            "rate": OVERLOAD * peak,
            "outcomes": storm.counts(),
            "goodput_of_peak": _at_least(goodput, GOODPUT_BAR),
            "shed_p99_ms": stats.quantile(shed, 0.99).judged(SHED_BAR_MS) if len(shed) else None,
            "computed_for_nobody": computed - good,
        },
    }
    for run_, row in ((calm, found["poisson"]), (storm, found["overload"])):
        row["generator_late_s"] = run_.late_s
        row["generator_late_p99_s"] = run_.late_p99_s
        if run_.late_p99_s > MOST_LATE_S or spread > MOST_SPREAD:  # it is about the machine
            for value in row.values():
                if isinstance(value, dict) and "verdict" in value:
                    value["verdict"] = "inconclusive"
    _show(found)
    return found


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

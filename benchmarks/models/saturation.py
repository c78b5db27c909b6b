"""How much of the bare session's rate is left when a model is served: throughput at saturation.

In: a client, and bundles. Out: rows a second of a bare session loop at its best batch in this
process, and of the served model asked by many callers at once; they take turns, seconds each.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from export import Repository
from feature_store.progress import bar
from serving.session import open_session

from .. import report, stats
from ..errors import InvalidRunError
from ..load import Request
from .client import Client, feed, graph_of
from .made import DLRM, VIT, VIT_INT8

BATCHES = (1, 2, 4, 8, 16, 32)
# Rows a request, callers at once (what they wait with fits the queue), bar.
SUBJECTS = {VIT: (1, 48, 0.93), VIT_INT8: (1, 48, 0.93), DLRM: (512, 6, 0.80)}
BLOCK_S = 4.0
ROUNDS = 3
INT8_BAR = 2.5
# Rates of the bare session's own blocks, highest over lowest: above, the machine was not ours.
MOST_SPREAD = 1.25


def run(
    runner: asyncio.Runner,
    client: Client,
    repository: Repository,
    scale: float,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure every subject, or only some."""
    block_s, rounds = BLOCK_S * min(scale * 2, 1), max(round(ROUNDS * scale), 2)
    found: dict[str, Any] = {"models": {}}
    for model in only or SUBJECTS:
        rows, callers, least = SUBJECTS[model]
        bare, batch = _bare(repository, model, rows, block_s)
        call = client.infer(model, rows)
        subjects: dict[str, Callable[[int], float]] = {
            "bare": bare,
            "served": partial(_rate, runner, call, callers, rows, block_s),
        }
        stats.abba(subjects, 1)
        with bar(f"saturation, {model}"):
            taken = stats.abba(subjects, rounds)
        spread = float(taken["bare"].max() / taken["bare"].min())
        judged = stats.ratio(taken["served"], taken["bare"]).judged(least, least=True)
        if spread > MOST_SPREAD:
            judged["verdict"] = "inconclusive"
        found["models"][model] = {
            "bare_spread": spread,
            "rows_a_request": rows,
            "callers": callers,
            "best_batch": batch,
            "rows_per_s": {name: float(np.median(rates)) for name, rates in taken.items()},
            "of_bare": judged,
        }
    served = {m: row["rows_per_s"]["served"] for m, row in found["models"].items()}
    if VIT in served and VIT_INT8 in served:
        gain = served[VIT_INT8] / served[VIT]
        verdict = "met" if gain >= INT8_BAR else "not met"
        found["int8_over_fp32"] = {"value": gain, "bar": INT8_BAR, "verdict": verdict}
        report.say(f"INT8 over fp32, served: {gain:.2f} (bar {INT8_BAR})")
    rows_ = [{"model": m, **r["rows_per_s"], **r["of_bare"]} for m, r in found["models"].items()]
    report.table("rows a second at saturation: bare session loop, served over HTTP", rows_)
    return found


def _bare(
    repository: Repository, model: str, rows: int, block_s: float
) -> tuple[Callable[[int], float], int]:
    """Rows a second of a loop over the session, at the batch that is fastest here."""
    name, graph = graph_of(repository, model)
    session = open_session(repository.open(model), name)
    random = np.random.default_rng(1)
    sizes = [b * rows for b in BATCHES if b * rows <= 2048]
    feeds = {size: feed(graph, size, random) for size in sizes}

    def rate(size: int, seconds: float) -> float:
        begun, done = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            session.run(feeds[size])
            done += size
        return done / (time.perf_counter() - begun)

    for size in sizes:
        session.run(feeds[size])
    best = max(sizes, key=partial(rate, seconds=block_s / 4))
    return lambda _: rate(best, block_s), best


def _rate(
    runner: asyncio.Runner, call: Request, callers: int, rows: int, seconds: float, _: int
) -> float:
    """Rows a second of the served model."""
    return rows * runner.run(served(call, callers, seconds))


async def served(call: Request, callers: int, seconds: float) -> float:
    """Requests a second of so many callers; each ends with the answer to its last request."""
    end = time.perf_counter() + seconds
    outcomes: list[str] = []

    async def caller(first: int) -> None:
        number = first
        while time.perf_counter() < end:
            outcomes.append(await call(number))
            number += callers

    begun = time.perf_counter()
    await asyncio.gather(*(caller(i) for i in range(callers)))
    taken = time.perf_counter() - begun
    wrong = {outcome for outcome in outcomes if outcome != "ok"}
    if wrong:
        raise InvalidRunError(f"a request at saturation was answered {', '.join(sorted(wrong))}")
    return len(outcomes) / taken

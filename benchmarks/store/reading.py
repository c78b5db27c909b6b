"""Lookups at fixed times, alone and beside something that works on the same server.

In: a store and cases of ids. Out: latencies counted from when each lookup was due, so that a stall
counts for all it held up, and their quantiles over those alone.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store import FeatureStore

from .. import stats

RATE = 250.0  # reads a second
IDS = 500
BARS = {"p50": 1.3, "p99": 3.0}
MOST_ALONE_S = 0.05  # p99 of lookups alone: more, and the machine is too busy to tell


def cases_of(ids: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """What is looked up, in turn."""
    random = np.random.default_rng(3)
    return [random.choice(ids, IDS) for _ in range(50)]


def paced(
    store: FeatureStore,
    cases: list[NDArray[np.int64]],
    reads: int,
    ended: Callable[[], bool] = lambda: False,
) -> NDArray[np.float64]:
    """Seconds (m,) from when each read was due to when it was answered; `reads` at most."""
    taken = np.empty(reads)
    start = time.perf_counter() + 0.05
    for i in range(reads):
        due = start + i / RATE
        time.sleep(max(due - time.perf_counter(), 0))
        if ended():
            return taken[:i]
        store.lookup(cases[i % len(cases)], deadline=5)
        taken[i] = time.perf_counter() - due
    return taken


def beside(values: NDArray[np.float64], alone: NDArray[np.float64]) -> dict[str, Any]:
    """Quantiles of both, and judged ratios."""
    found: dict[str, Any] = {}
    for name, bar in BARS.items():
        at = float(name[1:]) / 100
        both = {"alone": alone, "beside": values}
        found[f"{name}_us"] = {n: float(np.quantile(v, at) * 1e6) for n, v in both.items()}
        found[f"{name}_ratio"] = stats.ratio(values, alone, at).judged(bar)
        if float(np.quantile(alone, 0.99)) > MOST_ALONE_S:
            found[f"{name}_ratio"]["verdict"] = "inconclusive"
    return found


def table(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `beside` by name, for people."""
    return [
        {"beside": name, "": quantile, **row[f"{quantile}_us"], **row[f"{quantile}_ratio"]}
        for name, row in rows.items()
        for quantile in BARS
    ]

"""Lookups beside Feast on the same server: the ratio that the issue of speed is about.

In: a server that already holds our records, their ids and codes. Out: per number of ids the medians
of both and their ratio; or, where Feast cannot be had, the reason why its row is left out.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey

from .. import report, stats
from ..errors import InvalidRunError
from . import environment, peer
from .answering import FEATURES

ADS = 20_000
ROUNDS = 40
CALLS = 5  # back to back in a turn, of which the median counts: both are warm then
BAR = 0.01  # of Feast's p50 at 500 ids: a hundred times faster
BAR_IDS = 500


def run(
    server: EmbeddedValkey,
    store: FeatureStore,
    catalogue: tuple[NDArray[np.int64], NDArray[np.uint16]],
    sizes: tuple[int, ...],
    folder: Path,
    scale: float,
) -> dict[str, Any]:
    """Measure. Raises InvalidRunError when the two read different codes."""
    ids, codes = catalogue
    ids = ids[: max(int(ADS * scale), 1000)]
    try:
        with peer.opened(environment.python(folder, environment.PINNED), server.port) as feast:
            values = np.zeros((len(ids), FEATURES), np.int32)
            values[:, : codes.shape[1]] = codes[: len(ids)]
            seconds = feast.write(ids, values)
            rounds = max(int(ROUNDS * scale), 3)
            found: dict[int, dict[str, Any]] = {
                size: _compare(store, feast, ids, size, rounds) for size in sizes
            }
    except environment.NoPeerError as error:
        report.say(f"Feast is left out: {error}")
        return {"left_out": str(error)}
    rows = [{"ids": size, **row["p50_us"], **row["ratio"]} for size, row in found.items()]
    report.table("lookup against Feast's Redis online store, 12 Int32 features (p50, us)", rows)
    return {
        "pinned": list(environment.PINNED),
        "ads": len(ids),
        "rows_written_per_s": len(ids) / seconds,
        "sizes": found,
    }


def _compare(
    store: FeatureStore, feast: peer.FeastPeer, ids: NDArray[np.int64], size: int, rounds: int
) -> dict[str, Any]:
    random = np.random.default_rng(size)
    cases = [_mixed(random, ids, size) for _ in range(20)]
    for asked in cases[:3]:
        ours = store.lookup(asked, deadline=5).codes
        theirs = feast.read(asked)[2][:, :6].astype(np.uint16)  # -1, a miss, becomes 65535
        if not np.array_equal(ours, theirs):
            raise InvalidRunError("the store and Feast read different codes")

    def own(case: int) -> float:
        return float(np.median([_timed(store, cases[(case + i) % 20]) for i in range(CALLS)]))

    def its(case: int) -> float:
        return float(np.median([feast.read(cases[(case + i) % 20])[0] for i in range(CALLS)]))

    taken = stats.abba({"lookup": own, "feast": its}, rounds)
    ratio = stats.ratio(taken["lookup"], taken["feast"])
    return {
        "p50_us": {name: float(np.median(values) * 1e6) for name, values in taken.items()},
        "ratio": ratio.judged(BAR) if size == BAR_IDS else ratio.shown(),
    }


def _timed(store: FeatureStore, asked: NDArray[np.int64]) -> float:
    start = time.perf_counter()
    store.lookup(asked, deadline=5)
    return time.perf_counter() - start


def _mixed(random: np.random.Generator, ids: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    asked = random.choice(ids, size, replace=False)
    asked[random.random(size) < 0.05] += 2**41
    return asked

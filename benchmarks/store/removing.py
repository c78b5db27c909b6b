"""What readers feel while a retired version is removed: a part of `python -m benchmarks writing`.

In: a store whose active version has some records. Out: quantiles of lookups of 500 ids while
another process removes as many records of a retired version, over those alone, and how long a
removal took. A version is written anew for each removal; blocks take turns with blocks alone.
"""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store import FeatureStore
from feature_store.load import LoadOptions, load
from feature_store.progress import bar
from feature_store.write import Rows

from .. import report, stats
from ..errors import BenchmarkError
from .loader import Loader
from .reading import IDS, beside, cases_of, paced, table

READS = 5000  # of each kind
_ROUNDS = 40  # at most, to come to as many
_MOST_S = 60.0


def run(store: FeatureStore, url: str, rows: Rows, scale: float) -> dict[str, Any]:
    """Read beside removals until there are enough reads."""
    wanted = max(int(READS * scale), 5)
    cases = cases_of(rows.ids)
    alone: list[NDArray[np.float64]] = []
    taken: list[NDArray[np.float64]] = []
    seconds: list[float] = []
    with (
        Loader.started(url, len(rows.ids)) as loader,
        bar("reading beside removals") as progress,
    ):
        for round_ in range(_ROUNDS):
            version = f"removed-{round_}"
            load(store, rows, LoadOptions(version=version, resume=False))
            loader.retire(version)
            ended = threading.Event()

            def wait(ended: threading.Event = ended) -> None:
                seconds.append(loader.removed())
                ended.set()

            waiting = threading.Thread(target=wait)
            waiting.start()
            taken.append(paced(store, cases, wanted, ended.is_set))
            if not ended.wait(_MOST_S):
                raise BenchmarkError(f"a version was not removed within {_MOST_S:.0f} s")
            waiting.join()
            alone.append(paced(store, cases, max(len(taken[-1]), 5)))
            done = sum(map(len, taken))
            progress(min(done, wanted), wanted)
            if done >= wanted:
                break
    values = np.concatenate(taken)
    found: dict[str, Any] = {"left_out": "too short"}
    if len(values):
        found = beside(values, np.concatenate(alone))
    found["n"] = len(values)
    found["removal_s"] = stats.quantile(np.array(seconds), 0.5).shown()
    if len(values):
        report.table(f"lookups of {IDS} ids beside a removal, us", table({"a removal": found}))
    return found

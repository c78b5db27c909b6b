"""A client in a process of its own that waits for one thing after another to reach it.

Arguments: the store's URL, bytes of near cache. In, on stdin: one JSON line, `{"blocked": ids}` or
`{"versions": names, "ids": ids}`. Out, on stdout: `ready` once its near cache is warm, `seen` for
each version, since the next must not come sooner, and after the last step one JSON line: when each
step was seen, on the machine's monotonic clock, the share of rows that the near cache gave, and how
late it woke (p99). It looks up every PERIOD_S, as a busy service would.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from feature_store import FeatureStore, Status

PERIOD_S = 0.005
WINDOW = 100  # ids a lookup
_PATIENCE_S = 30.0  # for one step; then the run is over


def _steps(asked: dict[str, Any], store: FeatureStore) -> Iterator[Callable[[], bool]]:
    """What is waited for, one after the other."""
    if "blocked" in asked:
        ids = np.asarray(asked["blocked"], np.int64)
        for at in range(len(ids)):
            # Ids enter the window long before their turn, so the near cache has them by then.
            yield partial(_blocked, store, ids[at : at + WINDOW])
        return
    ids = np.asarray(asked["ids"], np.int64)[:WINDOW]
    for name in asked["versions"]:
        yield partial(_serves, store, ids, name)


def _blocked(store: FeatureStore, window: Any) -> bool:
    return bool(store.lookup(window, deadline=5).status[0] == Status.BLOCKED)


def _serves(store: FeatureStore, ids: Any, name: str) -> bool:
    return store.lookup(ids, deadline=5).version == name


def _warm(store: FeatureStore, ids: list[int]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while store.counters.get("near hits", 0) < WINDOW and time.monotonic() < deadline:
        store.lookup(ids[:WINDOW], deadline=5)
        time.sleep(PERIOD_S)


def main(url: str, near_bytes: int) -> None:
    """See above. Ends early when a step does not come."""
    with FeatureStore.connect(url, near_cache_bytes=near_bytes) as store:
        asked = json.loads(sys.stdin.readline())
        if near_bytes:
            _warm(store, asked.get("ids") or asked["blocked"])
        print("ready", flush=True)
        seen: list[float] = []
        lags = [0.0]
        for reached in _steps(asked, store):
            deadline = time.monotonic() + _PATIENCE_S
            while not reached():
                if time.monotonic() > deadline:
                    sys.exit(f"step {len(seen)} did not come within {_PATIENCE_S} s")
                asleep = time.monotonic()
                time.sleep(PERIOD_S)
                lags.append(time.monotonic() - asleep - PERIOD_S)
            seen.append(time.monotonic())
            if "versions" in asked:
                print("seen", flush=True)
        counts = store.counters
        near = counts.get("near hits", 0) / max(counts.get("ids", 0), 1)
        lag_s = float(np.quantile(lags, 0.99))
        print(json.dumps({"seen": seen, "near_share": near, "lag_s": lag_s}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

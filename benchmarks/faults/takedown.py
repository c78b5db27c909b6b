"""How long a takedown takes to reach every near cache, while others write.

In: a scale and a seed. Out: the p99 of eight clients' waits, from the call of `block` to the first
lookup that says BLOCKED, while 1,000 records a second are written to the same version.
"""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey
from feature_store.progress import bar

from ..workers import hear, module, say
from . import judging
from .processes import Watchers

CLIENTS = 8
NEAR_BYTES = 8 << 20
TAKEDOWNS = 2500  # times 8 clients: as many waits as a p99 needs
EVERY_S = 0.016
WRITES = 1000.0  # a second
BAR_MS = 100.0
FIRST_OTHER = 10_000_000


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure."""
    count = max(int(TAKEDOWNS * scale), 20)
    ids = np.random.default_rng(seed).permutation(np.arange(1, 50_001))[: count + 100]
    codes = np.random.default_rng(seed).integers(0, 65535, (len(ids), 6)).astype(np.uint16)
    with EmbeddedValkey() as server, FeatureStore.connect(server.url) as store:
        store.write(ids, codes)
        blocked = ids[:count].tolist()
        with (
            Watchers.started(server.url, [NEAR_BYTES] * CLIENTS, {"blocked": blocked}) as watchers,
            module("faults.writer", server.url, WRITES, FIRST_OTHER, 20_000) as writer,
        ):
            hear(writer)
            called, answered = _block(store, blocked)
            seen = watchers.seen()
            say(writer, "stop")
            writes = float(hear(writer))
    waits_ms = (seen.at_s - called).ravel() * 1000
    enough = writes >= 0.95 * WRITES  # or it is not what was asked for
    return {
        "wait_ms": seen.judged(judging.p99(waits_ms, BAR_MS), enough),
        "call_p99_ms": float(np.quantile(answered - called, 0.99) * 1000),
        "clients": CLIENTS,
        "writes_per_s": writes,
        "near_cache_share": seen.near_share,
    }


def _block(store: FeatureStore, ids: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Block one id after the other; when each call began, and when it ended."""
    called, answered = np.empty(len(ids)), np.empty(len(ids))
    begun = time.monotonic()
    with bar("takedowns") as progress:
        for i, ad_id in enumerate(ids):
            time.sleep(max(begun + i * EVERY_S - time.monotonic(), 0))
            called[i] = time.monotonic()
            store.block([ad_id], "measured")
            answered[i] = time.monotonic()
            progress(i + 1, len(ids))
    return called, answered

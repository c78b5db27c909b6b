"""How long every client takes to follow `activate` and `rollback`.

In: a scale and a seed. Out: the longest wait of eight clients, four of them with near caches, from
the call to the first lookup that names the new version.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey

from . import judging
from .processes import Watchers

NEAR_BYTES = [8 << 20] * 4 + [0] * 4
PAIRS = 150  # of an activation and a rollback
EVERY_S = 0.1
ACTIVATE_BAR_MS = 100.0
ROLLBACK_BAR_MS = 1000.0


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure."""
    pairs = max(int(PAIRS * scale), 3)
    ids = np.arange(1, 2001)
    codes = np.random.default_rng(seed).integers(0, 65535, (len(ids), 6)).astype(np.uint16)
    with EmbeddedValkey() as server, FeatureStore.connect(server.url) as store:
        for name in ("1", "2"):
            store.write(ids, codes, version=name)
        store.activate("1", force=True)
        asked = {"versions": ["2", "1"] * pairs, "ids": ids[:100].tolist()}
        with Watchers.started(server.url, NEAR_BYTES, asked) as watchers:
            called = _flip(store, watchers, pairs)
            seen = watchers.seen()
    waits_ms = (seen.at_s - called) * 1000  # (clients, steps)
    return {
        "activate_ms": seen.judged(judging.worst(waits_ms[:, ::2].ravel(), ACTIVATE_BAR_MS)),
        "rollback_ms": seen.judged(judging.worst(waits_ms[:, 1::2].ravel(), ROLLBACK_BAR_MS)),
        "clients": len(NEAR_BYTES),
    }


def _flip(store: FeatureStore, watchers: Watchers, pairs: int) -> NDArray[np.float64]:
    """Activate and roll back in turn; when each call began."""
    steps: list[Callable[[], object]] = [
        lambda: store.activate("2", force=True),
        store.rollback,
    ] * pairs
    called = np.empty(len(steps))
    begun = time.monotonic()
    for i, step in enumerate(steps):
        time.sleep(max(begun + i * EVERY_S - time.monotonic(), 0))
        called[i] = time.monotonic()
        step()
        watchers.step()
    return called

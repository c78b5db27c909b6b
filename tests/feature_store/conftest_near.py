"""What tests of the near cache share: ads, and a way to fill a cache."""

import numpy as np
from conftest_tools import until

from feature_store import FeatureStore

IDS = np.arange(1, 2001)
CODES = np.random.default_rng(3).integers(0, 65535, (2000, 6)).astype(np.uint16)


def warm(store: FeatureStore) -> None:
    """Look up until the cache answers."""

    def hit() -> bool:
        before = store.counters.get("near hits", 0)
        store.lookup(IDS[:1000])
        return store.counters.get("near hits", 0) >= before + 1000

    until(hit)

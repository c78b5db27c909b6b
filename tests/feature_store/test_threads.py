"""Threads that share one store."""

import threading

import numpy as np

from feature_store import FeatureStore


def test_threads_share_a_store(valkey_url: str, loops: str) -> None:
    """Each gets its own rows, with and without a near cache."""
    ids = np.arange(1, 4001)
    codes = np.random.default_rng(1).integers(0, 65535, (4000, 6)).astype(np.uint16)
    wrong: list[object] = []
    with (
        FeatureStore.connect(valkey_url) as store,
        FeatureStore.connect(valkey_url, near_cache_bytes=1 << 16) as near,
    ):
        store.write(ids, codes)

        def look(seed: int, which: FeatureStore) -> None:
            random = np.random.default_rng(seed)
            for _ in range(150):
                asked = random.integers(1, 4101, random.integers(0, 300))
                found = which.lookup(asked, deadline=20)
                known = asked <= 4000
                if (
                    not np.array_equal(found.status, known.astype(np.uint8))
                    or not np.array_equal(found.codes[known], codes[asked[known] - 1])
                    or not (found.codes[~known] == 65535).all()
                ):
                    wrong.append(asked)

        threads = [
            threading.Thread(target=look, args=(seed, which))
            for seed, which in enumerate((store, near) * 4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        assert store.counters["lookups"] == 4 * 150

"""A process that looks up, a block at a time: so that an old one can be put beside a new one.

Arguments: the store's URL, bytes of near cache, a seed. In, on stdin: a number of lookups a line.
Out, on stdout: CPU seconds of this process for them, and its memory in bytes.
"""

import sys
import time

import numpy as np
import psutil

from feature_store import FeatureStore

IDS = 10  # a lookup: few, so that what grows is not hidden behind the work of rows
ADS = 100_000
CASES = 997


def main(url: str, near_bytes: int, seed: int) -> None:
    """Answer until stdin ends."""
    random = np.random.default_rng(seed)
    ranks = np.minimum(random.zipf(1.3, (CASES, IDS)), ADS) if near_bytes else None
    drawn = random.integers(1, ADS + 1, (CASES, IDS)) if ranks is None else ranks
    cases = list(drawn.astype(np.int64))
    process = psutil.Process()
    at = 0
    with FeatureStore.connect(url, near_cache_bytes=near_bytes) as store:
        for line in sys.stdin:
            begun = time.process_time()
            for _ in range(int(line)):
                store.lookup(cases[at % CASES], deadline=5)
                at += 1
            print(time.process_time() - begun, process.memory_info().rss, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""A writer in a process of its own: single records at a fixed rate, until told to stop.

Arguments: the store's URL, writes a second, first id, number of ids. In, on stdin: anything, or its
end, stops it. Out, on stdout: `ready`, and at the end the writes a second that it made. Records
that have become due while one was written go together.
"""

import select
import sys
import time

import numpy as np

from feature_store import FeatureStore


def main(url: str, rate: float, first: int, count: int) -> None:
    """Write records at the times that the rate plans."""
    codes = np.random.default_rng(2).integers(0, 65535, (count, 6)).astype(np.uint16)
    with FeatureStore.connect(url) as store:
        print("ready", flush=True)
        begun, done = time.monotonic(), 0
        while not select.select([sys.stdin], [], [], 0)[0]:
            due = int((time.monotonic() - begun) * rate) + 1
            at = np.arange(done, max(due, done + 1)) % count
            store.write(first + at, codes[at])
            done += len(at)
            time.sleep(max(begun + done / rate - time.monotonic(), 0))
        print(done / (time.monotonic() - begun), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

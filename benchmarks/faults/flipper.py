"""Flips the active version between two, without a pause, until told to stop.

Arguments: the store's URL, both names. In, on stdin: anything, or its end, stops it. Out, on
stdout: `ready`, and at the end how many flips it made.
"""

import select
import sys

from feature_store import FeatureStore


def main(url: str, names: list[str]) -> None:
    """Activate one name after the other."""
    flips = 0
    with FeatureStore.connect(url) as store:
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            store.activate(names[flips % 2], force=True)
            flips += 1
        print(flips, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:4])

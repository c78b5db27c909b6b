"""Whether any response mixes versions while the active one flips without a pause.

In: a scale and a seed. Out: how many of 10 million looked-up rows stood in a response beside a row
of another version, on one server and on a cluster, with and without a near cache. Every row's codes
say which version they were written for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from feature_store import FeatureStore, Status
from feature_store.embedded import EmbeddedValkey
from feature_store.progress import bar

from .. import servers
from ..workers import hear, module, say
from . import judging

ROWS = 10_000_000
IDS = np.arange(1, 1001)
NEAR_BYTES = 4 << 20


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure both kinds of servers, half of the rows each."""
    del seed  # nothing is drawn
    lookups = max(int(ROWS * scale / 4 / len(IDS)), 25)
    return {
        "one server": _flipping(_single, lookups),
        "cluster": _flipping(_cluster, lookups),
    }


@contextmanager
def _single() -> Iterator[str]:
    with EmbeddedValkey() as server:
        yield server.url


@contextmanager
def _cluster() -> Iterator[str]:
    with servers.cluster(replicas=False) as nodes:
        yield f"redis+cluster://127.0.0.1:{nodes[0].port}"


def _flipping(server: Callable[[], Any], lookups: int) -> dict[str, Any]:
    names = ("1", "2")
    with (
        server() as url,
        FeatureStore.connect(url) as plain,
        FeatureStore.connect(url, near_cache_bytes=NEAR_BYTES) as near,
    ):
        for name in names:
            plain.write(IDS, np.full((len(IDS), 6), int(name)), version=name)
        plain.activate(names[0], force=True)
        with module("faults.flipper", url, *names) as flipper, bar("flips") as progress:
            hear(flipper)
            rows, mixed, seen, absent = 0, 0, set(), 0
            for done in range(lookups):
                for store in (plain, near):
                    found = store.lookup(IDS, deadline=5)
                    rows += len(IDS)
                    there = found.status == Status.HIT
                    mixed += int((found.codes[there] != int(found.version)).any())
                    absent += len(IDS) - int(there.sum())
                    seen.add(found.version)
                progress(done + 1, lookups)
            say(flipper, "stop")
            flips = int(hear(flipper))
    return {
        "mixed_responses": judging.none(mixed, rows),
        "rows_not_hit": absent,
        "flips": flips,
        "versions_seen": sorted(seen),
    }

"""Lookups at a steady pace, and what became of their rows, by the shard that owns them.

In: a store on a cluster, ids, and each id's shard. Out: `Probed`.
"""

import time
from dataclasses import dataclass

import numpy as np
import redis
from numpy.typing import NDArray

from feature_store import FeatureStore, Status
from feature_store.errors import FeatureStoreError
from feature_store.keys import tag_of
from feature_store.record import hash_ids

from ..servers import Server

DEADLINE_S = 0.005
PERIOD_S = 0.01
IDS = 500  # a lookup


@dataclass(frozen=True, slots=True)
class Probed:
    """Some seconds of lookups: shares are of the rows of reachable shards, and of the lost one."""

    ms: NDArray[np.float64]  # (lookups,)
    exceptions: int
    reachable_lost: float
    lost_unavailable: float


def owners(store: FeatureStore, ids: NDArray[np.int64], nodes: list[Server]) -> NDArray[np.intp]:
    """Number of the master (n,) that owns each id: slots are spread evenly over three."""
    tag = tag_of(hash_ids(ids)).astype(np.intp)
    by_tag = np.zeros(tag.max() + 1, np.intp)
    with redis.Redis(port=nodes[0].port) as client:
        for one in np.unique(tag):
            key = store.keys.record(int(ids[tag == one][0]), 1)
            slot = int(client.cluster("KEYSLOT", key.decode("latin-1")))
            by_tag[one] = next(i for i in range(3) if slot < (i + 1) * 16384 // 3)
    found: NDArray[np.intp] = by_tag[tag]
    return found


class Probe:
    """Asks for ids that are drawn anew each time."""

    def __init__(
        self, store: FeatureStore, ids: NDArray[np.int64], owner: NDArray[np.intp]
    ) -> None:
        self._store = store
        self._ids = ids
        self._owner = owner
        self._random = np.random.default_rng(4)

    def run(self, seconds: float, lost: int | None) -> Probed:
        """Look up for some seconds while the shard `lost` does not answer."""
        ms, exceptions = [], 0
        reachable, missing, gone, unavailable = 0, 0, 0, 0
        end = time.monotonic() + seconds
        while (begun := time.monotonic()) < end:
            pick = self._random.integers(0, len(self._ids), IDS)
            start = time.perf_counter()
            try:
                status = self._store.lookup(self._ids[pick], deadline=DEADLINE_S).status
            except FeatureStoreError:
                exceptions += 1
                continue
            ms.append((time.perf_counter() - start) * 1000)
            own = self._owner[pick] == lost
            reachable += int((~own).sum())
            missing += int((status[~own] != Status.HIT).sum())
            gone += int(own.sum())
            unavailable += int((status[own] == Status.UNAVAILABLE).sum())
            time.sleep(max(begun + PERIOD_S - time.monotonic(), 0))
        return Probed(
            np.array(ms), exceptions, missing / max(reachable, 1), unavailable / max(gone, 1)
        )

    def whole(self) -> bool:
        """Whether every row is there."""
        return bool((self._store.lookup(self._ids, deadline=1).status == Status.HIT).all())

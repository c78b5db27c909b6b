"""How soon a client that has lost its invalidation channel stops trusting its near cache.

In: a scale and a seed. Out: the longest time for which a row out of the near cache was served that
the store no longer held (only the channel falls silent: a write goes round it), and for which any
row was served out of it (everything falls silent). Nothing is closed: bytes just stop arriving, as
behind a firewall that drops them.
"""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store import FeatureStore, Status
from feature_store.embedded import EmbeddedValkey

from ..servers import until
from . import judging
from .silence import Relay

IDS = np.arange(1, 101)
ROUNDS = 20
BAR_MS = 1000.0
NEAR_BYTES = 1 << 20
_PATIENCE_S = 10.0


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure both."""
    rounds = max(int(ROUNDS * scale), 2)
    random = np.random.default_rng(seed)
    with (
        EmbeddedValkey() as server,
        Relay.before(server.port) as relay,
        FeatureStore.connect(server.url) as writer,
    ):
        writer.write(IDS, _codes(random))
        url = f"redis://127.0.0.1:{relay.port}"
        with FeatureStore.connect(url, near_cache_bytes=NEAR_BYTES) as store:
            old = [_channel_alone(store, writer, relay, random) for _ in range(rounds)]
            lost = [_everything(store, relay) for _ in range(rounds)]
    return {
        "old_rows_ms": judging.worst(np.array(old) * 1000, BAR_MS),
        "any_rows_ms": judging.worst(np.array(lost) * 1000, BAR_MS),
    }


def _codes(random: np.random.Generator) -> NDArray[np.uint16]:
    return random.integers(0, 65535, (len(IDS), 6)).astype(np.uint16)


def _warm(store: FeatureStore) -> None:
    def hit() -> bool:
        before = store.counters.get("near hits", 0)
        store.lookup(IDS, deadline=1)
        return store.counters.get("near hits", 0) >= before + len(IDS)

    until(hit, "the near cache does not get warm", _PATIENCE_S)


def _channel_alone(
    store: FeatureStore, writer: FeatureStore, relay: Relay, random: np.random.Generator
) -> float:
    """Seconds from a write that the channel does not tell of until it is seen."""
    _warm(store)
    codes = _codes(random)
    relay.silence(only=b"TRACKING")
    written = time.monotonic()
    writer.write(IDS, codes)
    until(
        lambda: np.array_equal(store.lookup(IDS, deadline=1).codes, codes),
        "an old row is still served",
        _PATIENCE_S,
    )
    taken = time.monotonic() - written
    relay.speak()
    return taken


def _everything(store: FeatureStore, relay: Relay) -> float:
    """Seconds from when no byte arrives any more until no row is served."""
    _warm(store)
    relay.silence()
    begun = last = time.monotonic()
    while last > time.monotonic() - 0.5:
        asked = time.monotonic()
        status = store.lookup(IDS, deadline=0.005).status
        if np.isin(status, [Status.HIT, Status.STALE]).any():
            last = asked
        time.sleep(0.001)
        if asked - begun > _PATIENCE_S:
            break
    relay.speak()
    return last - begun

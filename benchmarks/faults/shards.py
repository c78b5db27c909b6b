"""What lookups cost, and what they return, while a shard of a cluster hangs, dies, and comes back.

In: a scale and a seed. Out: with one of three masters stopped (SIGSTOP) or killed, the p99 of
`lookup(deadline=0.005)` and the rows of reachable shards that were not there; with replicas, how
long after the cluster itself was whole again every row was.
"""

import os
import signal
import threading
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from feature_store import FeatureStore, Status

from .. import servers
from ..servers import Server
from . import judging
from .probing import Probe, Probed, owners

IDS = np.arange(1, 2001)
EPISODES = 12  # a third on each master
EPISODE_S = 2.0
KILLS = 2  # clusters of which each master is killed in turn
BAR_MS = 10.0
ENOUGH = 1000  # lookups, for a p99 of these
RECOVERY_BAR_MS = 1000.0
_PATIENCE_S = 30.0


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure hanging, killed, and recovering shards."""
    codes = np.random.default_rng(seed).integers(0, 65535, (len(IDS), 6)).astype(np.uint16)
    episodes = max(round(EPISODES * scale), 1)
    seconds = EPISODE_S if scale >= 0.5 else 0.5
    hung, dead = [], []
    for first in range(0, episodes, 3):
        with servers.cluster(replicas=False, full_coverage=False) as nodes, _opened(nodes) as store:
            store.write(IDS, codes)
            probe = Probe(store, IDS, owners(store, IDS, nodes))
            usual = probe.run(seconds, lost=None)
            turns = range(first, min(first + 3, episodes))
            hung += [_hang(probe, nodes, episode % 3, seconds) for episode in turns]
            os.kill(nodes[first % 3].pid, signal.SIGKILL)
            dead.append(probe.run(2 * seconds, lost=first % 3))
    recovery = [w for _ in range(max(round(KILLS * scale), 1)) for w in _recoveries(codes, scale)]
    return {
        "usual_p99_ms": float(np.quantile(usual.ms, 0.99)),
        "hung": _judge(hung),
        "killed": _judge(dead),
        "recovery_after_the_cluster_ms": judging.worst(np.array(recovery), RECOVERY_BAR_MS),
    }


def _opened(nodes: list[Server]) -> FeatureStore:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return FeatureStore.connect(f"redis+cluster://{hosts}")


def _hang(probe: Probe, nodes: list[Server], victim: int, seconds: float) -> Probed:
    os.kill(nodes[victim].pid, signal.SIGSTOP)
    try:
        found = probe.run(seconds, lost=victim)
    finally:
        os.kill(nodes[victim].pid, signal.SIGCONT)
    servers.until(probe.whole, "a shard that goes on is not read again")
    return found


def _judge(runs: list[Probed]) -> dict[str, Any]:
    ms = np.concatenate([run.ms for run in runs])
    return {
        "lookup_ms": judging.p99(ms, BAR_MS, ENOUGH),
        "exceptions": judging.none(sum(run.exceptions for run in runs), len(ms)),
        "reachable_rows_not_there": float(np.mean([run.reachable_lost for run in runs])),
        "lost_rows_unavailable": float(np.mean([run.lost_unavailable for run in runs])),
    }


def _recoveries(codes: NDArray[np.uint16], scale: float) -> list[float]:
    """Milliseconds from the cluster's own recovery to the first whole answer, for each master."""
    waits = []
    with servers.cluster(replicas=True) as nodes, _opened(nodes) as store:
        store.write(IDS, codes)
        for victim in range(3 if scale >= 0.5 else 1):
            os.kill(nodes[victim].pid, signal.SIGKILL)
            left = [n for i, n in enumerate(nodes) if i > victim and i != victim]
            cluster_ok: list[float] = []
            watch = threading.Thread(target=_watch, args=(left, nodes[3 + victim], cluster_ok))
            watch.start()
            whole = _first_whole(store)
            watch.join()
            waits.append((whole - cluster_ok[0]) * 1000 if cluster_ok else _PATIENCE_S * 1000)
    return waits


def _watch(left: list[Server], heir: Server, found: list[float]) -> None:
    """Notes when the heir is a master and every node that is left calls the cluster whole."""
    deadline = time.monotonic() + _PATIENCE_S
    with ExitStack() as stack:
        clients = [stack.enter_context(redis.Redis(port=node.port)) for node in left]
        own = stack.enter_context(redis.Redis(port=heir.port))
        while time.monotonic() < deadline:
            if own.role()[0] in (b"master", "master") and all(
                servers.state(client) == "ok" for client in clients
            ):
                found.append(time.monotonic())
                return
            time.sleep(0.005)


def _first_whole(store: FeatureStore) -> float:
    """When the first lookup after an outage began that found every row."""
    lost = False
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        begun = time.monotonic()
        whole = bool((store.lookup(IDS, deadline=0.05).status == Status.HIT).all())
        if whole and lost:
            return begun
        lost = lost or not whole
        time.sleep(0.005)
    return deadline

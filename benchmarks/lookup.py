"""Lookups against their peers, interleaved on one server: ratios, not milliseconds.

In: a seed and a scale, and the folder for Feast's environment where it is wanted as a peer. Out:
per number of ids the latency of each reader, the CPU time of this process, and their ratios to
redis-py's MGET with 99% intervals, after an A/A control. All of it is measured with the server on a
core of its own, which the bars are judged by, and again on the core of whoever asks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from feature_store import FeatureStore, compiled
from feature_store.embedded import EmbeddedValkey

from . import peers, placement, report, stats
from .errors import InvalidRunError
from .feast import compare

ADS = 100_000
ROUNDS = 300
CASES = 60
MISS_SHARE = 0.05
SIZES = (100, 500, 1000)
# Bars on the ratio of medians to redis-py's MGET: (p50, client CPU).
BARS = {100: (0.65, 0.4), 500: (0.55, 0.3), 1000: (0.6, 0.3)}
NEAR_BAR = 0.06
ZIPF_BAR = 0.25


@dataclass(slots=True)
class _Timed:
    """Calls a reader and keeps the CPU time that it took.

    `first` is the case that it begins with. Whoever reads ids that another subject has read just
    before finds the server's caches warm, so subjects of one kind of key begin at different cases.
    """

    read: Callable[[NDArray[np.int64]], Any]
    cases: list[NDArray[np.int64]]
    first: int = 0
    cpu_s: list[float] = field(default_factory=list)

    def __call__(self, round_: int) -> float:
        asked = self.cases[(self.first + round_) % len(self.cases)]
        cpu, start = time.thread_time(), time.perf_counter()
        self.read(asked)
        taken = time.perf_counter() - start
        self.cpu_s.append(time.thread_time() - cpu)
        return taken


def _check(store: FeatureStore, peer: peers.Read, cases: list[NDArray[np.int64]]) -> None:
    """Both must read the same, or the comparison means nothing."""
    for asked in cases[:5]:
        if not np.array_equal(store.lookup(asked, deadline=5).codes, peer(asked)):
            raise InvalidRunError("the store and its peer read different codes")


def run(scale: float, seed: int, feast: Path | None = None) -> dict[str, Any]:
    """Measure everything. Raises InvalidRunError when the control fails at full scale."""
    random = np.random.default_rng(seed)
    ads = max(int(ADS * scale), 2000)
    rounds = max(int(ROUNDS * scale), 5)
    ids = np.sort(random.choice(2**40, ads, replace=False)).astype(np.int64) + 1
    codes = random.integers(0, 65535, (ads, 6)).astype(np.uint16)
    results: dict[str, Any] = {"scale": scale, "ads": ads, "rounds": rounds}
    with (
        EmbeddedValkey() as server,
        FeatureStore.connect(server.url) as store,
        redis.Redis.from_url(server.url) as client,
    ):
        store.write(ids, codes)
        peer = peers.mget(client, ids, codes)
        pipeline = peers.hashes(client, ids[:20_000], codes[:20_000])
        cases = {size: [_mixed(random, ids, size) for _ in range(CASES)] for size in SIZES}
        found: dict[str, dict[str, Any]] = {}
        for where in placement.known():
            with placement.placed(server.pid, where):
                sizes = {}
                for size in SIZES:
                    _check(store, peer, cases[size])
                    sizes[size] = _compare(store, peer, pipeline, cases[size], rounds)
                with FeatureStore.connect(server.url, near_cache_bytes=64 << 20) as near:
                    near_cache = _near(near, peer, random, ids, rounds)
                found[where] = {"sizes": sizes, "near_cache": near_cache}
        results["feast"] = {"left_out": "not asked for: --feast"}
        if feast is not None:
            results["feast"] = compare.run(server, store, (ids, codes), SIZES, feast, scale)
    judged, *others = found
    results |= {"server_on": judged, **found[judged]}
    results["elsewhere"] = {where: found[where] for where in others}
    control = results["sizes"][500]["control"]
    results["valid"] = stats.control_holds(stats.Interval(**control))
    _show(found)
    if scale >= 1 and not results["valid"]:
        raise InvalidRunError(f"the A/A control came out at {control['value']:.3f}: run again")
    return results


def _mixed(random: np.random.Generator, ids: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    asked = random.choice(ids, size)
    asked[random.random(size) < MISS_SHARE] += 2**41
    return asked


def _compare(
    store: FeatureStore,
    peer: peers.Read,
    pipeline: peers.Read,
    cases: list[NDArray[np.int64]],
    rounds: int,
) -> dict[str, Any]:
    size = len(cases[0])
    subjects = {
        "lookup": _Timed(lambda asked: store.lookup(asked, deadline=5), cases),
        "redis-py mget": _Timed(peer, cases),
        "control": _Timed(peer, cases, len(cases) // 2),
    }
    stats.abba(dict(subjects), 3)
    for subject in subjects.values():
        subject.cpu_s.clear()
    taken = stats.abba(dict(subjects), rounds)
    few = stats.abba({"hashes": _Timed(pipeline, cases)}, max(rounds // 20, 2))
    plain = stats.abba(
        {
            "numpy": _Timed(lambda asked: _with_numpy(store, asked), cases),
            "redis-py mget": _Timed(peer, cases),
        },
        max(rounds // 4, 2),
    )
    p50, cpu = BARS[size]
    latency = stats.ratio(taken["lookup"], taken["redis-py mget"])
    client = stats.ratio(
        np.asarray(subjects["lookup"].cpu_s), np.asarray(subjects["redis-py mget"].cpu_s)
    )
    return {
        "p50_us": {name: float(np.median(values) * 1e6) for name, values in taken.items()},
        "hash_pipeline_p50_us": float(np.median(few["hashes"]) * 1e6),
        "p50_ratio": _shown(latency),
        "p50_bar": p50,
        "p50_verdict": latency.at_most(p50),
        "cpu_ratio": _shown(client),
        "cpu_bar": cpu,
        "cpu_verdict": client.at_most(cpu),
        "numpy_p50_us": float(np.median(plain["numpy"]) * 1e6),
        "numpy_p50_ratio": _shown(stats.ratio(plain["numpy"], plain["redis-py mget"])),
        "control": _shown(stats.ratio(taken["control"], taken["redis-py mget"])),
    }


def _with_numpy(store: FeatureStore, asked: NDArray[np.int64]) -> None:
    """A lookup as it is where the inner loops could not be compiled."""
    fast, compiled.fast = compiled.fast, None
    try:
        store.lookup(asked, deadline=5)
    finally:
        compiled.fast = fast


def _near(
    near: FeatureStore,
    peer: peers.Read,
    random: np.random.Generator,
    ids: NDArray[np.int64],
    rounds: int,
) -> dict[str, Any]:
    hot = ids[:1000]
    _warm(near, hot)
    cases = [random.permutation(hot) for _ in range(20)]
    hits = stats.abba(
        {
            "near": _Timed(lambda asked: near.lookup(asked, deadline=5), cases),
            "peer": _Timed(peer, cases),
        },
        rounds,
    )
    # 95% of ids from the warm set, the rest never asked before.
    cold = iter(random.permutation(ids[1000:]).tolist() * 3)
    mixed = [_zipf(random, hot, cold) for _ in range(2 * rounds)]
    fresh = iter(mixed)
    zipf = stats.abba(
        {
            "near": _Timed(lambda _: near.lookup(next(fresh), deadline=5), mixed),
            "peer": _Timed(peer, mixed),
        },
        rounds,
    )
    all_hits = stats.ratio(hits["near"], hits["peer"])
    most = stats.ratio(zipf["near"], zipf["peer"])
    return {
        "all_hits_p50_us": float(np.median(hits["near"]) * 1e6),
        "all_hits_ratio": _shown(all_hits),
        "all_hits_bar": NEAR_BAR,
        "all_hits_verdict": all_hits.at_most(NEAR_BAR),
        "zipf_ratio": _shown(most),
        "zipf_bar": ZIPF_BAR,
        "zipf_verdict": most.at_most(ZIPF_BAR),
    }


def _zipf(random: np.random.Generator, hot: NDArray[np.int64], cold: Any) -> NDArray[np.int64]:
    rank = np.minimum(random.zipf(1.2, 950) - 1, len(hot) - 1)
    return random.permutation(np.concatenate([hot[rank], [next(cold) for _ in range(50)]]))


def _warm(near: FeatureStore, hot: NDArray[np.int64]) -> None:
    deadline = time.monotonic() + 10
    while near.counters.get("near hits", 0) < len(hot):
        near.lookup(hot, deadline=5)
        if time.monotonic() > deadline:
            raise InvalidRunError("the near cache did not warm up within 10 s")


def _shown(interval: stats.Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _show(found: dict[str, dict[str, Any]]) -> None:
    rows = [
        {
            "server on": where,
            "ids": size,
            "lookup us": row["p50_us"]["lookup"],
            "mget us": row["p50_us"]["redis-py mget"],
            "ratio": row["p50_ratio"]["value"],
            "bar": row["p50_bar"],
            "verdict": row["p50_verdict"],
            "cpu ratio": row["cpu_ratio"]["value"],
            "cpu bar": row["cpu_bar"],
            "cpu verdict": row["cpu_verdict"],
            "numpy us": row["numpy_p50_us"],
            "numpy ratio": row["numpy_p50_ratio"]["value"],
            "A/A": row["control"]["value"],
        }
        for where, results in found.items()
        for size, row in results["sizes"].items()
    ]
    report.table("lookup against redis-py MGET + numpy, one server, taking turns (p50)", rows)
    near = [{"server on": where} | _flat(row["near_cache"]) for where, row in found.items()]
    report.table("near cache, 1,000 ids", near)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value["value"] if isinstance(value, dict) else value for name, value in row.items()
    }

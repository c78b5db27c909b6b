"""Whether lookups cost more the longer a process makes them: `python -m benchmarks growth`.

In: a seed and a scale. Out: for a store with and without a near cache, CPU of the last tenth of a
million lookups over that of the first, and how the process's memory grows.

Machines change their pace over minutes, so each block of lookups is followed by a block of fixed
work (redis-py's MGET of the same ids), and the growth of its cost is divided out. Both stores take
turns, block by block, in one process.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import redis
from numpy.typing import NDArray

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey
from feature_store.progress import bar

from .. import peers, report, stats

LOOKUPS = 1_000_000
BLOCKS = 500
IDS = 10  # a lookup: few, so that what grows is not hidden behind the work of rows
ADS = 100_000
NEAR_BYTES = 1 << 20  # a third of the catalogue: rows enter and leave all the time
PACE_CALLS = 40
CPU_BAR = 1.05
MEMORY_BAR = 1 << 20  # bytes a million lookups


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure both stores; `bar` 1.05 on CPU and 1 MiB a million lookups on memory."""
    random = np.random.default_rng(seed)
    ids = np.sort(random.choice(2**40, ADS, replace=False)).astype(np.int64) + 1
    codes = random.integers(0, 65535, (ADS, 6)).astype(np.uint16)
    blocks = max(int(BLOCKS * min(scale, 1.0)), 20)
    calls = max(int(LOOKUPS * scale / blocks), 20)
    with (
        EmbeddedValkey() as server,
        FeatureStore.connect(server.url) as plain,
        FeatureStore.connect(server.url, near_cache_bytes=NEAR_BYTES) as near,
        redis.Redis.from_url(server.url) as client,
    ):
        plain.write(ids, codes)
        peer = peers.mget(client, ids[:2000], codes[:2000])
        drawn = ids[np.minimum(random.zipf(1.3, (997, IDS)) - 1, ADS - 1)]
        fixed = [ids[random.integers(0, 2000, IDS)] for _ in range(PACE_CALLS)]
        subjects = {
            "no near cache": _repeat(plain, ids[random.integers(0, ADS, (997, IDS))], calls),
            "near cache": _repeat(near, drawn, calls),
        }
        cpu_s, rss = _blocks(subjects, lambda: [peer(asked) for asked in fixed], blocks)
    return _judge(cpu_s, rss, calls)


def _repeat(store: FeatureStore, cases: NDArray[np.int64], calls: int) -> Callable[[], object]:
    rows = list(cases)

    def block() -> None:
        for i in range(calls):
            store.lookup(rows[i % len(rows)], deadline=5)

    return block


def _blocks(
    subjects: dict[str, Callable[[], object]], pace: Callable[[], object], blocks: int
) -> tuple[dict[str, list[float]], list[int]]:
    """CPU seconds of this process per block by subject, and memory in bytes after each round."""
    process = psutil.Process()
    cpu_s: dict[str, list[float]] = {name: [] for name in (*subjects, "pace")}
    rss: list[int] = []
    for block in (*subjects.values(), pace):  # what is built once is no growth
        block()
    with bar("growth") as progress:
        for done in range(blocks):
            for name, block in (*subjects.items(), ("pace", pace)):
                before = time.process_time()
                block()
                cpu_s[name].append(time.process_time() - before)
            rss.append(process.memory_info().rss)
            progress(done + 1, blocks)
    return cpu_s, rss


def _judge(cpu_s: dict[str, list[float]], rss: list[int], calls: int) -> dict[str, Any]:
    tenth = max(len(rss) // 10, 2)
    pace = np.asarray(cpu_s.pop("pace"))
    found: dict[str, Any] = {
        "ids_a_lookup": IDS,
        "pace_last_over_first": float(np.median(pace[-tenth:]) / np.median(pace[:tenth])),
        "subjects": {},
    }
    for name, values in cpu_s.items():
        relative = np.asarray(values) / pace
        grown = stats.ratio(relative[-tenth:], relative[:tenth])
        found["subjects"][name] = {
            "lookups": calls * len(values),
            "cpu_us_a_lookup": float(np.median(values)) / calls * 1e6,
            "last_over_first": grown.judged(CPU_BAR),
        }
    warm = rss[len(rss) // 10 :]
    done = np.arange(len(warm)) * calls * len(cpu_s) / 1e6  # million lookups
    slope = float(np.polyfit(done, np.asarray(warm, float), 1)[0])
    found["rss_mib"] = rss[-1] / 2**20
    found["rss_bytes_a_million"] = {
        "value": slope,
        "bar": MEMORY_BAR,
        "verdict": "met" if slope <= MEMORY_BAR else "not met",
    }
    rows = [
        {
            "store": name,
            "lookups": row["lookups"],
            "CPU us": row["cpu_us_a_lookup"],
            "last/first": row["last_over_first"]["value"],
            "bar": CPU_BAR,
            "verdict": row["last_over_first"]["verdict"],
        }
        for name, row in found["subjects"].items()
    ]
    report.table("CPU of the last tenth of lookups over the first, pace divided out", rows)
    report.say(f"memory: {slope / 1024:+.0f} KiB a million lookups, {found['rss_mib']:.0f} MiB")
    return found

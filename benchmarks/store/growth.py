"""Whether lookups cost more the longer a process makes them: `python -m benchmarks growth`.

In: a seed and a scale. Out: for a store with and without a near cache, CPU of the last tenth of a
million lookups over that of the first, and how the process's memory grows.

Machines change their pace over minutes, so first and last are not measured minutes apart: a process
that has made its first 900,000 lookups takes turns with one that has just begun, block by block;
and so does a second one that has just begun, as a control.
"""

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey
from feature_store.progress import bar

from .. import placement, report, stats
from ..workers import hear, module, say
from .worker import ADS, IDS

LOOKUPS = 1_000_000
ROUNDS = 50  # ABBA: twice as many blocks
PARTS = 18  # of the nine tenths, after each of which memory is looked at
NEAR_BYTES = {"no near cache": 0, "near cache": 1 << 20}  # a third of the catalogue fits
CPU_BAR = 1.05
MEMORY_BAR = 1 << 20  # bytes a million lookups


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure both stores."""
    random = np.random.default_rng(seed)
    with EmbeddedValkey() as server:
        with FeatureStore.connect(server.url) as store:
            codes = random.integers(0, 65535, (ADS, 6)).astype(np.uint16)
            store.write(np.arange(1, ADS + 1), codes)
        # All on one core, where there is a choice: it would be the kernel's, and other every time.
        with placement.placed(server.pid, placement.known()[-1]):
            found = {
                name: _aged(server.url, size, max(int(LOOKUPS * scale), 2000), seed)
                for name, size in NEAR_BYTES.items()
            }
    _show(found)
    return {"ids_a_lookup": IDS, "stores": found}


def _block(process: "subprocess.Popen[str]", lookups: int) -> tuple[float, int]:
    """CPU seconds of some lookups, and memory after them."""
    say(process, str(lookups))
    cpu_s, rss = hear(process).split()
    return float(cpu_s), int(rss)


def _aged(url: str, near_bytes: int, lookups: int, seed: int) -> dict[str, Any]:
    part, rounds = lookups * 9 // 10 // PARTS, min(ROUNDS, max(lookups // 2000, 2))
    block = max(lookups // 10 // (2 * rounds), 50)
    with ExitStack() as stack:
        workers = [module("store.worker", url, near_bytes, seed) for _ in range(3)]
        old, young, other = map(stack.enter_context, workers)
        rss = []
        with bar(f"growth, {near_bytes >> 20} MiB near cache") as progress:
            for done in range(PARTS):
                rss.append(_block(old, part)[1])
                progress((done + 1) * part, PARTS * part)
        subjects = {"last": old, "first": young, "control": other}
        for process in subjects.values():
            _block(process, 1000)  # connections, the near cache's first rows
        measures: dict[str, Callable[[int], float]] = {
            name: partial(_cpu_s, process, block) for name, process in subjects.items()
        }
        taken = stats.abba(measures, rounds)
    warm = np.asarray(rss[2:], float)
    slope = float(np.polyfit(np.arange(len(warm)) * part / 1e6, warm, 1)[0])
    return {
        "lookups": lookups,
        "cpu_us_a_lookup": float(np.median(taken["first"])) / block * 1e6,
        "last_over_first": stats.ratio(taken["last"], taken["first"]).judged(CPU_BAR),
        "control": stats.ratio(taken["control"], taken["first"]).shown(),
        "rss_mib": rss[-1] / 2**20,
        "rss_bytes_a_million": {
            "value": slope,
            "bar": MEMORY_BAR,
            "verdict": "met" if slope <= MEMORY_BAR else "not met",
        },
    }


def _cpu_s(process: "subprocess.Popen[str]", lookups: int, _: int) -> float:
    return _block(process, lookups)[0]


def _show(found: dict[str, dict[str, Any]]) -> None:
    rows = [
        {
            "store": name,
            "lookups": row["lookups"],
            "CPU us": row["cpu_us_a_lookup"],
            "last/first": row["last_over_first"]["value"],
            "bar": CPU_BAR,
            "verdict": row["last_over_first"]["verdict"],
            "A/A": row["control"]["value"],
            "RSS KiB/million": row["rss_bytes_a_million"]["value"] / 1024,
            "memory": row["rss_bytes_a_million"]["verdict"],
        }
        for name, row in found.items()
    ]
    report.table("CPU of the last tenth of lookups over the first, taking turns", rows)

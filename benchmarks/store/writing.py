"""What bulk writes reach, and what readers feel of them: `python -m benchmarks writing`.

In: a seed and a scale. Out: records a second of `load` from arrays and from a Parquet file, with
the CPU of client and server apart; and latencies of lookups of 500 ids while a loader, in a process
of its own, writes at half the rate it reaches alone, and at half the rate that the bar asks for,
against none; and while one removes a retired version. Loads begin on an empty server and take
turns; so do the blocks beside the loader.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey
from feature_store.load import LoadOptions, load
from feature_store.progress import bar
from feature_store.write import Rows

from .. import report, servers, stats
from . import removing
from .loader import Loader, catalogue
from .reading import IDS, RATE, beside, cases_of, paced, table

RECORDS = 300_000  # a load
ROUNDS = 4
RATE_BAR = 300_000.0  # records a second
READS = 5000  # of each kind
BLOCK_S = 2.0
HALF, HALF_BAR = "at half its own rate", "at half the rate that is asked for"


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure writing, then reading beside it."""
    rows = catalogue(max(int(RECORDS * scale), 5000), seed)
    with (
        EmbeddedValkey() as server,
        FeatureStore.connect(server.url) as store,
        redis.Redis.from_url(server.url) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "ads.parquet"
        _parquet(rows, path)
        bulk = _bulk(store, client, {"arrays": rows, "parquet": path}, len(rows.ids), scale)
        readers = _readers(store, server.url, rows, scale)
        removal = removing.run(store, server.url, rows, scale)
    return {"records": len(rows.ids), "bulk": bulk, "readers": readers, "removal": removal}


def _bulk(
    store: FeatureStore,
    client: "redis.Redis",
    sources: dict[str, Rows | Path],
    records: int,
    scale: float,
) -> dict[str, Any]:
    cpu_us: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}

    def one(name: str, _: int) -> float:
        client.flushall()
        store.versions()  # so that the store has seen it
        own, its = time.process_time(), servers.cpu_us(client)
        begun = time.perf_counter()
        load(store, sources[name], LoadOptions(resume=False))
        taken = time.perf_counter() - begun
        spent = (time.process_time() - own) * 1e6, servers.cpu_us(client) - its
        cpu_us[name].append((spent[0] / records, spent[1] / records))
        return records / taken

    subjects: dict[str, Callable[[int], float]] = {name: partial(one, name) for name in sources}
    stats.abba(subjects, 1)
    taken = stats.abba(subjects, max(round(ROUNDS * scale), 2))
    found: dict[str, dict[str, Any]] = {}
    for name, rates in taken.items():
        client_us, server_us = np.median(cpu_us[name], axis=0)
        found[name] = {
            "records_per_s": stats.quantile(rates, 0.5).judged(RATE_BAR, least=True),
            "client_us_a_record": float(client_us),
            "server_us_a_record": float(server_us),
        }
    rows = []
    for name, row in found.items():
        rest = {key: value for key, value in row.items() if key != "records_per_s"}
        rows.append({"source": name, **row["records_per_s"], **rest})
    report.table("bulk writes, records a second", rows)
    return found


def _parquet(rows: Rows, path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    codes = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.codes.ravel()), 6)
    table = pyarrow.table({"ad_id": rows.ids, "codes": codes, "flags": rows.flags})
    pyarrow.parquet.write_table(table, path)


def _readers(store: FeatureStore, url: str, rows: Rows, scale: float) -> dict[str, Any]:
    """Blocks of paced reads, in turn alone and beside a loader at each pace."""
    per_block = max(int(RATE * BLOCK_S * min(scale * 4, 1)) // 2, 12)
    rounds = max(round(READS * scale / per_block / 2), 1)
    cases = cases_of(rows.ids)
    load(store, rows, LoadOptions(resume=False))
    reached: dict[str, list[float]] = {}
    with Loader.started(url, len(rows.ids)) as loader, bar("reading beside a loader") as progress:
        full = loader.measure()
        paces = {"alone": 0.0, HALF: full / 2, HALF_BAR: RATE_BAR / 2}
        taken: dict[str, list[NDArray[np.float64]]] = {name: [] for name in paces}
        for done in range(rounds):
            for name in (*paces, *reversed(paces)):
                if paces[name]:
                    loader.go(paces[name])
                taken[name].append(paced(store, cases, per_block))
                if paces[name]:
                    reached.setdefault(name, []).append(loader.stop())
            progress(done + 1, rounds)
    all_of = {name: np.concatenate(values) for name, values in taken.items()}
    alone = all_of.pop("alone")
    found = {name: beside(values, alone) for name, values in all_of.items()}
    report.table(f"lookups of {IDS} ids beside a loader, us", table(found))
    for name, row in found.items():
        row["loader_records_per_s"] = float(np.mean(reached[name]))
    return {"n_each": len(alone), "loader_alone_records_per_s": full, "beside": found}

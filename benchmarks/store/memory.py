"""What a record costs the server: `python -m benchmarks memory`.

In: a seed and a scale. Out: per server, layout and kind of id the bytes a record and the CPU of
lookups, and the two constants of CPU that `python -m feature_store plan` is made of, beside those
that it uses now.

Bytes are `used_memory` of the server with the records less that without; CPU is the server's own
clock around lookups of 5% misses. The cost of a lookup and of an id is the line through 100 and
1,000 ids.
"""

from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from feature_store import FeatureStore, plan
from feature_store.load import LoadOptions, load
from feature_store.progress import bar
from feature_store.sources import checked

from .. import report, servers
from ..servers import NoServerError, Server

ADS = 1_000_000
LOOKUPS = 2000
SIZES = (100, 500, 1000)
ROUNDS = 10
LAYOUTS = ("default", "compact")
SCATTERED = "random 53 bits"
COMPACT_BAR = 48.0  # bytes a record


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure every combination; one whose server is not there says so."""
    ads = max(int(ADS * scale), 5000)
    found: dict[str, Any] = {"ads": ads, "combinations": []}
    for kind in servers.KINDS:
        for layout in LAYOUTS:
            for name, ids in _ids(ads, seed).items():
                row = {"server": kind, "layout": layout, "ids": name}
                try:
                    with servers.opened(kind) as server:
                        measured = _measure(server, layout, ids, max(int(LOOKUPS * scale), 100))
                except NoServerError as error:
                    measured = {"left_out": str(error)}
                found["combinations"].append(row | measured)
    _show(found["combinations"])
    found["plan"] = _beside_plan(found["combinations"])
    return found


def _ids(ads: int, seed: int) -> dict[str, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    scattered = np.unique(random.integers(1, 2**53, ads + ads // 100))
    return {
        "dense": np.arange(1, ads + 1, dtype=np.int64),
        SCATTERED: random.permutation(scattered)[:ads].astype(np.int64),
    }


def _measure(server: Server, layout: str, ids: NDArray[np.int64], lookups: int) -> dict[str, Any]:
    random = np.random.default_rng(5)
    codes = random.integers(0, 65535, (len(ids), 6)).astype(np.uint16)
    with redis.Redis(port=server.port) as client, _store(server, layout, len(ids)) as store:
        store.versions()
        empty = client.info("memory")
        with bar(f"{layout} layout") as progress:
            load(store, checked(ids, codes), LoadOptions(progress=progress))
        full = client.info("memory")
        cpu = _cpu_us(store, client, ids, lookups)
    an_id = (cpu[1000] - cpu[100]) / 900
    out = {
        "bytes_a_record": (full["used_memory"] - empty["used_memory"]) / len(ids),
        "rss_bytes_a_record": (full["used_memory_rss"] - empty["used_memory_rss"]) / len(ids),
        "allocator": full["mem_allocator"],
        "server_us_500_ids": cpu[500],
        "server_us_by_ids": cpu,
        "server_us_a_lookup": cpu[100] - 100 * an_id,
        "server_us_an_id": an_id,
    }
    if layout == "compact":
        out["bar"] = COMPACT_BAR
        out["verdict"] = "met" if out["bytes_a_record"] <= COMPACT_BAR else "not met"
    return out


def _store(server: Server, layout: str, ads: int) -> FeatureStore:
    options: dict[str, Any] = {}
    if layout == "compact":
        options = {"layout": layout, "expected_ads": ads}
    return FeatureStore.connect(server.url, **options)


def _cpu_us(
    store: FeatureStore, client: "redis.Redis", ids: NDArray[np.int64], lookups: int
) -> dict[int, float]:
    """Server CPU of one lookup by its number of ids; the sizes take turns."""
    random = np.random.default_rng(0)
    cases = {size: [_mixed(random, ids, size) for _ in range(50)] for size in SIZES}
    calls = max(lookups // ROUNDS, 10)
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(ROUNDS + 1):
        for size in SIZES:
            before = servers.cpu_us(client)
            for i in range(calls):
                store.lookup(cases[size][i % 50], deadline=5)
            taken[size].append((servers.cpu_us(client) - before) / calls)
    return {size: float(np.median(values[1:])) for size, values in taken.items()}


def _mixed(random: np.random.Generator, ids: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    asked = random.choice(ids, size)
    asked[: size // 20] += 2**60  # misses
    return asked


def _show(rows: list[dict[str, Any]]) -> None:
    table = [
        {
            "server": row["server"],
            "layout": row["layout"],
            "ids": row["ids"],
            "bytes": row.get("bytes_a_record", row.get("left_out")),
            "RSS": row.get("rss_bytes_a_record", ""),
            "us / 500 ids": row.get("server_us_500_ids", ""),
            "us / lookup": row.get("server_us_a_lookup", ""),
            "us / id": row.get("server_us_an_id", ""),
        }
        for row in rows
    ]
    report.table("server memory a record, server CPU of lookups", table)


def _beside_plan(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The constants of `plan` beside what was measured as they were: Valkey, random ids."""
    beside: dict[str, Any] = {}
    for layout, costs in plan.COSTS.items():
        used = {
            "bytes_a_record": costs.record_bytes,
            "server_us_a_lookup": costs.lookup_us,
            "server_us_an_id": costs.id_us,
        }
        for row in rows:
            if (row["server"], row["layout"], row["ids"]) == ("valkey", layout, SCATTERED):
                beside[layout] = {
                    name: {"plan": constant, "measured": row[name]}
                    for name, constant in used.items()
                    if name in row
                }
    return beside

"""The same model here and behind another batcher: who answers how much in time.

In: calls to both, this model's rate at saturation. Out: for each load, p99 and what was answered
within a limit that is the same for both; they take turns, load by load, with the same arrivals.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import report
from ..errors import InvalidRunError
from ..http1 import Http
from ..load import Request
from .arrivals import Arrivals, arrive
from .client import Client
from .serve_batch import PREFIX
from .served import Front

LOADS = (0.3, 0.6, 0.8, 0.95, 1.3)  # of our rate at saturation
SECONDS = 16.0
TUNE_S = 4.0
ROWS, WAITS_S = (8, 32), (0.0, 0.005)
GOODPUT_BAR = 1.3
NEAR = 0.97  # of the peer's goodput: as good, but for measuring error


async def tuned(http: Http, call: Request, rate: float, scale: float) -> str:
    """Set the peer's batches to what gives the lowest p99 at 80%; says which."""
    found = {}
    for rows in ROWS:
        for wait_s in WAITS_S:
            await _set(http, rows, wait_s)
            taken = await arrive(call, 0.8 * rate, max(TUNE_S * scale, 0.3))
            found[rows, wait_s] = taken.p99_ms()
    rows, wait_s = min(found, key=lambda key: found[key])
    await _set(http, rows, wait_s)
    return f"{rows} rows, {wait_s * 1000:g} ms"


async def _set(http: Http, rows: int, wait_s: float) -> None:
    status, _ = await http.send(http.request("GET", f"{PREFIX}?rows={rows}&wait_s={wait_s}"))
    if status != 200:
        raise InvalidRunError(f"the peer behind @serve.batch was not set: HTTP {status}")


async def serve_batch(
    client: Client, front: Front, model: str, peak: float, scale: float
) -> dict[str, Any]:
    """Beside `@serve.batch`, which is tuned first."""
    http = Http(front.http)
    rows = client.rows_of(model)
    call = client.post(
        [http.request("POST", PREFIX, row, "application/octet-stream") for row in rows]
    )
    setting = await tuned(http, call, peak, scale)
    limit_s = await limit(client.infer(model, 1), peak, scale)
    subjects = {"tessera": client.infer(model, 1, limit_s), "serve.batch": call}
    found = await compared(subjects, peak, limit_s, scale, GOODPUT_BAR)
    http.close()
    return {"model": model, "peer_tuned_to": setting, **found}


async def limit(call: Request, peak: float, scale: float) -> float:
    """What a caller would wait at most, seconds: ten times a lone request's median."""
    alone = await arrive(call, 0.05 * peak, max(4.0 * scale, 1.0))
    return 10 * float(np.median(alone.latency_s))


def _nothing(_: str) -> None:
    """Both may stay as they are."""


async def compared(
    subjects: dict[str, Request],
    peak: float,
    limit_s: float,
    scale: float,
    bar: float,
    turn_of: Callable[[str], None] = _nothing,
) -> dict[str, Any]:
    """Each load for each subject; the first is ours. bar: of our best goodput over the peer's.

    turn_of: told whose turn is next.
    """
    seconds = max(SECONDS * scale, 0.5)
    names = list(subjects)
    rows = []
    for turn, load in enumerate(LOADS):
        taken: dict[str, Arrivals] = {}
        for name in names if turn % 2 else reversed(names):
            turn_of(name)
            taken[name] = await arrive(subjects[name], load * peak, seconds)
        rows.append(_row(load, taken, limit_s))
    ours, peers = (max(row["goodput"][name] for row in rows) for name in names)
    found = {
        "limit_ms": limit_s * 1000,
        "loads": rows,
        "best_goodput": {names[0]: ours, names[1]: peers},
        "goodput_over_peer": _at_least(ours / max(peers, 1e-9), bar),
        "not_worse_at": [row["load"] for row in rows if row["not_worse"]],
    }
    _show(names, found)
    return found


def _row(load: float, taken: dict[str, Arrivals], limit_s: float) -> dict[str, Any]:
    goodput = {name: a.good(limit_s) / a.seconds for name, a in taken.items()}
    p99 = {name: a.p99_ms() for name, a in taken.items()}
    ours, peers = (name for name in ("tessera", *(n for n in taken if n != "tessera")))
    return {
        "load": load,
        "n": len(taken[ours].planned),
        "p99_ms": p99,
        "goodput": goodput,
        "late_p99_ms": max(a.late_p99_s for a in taken.values()) * 1000,
        "not_worse": bool(goodput[ours] >= NEAR * goodput[peers]),
    }


def _at_least(value: float, bar: float) -> dict[str, Any]:
    return {"value": value, "bar": bar, "verdict": "met" if value >= bar else "not met"}


def _show(names: Sequence[str], found: dict[str, Any]) -> None:
    rows = [
        {
            "load": row["load"],
            **{f"{name}, p99 ms": row["p99_ms"][name] for name in names},
            **{f"{name}, in time/s": row["goodput"][name] for name in names},
        }
        for row in found["loads"]
    ]
    report.table(f"beside {names[1]}: in time is within {found['limit_ms']:.0f} ms", rows)
    verdict = found["goodput_over_peer"]
    report.say(f"best goodput over the peer's: {verdict['value']:.2f} (bar {verdict['bar']})")

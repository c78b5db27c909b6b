"""What a lookup over HTTP or gRPC costs above its parts: `python -m benchmarks routes`.

In: the stages of a Tessera that runs. Out: for 500 ids over each protocol the median of one caller,
less that of an empty route of the same protocol in the same Serve instance, less that of the same
lookup made in this process with the same near cache; and whether what is left is small enough.
Callers take turns, one request at a time (ABBA), Tessera twice as a control.
"""

import asyncio
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import report, stats
from .errors import InvalidRunError
from .serve_stages import CONTROL, Stage, Stages

IDS = 500
ROUNDS = 400
WARM_UP = 50
BARS_MS = {"http": 1.5, "grpc": 0.5}  # above in-process lookup and empty route, p50


def measure(runner: asyncio.Runner, stages: Stages, scale: float) -> dict[str, Any]:
    """Both protocols. Raises InvalidRunError when a contender does not answer as it should."""
    found: dict[str, Any] = {}
    for stage, protocol in ((stages.lookup_http(IDS), "http"), (stages.lookup_grpc(IDS), "grpc")):
        taken = runner.run(turns(stage, max(int(ROUNDS * scale), 10)))
        found[protocol] = _judge(taken, BARS_MS[protocol])
    _show(found)
    return found


async def turns(stage: Stage, rounds: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds (2 * rounds,) of each contender."""
    taken: dict[str, list[float]] = {contender.name: [] for contender in stage.contenders}
    for i in range(WARM_UP):
        for contender in stage.contenders:
            if (outcome := await contender.call(i)) != "ok":
                raise InvalidRunError(f"{stage.name}, {contender.name}: {outcome}")
    for round_ in range(rounds):
        first = round_ % len(stage.contenders)
        order = stage.contenders[first:] + stage.contenders[:first]
        for case, turn in ((2 * round_, order), (2 * round_ + 1, order[::-1])):
            for contender in turn:
                begun = time.perf_counter()
                outcome = await contender.call(case)
                taken[contender.name].append((time.perf_counter() - begun) * 1000)
                if outcome != "ok":
                    raise InvalidRunError(f"{stage.name}, {contender.name}: {outcome}")
    return {name: np.asarray(values) for name, values in taken.items()}


def _judge(taken: dict[str, NDArray[np.float64]], bar_ms: float) -> dict[str, Any]:
    own, empty, store = taken["tessera"], _one(taken, "empty"), taken.get("store client")
    control = stats.ratio(taken[CONTROL], own)
    found = {
        "n": len(own),
        "p50_ms": {name: float(np.median(values)) for name, values in taken.items()},
        "control": control.shown(),
        "valid": stats.control_holds(control),
    }
    if store is None:
        return found | {"above_ms": {"left_out": "the store beside it is not known: --redis"}}
    return found | {"above_ms": stats.excess(own, (empty, store)).judged(bar_ms)}


def _one(taken: dict[str, NDArray[np.float64]], word: str) -> NDArray[np.float64]:
    return next(values for name, values in taken.items() if word in name)


def _show(found: dict[str, Any]) -> None:
    rows = []
    for protocol, row in found.items():
        above = row["above_ms"]
        rows.append(
            {
                "protocol": protocol,
                **{n.replace("rpc", "route"): v for n, v in row["p50_ms"].items()},
                "above ms": above.get("value", "no store"),
                "bar": above.get("bar", ""),
                "verdict": above.get("verdict", ""),
                "A/A": row["control"]["value"],
            }
        )
    report.table(f"lookup of {IDS} ids, one caller, p50 ms: what is above its parts", rows)
